"""Cluster: this room's door to the database."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.queries.labels import common_concepts, label_states
from db.tables import CohortStudy, Concept, Embedding, Enrichment, Image, Membership, Phenotype, Study
from db.write import insert_rows
from phenotype.clustering import zones
from phenotype.stage import Fit, Refused, knob, run_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ClusterInput:
    """Studies with their patients, splits, descriptors (n, d) and the states (n, concepts) of their reports."""

    studies: list[str]
    patients: list[str]
    learned: "NDArray[np.bool_]"
    descriptors: "NDArray[np.float64]"
    concepts: list[tuple[str, str]]  # id and name
    states: "NDArray[np.float64]"


@dataclass(frozen=True)
class Cluster(Fit):
    """Find phenotypes: clusters of studies by their images alone, named by what their reports have in common."""

    embeddings: str = run_of("embed", "the run whose vectors describe the images")
    labels: str = run_of("label", "the run that labelled the studies")
    descriptor: str = knob("zones", "what describes an image: texture by 'zones' of the body, or the 'learned' vector")
    method: str = knob("mixture", "'mixture' (Gaussian) or 'density' (HDBSCAN, which leaves studies out)")
    choose: str = knob("bic", "how the number of clusters is chosen: 'bic' or 'stability'")
    k_min: int = knob(1, "least number of clusters")
    k_max: int = knob(10, "greatest number of clusters")
    dimensions: int = knob(10, "principal axes of the descriptors kept at most")
    min_cases: int = knob(10, "studies in a cluster at least")
    resamples: int = knob(50, "bootstraps by which stability is measured")
    unmentioned: str = knob("absent", "a term that reports do not mention: 'absent', or 'exclude' the study")
    level: float = knob(0.05, "q-value up to which a term is part of the name")
    seed: int = knob(0, "of all chance")

    name: ClassVar[str] = "cluster"
    results: ClassVar = (Phenotype, Membership, Enrichment)

    def resolve(self, session: Session, home: Path) -> Self:
        """With the runs known; words that are none of the choices are refused."""
        for value, known in (
            (self.descriptor, ("zones", "learned")),
            (self.method, ("mixture", "density")),
            (self.choose, ("bic", "stability")),
            (self.unmentioned, ("absent", "exclude")),
        ):
            if value not in known:
                raise Refused("choice", f"'{value}' is none of: {', '.join(known)}")
        return super().resolve(session, home)

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The studies of the cohort that have embedded images; a study's descriptor is the mean of its images'."""
        vectors: dict[str, list[Any]] = {}
        about: dict[str, tuple[str, str]] = {}
        column = Embedding.whole if self.descriptor == "learned" else Embedding.regions
        query = (
            select(Image.study_id, Study.patient_id, CohortStudy.split, column)
            .join(Embedding, Embedding.image_id == Image.id)
            .join(Study, Study.id == Image.study_id)
            .join(CohortStudy, CohortStudy.study_id == Study.id)
            .where(CohortStudy.cohort_id == ids[0], Embedding.run_id == self.embeddings)
            .order_by(Image.study_id, Image.id)
        )
        for study, patient, split, vector in session.execute(query):
            vectors.setdefault(study, []).append(vector if self.descriptor == "learned" else zones.describe(vector))
            about[study] = patient, split
        if not vectors:
            raise Refused("no_embeddings", "no study of the cohort has an embedded image: `phenotype embed` makes them")
        states = label_states(session, self.labels, ids[0])
        names = {row.id: row.name for row in session.execute(select(Concept.id, Concept.name))}
        concepts = common_concepts(states.values(), least=5)
        studies = sorted(vectors)
        return {
            ids[0]: ClusterInput(
                studies,
                [about[s][0] for s in studies],
                np.array([about[s][1] == "train" for s in studies]),
                np.array([np.mean(vectors[s], axis=0, dtype=np.float64) for s in studies]),
                [(c, names[c]) for c in concepts],
                np.array([[states.get(s, {}).get(c, np.nan) for c in concepts] for s in studies], np.float64).reshape(
                    len(studies), len(concepts)
                ),
            )
        }

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Cohort to its phenotypes."""
        from phenotype.clustering.discovery import discover

        return {cohort: discover(self, cases) for cohort, cases in inputs.items()}

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """Phenotypes, who belongs to them, and what is over-represented in them."""
        for found in outputs.values():
            run = {"run_id": self.run_id}
            insert_rows(session, Phenotype, [run | row for row in found.phenotypes])
            insert_rows(session, Membership, [run | row for row in found.memberships])
            insert_rows(session, Enrichment, [run | row for row in found.enrichments])
