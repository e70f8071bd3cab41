"""What a search for similar regions and cases compares: vectors and scores of terms, a part at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, literal, or_, select
from sqlalchemy.orm import Session

from db.tables import Concept, Embedding, Image, Region, Run, Study, TermEvidence, TermMap

CHUNK = 200  # images read at once


@dataclass(frozen=True, slots=True)
class Searched:
    """What is searched: the run of `embed` and that of `map` (empty where there is none)."""

    embeddings: str
    maps: str


@dataclass(frozen=True, slots=True)
class Term:
    """A mapped concept, and whether its maps carry anything."""

    id: str
    name: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Member:
    """An image that is searched, its patient, and how many regions it has."""

    image: str
    study: str
    patient: str
    regions: int


@dataclass(frozen=True, slots=True)
class Compared:
    """Features (n, d) and scores of terms (n, terms) of some images, one after the other."""

    features: NDArray[np.float32]
    profiles: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the regions of an image are: slices (n,), boxes (n, 4) as fractions, and the label map of supervoxels."""

    slices: NDArray[Any]
    boxes: NDArray[Any]
    labels: NDArray[Any] | None


def built_on(session: Session, maps: str) -> Searched:
    """A run of `map` with the embeddings that its regions are those of."""
    return Searched(session.get_one(Run, maps).recipe["embeddings"], maps)


def mapped_terms(session: Session, maps: str) -> list[Term]:
    """The concepts that a run of `map` has mapped, by id."""
    run = session.get(Run, maps)
    verdict = select(TermEvidence.verdict).where(
        TermEvidence.run_id == (run.recipe.get("link", "") if run else ""), TermEvidence.concept_id == Concept.id
    )
    there = select(TermMap.concept_id).where(TermMap.run_id == maps).distinct()
    query = select(Concept.id, Concept.name, func.coalesce(verdict.scalar_subquery(), "")).where(Concept.id.in_(there))
    return [Term(*row) for row in session.execute(query.order_by(Concept.id))]


def members(session: Session, searched: Searched, *, whole: bool = False) -> list[Member]:
    """The images that are searched, by id; with `whole` each counts as one."""
    count = literal(1) if whole else Region.count
    query = (
        select(Image.id, Image.study_id, Study.patient_id, count)
        .join(Embedding, Embedding.image_id == Image.id)
        .join(Study, Study.id == Image.study_id)
        .where(Embedding.run_id == searched.embeddings)
        .order_by(Image.id)
    )
    if not whole:
        query = query.join(Region, (Region.image_id == Image.id) & (Region.run_id == Embedding.run_id))
    if searched.maps:
        mapped = select(TermMap.image_id).where(TermMap.run_id == searched.maps)
        query = query.where(Image.id.in_(mapped))
    return [Member(*row) for row in session.execute(query.execution_options(yield_per=10_000))]


def compared(
    session: Session, searched: Searched, images: Sequence[str], concepts: Sequence[str], *, whole: bool = False
) -> Iterator[Compared]:
    """Features and scores of these images in their order, some hundred images at a time.

    Of each region, or with `whole` of each image. ValueError where an image lacks the map of a concept: the run was
    stopped, and goes on when it is started again.
    """
    vectors = Embedding.whole if whole else Embedding.regions
    scores: Any = TermMap.score if whole else TermMap.regions
    for start in range(0, len(images), CHUNK):
        some = list(images[start : start + CHUNK])
        looks = select(Embedding.image_id, vectors).where(
            Embedding.run_id == searched.embeddings, Embedding.image_id.in_(some)
        )
        found = {image: np.atleast_2d(vector) for image, vector in session.execute(looks)}
        maps = select(TermMap.image_id, TermMap.concept_id, scores).where(
            TermMap.run_id == searched.maps, TermMap.image_id.in_(some), TermMap.concept_id.in_(list(concepts))
        )
        told = {(image, concept): np.atleast_1d(score) for image, concept, score in session.execute(maps)}
        if len(told) != len(some) * len(concepts):
            raise ValueError("some images are not mapped for all terms: run `phenotype map` to its end")
        empty = np.zeros((sum(len(found[image]) for image in some), 0), np.float32)
        columns = [np.concatenate([told[image, concept] for image in some]) for concept in concepts]
        yield Compared(
            np.concatenate([found[image] for image in some]).astype(np.float32),
            np.column_stack(columns).astype(np.float32) if columns else empty,
        )


def region_places(session: Session, embeddings: str, image: str) -> Places | None:
    """The places of the regions of an image; None where it has none under this run."""
    query = select(Region.slices, Region.boxes, Region.labels)
    row = session.execute(query.where(Region.run_id == embeddings, Region.image_id == image)).first()
    return Places(*row) if row else None


def image_of(session: Session, embeddings: str, name: str) -> str | None:
    """The embedded image of this id, or of the study of this id where that has but one; None where there is none."""
    query = select(Image.id).join(Embedding, Embedding.image_id == Image.id).where(Embedding.run_id == embeddings)
    found = session.scalars(query.where(or_(Image.id == name, Image.study_id == name)).limit(2)).all()
    return found[0] if len(found) == 1 else None
