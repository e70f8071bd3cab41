"""Weigh: several labellers made into one probability; this room's other door to the database."""

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from sqlalchemy.orm import Session

from db.queries.labels import common_concepts, label_states
from db.queries.votes import Vote, votes
from db.tables import Labeller, WeakLabel
from db.write import insert_rows
from phenotype.stage import Fit, Refused, knob, run_of


@dataclass(frozen=True, slots=True)
class WeighInput:
    """The studies of a cohort, the concepts, and all votes on them."""

    studies: list[str]
    concepts: list[str]
    votes: list[Vote]


@dataclass(frozen=True)
class Weigh(Fit):
    """Weigh what several labellers say of each study against each other: one probability for each concept."""

    labels: str = run_of("label", "the run that labelled the studies by rules")
    least: int = knob(10, "studies that a concept must be said to be in, and not to be in")
    votes: str = knob("", "a CSV of more votes: study, concept, labeller, value or probability", recipe=False)
    told: str = knob("", "a digest of that table", hidden=True)

    name: ClassVar[str] = "weigh"
    results: ClassVar = (WeakLabel, Labeller)

    def resolve(self, session: Session, home: Path) -> Self:
        """With the table of votes read; refused where it cannot be."""
        from phenotype.linking.labelling import BadVotes, read_votes

        stage = super().resolve(session, home)
        if not self.votes:
            return replace(stage, told="")
        try:
            read_votes(Path(self.votes))
            return replace(stage, told=hashlib.sha256(Path(self.votes).read_bytes()).hexdigest()[:16])
        except (OSError, UnicodeDecodeError) as error:
            raise Refused("votes", f"{self.votes} cannot be read as a table: {error}") from None
        except BadVotes as error:
            raise Refused("votes", str(error)) from None

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The votes on the labelled studies of the cohort. A report that calls all normal votes against every concept
        that it does not speak of."""
        states = label_states(session, self.labels, ids[0])
        concepts = common_concepts(states.values(), self.least)
        said = list(votes(session, self.labels, ids[0]))
        spoken = {(vote.study, vote.concept) for vote in said if vote.labeller == "rules"}
        said += [
            Vote(study, concept, "rules", "absent", 0.0)
            for study, own in states.items()
            for concept in concepts
            if own.get(concept) == 0.0 and (study, concept) not in spoken
        ]
        return {ids[0]: WeighInput(sorted(states), concepts, said)}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Cohort to what the labellers together hold, and how far each is to be trusted."""
        from phenotype.linking.labelling import combine, read_votes

        outputs = {}
        for cohort, told in inputs.items():
            if not told.concepts:
                raise Refused("no_terms", f"no concept is said to be in at least {self.least} studies; see --least")
            more = read_votes(Path(self.votes)) if self.votes else []
            outputs[cohort] = combine([*told.votes, *more], told.studies, told.concepts)
        return outputs

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """A row for each study and concept that somebody speaks of, and for each labeller and concept."""
        from phenotype.linking.mapper import STATES

        labels, labellers = [], []
        for weak in outputs.values():
            for i, t in np.argwhere(np.isfinite(weak.probabilities)).tolist():
                own = {"run_id": self.run_id, "study_id": weak.studies[i], "concept_id": weak.concepts[t]}
                state, probability = STATES[weak.states[i, t]], round(float(weak.probabilities[i, t]), 6)
                labels.append(own | {"state": state, "probability": probability})
            for accuracy in weak.accuracies:
                row = asdict(accuracy) | {"run_id": self.run_id}
                labellers.append(row | {"concept_id": row.pop("concept")})
        insert_rows(session, WeakLabel, labels)
        insert_rows(session, Labeller, labellers)
