"""The sentences of the reports that a run has read, with what was found in each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import Finding, Patient, Reading, Report, Section, Sentence, Study, VaultReport

CHUNK = 500  # reports


@dataclass(frozen=True, slots=True)
class SentenceRow:
    """A sentence: its words (personal data), the section that it stands in, and its findings."""

    text: str
    section: str
    findings: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report by its sentences; `fold` is its patient's, or None where it belongs to no known study."""

    report: str
    fold: int | None
    sentences: tuple[SentenceRow, ...]


def read_reports(session: Session, run_id: str, columns: Sequence[str]) -> Iterator[ReportRow]:
    """Every report that a run of `extract` has read, in the order of ids; of findings these columns."""
    query = (
        select(Report.id, Patient.fold, VaultReport.text)
        .join(Reading, Reading.report_id == Report.id)
        .join(VaultReport, VaultReport.report_id == Report.id)
        .outerjoin(Study, Study.id == Report.study_id)
        .outerjoin(Patient, Patient.id == Study.patient_id)
        .where(Reading.run_id == run_id)
        .order_by(Report.id)
    )
    last = ""
    while rows := session.execute(query.where(Report.id > last).limit(CHUNK)).all():
        last = rows[-1].id
        ids = [row.id for row in rows]
        sections = _of_reports(session, run_id, ids, Section, ("start", "name"), "start")
        places = _of_reports(session, run_id, ids, Sentence, ("start", "end"), "start")
        findings = _of_reports(session, run_id, ids, Finding, ("sentence_start", *columns), "start", "concept_id")
        for report, fold, text in rows:
            yield ReportRow(report, fold, _sentences(text, sections[report], places[report], findings[report]))


def _of_reports(
    session: Session, run_id: str, ids: list[str], table: Any, columns: Sequence[str], *order: str
) -> dict[str, list[tuple[Any, ...]]]:
    query = select(table.report_id, *(getattr(table, name) for name in columns))
    query = query.where(table.run_id == run_id, table.report_id.in_(ids))
    found: dict[str, list[tuple[Any, ...]]] = {report: [] for report in ids}
    for report, *values in session.execute(query.order_by(table.report_id, *(getattr(table, o) for o in order))):
        found[report].append(tuple(values))
    return found


def _sentences(
    text: str, sections: list[tuple[Any, ...]], places: list[tuple[Any, ...]], findings: list[tuple[Any, ...]]
) -> tuple[SentenceRow, ...]:
    own: dict[int, list[tuple[Any, ...]]] = {}
    for start, *values in findings:
        own.setdefault(start, []).append(tuple(values))
    found, at = [], 0
    for start, end in places:
        while at + 1 < len(sections) and sections[at + 1][0] <= start:
            at += 1
        name = sections[at][1] if sections else ""
        found.append(SentenceRow(text[start:end], name, tuple(own.get(start, ()))))
    return tuple(found)
