"""Link and MapTerms: this room's door to the database."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sqlalchemy import literal, select
from sqlalchemy.orm import Session

from db.queries.labels import common_concepts, label_states
from db.tables import CohortStudy, Embedding, Emission, Image, Patient, Region, Run, Study, TermEvidence, TermMap
from db.write import insert_rows
from phenotype.stage import Fit, Refused, Stage, Subjects, knob, model_folder, run_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from phenotype.linking.learning import Regions


def _regions(session: Session, run_id: str, condition: Any) -> Iterable[tuple[str, str, str, "Regions"]]:
    """Image, study, patient and regions of the embedded images that fit a condition, by image id."""
    from phenotype.linking.learning import Regions

    query = (
        select(
            Image.id,
            Image.study_id,
            Study.patient_id,
            Embedding.regions,
            Region.slices,
            Region.boxes,
            Patient.fold,
            Image.view,
        )
        .join(Embedding, Embedding.image_id == Image.id)
        .join(Region, (Region.image_id == Image.id) & (Region.run_id == Embedding.run_id))
        .join(Study, Study.id == Image.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(Embedding.run_id == run_id, condition)
        .order_by(Image.id)
    )
    for image, study, patient, vectors, slices, boxes, fold, view in session.execute(query):
        frontal = view.upper() not in ("LATERAL", "LL", "RL", "LLD", "RLD")
        yield image, study, patient, Regions(vectors, slices, boxes, fold, frontal)


@dataclass(frozen=True, slots=True)
class LinkInput:
    """Regions of each image, the states (terms,) of its study, and its patient."""

    concepts: list[str]
    bags: list[tuple["Regions", "NDArray[np.float64]"]]
    patients: list[str]


@dataclass(frozen=True)
class Link(Fit):
    """Learn where in the image the terms of the reports are seen, from nothing but images and reports."""

    embeddings: str = run_of("embed", "the run that described the regions")
    labels: str = run_of("label", "the run that labelled the studies")
    mapper: str = knob("combined", "how terms are mapped, by name: combined, ferns, noisy-or, log-sum-exp, top-k, ...")
    least: int = knob(10, "studies that a term must be seen in, and not be seen in, to be learned")
    ferns: int = knob(128, "number of random ferns")
    depth: int = knob(8, "questions of a fern")
    smoothing: float = knob(20.0, "average regions added to each cell")
    location: int = knob(2, "how often the place of a region is repeated among its features")
    unmentioned_weight: float = knob(0.5, "what a study counts for a term that its reports do not mention")
    unmentioned_probability: float = knob(0.05, "how probable such a term is taken to be")
    groups: int = knob(5, "groups of patients that are scored without having been learned from")
    seed: int = knob(0, "of the questions and of the bootstrap")

    name: ClassVar[str] = "link"
    results: ClassVar = (TermEvidence, Emission)
    revision: ClassVar[int] = 2

    def resolve(self, session: Session, home: Path) -> Self:
        """With the runs known; refused where no term is frequent enough."""
        if not 3 <= self.groups <= 10:
            raise Refused("groups", f"{self.groups} groups of ten folds cannot be made; use 3 to 10")
        return super().resolve(session, home)

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The regions of the cohort's images whose studies are labelled."""
        states = label_states(session, self.labels, ids[0])
        concepts = common_concepts(states.values(), self.least)
        members = select(CohortStudy.study_id).where(CohortStudy.cohort_id == ids[0])
        link = LinkInput(concepts, [], [])
        for _image, study, patient, regions in _regions(session, self.embeddings, Image.study_id.in_(members)):
            if study in states:
                own = states[study]
                link.bags.append((regions, np.array([own.get(c, np.nan) for c in concepts], np.float64)))
                link.patients.append(patient)
        return {ids[0]: link}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The evidence for each concept; what was learned is in the run's folder."""
        from phenotype.linking.learning import learn, said, save
        from phenotype.linking.mappers import build

        outputs: dict[str, Any] = {}
        for cohort, link in inputs.items():
            if not link.concepts or not link.bags:
                raise Refused("no_terms", f"no term is reported in at least {self.least} embedded studies; see --least")
            if len({regions.fold % self.groups for regions, _ in link.bags}) < 3:
                raise Refused("too_few", "the embedded studies are of too few patients to keep some aside")
            settings = {
                "ferns": self.ferns,
                "depth": self.depth,
                "smoothing": self.smoothing,
                "repeat": self.location,
                "unmentioned_weight": self.unmentioned_weight,
                "unmentioned_probability": self.unmentioned_probability,
                "seed": self.seed,
            }
            learned = learn(
                partial(build, self.mapper, **settings),
                [(regions, said(states)) for regions, states in link.bags],
                np.array(link.patients),
                concepts=link.concepts,
                mapper=self.mapper,
                groups=self.groups,
                seed=self.seed,
            )
            save(learned.terms, self.folder)
            outputs[cohort] = learned
        return outputs

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """What the maps of each concept are worth, and how reports word it."""
        worth, wording = [], []
        for learned in outputs.values():
            for t, concept in enumerate(learned.terms.concepts):
                row = asdict(learned.evidence[t]) | {"run_id": self.run_id, "concept_id": concept}
                row |= {"studies": row.pop("images"), "auroc_low": row.pop("low"), "auroc_high": row.pop("high")}
                row |= {"local": learned.local[t], "location_auroc": learned.location[t].auroc}
                row |= {"threshold": learned.terms.threshold(t), "deletion_ratio": learned.deletion_ratio[t]}
                worth.append(row)
            for concept, state, if_present, if_absent in learned.emission.rows(learned.terms.concepts):
                own = {"run_id": self.run_id, "concept_id": concept, "state": state}
                wording.append(own | {"if_present": if_present, "if_absent": if_absent})
        insert_rows(session, TermEvidence, worth)
        insert_rows(session, Emission, wording)


@dataclass(frozen=True)
class MapTerms(Stage):
    """Map the terms onto images, with or without a report, by what was learned from other patients."""

    link: str = run_of("link", "the run that learned the terms")
    embeddings: str = knob("", "the run that described the regions: that which was learned from", hidden=True)

    name: ClassVar[str] = "map"
    subject: ClassVar[str] = "image_id"
    results: ClassVar = (TermMap,)
    batch: ClassVar[int] = 32

    def resolve(self, session: Session, home: Path) -> Self:
        """With the descriptions that the terms were learned from."""
        stage = super().resolve(session, home)
        return replace(stage, embeddings=session.get_one(Run, stage.link).recipe["embeddings"])

    def subjects(self) -> Subjects:
        """Every image that was embedded."""
        return select(Embedding.image_id, literal("")).where(Embedding.run_id == self.embeddings)

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Image id to its Regions."""
        return {image: found for image, _, _, found in _regions(session, self.embeddings, Image.id.in_(ids))}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Image id to its mapped terms."""
        from phenotype.linking.learning import load

        terms = load(model_folder(Path(self.home), self.link))
        return {image: terms.map(regions) for image, regions in inputs.items()}

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row for each image and concept."""
        rows = [
            {
                "run_id": self.run_id,
                "image_id": image,
                "concept_id": term.concept,
                "score": term.score,
                "peak_slice": term.slice,
                "peak_row": term.row,
                "peak_column": term.column,
                "side": term.side,
                "regions": term.regions,
                "probability": term.probability,
                "call": term.call,
                "deletion": term.deletion,
                "deletion_random": term.deletion_random,
            }
            for image, terms in outputs.items()
            for term in terms
        ]
        insert_rows(session, TermMap, rows)
