"""Identity traps: what PACS send twice, half, under another name or under somebody else's, each in two orders.

In both orders as many files end in each state, and there are as many patients, studies, series and instances: who came
first decides only which of two that contradict each other counts.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from sqlalchemy import text

from abuse.outcome import Outcome
from abuse.world import ct_slice, dicom, folder, forking_sandbox, in_fork, new_database, png, put, take_in, uid
from db.session import Database

Delivery = dict[str, bytes]
INGESTED, DUPLICATE, SAME = "ingested", "duplicate", "duplicate/same_object"
PIXELS, HEADER, PATIENT = "conflict/other_pixels", "conflict/other_header", "conflict/other_patient"


@dataclass(frozen=True, slots=True)
class Trap:
    """Deliveries, and what must become of them, whichever comes first."""

    name: str
    deliveries: tuple[Delivery, ...]
    states: dict[str, int]
    patients: int
    studies: int
    series: int
    instances: int
    first_counts: bool = False  # surrogates depend on who came first


def traps() -> list[Trap]:
    """All of them. Numbers and UIDs of one are in no other."""
    found: list[Trap] = []
    name = ""

    def own(letter: str) -> str:
        """A number that is in no other trap."""
        return f"{letter}{1000 + len(found)}"

    def scan(n: int = 0, shade: int = 1, **attributes: Any) -> bytes:
        usual = {"AccessionNumber": own("A"), "PatientID": own("P"), "StudyInstanceUID": uid(name, "study")}
        usual |= {"SeriesInstanceUID": uid(name, "series")}
        return dicom(f"{name}/{n}", shade, **(usual | attributes))

    def saved(d: Any) -> bytes:
        stream = BytesIO()
        d.save_as(stream, enforce_file_format=True)
        return stream.getvalue()

    def other_meta(data: bytes) -> bytes:
        d = dcmread(BytesIO(data))
        d.file_meta.ImplementationVersionName, d.file_meta.SourceApplicationEntityTitle = "OTHER", "ARCHIVE"
        return saved(d)

    def as_syntax(data: bytes, syntax: str) -> bytes:
        d = dcmread(BytesIO(data))
        if syntax == RLELossless:
            d.compress(RLELossless, np.asarray(d.pixel_array), encoding_plugin="pydicom", generate_instance_uid=False)
        d.file_meta.TransferSyntaxUID = syntax
        return saved(d)

    def padded(data: bytes, tag: bytes, old: str, new: bytes) -> bytes:
        """With a UID whose bytes are not as the standard pads them."""
        was = tag + b"UI" + len(_even(old)).to_bytes(2, "little") + _even(old)
        assert data.count(was) == 1
        return data.replace(was, tag + b"UI" + len(new).to_bytes(2, "little") + new)

    def add(what: str, deliveries: list[Any], states: dict[str, int], *counts: int, first: bool = False) -> None:
        ready = tuple(d if isinstance(d, dict) else {f"{i}.dcm": data for i, data in enumerate(d)} for d in deliveries)
        found.append(Trap(what, ready, states, *counts, first_counts=first))

    name = "twice"
    add(name, [[scan(), scan()]], {INGESTED: 1, DUPLICATE: 1}, 1, 1, 1, 1)
    name = "twice_in_two_deliveries"
    add(name, [[scan()], [scan()]], {INGESTED: 1, DUPLICATE: 1}, 1, 1, 1, 1)
    name = "other_meta_header"
    add(name, [[scan(), other_meta(scan())]], {INGESTED: 1, SAME: 1}, 1, 1, 1, 1)
    name = "other_preamble"
    add(name, [[scan(), b"MZ" + bytes(126) + scan()[128:]]], {INGESTED: 1, SAME: 1}, 1, 1, 1, 1)
    name = "implicit_and_explicit"
    add(name, [[scan(), as_syntax(scan(), ImplicitVRLittleEndian)]], {INGESTED: 1, SAME: 1}, 1, 1, 1, 1)
    name = "deflated"
    add(name, [[scan()], [as_syntax(scan(), DeflatedExplicitVRLittleEndian)]], {INGESTED: 1, SAME: 1}, 1, 1, 1, 1)
    name = "compressed_on_the_way"  # equal only when decoded, which ingestion does not do: kept beside it, and told
    add(name, [[scan(), as_syntax(scan(), RLELossless)]], {INGESTED: 1, PIXELS: 1}, 1, 1, 1, 2)
    name = "name_corrected"
    add(name, [[scan()], [scan(PatientName="Doe^Joan", InstitutionName="x")]], {INGESTED: 1, SAME: 1}, 1, 1, 1, 1)
    name = "other_pixels"
    add(name, [[scan(shade=1), scan(shade=2)]], {INGESTED: 1, PIXELS: 1}, 1, 1, 1, 2)
    name = "other_pixels_in_two_deliveries"
    add(name, [[scan(shade=1)], [scan(shade=2)]], {INGESTED: 1, PIXELS: 1}, 1, 1, 1, 2)
    name = "moved_to_another_series"
    add(name, [[scan(), scan(SeriesInstanceUID=uid(name, 2))]], {INGESTED: 1, HEADER: 1}, 1, 1, 2, 2)
    name = "moved_to_another_study"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "AccessionNumber": own("B")}
    add(name, [[scan(), scan(**other)]], {INGESTED: 1, HEADER: 1}, 1, 2, 2, 2)
    name = "sent_under_another_accession"
    add(name, [[scan(), scan(AccessionNumber=own("B"))]], {INGESTED: 1, HEADER: 1}, 1, 1, 1, 2)
    name = "one_uid_for_two_people"  # what careless de-identification makes of UIDs
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientID": own("Q")}
    add(name, [[scan(shade=1), scan(shade=2, **other)]], {INGESTED: 1, PIXELS: 1}, 2, 2, 2, 2)
    name = "three_under_one_uid"
    three = [[scan(shade=1)], [scan(shade=2)], [other_meta(scan(shade=1))]]
    add(name, three, {INGESTED: 1, PIXELS: 1, SAME: 1}, 1, 1, 1, 2)
    name = "reused_accession"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientID": own("Q")}
    add(name, [[scan(1), scan(2, **other)]], {INGESTED: 2}, 2, 2, 2, 2)
    name = "merged_patient"  # one study under two numbers
    add(name, [[scan(1), scan(2, PatientID=own("Q"))]], {INGESTED: 1, PATIENT: 1}, 1, 1, 1, 2, first=True)
    name = "merged_patient_in_two_deliveries"
    add(name, [[scan(1)], [scan(2, PatientID=own("Q"))]], {INGESTED: 1, PATIENT: 1}, 1, 1, 1, 2, first=True)
    name = "two_issuers"
    there = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "IssuerOfPatientID": "THERE"}
    add(name, [[scan(1, IssuerOfPatientID="HERE"), scan(2, **there)]], {INGESTED: 2}, 2, 2, 2, 2)
    name = "leading_zeros"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientID": "123401"}
    add(name, [[scan(1, PatientID="00123401"), scan(2, **other)]], {INGESTED: 2}, 2, 2, 2, 2)
    name = "spaces_around_a_number"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientID": f" {own('P')} "}
    add(name, [[scan(1), scan(2, **other)]], {INGESTED: 2}, 1, 2, 2, 2)
    name = "case_of_a_number"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientID": own("p")}
    add(name, [[scan(1), scan(2, **other)]], {INGESTED: 2}, 2, 2, 2, 2)
    name = "accents_of_a_number"  # composed and decomposed: two spellings are two until somebody says otherwise
    two = [unicodedata.normalize(form, own("Ä")) for form in ("NFC", "NFD")]
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3)}
    scans = [scan(i, PatientID=p, SpecificCharacterSet="ISO_IR 192", **(other if i else {})) for i, p in enumerate(two)]
    add(name, [scans], {INGESTED: 2}, 2, 2, 2, 2)
    name = "nobody_twice"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3)}
    add(name, [[scan(1, PatientID=None), scan(2, PatientID="", **other)]], {INGESTED: 2}, 2, 2, 2, 2)
    name = "nobody_in_one_study"
    add(name, [[scan(1, PatientID=None), scan(2, PatientID="")]], {INGESTED: 2}, 1, 1, 1, 2)
    name = "same_name_and_birthday"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientID": own("Q")}
    add(name, [[scan(1, PatientName="Twin^A"), scan(2, PatientName="Twin^A", **other)]], {INGESTED: 2}, 2, 2, 2, 2)
    name = "married"
    other = {"StudyInstanceUID": uid(name, 2), "SeriesInstanceUID": uid(name, 3), "PatientName": "New^Name"}
    add(name, [[scan(1)], [scan(2, **other)]], {INGESTED: 2}, 1, 2, 2, 2)
    name = "no_study_uid"
    add(name, [[scan(i, StudyInstanceUID=None) for i in (1, 2)]], {INGESTED: 2}, 1, 1, 1, 2)
    name = "no_study_uid_of_two_people"
    some = [scan(1, StudyInstanceUID=None), scan(2, StudyInstanceUID=None, PatientID=own("Q"))]
    add(name, [some], {INGESTED: 2}, 2, 2, 2, 2)
    name = "no_series_uid"
    add(name, [[scan(i, SeriesInstanceUID=None, SeriesNumber=i // 2) for i in (0, 1, 2)]], {INGESTED: 3}, 1, 1, 2, 3)
    name = "no_instance_uid"
    add(name, [[scan(1), scan(2, SOPInstanceUID=None)]], {INGESTED: 2}, 1, 1, 1, 2)  # the meta header tells it
    name = "study_in_two_deliveries"
    add(name, [[scan(1)], [scan(2), scan(1)]], {INGESTED: 2, DUPLICATE: 1}, 1, 1, 1, 2)
    name = "series_in_two_studies"
    add(name, [[scan(1), scan(2, StudyInstanceUID=uid(name, 2))]], {INGESTED: 2}, 1, 2, 2, 2)
    name = "uid_with_space_or_zeros"
    ours = uid(f"{name}/0")
    instance = b"\x08\0\x18\0"
    odd = [padded(scan(), instance, ours, ours.encode() + end * (2 + len(ours) % 2)) for end in (b"\0", b" ")]
    add(name, [[scan(), *odd]], {INGESTED: 1, SAME: 2}, 1, 1, 1, 1)
    name = "study_uid_with_space"
    study = uid(name, "study")
    add(name, [[scan(1), padded(scan(2), b"\x20\0\x0d\0", study, _even(study) + b"  ")]], {INGESTED: 2}, 1, 1, 1, 2)
    name = "pictures_of_one_name"
    lists = [f"image_id,study_id,patient_id\nsame.png,{name}-{i},{name}-{i}\n".encode() for i in (1, 2)]
    two_deliveries = [{"list.csv": data, "same.png": png(40 + i)} for i, data in enumerate(lists)]
    # numbers without a header mean something within their delivery only, whose surrogate comes from its path
    add(name, two_deliveries, {INGESTED: 4}, 2, 2, 2, 2, first=True)
    name = "pictures_of_one_name_in_two_folders"
    rows = "".join(f"{i}/one.png,{name}-{i},{name}-{i}\n" for i in (1, 2))
    pictures = {
        "list.csv": f"image_id,study_id,patient_id\n{rows}".encode(),
        "1/one.png": png(60),
        "2/one.png": png(61),
    }
    add(name, [pictures], {INGESTED: 3}, 2, 2, 2, 2, first=True)
    name = "slices_twice_and_torn"
    own = {"AccessionNumber": own("A"), "PatientID": own("P"), "StudyInstanceUID": uid(name, "study")}
    slices = [ct_slice(i, name, **own) for i in range(5)]
    states = {INGESTED: 5, DUPLICATE: 2, "quarantined/truncated": 1}
    add(name, [slices[:3], [*slices[1:], slices[4][:-9]]], states, 1, 1, 1, 5)
    return found


def _even(value: str) -> bytes:
    data = value.encode()
    return data + bytes(len(data) % 2)


COUNTS = ("patients", "studies", "series", "instances")
_OF_FILES = """
SELECT e.path, f.state, f.reason, p.id, s.id, r.id, n.id FROM vault_export_file e
JOIN export_file f ON f.id = e.file_id LEFT JOIN instance n ON n.file_id = f.id
LEFT JOIN series r ON r.id = n.series_id LEFT JOIN study s ON s.id = r.study_id
LEFT JOIN patient p ON p.id = s.patient_id
"""


def take_in_order(where: Path, all_traps: list[Trap], *, backwards: bool) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Ingest all traps in one database: of each its states, and the ids of what it made; and how many there are."""
    order = "backwards" if backwards else "forwards"
    path = new_database(where / f"{order}.db")
    for trap in all_traps:
        deliveries = trap.deliveries[::-1] if backwards else trap.deliveries
        for number, files in enumerate(deliveries):
            names = list(files)[::-1] if backwards else list(files)
            fixed = {n for n in names if not n.endswith(".dcm")}  # pictures are known by their names
            named = {(n if n in fixed else f"{i:02d}.dcm"): files[n] for i, n in enumerate(names)}
            put(where / order / f"delivery{number}" / trap.name, named)
    forking_sandbox()
    for delivery in sorted((where / order).iterdir()):
        take_in(path, delivery)
    found: dict[str, Any] = {trap.name: (Counter(), [set() for _ in COUNTS]) for trap in all_traps}
    database = Database(f"sqlite:///{path}")
    with database.reading() as session:
        for place, state, reason, *ids in session.execute(text(_OF_FILES)):
            states, kinds = found[Path(place).relative_to(where / order).parts[1]]
            states[f"{state}/{reason}" if reason else state] += 1
            for kind, one in zip(kinds, ids, strict=True):
                kind.update({one} - {None})
        tables = ("patient", "study", "series", "instance")
        totals = [session.scalar(text(f"SELECT count(*) FROM {table}")) for table in tables]
    database.close()
    return found, tuple(totals)


