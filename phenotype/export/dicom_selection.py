"""What is to leave the house: studies by cohort, by id or all; their objects, and what is known of whose they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime

from sqlalchemy import column, func, select, table
from sqlalchemy.orm import Session

from db.session import vault_key
from db.tables import (
    Cohort,
    CohortStudy,
    ExportFile,
    Instance,
    Report,
    Series,
    Study,
    VaultExportFile,
    VaultPatient,
    VaultReport,
    VaultStudy,
)
from phenotype.export.scrub_names import Known
from phenotype.identity import shifted
from phenotype.imaging.files import FileRef
from phenotype.stage import Refused

_CHUNK = 200  # studies asked for at once
_CURRENT_RUN = table("current_run", column("id"), column("stage"), column("label"))


@dataclass(frozen=True, slots=True)
class Selection:
    """A cohort by its name, studies by their ids, or everything."""

    cohort: str = ""
    studies: tuple[str, ...] = ()
    everything: bool = False

    def ids(self, session: Session) -> list[str]:
        """The ids of the studies. Raises Refused("selection" | "cohort" | "study")."""
        if sum((bool(self.cohort), bool(self.studies), self.everything)) != 1:
            raise Refused("selection", "say what: --cohort NAME, --study ID (once or more), or --all")
        if self.everything:
            return list(session.scalars(select(Study.id).order_by(Study.id)))
        if self.cohort:
            current = select(_CURRENT_RUN.c.id).where(_CURRENT_RUN.c.stage == "cohort")
            query = select(Cohort.id).where((Cohort.id == self.cohort) | (Cohort.name == self.cohort))
            cohort = session.scalar(query.where((Cohort.id == self.cohort) | Cohort.id.in_(current)))
            if cohort is None:
                raise Refused("cohort", f"there is no cohort '{self.cohort}': `phenotype status` lists them")
            members = select(CohortStudy.study_id).where(CohortStudy.cohort_id == cohort)
            return list(session.scalars(members.order_by(CohortStudy.study_id)))
        found = set(session.scalars(select(Study.id).where(Study.id.in_(self.studies))))
        if missing := sorted(set(self.studies) - found):
            raise Refused("study", f"there is no study '{missing[0]}': study_view lists them")
        return sorted(found)


@dataclass(frozen=True, slots=True)
class Whose:
    """A patient, and by how many days the dates of that patient are moved back."""

    patient: str
    days: int = field(repr=False)
    known: Known = field(default=Known(), repr=False)
    study_dates: tuple[date, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Held:
    """An object as it was taken in, by surrogates."""

    instance: str
    series: str
    study: str
    sop_class: str
    burned_in: str
    state: str
    reason: str
    ref: FileRef = field(repr=False)
    whose: Whose


def held(session: Session, studies: list[str]) -> Iterator[Held]:
    """The objects of these studies, study by study."""
    for ids in _chunks(studies):
        people = known_people(session, ids)
        query = (
            select(Instance.id, Series.id, Series.study_id, Study.patient_id, Instance.sop_class, Instance.burned_in)
            .add_columns(ExportFile.state, ExportFile.reason, VaultExportFile.path, VaultExportFile.member)
            .join(Series, Series.id == Instance.series_id)
            .join(Study, Study.id == Series.study_id)
            .join(ExportFile, ExportFile.id == Instance.file_id)
            .join(VaultExportFile, VaultExportFile.file_id == Instance.file_id)
            .where(Series.study_id.in_(ids))
            .order_by(Study.patient_id, Series.study_id, Series.id, Instance.id)
        )
        rows = session.execute(query).all()
        session.rollback()  # what is done with them takes long: no old state of the database is held open for it
        for instance, series, study, patient, sop_class, burned, state, reason, path, member in rows:
            ref = FileRef(path, member)
            yield Held(instance, series, study, sop_class, burned, state, reason, ref, people[patient])


def count(session: Session, studies: list[str]) -> int:
    """How many objects these studies have."""
    query = select(func.count()).select_from(Instance).join(Series, Series.id == Instance.series_id)
    return sum(session.scalar(query.where(Series.study_id.in_(ids))) or 0 for ids in _chunks(studies))


def known_people(session: Session, studies: list[str]) -> dict[str, Whose]:
    """What the vault knows of the patients of these studies, by surrogate: of all their studies and reports."""
    key = vault_key(session)
    patients = select(Study.patient_id).where(Study.id.in_(studies))
    people = {
        row.patient_id: Known((row.name,), (), (row.record_number,), born(row.birth_date))
        for row in session.scalars(select(VaultPatient).where(VaultPatient.patient_id.in_(patients)))
    }
    days: dict[str, list[date]] = {patient: [] for patient in people}
    theirs = select(VaultStudy, Study.patient_id).join(Study, Study.id == VaultStudy.study_id)
    for row, patient in session.execute(theirs.where(Study.patient_id.in_(patients))):
        people[patient] |= Known(numbers=(row.accession,))
        days[patient] += born(row.study_date)
    said = select(VaultReport, Study.patient_id).join(Report, Report.id == VaultReport.report_id)
    said = said.join(Study, Study.id == Report.study_id).where(Study.patient_id.in_(patients))
    for report, patient in session.execute(said):
        numbers = (report.patient_number, report.accession, report.key)
        people[patient] |= Known((report.name,), (), numbers, born(report.birth_date))
        days[patient] += born(report.study_date)
    return {
        patient: Whose(patient, shift_of(key, patient), known, tuple(dict.fromkeys(days[patient])))
        for patient, known in people.items()
    }


def shift_of(key: bytes, patient: str) -> int:
    """By how many days the dates of a patient are moved back."""
    late = date.max
    return (late - (shifted(key, patient, late) or late)).days


def born(text: str) -> tuple[date, ...]:
    """A date as sources write it; nothing where it is none."""
    plain = text.strip()
    for pattern in ("%Y%m%d", "%Y-%m-%d", "%Y.%m.%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"):
        try:
            return (datetime.strptime(plain[:10], pattern).date(),)
        except ValueError:
            continue
    return ()


def not_exported(session: Session) -> Counter[str]:
    """What was delivered as DICOM, but is no image and does not leave: by reason."""
    query = select(ExportFile.reason, func.count()).where(ExportFile.kind == "dicom", ExportFile.state == "ignored")
    return Counter(dict(session.execute(query.group_by(ExportFile.reason)).all()))


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), _CHUNK):
        yield ids[start : start + _CHUNK]
