"""Link and MapTerms: this room's door to the database."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from sqlalchemy import func, literal, select
from sqlalchemy.orm import Session

from db.queries.labels import common_concepts, label_states
from db.queries.votes import whereabouts
from db.queries.weak import weak_labels
from db.tables import (
    Alignment,
    CohortStudy,
    Embedding,
    Emission,
    Image,
    Patient,
    Region,
    Run,
    Study,
    TermEvidence,
    TermMap,
)
from db.write import insert_rows
from phenotype.imaging import descriptors
from phenotype.imaging.regions import FEATURES
from phenotype.stage import Fit, Refused, Stage, Subjects, done_by, find_run, knob, model_folder, newest_run, run_of

if TYPE_CHECKING:
    from phenotype.linking.learning import Regions, Said

BODY, NONE = "body", "none"
FEW = 1000  # radiographs, of which a linear mapper makes more than ferns and networks


def _regions(session: Session, run_id: str, space: str, condition: Any) -> Iterable[tuple[str, str, str, "Regions"]]:
    """Image, study, patient and regions of the embedded images that fit a condition, by image id.

    Regions are placed in the box around the body, as they were embedded, or in the common space of a run of normalize;
    then images that were not accepted there are left out.
    """
    from phenotype.imaging.grids import apply
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
            Image.slices,
            Alignment.forward,
        )
        .join(Embedding, Embedding.image_id == Image.id)
        .join(Region, (Region.image_id == Image.id) & (Region.run_id == Embedding.run_id))
        .join(Study, Study.id == Image.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .outerjoin(Alignment, (Alignment.image_id == Image.id) & (Alignment.run_id == space) & Alignment.accepted)
        .where(Embedding.run_id == run_id, condition)
        .order_by(Image.id)
    )
    if space != BODY:
        query = query.where(Alignment.image_id.is_not(None))
    for image, study, patient, embedded, slices, boxes, fold, view, depth, forward in session.execute(query):
        frontal = view.upper() not in ("LATERAL", "LL", "RL", "LLD", "RLD")
        axes, vectors = 2, embedded
        if forward is not None:
            axes = forward.shape[-1]
            centres = (boxes[:, :2] + boxes[:, 2:]) / 2
            if axes == 3:
                centres = np.hstack([(slices[:, None] + 0.5) / depth, centres])
            vectors = np.hstack([embedded[:, :-2], apply(forward, centres)]).astype(np.float32)
        yield image, study, patient, Regions(vectors, slices, boxes, fold, frontal, axes)


def _paired(session: Session, embeddings: str) -> bool:
    """Whether regions are described by their difference from the mirrored place too."""
    recipe = session.get_one(Run, embeddings).recipe
    return recipe.get("descriptors") == "paired" and recipe.get("regions") == "patches"


def _suited(session: Session, stage: "Link") -> str:
    """The mapper for as many images as the cohort has: of few radiographs a network and ferns learn too much."""
    members = select(CohortStudy.study_id).where(CohortStudy.cohort_id == stage.cohort)
    embedded = select(func.count()).select_from(Embedding).join(Image, Image.id == Embedding.image_id)
    embedded = embedded.where(Embedding.run_id == stage.embeddings, Image.study_id.in_(members))
    radiographs = embedded.where(Image.kind == "radiograph")
    few = session.scalars(embedded).one() < FEW and session.scalars(radiographs).one() > 0
    return "linear" if few and _paired(session, stage.embeddings) else "combined"


@dataclass(frozen=True, slots=True)
class LinkInput:
    """Regions of each image, what is said of it, and its patient; `late` of their features, those before FEATURES,
    are differences from the mirrored place."""

    concepts: list[str]
    images: list[tuple["Regions", "Said"]]
    patients: list[str]
    late: int


@dataclass(frozen=True)
class Link(Fit):
    """Learn where in the image the terms of the reports are seen, from nothing but images and reports."""

    embeddings: str = run_of("embed", "the run that described the regions")
    labels: str = run_of("label", "the run that labelled the studies")
    weights: str = knob(
        "", "the run of 'weigh' whose probabilities count; nothing for the newest on these labels, or none"
    )
    space: str = knob(
        "", "where regions are: the run of 'normalize'; nothing for the newest of these images, or 'body'"
    )
    words: bool = knob(True, "whether words for a side or a place say where a term is learned")
    mapper: str = knob(
        "",
        "how terms are mapped, by name: combined, linear, ferns, noisy-or, log-sum-exp, top-k, ...; nothing for "
        "what suits the number of images",
    )
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
    revision: ClassVar[int] = 3

    def resolve(self, session: Session, home: Path) -> Self:
        """With the runs known; refused where no term is frequent enough."""
        if not 3 <= self.groups <= 10:
            raise Refused("groups", f"{self.groups} groups of ten folds cannot be made; use 3 to 10")
        stage = super().resolve(session, home)
        weights, space = self.weights, self.space
        if weights != NONE:
            same = {"labels": stage.labels, "cohort": stage.cohort}
            weights = find_run(session, "weigh", weights) if weights else newest_run(session, "weigh", **same) or NONE
        if space != BODY:
            images = session.get_one(Run, stage.embeddings).recipe["images"]
            space = find_run(session, "normalize", space) if space else newest_run(session, "normalize", images=images)
        stage = replace(stage, weights=weights, space=space or BODY, mapper=self.mapper or _suited(session, stage))
        built_on = [stage.cohort, stage.embeddings, stage.labels, stage.weights, stage.space]
        return replace(stage, upstream=done_by(session, built_on))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The regions of the cohort's images whose studies are labelled, and what is said of each."""
        from phenotype.linking.learning import said, weighed
        from phenotype.linking.whereabouts import where_of

        states = label_states(session, self.labels, ids[0])
        concepts = common_concepts(states.values(), self.least)
        weights = weak_labels(session, self.weights) if self.weights != NONE else None
        words: dict[str, list[tuple[int, str, tuple[str, ...]]]] = {}
        if self.words:
            number = {concept: t for t, concept in enumerate(concepts)}
            for told in whereabouts(session, self.labels, ids[0]):
                if told.concept in number:
                    words.setdefault(told.study, []).append((number[told.concept], told.side, told.sites))
        members = select(CohortStudy.study_id).where(CohortStudy.cohort_id == ids[0])
        link = LinkInput(concepts, [], [], late=len(descriptors.columns()) if _paired(session, self.embeddings) else 0)
        condition = Image.study_id.in_(members)
        for _image, study, patient, regions in _regions(session, self.embeddings, self.space, condition):
            if study not in states:
                continue
            named = words.get(study, [])
            if regions.is_volume:  # rows of a slice do not tell upper from lower
                named = [(t, side, ()) for t, side, _ in named]
            where = where_of(named, len(concepts), regions.positions[:, -2:], frontal=regions.frontal)
            if weights is None:
                own = states[study]
                told_of = said(np.array([own.get(c, np.nan) for c in concepts], np.float64), where)
            else:
                told_of = weighed([weights.get(study, {}).get(c) for c in concepts], where)
            link.images.append((regions, told_of))
            link.patients.append(patient)
        return {ids[0]: link}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The evidence for each concept; what was learned is in the run's folder."""
        from phenotype.linking.learning import learn, save
        from phenotype.linking.mappers import build

        outputs: dict[str, Any] = {}
        for cohort, link in inputs.items():
            if not link.concepts or not link.images:
                raise Refused("no_terms", f"no term is reported in at least {self.least} embedded studies; see --least")
            if len({regions.axes for regions, _ in link.images}) > 1:
                raise Refused("kind", "the cohort has radiographs and volumes; places of both cannot be compared")
            if len({regions.fold % self.groups for regions, _ in link.images}) < 3:
                raise Refused("too_few", "the embedded studies are of too few patients to keep some aside")
            settings = {
                "ferns": self.ferns,
                "depth": self.depth,
                "smoothing": self.smoothing,
                "repeat": self.location,
                "place": link.images[0][0].axes,
                "late": link.late,
                "after": len(FEATURES) - 2 + link.images[0][0].axes,
                # attention is shared out among all regions of an image and cannot be told where not to look
                "partner": "noisy-or" if any(told.where is not None for _, told in link.images) else "attention",
                "unmentioned_weight": self.unmentioned_weight,
                "unmentioned_probability": self.unmentioned_probability,
                "seed": self.seed,
            }
            learned = learn(
                partial(build, self.mapper, **settings),
                link.images,
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
    space: str = knob("", "where regions are: as in learning", hidden=True)

    name: ClassVar[str] = "map"
    subject: ClassVar[str] = "image_id"
    results: ClassVar = (TermMap,)
    batch: ClassVar[int] = 32

    def resolve(self, session: Session, home: Path) -> Self:
        """With the descriptions that the terms were learned from."""
        stage = super().resolve(session, home)
        recipe = session.get_one(Run, stage.link).recipe
        return replace(stage, embeddings=recipe["embeddings"], space=recipe.get("space", BODY))

    def subjects(self) -> Subjects:
        """Every image that was embedded and has its place in the space."""
        query = select(Embedding.image_id, literal("")).where(Embedding.run_id == self.embeddings)
        if self.space == BODY:
            return query
        placed = select(Alignment.image_id).where(Alignment.run_id == self.space, Alignment.accepted)
        return query.where(Embedding.image_id.in_(placed))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Image id to its Regions."""
        found = _regions(session, self.embeddings, self.space, Image.id.in_(ids))
        return {image: regions for image, _, _, regions in found}

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
