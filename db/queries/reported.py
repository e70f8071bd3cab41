"""The findings of a report with everything that is known of them, for those who hand them on."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import date, datetime

from sqlalchemy import column, select, table, tuple_
from sqlalchemy.orm import Session

from db.queries.versions import CURRENT
from db.tables import Concept, Finding, Modifier, Reading, Report, Run, Site, Study

_CHUNK = 500  # reports


@dataclass(frozen=True, slots=True)
class Coded:
    """A concept or a place, with its codes; "" where none was verified."""

    id: str
    name: str
    radlex: str
    mesh: str
    snomed: str


@dataclass(frozen=True, slots=True)
class Reported:
    """One finding; `sites` are all places that the report names for it, the most precise first."""

    concept: Coded
    category: str
    assertion: str
    temporality: str
    experiencer: str
    certainty: float
    implied: bool
    section: str
    start: int
    end: int
    side: str
    severity: str
    size_mm: float | None
    prior_size_mm: float | None
    count: str
    change: str
    rule: str
    sites: tuple[Coded, ...]


_SAME = tuple(f.name for f in fields(Reported) if f.name not in ("concept", "category", "sites"))


@dataclass(slots=True)
class ReportFindings:
    """A report that was read: surrogates, the shifted date of its study, and its findings in the order of the text."""

    report: str
    study: str | None
    patient: str | None
    day: date | None
    language: str
    run: str
    read_at: datetime
    findings: list[Reported] = field(default_factory=list)


def reports(session: Session) -> Iterator[ReportFindings]:
    """Every report that the current run read, in the order of their surrogates, a few hundred held at a time."""
    current = select(table("current_run", column("id"), column("stage")).c.id).where(column("stage") == "extract")
    query = (
        select(Reading.run_id, Run.opened_at, Report.id, Report.study_id, Study.patient_id, Study.shifted_date)
        .add_columns(Reading.language)
        .join(Run, Run.id == Reading.run_id)
        .join(Report, Report.id == Reading.report_id)
        .join(CURRENT, CURRENT.c.id == Report.id)
        .outerjoin(Study, Study.id == Report.study_id)
        .where(Reading.run_id.in_(current))
        .order_by(Report.id, Reading.run_id)
    )
    sites = {site.id: Coded(site.id, site.name, site.radlex, "", site.snomed) for site in session.scalars(select(Site))}
    concepts = {
        c.id: (Coded(c.id, c.name, c.radlex, c.mesh, c.snomed), c.category) for c in session.scalars(select(Concept))
    }
    last = ("", "")
    while rows := session.execute(query.where(tuple_(Report.id, Reading.run_id) > last).limit(_CHUNK)).all():
        chunk = {
            (run, report): ReportFindings(report, study, patient, day, language, run, opened)
            for run, opened, report, study, patient, day, language in rows
        }
        _add_findings(session, chunk, concepts, sites)
        yield from chunk.values()
        last = (rows[-1].id, rows[-1].run_id)


def _add_findings(
    session: Session,
    chunk: dict[tuple[str, str], ReportFindings],
    concepts: dict[str, tuple[Coded, str]],
    sites: dict[str, Coded],
) -> None:
    """The findings of these reports, each with its places."""
    runs, ids = {run for run, _ in chunk}, {report for _, report in chunk}
    named = select(Modifier.run_id, Modifier.report_id, Modifier.finding_start, Modifier.concept_id, Modifier.value)
    named = named.where(Modifier.kind == "site", Modifier.run_id.in_(runs), Modifier.report_id.in_(ids))
    places: dict[tuple[str, str, int, str], dict[str, None]] = {}
    for run, report, start, concept, site in session.execute(named.order_by(Modifier.start)):
        places.setdefault((run, report, start, concept), {})[site] = None
    findings = select(Finding.__table__).where(Finding.run_id.in_(runs), Finding.report_id.in_(ids))
    for f in session.execute(findings.order_by(Finding.report_id, Finding.start, Finding.concept_id)):
        all_sites = ({f.site: None} if f.site else {}) | places.get((f.run_id, f.report_id, f.start, f.concept_id), {})
        coded, category = concepts[f.concept_id]
        same = {name: getattr(f, name) for name in _SAME}
        reported = Reported(concept=coded, category=category, sites=tuple(sites[s] for s in all_sites), **same)
        chunk[f.run_id, f.report_id].findings.append(reported)
