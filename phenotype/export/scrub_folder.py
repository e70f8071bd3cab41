"""Report texts for sharing: scrubbed, and what still looks like an identifier set aside.

A folder holds reports.csv (surrogates, the shifted day, the scrubbed text), set_aside.csv (surrogates and kinds of what
is left in reports that were not written) and manifest.json.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from sqlalchemy import column, select, table
from sqlalchemy.orm import Session

from db.queries.vault import looked
from db.session import Database
from db.tables import Report, Study, VaultReport
from phenotype.executors import run_batches
from phenotype.export.dicom_selection import Selection, Whose, known_people
from phenotype.export.scrub import STATEMENT, Scrubbed, scrub
from phenotype.export.write import cell
from phenotype.sandbox import Limits
from phenotype.stage import Refused

Progress = Callable[[int, int, str], None]

_CURRENT: Final = table("current_report", column("id"))
_COLUMNS: Final = ("patient", "study", "report", "day", "language", "text")
_CHUNK: Final = 200


@dataclass(frozen=True, slots=True)
class Words:
    """A report as it was taken in, and whose it is."""

    study: str
    day: str  # shifted
    language: str
    text: str = field(repr=False)
    whose: Whose = field(repr=False)


@dataclass(slots=True)
class ExportedReports:
    """What became of the reports of a selection."""

    reports: int = 0
    patients: int = 0
    replaced: Counter[str] = field(default_factory=Counter)  # by placeholder
    residue: Counter[str] = field(default_factory=Counter)  # by kind, what still looks like an identifier
    set_aside: int = 0  # reports not written because of a residue
    failed: Counter[str] = field(default_factory=Counter)


def export_reports(
    database: Database,
    out: Path,
    selection: Selection,
    *,
    strict: bool = True,
    executor: str = "here",
    who: str = "",
    progress: Progress = lambda *_: None,
) -> ExportedReports:
    """Write the current version of each report of a selection to the new folder `out`, scrubbed.

    With `strict`, a report in which something still looks like an identifier is set aside. Who exported what is
    written down in the vault. Raises Refused: "selection", "cohort", "study", "exists", "export".
    """
    if out.exists():
        raise Refused("exists", f"{out.name} is there already; choose another name")
    with database.reading() as session:
        studies = selection.ids(session)
    with database.writing() as session:
        looked(session, who, "export reports", f"reports of {len(studies)} studies, strict {strict}")
    done, patients = ExportedReports(), set[str]()
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)  # what an export that was stopped left
    try:
        beside.mkdir(parents=True)
        with (
            database.reading() as session,
            (beside / "reports.csv").open("w", encoding="utf-8", newline="") as file,
            (beside / "set_aside.csv").open("w", encoding="utf-8", newline="") as aside_file,
        ):
            write, aside = (csv.writer(f, lineterminator="\n").writerow for f in (file, aside_file))
            write(_COLUMNS)
            aside(("patient", "study", "report", "left"))
            under_way: dict[str, Words] = {}
            batches = _batches(session, studies, under_way)
            for outcome in run_batches(executor, _scrub_all, batches, Limits(cpu_seconds=60)):
                for report, scrubbed in outcome.outputs.items():
                    words = under_way.pop(report)
                    names = (words.whose.patient, words.study, report)
                    done.residue += scrubbed.residue
                    if strict and scrubbed.residue:
                        done.set_aside += 1
                        aside((*names, " ".join(f"{k}={n}" for k, n in sorted(scrubbed.residue.items()))))
                        continue
                    done.reports += 1
                    done.replaced += scrubbed.replaced
                    patients.add(words.whose.patient)
                    write((*names, words.day, words.language, cell(scrubbed.text)))
                for report, failure in outcome.failures.items():
                    words = under_way.pop(report)
                    code = failure.reason.split(": ", maxsplit=1)[0]
                    done.failed[code] += 1
                    aside((words.whose.patient, words.study, report, code))
                progress(done.reports + done.set_aside, 0, "")
        done.patients = len(patients)
        summary = {"software": f"phenotype {metadata.version('phenotype')}", "statement": STATEMENT, "strict": strict}
        counts = {f.name: getattr(done, f.name) for f in fields(done)}
        (beside / "manifest.json").write_text(json.dumps(summary | counts, indent=1) + "\n", encoding="utf-8")
        beside.rename(out)
    except OSError as error:
        raise Refused("export", f"{out.name} cannot be written: {error.strerror}") from None
    return done


def _scrub_all(inputs: dict[str, Words]) -> dict[str, Scrubbed]:
    return {
        report: scrub(
            words.text, words.whose.known, words.whose.days, language=words.language, dates=words.whose.study_dates
        )
        for report, words in inputs.items()
    }


def _batches(session: Session, studies: list[str], under_way: dict[str, Words]) -> Iterator[dict[str, Words]]:
    for start in range(0, len(studies), _CHUNK):
        ids = studies[start : start + _CHUNK]
        people = known_people(session, ids)
        query = (
            select(Report.id, Report.study_id, Study.patient_id, Study.shifted_date, Report.language, VaultReport.text)
            .join(_CURRENT, _CURRENT.c.id == Report.id)
            .join(Study, Study.id == Report.study_id)
            .join(VaultReport, VaultReport.report_id == Report.id)
            .where(Report.study_id.in_(ids))
            .order_by(Study.patient_id, Report.study_id, Report.id)
        )
        rows: list[Any] = list(session.execute(query))
        session.rollback()  # what is done with them takes long
        batch = {
            report: Words(study, day.isoformat() if day else "", language, text, people[patient])
            for report, study, patient, day, language, text in rows
        }
        under_way |= batch
        if batch:
            yield batch
