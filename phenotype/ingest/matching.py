"""Reports find their studies."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.tables import ExportFile, Instance, Report, Series, Study, VaultPatient, VaultReport, VaultStudy
from phenotype.ingest.ledger import chunks


@dataclass(frozen=True, slots=True)
class Candidate:
    """A study under the accession number of a report, and what speaks for it."""

    study_id: str
    has_uid: bool
    patient_number: str
    same_export: bool


def choose(patient_number: str, candidates: list[Candidate]) -> tuple[str, str | None]:
    """The match and the study of a report, of the studies under its accession number.

    One study is a match, several are ambiguous unless the patient's number or the delivery tells which; a single study
    of somebody else is ambiguous too, since accession numbers are used again. A study without UID is known by a number
    that means something within its own delivery only.
    """
    found = [c for c in candidates if c.has_uid or c.same_export]
    for agrees in (
        [c for c in found if patient_number and c.patient_number == patient_number],
        [c for c in found if c.same_export],
    ):
        if len(found) > 1 and agrees:
            found = agrees
    if not found:
        return "unmatched", None
    contradicts = patient_number and found[0].patient_number and patient_number != found[0].patient_number
    return ("ambiguous", None) if len(found) > 1 or contradicts else ("matched", found[0].study_id)


def match_reports(session: Session) -> dict[str, int]:
    """Link every report to the study with its accession number or study UID, and count the outcomes.

    All reports are looked at each time: a study may come after its report, or make an old match ambiguous.
    """
    found: dict[str, set[tuple[str, bool, str]]] = defaultdict(set)
    for name in (VaultStudy.accession, VaultStudy.study_uid):
        query = (
            select(VaultReport.report_id, VaultStudy.study_id, VaultStudy.study_uid, VaultPatient.record_number)
            .join(VaultStudy, name == VaultReport.accession)
            .join(Study, Study.id == VaultStudy.study_id)
            .join(VaultPatient, VaultPatient.patient_id == Study.patient_id)
            .where(VaultReport.accession != "")
        )
        for report_id, study_id, uid, record_number in session.execute(query):
            found[report_id].add((study_id, bool(uid), record_number))
    # only where it matters, since it looks at every instance of a study
    asked = {c[0] for several in found.values() for c in several if len(several) > 1 or not c[1]}
    exports = _exports_of(session, asked)

    counts: Counter[str] = Counter({"matched": 0, "unmatched": 0, "ambiguous": 0})
    changes = []
    reports = (
        select(Report.id, Report.match, Report.study_id, ExportFile.export_id, VaultReport.patient_number)
        .join(ExportFile, ExportFile.id == Report.file_id)
        .join(VaultReport, VaultReport.report_id == Report.id)
    )
    for report_id, match, linked, export_id, patient_number in session.execute(reports):
        candidates = [
            Candidate(study, has_uid, number, export_id in exports[study])
            for study, has_uid, number in sorted(found.get(report_id, ()))
        ]
        outcome = choose(patient_number, candidates)
        counts[outcome[0]] += 1
        if outcome != (match, linked):
            changes.append({"id": report_id, "match": outcome[0], "study_id": outcome[1]})
    for chunk in chunks(changes):
        session.execute(update(Report), chunk)
    return dict(counts)


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
