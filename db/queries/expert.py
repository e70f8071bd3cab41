"""What experts have drawn: onto which image it belongs, what is kept of it, and how it compares with the maps."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import and_, or_, select, text
from sqlalchemy.orm import Session

from db.queries.gallery import ShownImage
from db.tables import (
    Agreement,
    Concept,
    ExpertRecord,
    ExpertRegion,
    Image,
    ImageInstance,
    Instance,
    Patient,
    Region,
    Run,
    Study,
    TermMap,
    VaultInstance,
    VaultSeries,
    VaultStudy,
)
from db.write import delete_rows, insert_rows


@dataclass(frozen=True, slots=True)
class Found:
    """An image that is meant, and the slice of it where an object of it was named."""

    image: str
    slice: int | None = None


@dataclass(frozen=True, slots=True)
class Plane:
    """A slice: where it lies in the patient (mm), as its header says."""

    position: list[float] | None
    orientation: list[float] | None
    spacing: list[float] | None


@dataclass(frozen=True, slots=True)
class Geometry:
    """The size of an image in pixels, and its slices in order; one, without a place, for each frame of a multi-frame
    object."""

    image: str
    rows: int
    columns: int
    planes: tuple[Plane, ...]


@dataclass(frozen=True, slots=True)
class ExpertMark:
    """A region that a reader drew; empty (bottom = top) where the reader looked and saw nothing."""

    reader: str
    concept: str
    slice: int
    box: tuple[float, float, float, float]
    mask: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image into which readers have drawn, and the map of one concept over it (None where it was not mapped)."""

    image: str
    patient: str
    fold: int
    marks: tuple[ExpertMark, ...]
    scores: NDArray[Any] | None  # (n,)
    call: str
    slices: NDArray[Any] | None  # (n,)
    boxes: NDArray[Any] | None  # (n, 4)
    labels: NDArray[Any] | None


@dataclass(frozen=True, slots=True)
class AgreementRow:
    """A figure of agreement, with its interval over patients."""

    finding: str
    reader: str
    against: str
    figure: str
    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True, slots=True)
class ExpertDisagreement:
    """Where a map and a reader contradict each other, with what speaks for either and what the reports say.

    kind: "map only", "reader only", or "elsewhere" (both see it, but the map's highest place is not where it was drawn)
    """

    kind: str
    finding: str
    reader: str
    image: str
    study: str
    score: float
    probability: float | None
    peak_slice: int
    peak_row: float
    peak_column: float
    drawn: int  # regions of the reader
    reported: str | None


@dataclass(frozen=True, slots=True)
class SideBySide:
    """An image to be shown with the map of a concept and what readers drew on the slice that is shown."""

    image: ShownImage
    scores: NDArray[Any]
    boxes: NDArray[Any]
    labels: NDArray[Any] | None  # (rows, columns) of the slice
    probability: float | None
    call: str
    marks: tuple[ExpertMark, ...]


# ---------------------------------------------------------------- onto which image


def images_named(session: Session, name: str) -> list[Found]:
    """The images of this id, of the object of this SOP instance UID, or of the study of this id or accession number."""
    direct = session.scalar(select(Image.id).where(Image.id == name))
    if direct:
        return [Found(direct)]
    objects = (
        select(ImageInstance.image_id, ImageInstance.position, Image.slices, Instance.frames)
        .join(Instance, Instance.id == ImageInstance.instance_id)
        .join(Image, Image.id == ImageInstance.image_id)
        .join(VaultInstance, VaultInstance.instance_id == ImageInstance.instance_id)
        .where(VaultInstance.sop_instance_uid == name)
        .order_by(ImageInstance.image_id)
    )
    found = [Found(image, None if frames > 1 else at) for image, at, _, frames in session.execute(objects)]
    if found:
        return found
    studies = (
        select(Image.id)
        .join(Study, Study.id == Image.study_id)
        .outerjoin(VaultStudy, VaultStudy.study_id == Study.id)
        .where(or_(Study.id == name, VaultStudy.accession == name))
        .order_by(Image.id)
        .distinct()
    )
    return [Found(image) for image in session.scalars(studies)]


def images_of_series(session: Session, series_uid: str) -> list[Found]:
    """The images that were made of the series of this UID."""
    query = select(Image.id).join(VaultSeries, VaultSeries.series_id == Image.series_id)
    return [Found(i) for i in session.scalars(query.where(VaultSeries.series_uid == series_uid).order_by(Image.id))]


def geometry(session: Session, image: str) -> Geometry:
    """The size and the slices of an image."""
    own = session.get_one(Image, image)
    query = (
        select(Instance.position, Instance.orientation, Instance.spacing)
        .join(ImageInstance, ImageInstance.instance_id == Instance.id)
        .where(ImageInstance.image_id == image)
        .order_by(ImageInstance.position)
    )
    planes = tuple(Plane(*row) for row in session.execute(query))
    if len(planes) != own.slices:
        planes = tuple(Plane(None, None, None) for _ in range(own.slices))
    return Geometry(image, own.rows, own.columns, planes)


