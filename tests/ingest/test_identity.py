"""Surrogates, date shifts, folds."""

from collections import Counter
from datetime import date, timedelta
from itertools import pairwise

from phenotype.identity import content_hash, fold, shifted, surrogate

KEY, OTHER = b"k" * 32, b"o" * 32


def test_surrogates_hang_on_key_kind_and_parts():
    one = surrogate(KEY, "patient", "12345678")
    assert one == surrogate(KEY, "patient", "12345678") and len(one) == 16 and int(one, 16) >= 0
    others = [
        surrogate(OTHER, "patient", "12345678"),
        surrogate(KEY, "study", "12345678"),
        surrogate(KEY, "patient", "1234567", "8"),
        surrogate(KEY, "patient", "1234", "5678"),
        surrogate(KEY, "patient", "12345678", ""),
    ]
    assert len({one, *others}) == 6
    assert content_hash(KEY, "ab") != content_hash(OTHER, "ab") and len(content_hash(KEY, "ab")) == 32
    assert surrogate(KEY, "patient", "\udcff\udc80")  # bytes of a file name that are no text


def test_dates_of_a_patient_are_shifted_alike():
    days = [date(2020, 1, 1) + timedelta(days=37 * i) for i in range(5)]
    shifts = set()
    for patient in map(str, range(300)):
        moved = [shifted(KEY, patient, day) for day in days]
        assert [b - a for a, b in pairwise(moved)] == [timedelta(days=37)] * 4
        shifts.add((days[0] - moved[0]).days)
    assert min(shifts) >= 1 and max(shifts) <= 3650 and len(shifts) > 250
    assert shifted(KEY, "1", None) is None
    assert shifted(KEY, "1", date(1, 1, 1)) == date(1, 1, 1)


def test_folds_are_even():
    counts = Counter(fold(KEY, str(patient)) for patient in range(5000))
    assert set(counts) == set(range(10)) and min(counts.values()) > 400
    assert [fold(KEY, str(p)) for p in range(20)] != [fold(OTHER, str(p)) for p in range(20)]
