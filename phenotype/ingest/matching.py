"""Reports find their studies, and the versions of a report their order."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.tables import ExportFile, Instance, Report, Series, Study, VaultPatient, VaultReport, VaultStudy
from phenotype.ingest.contents import day
from phenotype.ingest.ledger import chunks

APART = timedelta(days=183)  # a report may be written, or dated, months after its examination
# versions that tell no time, in the order they are written
WRITTEN = ("preliminary", "", "final", "corrected", "addendum", "cancelled")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study that a report may be about, and what speaks for it."""

    study_id: str
    has_uid: bool
    patient_number: str
    same_export: bool
    by: str = "accession"  # study_uid, accession or date
    denied: bool = False  # birth date or day of the examination are somebody else's


def choose(patient_number: str, candidates: list[Candidate]) -> tuple[str, str | None, str]:
    """The match of a report, its study, and by what it was found, of the studies that it may be about.

    A study UID says more than an accession number, and that more than a date. One study is a match; several are
    ambiguous unless the patient's number or the delivery tells which. A single study of somebody else is ambiguous too,
    since accession numbers are used again: by number, or where one of the two has none, by birth date and day. A study
    without UID is known by a number that means something within its own delivery only.
    """
    found = [c for c in candidates if c.has_uid or c.same_export]
    for by in ("study_uid", "accession", "date"):
        if any(c.by == by for c in found):
            found = [c for c in found if c.by == by]
            break
    for agrees in (
        [c for c in found if patient_number and same_number(c.patient_number, patient_number)],
        [c for c in found if c.same_export],
    ):
        if len(found) > 1 and agrees:
            found = agrees
    if not found:
        return "unmatched", None, ""
    (first, *more) = found
    contradicts = first.denied and first.by != "study_uid"
    if patient_number and first.patient_number and first.by != "date":
        contradicts = not same_number(first.patient_number, patient_number)
    return ("ambiguous", None, "") if more or contradicts else ("matched", first.study_id, first.by)


def same_number(one: str, other: str) -> bool:
    """Whether two record numbers are the same but for spaces, case and leading zeros, which systems drop and add."""
    return _plain(one) == _plain(other)


def _plain(number: str) -> str:
    text = "".join(number.split()).upper()
    return text.lstrip("0") or text


def denies(birth: tuple[str, str], seen: tuple[str, str]) -> bool:
    """Whether birth date or day of the examination, of a report and of a study, cannot be the same person's or
    examination's. Slips and what de-identification leaves of a date are no reason: only the year of birth counts, and
    half a year between the days."""
    births, days = (tuple(map(day, texts)) for texts in (birth, seen))
    if births[0] and births[1] and births[0].year != births[1].year:
        return True
    return bool(days[0] and days[1]) and abs(days[0] - days[1]) > APART  # type: ignore[operator]  # neither is None


def match_reports(session: Session) -> dict[str, int]:
    """Link every report to its study, put the versions of each into order, and count the outcomes.

    All reports are looked at each time: a study may come after its report, or make an old match ambiguous.
    """
    found = _by_number(session)
    _by_date(session, found)
    # only where it matters, since it looks at every instance of a study
    asked = {study for several in found.values() for study, has_uid, *_ in several if len(several) > 1 or not has_uid}
    exports = _exports_of(session, asked)

    counts: Counter[str] = Counter({"matched": 0, "unmatched": 0, "ambiguous": 0})
    changes = []
    reports = (
        select(
            *(Report.id, Report.match, Report.study_id, Report.matched_by),
            *(ExportFile.export_id, VaultReport.patient_number),
        )
        .join(ExportFile, ExportFile.id == Report.file_id)
        .join(VaultReport, VaultReport.report_id == Report.id)
    )
    for report_id, match, linked, matched_by, export_id, patient_number in session.execute(reports):
        candidates = [
            Candidate(study, has_uid, number, export_id in exports[study], by, denied)
            for study, has_uid, number, by, denied in sorted(found.get(report_id, ()))
        ]
        outcome = choose(patient_number, candidates)
        counts[outcome[0]] += 1
        if outcome != (match, linked, matched_by):
            changes.append(dict(zip(("id", "match", "study_id", "matched_by"), (report_id, *outcome), strict=True)))
    for chunk in chunks(changes):
        session.execute(update(Report), chunk)
    _order_versions(session)
    return dict(counts)


# report -> (study, whether it has a UID, patient's number, by what, whether the report denies it)
Found = dict[str, set[tuple[str, bool, str, str, bool]]]


