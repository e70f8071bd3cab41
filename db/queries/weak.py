"""What the labellers of a run of `weigh` hold together."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import WeakLabel


def weak_labels(session: Session, run_id: str) -> dict[str, dict[str, tuple[str, float]]]:
    """Study to concept to the state and the probability; concepts that nobody speaks of are left out."""
    rows = select(WeakLabel.study_id, WeakLabel.concept_id, WeakLabel.state, WeakLabel.probability)
    found: dict[str, dict[str, tuple[str, float]]] = {}
    for study, concept, state, probability in session.execute(rows.where(WeakLabel.run_id == run_id)):
        found.setdefault(study, {})[concept] = state, probability
    return found
