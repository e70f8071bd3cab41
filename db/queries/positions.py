"""Where images lie in the common space, and which images of a patient follow one another."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session, aliased

from db.tables import Alignment, Image, ImageInstance, Instance, Region, Study, TermEvidence, TermMap

CHUNK = 5000  # ids in one IN (...)
LATERAL = ("LATERAL", "LL", "RL", "LLD", "RLD")  # views from the side
PLAIN = ("CR", "DX", "RG")  # one thing by several names


@dataclass(frozen=True, slots=True)
class ImageGeometry:
    """What is known of an image's place without its pixels.

    shape        (slices,) rows, columns: a radiograph has no slices
    spacing      mm along them; empty where it is not known
    orientation  directions of a row and of a column, as of DICOM
    origin       the middle of the first voxel of the first slice, mm
    """

    image_id: str
    study_id: str
    patient_id: str
    kind: str
    modality: str
    view: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: tuple[float, ...] | None
    origin: tuple[float, ...] | None
    day: date | None  # shifted: only differences within a patient mean anything


@dataclass(frozen=True, slots=True)
class Lying:
    """An image in the common space of one run."""

    image_id: str
    patient_id: str
    kind: str
    shape: tuple[int, ...]
    route: str
    quality: float
    accepted: bool
    reason: str
    forward: NDArray[Any]
    backward: NDArray[Any]


@dataclass(frozen=True, slots=True)
class SeenTerm:
    """A concept on an image as one run of `map` sees it; places and map as of `db.tables.TermMap`."""

    concept_id: str
    score: float
    probability: float | None
    threshold: float | None  # of the probability; None where the run that learned it has none
    call: str
    slice: int
    row: float
    column: float
    regions: NDArray[Any]


def geometries(session: Session, ids: Sequence[str] | None = None, *, run_id: str = "") -> list[ImageGeometry]:
    """The radiographs and volumes among these images, or of a run of `assemble`; by image id."""
    query = (
        select(Image, Study.patient_id, Study.shifted_date, Instance.position)
        .join(Study, Study.id == Image.study_id)
        .outerjoin(ImageInstance, (ImageInstance.image_id == Image.id) & (ImageInstance.position == 0))
        .outerjoin(Instance, Instance.id == ImageInstance.instance_id)
        .where(Image.kind.in_(("radiograph", "volume")))
        .order_by(Image.id)
    )
    if run_id:
        query = query.where(Image.run_id == run_id)
    parts = [None] if ids is None else [list(ids[i : i + CHUNK]) for i in range(0, len(ids), CHUNK)]
    found = []
    for part in parts:
        some = query if part is None else query.where(Image.id.in_(part))
        found += [_geometry(*row) for row in session.execute(some)]
    return found


def accepted_places(session: Session, run_id: str, ids: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Of those of these images that a run of `normalize` has accepted, where the points of the space lie in them."""
    found: dict[str, NDArray[Any]] = {}
    for i in range(0, len(ids), CHUNK):
        query = select(Alignment.image_id, Alignment.backward).where(
            Alignment.run_id == run_id, Alignment.accepted, Alignment.image_id.in_(ids[i : i + CHUNK])
        )
        found |= {row.image_id: row.backward for row in session.execute(query)}
    return found


def _geometry(image: Image, patient: str, day: date | None, position: list[float] | None) -> ImageGeometry:
    shape = (image.slices, image.rows, image.columns)
    return ImageGeometry(
        image_id=image.id,
        study_id=image.study_id,
        patient_id=patient,
        kind=image.kind,
        modality=image.modality,
        view=image.view,
        shape=shape if image.kind == "volume" else shape[1:],
        spacing=tuple(image.spacing or ()),
        orientation=tuple(image.orientation) if image.orientation else None,
        origin=tuple(position) if position else None,
        day=day,
    )