def run(count: int, seed: int) -> Outcome:
    """Every trap in both orders; `count` and `seed` change nothing."""
    all_traps = traps()
    with folder() as where:
        both = [in_fork(lambda b=b: take_in_order(where, all_traps, backwards=b)) for b in (False, True)]
    problems, bad = [], 0
    for trap in all_traps:
        expected = tuple(getattr(trap, name) for name in COUNTS)
        for order, (found, _) in zip(("forwards", "backwards"), both, strict=True):
            states, ids = found[trap.name]
            counts = tuple(map(len, ids))
            if dict(states) != trap.states or counts != expected:
                bad += 1
                problems.append(f"PROBLEM {trap.name} {order}: {dict(states)} {counts}, not {trap.states} {expected}")
        ids = [found[trap.name][1] for found, _ in both]
        if not trap.first_counts and ids[0] != ids[1]:
            bad += 1
            problems.append(f"PROBLEM {trap.name}: other surrogates in the other order")
    sums = tuple(sum(getattr(trap, name) for trap in all_traps) for name in COUNTS)
    for _, totals in both:
        if totals != sums:
            problems.append(
                f"PROBLEM {dict(zip(COUNTS, totals, strict=True))} in all, not {sums}: traps touch each other"
            )
            bad += 1
    control = sum(_naive(trap) for trap in all_traps)
    tried = 2 * len(all_traps)
    return Outcome(tried, max(0, tried - bad), f"{control} of {len(all_traps)} wrong by UID alone", tuple(problems))


def _naive(trap: Trap) -> bool:
    """The negative control: whether a program that knows objects by their UID alone, the last one counting, loses one
    or takes people for one another."""
    objects: dict[str, bytes] = {}
    people: set[str] = set()
    for files in trap.deliveries:
        for data in files.values():
            if data[128:132] == b"DICM":
                d = dcmread(BytesIO(data), force=True, stop_before_pixels=True)
                objects[str(d.get("SOPInstanceUID", ""))] = data
                people.add(str(d.get("PatientID", "")).strip())
    return bool(objects) and (len(objects), len(people)) != (trap.instances, trap.patients)