def concept_names(session: Session) -> dict[str, str]:
    """Ids, names and codes of all concepts, in lower case, to their ids; an id goes before a name before a code."""
    rows = session.execute(
        select(Concept.id, Concept.name, Concept.radlex, Concept.snomed, Concept.mesh).order_by(Concept.id)
    ).all()
    found: dict[str, str] = {}
    for position in range(5):
        for row in rows:
            if row[position]:
                found.setdefault(row[position].lower(), row[0])
    return found


# ---------------------------------------------------------------- what is kept


def keep(
    session: Session, file_id: str, records: Iterable[Mapping[str, Any]], regions: Iterable[Mapping[str, Any]]
) -> int:
    """Write what a file holds in place of what it held before; returns how many regions were new."""
    before = set(session.scalars(select(ExpertRegion.id).where(ExpertRegion.file_id == file_id)))
    delete_rows(session, ExpertRecord, file_id=file_id)
    delete_rows(session, ExpertRegion, file_id=file_id)
    insert_rows(session, ExpertRecord, records)
    rows = list(regions)
    insert_rows(session, ExpertRegion, rows)
    return len({row["id"] for row in rows} - before)


def keep_agreement(session: Session, maps: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the figures of a run of `map` in place of those from before."""
    delete_rows(session, Agreement, run_id=maps)
    insert_rows(session, Agreement, rows)


# ---------------------------------------------------------------- compared


def drawn_concepts(session: Session) -> list[tuple[str, str, str]]:
    """Concept, its name and reader of all that was asked for and drawn, in this order."""
    query = select(ExpertRegion.concept_id, Concept.name, ExpertRegion.reader)
    query = query.join(Concept, Concept.id == ExpertRegion.concept_id).distinct()
    return [(c, n, r) for c, n, r in session.execute(query.order_by(ExpertRegion.concept_id, ExpertRegion.reader))]


def map_scores(session: Session, maps: str, concept: str) -> list[NDArray[Any]]:
    """The scores of the regions of each image that any reader has read, for one concept."""
    query = select(TermMap.regions).where(
        TermMap.run_id == maps,
        TermMap.concept_id == concept,
        TermMap.image_id.in_(select(ExpertRegion.image_id)),
    )
    return list(session.scalars(query.order_by(TermMap.image_id)))


def read_images(session: Session, maps: str, concept: str) -> Iterator[ReadImage]:
    """The images that any reader has read, with the map of a concept and all that was drawn, by image id.

    A reader who drew anything into an image is taken to have looked there for all concepts that they draw anywhere.
    """
    run = session.get(Run, maps)
    query = (
        select(
            Image.id,
            Study.patient_id,
            Patient.fold,
            TermMap.regions,
            TermMap.call,
            Region.slices,
            Region.boxes,
            Region.labels,
        )
        .join(Study, Study.id == Image.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .outerjoin(TermMap, and_(TermMap.image_id == Image.id, TermMap.run_id == maps, TermMap.concept_id == concept))
        .outerjoin(
            Region,
            and_(Region.image_id == Image.id, Region.run_id == (run.recipe.get("embeddings", "") if run else "")),
        )
        .where(Image.id.in_(select(ExpertRegion.image_id)))
        .order_by(Image.id)
    )
    for image, patient, fold, scores, call, slices, boxes, labels in session.execute(
        query.execution_options(yield_per=50)
    ):
        yield ReadImage(image, patient, fold, marks_of(session, image), scores, call or "", slices, boxes, labels)


def marks_of(session: Session, image: str) -> tuple[ExpertMark, ...]:
    """All that readers drew into an image."""
    m = ExpertRegion
    query = select(m.reader, m.concept_id, m.slice, m.top, m.left, m.bottom, m.right, m.mask)
    query = query.where(m.image_id == image).order_by(m.reader, m.concept_id, m.slice, m.id)
    return tuple(ExpertMark(r, c, s, (a, b, d, e), mask) for r, c, s, a, b, d, e, mask in session.execute(query))


def agreements(session: Session, maps: str) -> list[AgreementRow]:
    """The figures of a run of `map`, by finding, reader and what the reader is compared with."""
    a = Agreement
    query = (
        select(Concept.name, a.reader, a.against, a.figure, a.value, a.low, a.high, a.count)
        .join(Concept, Concept.id == a.concept_id)
        .where(a.run_id == maps)
        .order_by(Concept.name, a.reader, a.against != "map", a.against, a.figure)
    )
    return [AgreementRow(*row) for row in session.execute(query)]


_DISAGREEMENTS = """
WITH looked AS (SELECT DISTINCT reader, image_id FROM expert_region),
asked AS (SELECT DISTINCT reader, concept_id FROM expert_region),
drawn AS (
  SELECT reader, image_id, concept_id, count(*) AS regions FROM expert_region
  WHERE bottom > top GROUP BY reader, image_id, concept_id
),
pairs AS (
  SELECT t.concept_id, l.reader, t.image_id, t.score, t.probability, t.call, t.peak_slice, t.peak_row, t.peak_column,
    coalesce(d.regions, 0) AS drawn,
    EXISTS (
      SELECT 1 FROM expert_region x
      WHERE x.reader = l.reader AND x.image_id = t.image_id AND x.concept_id = t.concept_id
        AND x.slice = t.peak_slice AND t.peak_row >= x.top AND t.peak_row < x.bottom
        AND t.peak_column >= x."left" AND t.peak_column < x."right"
    ) AS met
  FROM term_map t JOIN looked l ON l.image_id = t.image_id
  JOIN asked a ON a.reader = l.reader AND a.concept_id = t.concept_id
  LEFT JOIN drawn d ON d.reader = l.reader AND d.image_id = t.image_id AND d.concept_id = t.concept_id
  WHERE t.run_id = :maps
),
told AS (
  SELECT p.*, CASE WHEN p.call = 'here' AND p.drawn = 0 THEN 'map only'
    WHEN p.call = 'not here' AND p.drawn > 0 THEN 'reader only'
    WHEN p.call = 'here' AND NOT p.met THEN 'elsewhere' END AS kind
  FROM pairs p
)
SELECT t.kind, k.name AS finding, t.reader, t.image_id AS image, i.study_id AS study, t.score, t.probability,
  t.peak_slice, t.peak_row, t.peak_column, t.drawn,
  (SELECT min(b.value) FROM label b JOIN current_run c ON c.id = b.run_id
   WHERE b.study_id = i.study_id AND b.concept_id = t.concept_id) AS reported
FROM told t JOIN image i ON i.id = t.image_id JOIN concept k ON k.id = t.concept_id
WHERE t.kind IS NOT NULL
ORDER BY k.name, t.reader, t.kind, t.probability DESC, t.image_id
LIMIT :limit
"""


def expert_disagreements(session: Session, maps: str, limit: int = 100) -> list[ExpertDisagreement]:
    """Where the maps of a run and readers contradict each other; only of images whose maps come with a call."""
    rows = session.execute(text(_DISAGREEMENTS), {"maps": maps, "limit": limit})
    return [ExpertDisagreement(*row) for row in rows]


# ---------------------------------------------------------------- shown


def side_by_side(session: Session, maps: str, concept: str, limit: int) -> list[SideBySide]:
    """Images into which a reader drew the concept, those with the highest scores first, on the slice with the most
    drawn that has a map."""
    run = session.get_one(Run, maps)
    there = select(ExpertRegion.image_id).where(
        ExpertRegion.concept_id == concept, ExpertRegion.bottom > ExpertRegion.top
    )
    query = (
        select(
            Image.id,
            Image.study_id,
            Image.kind,
            Image.view,
            TermMap.regions,
            TermMap.probability,
            TermMap.call,
            Region.slices,
            Region.boxes,
            Region.labels,
        )
        .join(TermMap, TermMap.image_id == Image.id)
        .join(Region, and_(Region.image_id == Image.id, Region.run_id == run.recipe.get("embeddings", "")))
        .where(TermMap.run_id == maps, TermMap.concept_id == concept, Image.id.in_(there))
        .order_by(TermMap.score.desc(), Image.id)
        .limit(limit)
    )
    found = []
    rows: Sequence[Any] = session.execute(query).all()
    for image, study, kind, view, scores, probability, call, slices, boxes, labels in rows:
        marks = [m for m in marks_of(session, image) if m.concept == concept and m.box[2] > m.box[0]]
        area = {
            int(one): sum((m.box[2] - m.box[0]) * (m.box[3] - m.box[1]) for m in marks if m.slice == one)
            for one in sorted(set(slices.tolist()))
        }
        shown = max(area, key=lambda one: area[one])
        here = slices == shown
        own = tuple(m for m in marks if m.slice == shown)
        plane = None if labels is None else labels[shown]
        place = ShownImage(image, study, kind, view, shown, 0.5, 0.5)
        values = scores if labels is not None else scores[here]
        found.append(
            SideBySide(place, values, boxes if labels is not None else boxes[here], plane, probability, call, own)
        )
    return found


def tuned_threshold(session: Session, maps: str, concept: str) -> float | None:
    """The threshold of a concept's map that overlaps best with what readers drew; None where none was tuned."""
    a = Agreement
    query = select(a.value).where(
        a.run_id == maps, a.concept_id == concept, a.against == "map", a.figure == "threshold", a.value.is_not(None)
    )
    return session.scalars(query.order_by(a.count.desc(), a.reader)).first()