def lying(
    session: Session, run_id: str, *, images: Sequence[str] = (), patient: str = "", kind: str = ""
) -> list[Lying]:
    """How images lie in the common space of a run: all of them, or some, or a patient's, or of one kind; by image id.

    Grids are read one image at a time: thousands do not fit into memory at once.
    """
    query = (
        select(Alignment, Image, Study.patient_id)
        .join(Image, Image.id == Alignment.image_id)
        .join(Study, Study.id == Image.study_id)
        .where(Alignment.run_id == run_id)
        .order_by(Alignment.image_id)
    )
    if images:
        query = query.where(Alignment.image_id.in_(list(images)))
    if patient:
        query = query.where(Study.patient_id == patient)
    if kind:
        query = query.where(Image.kind == kind)
    return [_lying(*row) for row in session.execute(query.execution_options(yield_per=100))]


def _lying(alignment: Alignment, image: Image, patient: str) -> Lying:
    shape = (image.slices, image.rows, image.columns)
    return Lying(
        image_id=image.id,
        patient_id=patient,
        kind=image.kind,
        shape=shape if image.kind == "volume" else shape[1:],
        route=alignment.route,
        quality=alignment.quality,
        accepted=alignment.accepted,
        reason=alignment.reason,
        forward=alignment.forward,
        backward=alignment.backward,
    )


def seen_terms(session: Session, map_run: str, link_run: str, ids: Sequence[str]) -> dict[str, list[SeenTerm]]:
    """What a run of `map` sees on these images, by image id; with the threshold of the run that learned the terms."""
    query = (
        select(TermMap, TermEvidence.threshold)
        .outerjoin(TermEvidence, (TermEvidence.run_id == link_run) & (TermEvidence.concept_id == TermMap.concept_id))
        .where(TermMap.run_id == map_run, TermMap.image_id.in_(list(ids)))
        .order_by(TermMap.image_id, TermMap.concept_id)
    )
    found: dict[str, list[SeenTerm]] = {}
    for term, threshold in session.execute(query):
        seen = SeenTerm(
            concept_id=term.concept_id,
            score=term.score,
            probability=term.probability,
            threshold=threshold,
            call=term.call,
            slice=term.peak_slice,
            row=term.peak_row,
            column=term.peak_column,
            regions=term.regions,
        )
        found.setdefault(term.image_id, []).append(seen)
    return found


def followed(run_id: str) -> Select[tuple[str, str]]:
    """A SELECT of the images of a run of `assemble` that have one before them, and the id of that one: of the same
    patient and kind, of one modality, both from the side or neither, from the nearest earlier study that has one."""
    then, before = aliased(Image), aliased(Study)
    earlier_day = or_(
        before.shifted_date < Study.shifted_date,
        and_(before.shifted_date == Study.shifted_date, before.id < Study.id),
    )
    earlier = (
        select(then.id)
        .join(before, before.id == then.study_id)
        .where(
            then.run_id == Image.run_id,
            then.kind == Image.kind,
            or_(then.modality == Image.modality, and_(then.modality.in_(PLAIN), Image.modality.in_(PLAIN))),
            then.view.in_(LATERAL) == Image.view.in_(LATERAL),
            before.patient_id == Study.patient_id,
            earlier_day,
        )
        .order_by(before.shifted_date.desc(), before.id.desc(), then.id)
        .limit(1)
        .correlate(Image, Study)
        .scalar_subquery()
    )
    pairs = (
        select(Image.id, earlier.label("earlier"))
        .join(Study, Study.id == Image.study_id)
        .where(Image.run_id == run_id, Image.kind.in_(("radiograph", "volume")))
        .subquery()
    )
    return select(pairs.c.id, pairs.c.earlier).where(pairs.c.earlier.is_not(None))


def region_places(session: Session, run_id: str, ids: Sequence[str]) -> dict[str, Region]:
    """The regions of images as one run of `embed` made them, by image id."""
    query = select(Region).where(Region.run_id == run_id, Region.image_id.in_(list(ids)))
    return {region.image_id: region for region in session.scalars(query)}