def _by_number(session: Session) -> Found:
    """The studies with the UID or the accession number of a report; tables write the one where the other belongs."""
    found: Found = defaultdict(set)
    ways = (
        (VaultStudy.study_uid, VaultReport.study_uid, "study_uid"),
        (VaultStudy.study_uid, VaultReport.accession, "study_uid"),
        (VaultStudy.accession, VaultReport.accession, "accession"),
    )
    for of_study, of_report, by in ways:
        query = (
            select(
                *(VaultReport.report_id, VaultStudy.study_id, VaultStudy.study_uid, VaultPatient.record_number),
                *(VaultReport.birth_date, VaultPatient.birth_date, VaultReport.study_date, VaultStudy.study_date),
            )
            .join(VaultStudy, of_study == of_report)
            .join(Study, Study.id == VaultStudy.study_id)
            .join(VaultPatient, VaultPatient.patient_id == Study.patient_id)
            .where(of_report != "")
        )
        for report_id, study_id, uid, record_number, *dates in session.execute(query):
            denied = denies((dates[0], dates[1]), (dates[2], dates[3]))
            found[report_id].add((study_id, bool(uid), record_number, by, denied))
    return found


def _by_date(session: Session, found: Found) -> None:
    """For reports that name no examination: the patient's studies of that day; those of the day before or after only
    as a doubt, since whoever lies in a ward has a radiograph every morning.

    A report whose own number is in no study is left alone: its study may still come, and another one of the same day
    would be wrong.
    """
    asking = (
        select(VaultReport.report_id, VaultReport.patient_number, VaultReport.study_date, VaultReport.modality)
        .where(VaultReport.accession == "", VaultReport.study_uid == "")
        .where(VaultReport.patient_number != "", VaultReport.study_date != "")
    )
    for chunk in chunks(session.execute(asking).all()):
        studies = _studies_of(session, {row.patient_number for row in chunk})
        for report_id, number, text, modality in chunk:
            told = day(text)
            near = [s for s in studies[number] if told and abs(s[0] - told) <= timedelta(days=1)]
            same_day = [s for s in near if s[0] == told]
            for _, study_id, has_uid, modalities in same_day or near:
                if not modality or modality.upper() in modalities:
                    found[report_id].add((study_id, has_uid, number, "date", not same_day))


def _studies_of(session: Session, numbers: set[str]) -> dict[str, list[tuple[date, str, bool, frozenset[str]]]]:
    """Record number -> (day, study, whether it has a UID, its modalities)."""
    query = (
        select(VaultPatient.record_number, VaultStudy.study_date, Study.id, VaultStudy.study_uid)
        .join(Study, Study.patient_id == VaultPatient.patient_id)
        .join(VaultStudy, VaultStudy.study_id == Study.id)
        .where(VaultPatient.record_number.in_(numbers))
        .order_by(Study.id)
    )
    rows = session.execute(query).all()
    modalities: dict[str, set[str]] = defaultdict(set)
    for chunk in chunks({row[2] for row in rows}):
        pairs = select(Series.study_id, Series.modality).where(Series.study_id.in_(chunk)).distinct()
        for study_id, modality in session.execute(pairs):
            modalities[study_id].add(modality)
    studies = defaultdict(list)
    for number, text, study_id, uid in rows:
        if (seen := day(text)) is not None:
            studies[number].append((seen, study_id, bool(uid), frozenset(modalities[study_id])))
    return studies


def _exports_of(session: Session, studies: set[str]) -> dict[str, set[str]]:
    """The deliveries in which the instances of these studies came."""
    exports: dict[str, set[str]] = defaultdict(set)
    for chunk in chunks(sorted(studies)):
        query = (
            select(Series.study_id, ExportFile.export_id)
            .join(Instance, Instance.series_id == Series.id)
            .join(ExportFile, ExportFile.id == Instance.file_id)
            .where(Series.study_id.in_(chunk))
            .distinct()
        )
        for study_id, export_id in session.execute(query):
            exports[study_id].add(export_id)
    return exports


def _order_versions(session: Session) -> None:
    """Number the versions of each report: by the time they tell, else by their state, else as they lie."""
    several = select(Report.thread).group_by(Report.thread).having(func.count() > 1)
    query = (
        select(Report.thread, Report.id, Report.ordinal, Report.status, VaultReport.issued)
        .join(VaultReport, VaultReport.report_id == Report.id)
        .where(Report.thread.in_(several))
        .order_by(Report.thread, Report.id)
    )
    changes: list[dict[str, Any]] = []
    for _, versions in groupby(session.execute(query).all(), key=lambda row: row.thread):
        rows = list(versions)
        timed = all(row.issued for row in rows)  # a version without time says nothing beside one with it
        rows.sort(key=lambda row: (row.issued if timed else "", WRITTEN.index(row.status), row.id))
        changes += [{"id": row.id, "ordinal": n} for n, row in enumerate(rows) if row.ordinal != n]
    for chunk in chunks(changes):
        session.execute(update(Report), chunk)
