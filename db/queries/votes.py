"""What each of several labellers says of the findings of a study, and where the reports say they are."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from db.queries.versions import CURRENT
from db.tables import CohortStudy, Finding, Label, Modifier, Report, Run, Study, TextScore


@dataclass(frozen=True, slots=True)
class Vote:
    """A labeller's say on a concept of a study.

    `value` is present, absent or uncertain, and empty where the labeller gives the probability alone.
    """

    study: str
    concept: str
    labeller: str
    value: str
    probability: float


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A side (or "") and the ids of sites that the reports of a study name where they assert a concept."""

    study: str
    concept: str
    side: str
    sites: tuple[str, ...]


def votes(session: Session, labels_run: str, cohort_id: str) -> Iterator[Vote]:
    """Votes on the studies of a cohort, by study, labeller and concept: of the labels made by rules ("rules"), of what
    the findings and the impression say by themselves ("findings", "impression"), and of the text classifier
    ("classifier", where the labels were made with one)."""
    recipe = session.get_one(Run, labels_run).recipe
    members = select(CohortStudy.study_id).where(CohortStudy.cohort_id == cohort_id)
    labels = select(Label.study_id, Label.concept_id, Label.value, Label.confidence).where(
        Label.run_id == labels_run, Label.study_id.in_(members), ~Label.implied
    )
    for study, concept, value, confidence in session.execute(labels.order_by(Label.study_id, Label.concept_id)):
        yield Vote(study, concept, "rules", value, confidence)
    said = _said(recipe["findings"], members, Finding.section, Finding.assertion, Finding.certainty)
    said = said.where(Finding.section.in_(("findings", "impression")))
    for study, concept, section, assertion, certainty in session.execute(said):
        yield Vote(study, concept, section, assertion, certainty)
    scores = (
        select(Report.study_id, TextScore.concept_id, TextScore.probability)
        .join(Report, Report.id == TextScore.report_id)
        .join(CURRENT, CURRENT.c.id == Report.id)
        .where(TextScore.run_id == recipe.get("second", ""), Report.study_id.in_(members))
        .order_by(Report.study_id, TextScore.concept_id, Report.id)
    )
    pairs: Iterable[Any] = session.execute(scores)
    for study, concept, probability in pairs:
        yield Vote(study, concept, "classifier", "", probability)


def whereabouts(session: Session, labels_run: str, cohort_id: str) -> Iterator[Whereabouts]:
    """Where the reports of a cohort say that what they assert is, one for each mention that names a side or a site."""
    run = session.get_one(Run, labels_run).recipe["findings"]
    members = select(CohortStudy.study_id).where(CohortStudy.cohort_id == cohort_id)
    asserted = _said(run, members, Finding.side, Finding.report_id, Finding.start).where(Finding.assertion == "present")
    sites: dict[tuple[str, int, str], list[str]] = {}
    named = (
        select(Modifier.report_id, Modifier.finding_start, Modifier.concept_id, Modifier.value)
        .join(Report, Report.id == Modifier.report_id)
        .where(Modifier.run_id == run, Modifier.kind == "site", Report.study_id.in_(members))
        .order_by(Modifier.report_id, Modifier.finding_start, Modifier.concept_id, Modifier.start, Modifier.value)
    )
    for report, start, concept, site in session.execute(named):
        sites.setdefault((report, start, concept), []).append(site)
    for study, concept, side, report, start in session.execute(asserted):
        places = tuple(sites.get((report, start, concept), ()))
        if side or places:
            yield Whereabouts(study, concept, side, places)


def _said(run: str, members: Select[str], *columns: Any) -> Select[Any]:
    """Findings of the patient as of today, in the reports that count."""
    return (
        select(Report.study_id, Finding.concept_id, *columns)
        .join(Report, Report.id == Finding.report_id)
        .join(CURRENT, CURRENT.c.id == Report.id)
        .join(Study, Study.id == Report.study_id)
        .where(
            Finding.run_id == run,
            Report.study_id.in_(members),
            Finding.temporality == "current",
            Finding.experiencer == "patient",
        )
        .order_by(Report.study_id, Finding.concept_id, Finding.report_id, Finding.start)
    )
