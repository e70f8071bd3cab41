"""What studies are labelled with."""

from collections import Counter
from collections.abc import Collection, Sequence

from sqlalchemy import func, or_, select
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


def concept_ids(session: Session, names: Sequence[str]) -> dict[str, str]:
    """The id of each concept that is called so, by id or by name (upper or lower case); what is unknown is left out."""
    found = {}
    for name in names:
        called = or_(Concept.id == name, func.lower(Concept.name) == name.lower())
        concept = session.scalars(select(Concept.id).where(called).order_by(Concept.id != name, Concept.id)).first()
        if concept is not None:
            found[name] = concept
    return found


def study_classes(session: Session, labels_run: str, concepts: Sequence[str]) -> dict[str, int]:
    """The class of each labelled study: 1, 2, ... for the first of `concepts` that it has; 0 where all are denied.

    -1 where none is asserted but one is doubted or not spoken of. A study whose reports call it normal and assert or
    doubt no finding denies them all.
    """
    rows = session.execute(
        select(Label.study_id, Label.concept_id, Concept.category, Label.value)
        .join(Concept, Concept.id == Label.concept_id)
        .where(Label.run_id == labels_run)
        .order_by(Label.study_id)
    )
    said: dict[str, dict[str, str]] = {}
    called_normal: set[str] = set()
    abnormal: set[str] = set()
    for study, concept, category, value in rows:
        said.setdefault(study, {})[concept] = value
        if category == "normal" and value == "present":
            called_normal.add(study)
        if category == "finding" and value != "absent":
            abnormal.add(study)
    classes = {}
    for study, own in said.items():
        unsaid = "absent" if study in called_normal - abnormal else "unsaid"
        values = [own.get(concept, unsaid) for concept in concepts]
        denied = 0 if all(value == "absent" for value in values) else -1
        classes[study] = values.index("present") + 1 if "present" in values else denied
    return classes
