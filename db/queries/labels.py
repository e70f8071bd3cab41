"""What studies are labelled with."""

from collections import Counter
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import CohortStudy, Concept, Label

PATHOLOGY = ("finding", "device")  # categories of concepts that can be seen in an image


def label_states(session: Session, labels_run: str, cohort_id: str) -> dict[str, dict[str, float]]:
    """For each labelled study of a cohort, how probably each concept is there: the label's confidence, 0 where denied.

    Concepts that the reports do not mention are left out, and so are those that only follow from narrower ones. A study
    whose reports call it normal and assert or doubt no finding denies them all: its states hold 0 for every concept
    that any study of the cohort has.
    """
    rows = session.execute(
        select(Label.study_id, Label.concept_id, Concept.category, Label.value, Label.confidence)
        .join(Concept, Concept.id == Label.concept_id)
        .join(CohortStudy, CohortStudy.study_id == Label.study_id)
        .where(Label.run_id == labels_run, CohortStudy.cohort_id == cohort_id, ~Label.implied)
        .order_by(Label.study_id, Label.concept_id)
    )
    states: dict[str, dict[str, float]] = {}
    normal: dict[str, bool] = {}
    for study, concept, category, value, confidence in rows:
        own = states.setdefault(study, {})
        if category in PATHOLOGY:
            own[concept] = 0.0 if value == "absent" else float(confidence)
            if value != "absent" and category == "finding":
                normal[study] = False
        elif category == "normal" and value == "present":
            normal.setdefault(study, True)
    known = {concept for own in states.values() for concept in own}
    for study, is_normal in normal.items():
        if is_normal:
            states[study] = dict.fromkeys(sorted(known), 0.0) | states[study]
    return states


def common_concepts(states: Collection[dict[str, float]], least: int) -> list[str]:
    """Concepts that at least `least` studies have, and at least as many have not been said to have."""
    present = Counter(concept for own in states for concept, state in own.items() if state >= 0.5)
    return sorted(c for c, n in present.items() if n >= least and len(states) - n >= least)
