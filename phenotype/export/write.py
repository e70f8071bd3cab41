"""The files of an export: written beside, and put in place when they are whole."""

import csv
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

from db.queries.reported import ReportFindings
from phenotype.export import fhir, frame, omop
from phenotype.stage import Refused

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so


def write_fhir(reports: Iterable[ReportFindings], out: Path) -> int:
    """Patient, DiagnosticReport and Observation as NDJSON files in the new folder `out`, as FHIR bulk data has them.

    Returns the number of findings left out, since they are not said of the patient as of today.
    Raises Refused where the folder is there already or cannot be written.
    """
    left_out, patients = 0, set[str]()
    with _new_folder(out) as folder, ExitStack() as files:
        kinds = ("Patient", "Observation", "DiagnosticReport")
        opened = {kind: files.enter_context(_text(folder / f"{kind}.ndjson")) for kind in kinds}
        for report in reports:
            left_out += sum(not fhir.told_of_today(finding) for finding in report.findings)
            for resource in fhir.resources(report):
                kind = resource["resourceType"]
                if kind == "Patient":
                    if resource["id"] in patients:
                        continue
                    patients.add(resource["id"])
                opened[kind].write(json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n")
    return left_out


def write_omop(reports: Iterable[ReportFindings], out: Path) -> int:
    """note.csv, note_nlp.csv and person.csv in the new folder `out`; returns the number of rows of note_nlp.

    Ids count from 1 in the order of the reports' surrogates. Raises Refused like `write_fhir`.
    """
    persons: dict[str, int] = {}
    written = 0
    with _new_folder(out) as folder, ExitStack() as files:
        note = _rows(files.enter_context(_text(folder / "note.csv")), omop.NOTE)
        note_nlp = _rows(files.enter_context(_text(folder / "note_nlp.csv")), omop.NOTE_NLP)
        person = _rows(files.enter_context(_text(folder / "person.csv")), omop.PERSON)
        for note_id, report in enumerate(reports, 1):
            if report.patient and report.patient not in persons:
                persons[report.patient] = len(persons) + 1
                person({"person_id": persons[report.patient], "person_source_value": report.patient})
            note(omop.note_row(report, note_id, persons.get(report.patient or "")))
            for row in omop.note_nlp_rows(report, note_id, written + 1):
                note_nlp(row)
                written += 1
    return written


def write_table(reports: Iterable[ReportFindings], out: Path) -> int:
    """One CSV file with a row for each finding; returns their number. Raises Refused where it cannot be written."""
    if out.exists():
        raise Refused("exists", f"{out.name} is there already; choose another name")
    beside, count = out.with_name(f".{out.name}.part"), 0
    try:
        with _text(beside) as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(frame.COLUMNS)
            for row in frame.rows(reports):
                writer.writerow([cell(value) for value in row])
                count += 1
        beside.replace(out)
    except OSError as error:
        raise Refused("export", f"{out.name} cannot be written: {error.strerror}") from None
    return count


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder beside `out` that becomes `out` when all is written."""
    if out.exists():
        raise Refused("exists", f"{out.name} is there already; choose another name")
    beside = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # what an export that was stopped left
        beside.mkdir(parents=True)
        yield beside
        beside.rename(out)
    except OSError as error:
        raise Refused("export", f"{out.name} cannot be written: {error.strerror}") from None


def _text(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", newline="")


def _rows(file: TextIO, columns: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    return lambda row: writer.writerow({key: cell(value) for key, value in row.items()}) and None


def cell(value: Any) -> Any:
    """A value for a cell: text that a spreadsheet would run gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
