"""Agreement of maps and experts, on drawings whose agreement is known."""

import numpy as np
import pytest

from phenotype.linking.agreement import GRID, Case, compare, drawn_on, map_on, measure, thresholds_for
from phenotype.linking.expert import NOTHING, Drawn

ROWS, COLUMNS = GRID


def square(top, left, size, value=True, kind=bool):
    plane = np.zeros((1, *GRID), kind)
    plane[0, top : top + size, left : left + size] = value
    return plane


def cases(n=40, *, shift=0, noise=0.0, seed=0, wrong_calls=0):
    """Every other image has a lesion of 20 x 20; the map has 1 there (shifted), 0 elsewhere, and noise."""
    rng = np.random.default_rng(seed)
    for number in range(n):
        there = number % 2 == 0
        top, left = rng.integers(0, 80, 2)
        drawn = square(top, left, 20) if there else np.zeros((1, *GRID), bool)
        seen = square(top, left + shift, 20, 1.0, np.float32) if there else np.zeros((1, *GRID), np.float32)
        seen += rng.normal(0, noise, seen.shape).astype(np.float32) if noise else 0
        yield Case(f"p{number}", number % 5, seen, drawn, there != (number < wrong_calls))


def figures_of(some, thresholds):
    tried = np.asarray(thresholds, float)
    return {figure.name: figure for figure in compare([measure(c, tried) for c in some], tried, resamples=300)}


def test_perfect_maps_agree_perfectly():
    found = figures_of(cases(), [0.2, 0.5, 0.9])
    for name in ("iou", "pointing", "pixel_auroc", "kappa"):
        assert (found[name].value, found[name].low, found[name].high) == (1.0, 1.0, 1.0), name
    assert found["extent_bias"].value == found["extent_low"].value == found["extent_high"].value == 0
    assert found["iou"].count == 20
    assert found["kappa"].count == 40


def test_shifted_maps_overlap_as_geometry_says():
    found = figures_of(cases(shift=10), [0.5])
    assert found["iou"].value == pytest.approx(200 / 600)
    # the ROC curve of a box that holds half: (1 + sensitivity - false alarms) / 2
    assert found["pixel_auroc"].value == pytest.approx((1 + 0.5 - 200 / (ROWS * COLUMNS - 400)) / 2)
    assert found["extent_bias"].value == pytest.approx(0, abs=1e-9)


def test_thresholds_are_tuned_on_other_patients():
    # one group's maps are twice as high: tuned on itself it would take the threshold 1.5, tuned on others it takes 0.5
    some = [
        Case(c.patient, c.group, c.map * (2 if c.group == 0 else 1) + 0.6 * (c.group == 0), c.drawn, c.call)
        for c in cases()
    ]
    found = figures_of(some, [0.5, 1.5])
    assert found["threshold"].value == 0.5
    # at 0.5 the whole image of group 0 is taken: 400 pixels of 16384, in four of twenty cases
    assert found["iou"].value == pytest.approx((16 * 1 + 4 * 400 / (ROWS * COLUMNS)) / 20)


def test_noise_lowers_what_it_must():
    clean, noisy = (figures_of(cases(80, noise=noise), np.linspace(-1, 2, 31)) for noise in (0.2, 1.0))
    for name in ("iou", "pixel_auroc", "cnr"):
        assert clean[name].low > noisy[name].high, name
    assert noisy["iou"].low <= noisy["iou"].value <= noisy["iou"].high


def test_kappa_of_known_counts():
    found = figures_of(cases(40, wrong_calls=10), [0.5])["kappa"]
    # 15 both, 5 + 5 alone, 15 neither: observed 0.75, chance 0.5
    assert found.value == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


def test_a_map_without_calls_has_no_kappa_and_a_reader_who_drew_nothing_no_overlap():
    none = [Case("p", 0, c.map, np.zeros_like(c.drawn), None) for c in cases(4)]
    found = figures_of(none, [0.1, 0.5])
    assert all(found[name].value is None and found[name].count == 0 for name in ("iou", "kappa", "pointing", "cnr"))


def test_one_group_cannot_be_tuned_on_others():
    same = [Case(c.patient, 0, c.map, c.drawn, c.call) for c in cases()]
    assert figures_of(same, [0.2, 0.5])["iou"].value is None
    assert figures_of(same, [0.5])["iou"].value == 1.0  # another reader: nothing to tune


def test_intervals_are_over_patients_not_images():
    some = list(cases(60, noise=1.0))
    grouped = [Case(f"p{number // 12}", c.group, c.map, c.drawn, c.call) for number, c in enumerate(some)]
    copies = [Case(f"p{number}", c.group, c.map, c.drawn, c.call) for number, c in enumerate(some) for _ in range(4)]
    one, four = (figures_of(which, np.linspace(-1, 2, 7))["pixel_auroc"] for which in (some, copies))
    # copies of a patient's images are no further patients
    assert four.high - four.low == pytest.approx(one.high - one.low, rel=0.05)
    assert figures_of(grouped, np.linspace(-1, 2, 7))["pixel_auroc"].count == 30


def test_maps_and_drawings_lie_on_the_same_grid():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]], np.float32)
    seen = map_on(np.array([1.0, 2.0]), np.array([3, 7]), boxes)
    assert seen.shape == (2, *GRID)
    assert seen[0, 0, 0] == 1
    assert np.isnan(seen[0, -1, -1])
    drawn = drawn_on([Drawn(7, (0.5, 0.5, 1.0, 1.0)), Drawn(5, (0, 0, 1, 1)), NOTHING], [3, 7])
    np.testing.assert_array_equal(drawn[1], seen[1] == 2)
    assert not drawn[0].any()


def test_supervoxels_take_the_scores_of_their_numbers():
    labels = np.zeros((2, 64, 64), np.int32)
    labels[1, :32], labels[1, 32:, 32:] = 1, 2
    seen = map_on(np.array([5.0, 6.0]), np.array([1, 1]), np.zeros((2, 4)), labels)
    assert (seen[0, 0, 0], seen[0, -1, -1]) == (5, 6)
    assert np.isnan(seen[0, -1, 0])


@pytest.mark.parametrize("size", [1, 3, 300])
def test_masks_keep_their_size_and_small_ones_a_pixel(size):
    mask = np.zeros((512, 1024), bool)
    mask[100 : 100 + size, 200 : 200 + 2 * size] = True
    found = drawn_on([Drawn(0, (0.1, 0.1, 0.2, 0.2), mask)], [0])[0]
    assert found.sum() == pytest.approx(max(1, (size / 4) ** 2), rel=0.1, abs=1)
    assert found[100 // 4 : 100 // 4 + 2, 200 // 8 : 200 // 8 + 2].any()


def test_thresholds_reach_from_the_middle_to_the_top():
    scores = np.random.default_rng(0).normal(size=100_000)
    tried = thresholds_for([scores[:50_000], scores[50_000:]])
    assert tried[0] == pytest.approx(0, abs=0.02)
    assert tried[-1] > 3
    assert (np.diff(tried) > 0).all()
