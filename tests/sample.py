"""A small, plausible and consistent sample of everything the tables can hold.

`fill(session)` writes it into an empty database. Anomaly scores, term maps and phenotypes follow from the reports of
sample_cases.py, except where a study is there to contradict them (see STORIES).
"""

import hashlib
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sample_cases import (
    BIRTH_YEARS,
    CASES,
    CONCEPTS,
    FOLDS,
    HEADING,
    NAMES,
    SITES,
    Case,
    accession,
    labels_of,
    modifiers_of,
    read_marked,
    sentences,
)
from sqlalchemy.orm import Session

from db import tables as t
from db.write import insert_rows

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNS = {  # in the order they were run: name, label
    "ingest": "",
    "assemble": "",
    "extract": "",
    "classify": "",
    "label": "",
    "weigh": "",
    "normalize": "",
    "cohort all": "all",
    "cohort normal": "normal",
    "train normal": "f-anogan-image",
    "train whole": "cae-image",
    "train patches": "cae-patch",
    "embed": "",
    "score": "f-anogan-image",
    "link": "",
    "map": "",
    "follow": "",
    "cluster": "",
}


def surrogate(*parts: object) -> str:
    """An id as the tables have them."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


RUN_ID = {name: surrogate("run", name) for name in RUNS}
OLD_EXTRACT = surrogate("run", "extract", "with an older lexicon")
STUDY = {case.number: surrogate("study", case.number) for case in CASES}
IMAGE = {case.number: surrogate("image", case.number) for case in CASES}
REPORT = {(case.number, k): surrogate("report", case.number, k) for case in CASES for k in range(len(case.reports))}
UNMATCHED = surrogate("report", "of no study")
FOLDER, ARCHIVE = surrogate("export", "folder"), surrogate("export", "zip")
TABLE_FILE = surrogate("file", "reports")
UID = "1.2.826.0.1.3680043.8.498.7741"


class Rows(defaultdict[type[t.Base], list[dict[str, Any]]]):
    """The rows of each table, parents first."""

    def __init__(self) -> None:
        super().__init__(list)

    def add(self, table: type[t.Base], **values: Any) -> None:
        """One row."""
        self[table].append(values)


def fill(session: Session) -> None:
    """Write the sample into an empty database."""
    from sample_results import add_results

    rows = Rows()
    add_runs(rows)
    add_delivery(rows)
    add_people(rows)
    for case in CASES:
        add_image(rows, case)
    add_words(rows)
    add_results(rows)
    for table, some in rows.items():
        new = insert_rows(session, table, some)
        assert new == len(some), f"{table.__tablename__}: only {new} of {len(some)} rows were new"


def add_runs(rows: Rows) -> None:
    """The current run of each stage, one that was replaced, and one that is not done."""
    recipes = {
        "map": {"link": RUN_ID["link"]},
        "score": {"model": RUN_ID["train normal"]},
        "label": {"findings": RUN_ID["extract"], "second": RUN_ID["classify"]},
    }
    runs = [(name, RUN_ID[name], NOW + timedelta(minutes=n), "finished") for n, name in enumerate(RUNS)]
    runs.append(("extract", OLD_EXTRACT, NOW - timedelta(days=3), "interrupted"))
    runs.append(("cluster", surrogate("run", "cluster", "before"), NOW - timedelta(days=2), "running"))
    for name, run, when, state in runs:
        rows.add(
            t.Run,
            id=run,
            stage=name.split()[0],
            label=RUNS[name],
            recipe=recipes.get(name, {"seed": 0}),
            software={"phenotype": "0.1.0"},
            state=state,
            started_at=when,
            opened_at=when,
            finished_at=when + timedelta(seconds=40) if state == "finished" else None,
        )


def add_delivery(rows: Rows) -> None:
    """Two deliveries, with files in every state there is."""
    rows.add(t.Export, id=FOLDER, kind="folder", registered_at=NOW)
    rows.add(t.Export, id=ARCHIVE, kind="zip", registered_at=NOW)
    rows.add(t.VaultExport, export_id=FOLDER, path="/archive/pacs/2025-11-quastenflosser")
    rows.add(t.VaultExport, export_id=ARCHIVE, path="/archive/pacs/2026-01.zip")
    transfer = {"export_id": FOLDER, "expected": 2, "attempts": 1, "changed_at": NOW}
    rows.add(t.Transfer, id="a" * 16, state="received", received=2, **transfer)
    rows.add(t.VaultTransfer, transfer_id="a" * 16, study_uid=f"{UID}.1", series_uid=f"{UID}.1.1")
    rows.add(
        t.VaultAccess, id="b" * 16, at=NOW + timedelta(seconds=7), who="quastenflosser", way="files", what="2 paths"
    )
    files: list[tuple[object, str, str, str, str, object]] = [
        (case.number, "dicom", "ingested", "", f"IM{case.number:06d}", None) for case in CASES
    ]
    files += [
        ("reports", "table", "ingested", "", "berichte_quastenflosser.csv", None),
        ("twin", "dicom", "duplicate", "", "KOPIE_000001", 1),
        ("rival", "dicom", "conflict", "same_uid", "NEU_000002", 2),
        ("torn", "dicom", "quarantined", "truncated", "DEFEKT_000003", None),
        ("bare", "picture", "quarantined", "not_listed", "wimmelbach_foto.png", None),
        ("notes", "unread", "ignored", "not_medical", "liesmich_wimmelbach.txt", None),
        ("late", "", "found", "", "NACHZUEGLER_000004", None),
    ]
    for name, kind, state, reason, path, same_as in files:
        file_id = surrogate("file", name)
        rows.add(
            t.ExportFile,
            id=file_id,
            export_id=FOLDER,
            size=1000 + len(path),
            kind=kind,
            state=state,
            reason=reason,
            content_hash=None
            if state in ("found", "ignored")
            else surrogate("content", same_as if state == "duplicate" else name),
            same_as=same_as and surrogate("file", same_as),
        )
        rows.add(t.VaultExportFile, file_id=file_id, path=f"/archive/pacs/2025-11-quastenflosser/{path}")
    rows.add(
        t.VaultListedImage,
        export_id=ARCHIVE,
        name="roe/dudelsack_0815.png",
        accession="AKZ-99-4711-77",
        patient_number="KIS-5550010",
        study_date="20260117",
        view="PA",
    )


def add_people(rows: Rows) -> None:
    """Patients and studies, and who they are."""
    for number, (name, fold, born) in enumerate(zip(NAMES, FOLDS, BIRTH_YEARS, strict=True), 1):
        patient = surrogate("patient", number)
        rows.add(t.Patient, id=patient, sex="FM"[number % 2 == 0], fold=fold)
        rows.add(
            t.VaultPatient,
            patient_id=patient,
            record_number=f"KIS-55500{number:02d}",
            issuer="KLINIKUM-NIRGENDHAUSEN",
            name=name,
            birth_date=f"{born}04{number:02d}",
        )
    for case in CASES:
        when = date(2025, 11, 3) + timedelta(days=case.day + case.patient)
        rows.add(
            t.Study,
            id=STUDY[case.number],
            patient_id=surrogate("patient", case.patient),
            shifted_date=when - timedelta(days=900 + 31 * case.patient),
            age_years=float(when.year - BIRTH_YEARS[case.patient - 1]),
        )
        rows.add(
            t.VaultStudy,
            study_id=STUDY[case.number],
            study_uid=f"{UID}.{case.number}",
            accession=accession(case.number),
            study_date=f"{when:%Y%m%d}",
            study_time=f"07{case.number:02d}13.25",
            description=f"Thorax auf Anforderung Dr. Wimmelbach {case.number}",
        )


def add_image(rows: Rows, case: Case) -> None:
    """The series of a study, its one object, and the image made of it; of study 2 there is a second, rival object."""
    number, ct = case.number, case.kind == "volume"
    series, instance = surrogate("series", number), surrogate("instance", number)
    modality, view = ("CT", "") if ct else ("DX", "PA")
    height, width = (512, 512) if ct else (2048, 1792)
    rows.add(t.Series, id=series, study_id=STUDY[number], modality=modality, body_part="CHEST")
    rows.add(t.VaultSeries, series_id=series, series_uid=f"{UID}.{number}.1", description="liegend, Station 4711b")
    objects = {instance: surrogate("file", number)}
    if number == 2:  # the same UID with other pixels: both are kept
        objects[surrogate("instance", "rival")] = surrogate("file", "rival")
    for own, file_id in objects.items():
        rows.add(
            t.Instance,
            id=own,
            series_id=series,
            file_id=file_id,
            sop_class="CTImageStorage" if ct else "DigitalXRayImageStorageForPresentation",
            number=1,
            rows=height,
            columns=width,
            frames=24 if ct else 1,
            view=view,
            position=[-180.0, -180.0, -300.0] if ct else None,
            orientation=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0] if ct else None,
            spacing=[0.7, 0.7] if ct else [0.16, 0.16],
            thickness=5.0 if ct else None,
        )
        rows.add(t.VaultInstance, instance_id=own, sop_instance_uid=f"{UID}.{number}.1.1")
    rows.add(
        t.Image,
        id=IMAGE[number],
        run_id=RUN_ID["assemble"],
        series_id=series,
        study_id=STUDY[number],
        kind=case.kind,
        modality=modality,
        view=view,
        slices=24 if ct else 1,
        rows=height,
        columns=width,
        spacing=[5.0, 0.7, 0.7] if ct else [0.16, 0.16],
        orientation=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0] if ct else None,
        left_out=len(objects) - 1,
        left_out_reasons={"same_uid": 1} if len(objects) > 1 else {},
    )
    rows.add(t.ImageInstance, image_id=IMAGE[number], position=0, instance_id=instance)


def add_words(rows: Rows) -> None:
    """Concepts, reports, what was read in them, and what that says of the studies."""
    codes = ("name", "category", "parent", "radlex", "mesh", "snomed")
    for concept, values in CONCEPTS.items():
        rows.add(t.Concept, id=concept, region="chest", **dict(zip(codes, values, strict=True)))
    for site, values in SITES.items():
        rows.add(t.Site, id=site, **dict(zip(("name", "kind", "parent", "radlex", "snomed"), values, strict=True)))
    for case in CASES:
        for k in range(len(case.reports)):
            _add_report(rows, case, k)
        for label in labels_of(case).values():
            rows.add(t.Label, run_id=RUN_ID["label"], study_id=STUDY[case.number], **label)
    # what an older lexicon made of the first report: no view shows it
    first = rows[t.Finding][0]
    rows.add(t.Finding, **first | {"run_id": OLD_EXTRACT, "concept_id": "nodule", "assertion": "uncertain"})
    text = f"{HEADING}Nothing is known of this patient, Federspiel, Gerlinde."
    _write_report(rows, UNMATCHED, None, text, "AKZ-2019-00001", "KIS-5550099")
    last = len(rows[t.ExportRecord])
    record = {"file_id": TABLE_FILE, "reason": ""}
    rows.add(t.ExportRecord, **record | {"number": last + 1, "state": "duplicate", "report_id": UNMATCHED})
    record["reason"] = "no_text"
    rows.add(t.ExportRecord, **record | {"number": last + 2, "state": "quarantined", "report_id": None})


def _add_report(rows: Rows, case: Case, k: int) -> None:
    text, mentions = read_marked(case.reports[k])
    name = NAMES[case.patient - 1].replace("^", ", ")
    text += f"\nSigned for the patient {name} by Dr. Wimmelbach."
    report, number = REPORT[case.number, k], f"KIS-55500{case.patient:02d}"
    _write_report(rows, report, STUDY[case.number], text, accession(case.number), number)
    own = {"run_id": RUN_ID["extract"], "report_id": report}
    rows.add(t.Section, **own, start=len(HEADING), end=len(text), name="findings")
    places = list(sentences(text))
    for start, end in places:
        rows.add(t.Sentence, **own, start=start, end=end)
    rows.add(t.Reading, **own, language="en")
    for mention in mentions:
        start, end = next(place for place in places if place[0] <= mention["start"] < place[1])
        rows.add(t.Finding, **own, **mention, sentence_start=start, sentence_end=end)
    for mention in mentions:
        for told in modifiers_of(text, mention):
            rows.add(t.Modifier, **own, **told)


def _write_report(rows: Rows, report: str, study: str | None, text: str, number: str, patient: str) -> None:
    match = "matched" if study else "unmatched"
    rows.add(t.Report, id=report, study_id=study, file_id=TABLE_FILE, match=match, thread=report, length=len(text))
    rows.add(t.VaultReport, report_id=report, accession=number, patient_number=patient, text=text)
    record = len(rows[t.ExportRecord]) + 1
    rows.add(t.ExportRecord, file_id=TABLE_FILE, number=record, state="ingested", reason="", report_id=report)
