"""`phenotype similar`: cases and regions that look alike, mean alike, or show a term."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db.queries import gallery, similar
from db.queries.labels import concept_ids
from db.queries.similar import Compared, Member, Searched, Term
from db.session import open_database
from phenotype import show
from phenotype.linking import retrieval
from phenotype.linking.retrieval import WEIGHT, Found, Inverted, NoIndex, Space, Standard
from phenotype.settings import Settings
from phenotype.show import Csv, Json
from phenotype.stage import Refused, done_by, find_run

_SAMPLE = 2000  # images that the spread of features and scores is measured on
_MORE = 20  # regions looked for in place of one: neighbours in one image are alike, and but the best of them is shown


@dataclass(frozen=True, slots=True)
class SimilarRow:
    """An image or a region of it, with the terms that stand out there and what the reports of its study assert.

    `measure` is a distance (lower is nearer) or, where a term was asked for, a score (higher is more); `region` is
    counted from 0, `slice`, `row` and `column` are of its middle, as fractions of the image but for the slice.
    """

    rank: int
    measure: float
    image: str
    study: str
    region: int | None
    slice: int | None
    row: float | None
    column: float | None
    terms: str
    reported: str


@dataclass(frozen=True, slots=True)
class _Gallery:
    """What is searched, and a way to read it in parts."""

    session: Session
    searched: Searched
    terms: Sequence[Term]
    members: Sequence[Member]
    whole: bool

    @property
    def patients(self) -> NDArray[np.int64]:
        """The patient's number of each row."""
        _, numbers = np.unique([m.patient for m in self.members], return_inverse=True)
        return np.repeat(numbers, [m.regions for m in self.members]).astype(np.int64)

    def read(self, images: Sequence[str] = ()) -> Iterator[Compared]:
        """Features and scores of these images, or of all."""
        wanted = list(images) or [member.image for member in self.members]
        concepts = [term.id for term in self.terms]
        return similar.compared(self.session, self.searched, wanted, concepts, whole=self.whole)

    def standards(self) -> tuple[Standard, Standard]:
        """The spread of the features and of the scores, of some thousand images from all over."""
        step = max(1, -(-len(self.members) // _SAMPLE))
        parts = list(self.read([member.image for member in self.members[::step]]))
        return Standard.of(p.features for p in parts), Standard.of(p.profiles for p in parts)


@dataclass(frozen=True, slots=True)
class _Query:
    """The image that is asked about, the number of its patient, and what it or the place in it looks like."""

    image: str
    patient: int
    compared: Compared


def similar_cases(
    context: typer.Context,
    image: Annotated[str, typer.Argument(help="an image by its id, or a study with one; none: only by --term")] = "",
    row: Annotated[float | None, typer.Option(help="of the place in it, 0 (top) to 1; none: the whole image")] = None,
    column: Annotated[float | None, typer.Option(help="of the place in it, 0 (left) to 1")] = None,
    slice_: Annotated[int | None, typer.Option("--slice", help="of the place in it, from 0")] = None,
    term: Annotated[str, typer.Option(help="a concept, by id or name: regions that show it")] = "",
    weight: Annotated[float, typer.Option(help="0: looks alike, 1: means alike", min=0.0, max=1.0)] = WEIGHT,
    top: Annotated[int, typer.Option(help="how many", min=1)] = 10,
    same_patient: Annotated[bool, typer.Option("--same-patient", help="with the patient's own images")] = False,
    approximate: Annotated[
        bool, typer.Option("--approximate", help="by an index, for millions of regions; needs the extra search")
    ] = False,
    maps: Annotated[str, typer.Option(help="the run of `map`; nothing for the current one")] = "",
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Similar cases (an image), similar regions (a place in it), or where a term is seen; or what looks like a place
    and shows a term."""
    if (row is None) != (column is None):
        raise Refused("place", "a place needs both --row and --column")
    if not image and not term:
        raise Refused("query", "name an image, or a term by --term, or both")
    settings: Settings = context.obj
    database = open_database(settings.database)
    with database.reading() as session:
        searched = _runs(session, maps, needed=bool(term) or bool(maps))
        whole = row is None and bool(image)
        known = similar.mapped_terms(session, searched.maps)
        sought = _term(session, known, term) if term else None
        # terms without evidence would only add noise to what a region means
        terms = [sought] if sought else [t for t in known if t.verdict == "evidence"]
        if not terms:
            show.messages.print("no term has evidence, so only looks are compared", markup=False)
            weight = 0.0
        room = _Gallery(session, searched, terms, similar.members(session, searched, whole=whole), whole)
        if not room.members:
            raise Refused("empty", "no image can be searched: `phenotype embed`, and `phenotype map`, come before")
        query = _query(room, image, row, column, slice_)
        own = None if query is None or same_patient else query.patient
        looks, means = room.standards()
        if sought:
            found, measures = _by_term(room, (looks, means), query, weight, top * _MORE, own)
        elif query:
            space = Space(looks, means, weight)
            vector = space.vectors(query.compared.features, query.compared.profiles)
            home = settings.home_of(database) if approximate else None
            hits = _nearest(room, space, vector, top * _MORE, own, home)
            found, measures = hits.rows[0], hits.distances[0]
        rows = _rows(room, means, found, measures, top, query.image if query else "")
    columns = [field for field in SimilarRow.__slots__ if as_json or as_csv or field not in ("study", "region")]
    columns = [field for field in columns if as_json or any(getattr(row, field) is not None for row in rows)]
    values = [[getattr(row, field) for field in columns] for row in rows]
    show.answer(columns, values, as_json=as_json, as_csv=as_csv)


def _runs(session: Session, maps: str, *, needed: bool) -> Searched:
    try:
        return similar.built_on(session, find_run(session, "map", maps))
    except Refused:
        if needed:
            raise
    return Searched(find_run(session, "embed", ""), "")


def _term(session: Session, known: Sequence[Term], name: str) -> Term:
    concept = concept_ids(session, [name]).get(name, "")
    found = next((t for t in known if t.id == concept), None)
    if found is None:
        names = ", ".join(t.name for t in known) or "none"
        raise Refused("term", f"'{name}' was not mapped; mapped are: {names}")
    if found.verdict != "evidence":
        show.messages.print(f"the maps of {found.name} carry no evidence: do not rely on them", markup=False)
    return found


def _query(room: _Gallery, image: str, row: float | None, column: float | None, index: int | None) -> _Query | None:
    """What the image or the place in it looks like; nothing where no image is named."""
    if not image:
        return None
    found = similar.image_of(room.session, room.searched.embeddings, image)
    place = next((n for n, member in enumerate(room.members) if member.image == found), None)
    if found is None or place is None:
        raise Refused("image", "no such image was described, or several of this study: image_view lists their ids")
    start = sum(member.regions for member in room.members[:place])
    looks = next(room.read([found]))
    if row is not None and column is not None:
        region = _region(room, found, row, column, index)
        looks = Compared(looks.features[region, None], looks.profiles[region, None])
    return _Query(found, int(room.patients[start]), looks)


def _region(room: _Gallery, image: str, row: float, column: float, index: int | None) -> int:
    """The region at a place: of those that hold it, the one whose middle is nearest."""
    places = similar.region_places(room.session, room.searched.embeddings, image)
    if places is None or not len(places.slices):
        raise Refused("regions", "this image has no regions")
    if not (0 <= row <= 1 and 0 <= column <= 1):
        raise Refused("place", f"--row {row} --column {column}: both are fractions of the image, from 0 to 1")
    slices = np.unique(places.slices)
    index = int(slices[len(slices) // 2]) if index is None else index
    if places.labels is not None:
        plane = places.labels[min(max(index, 0), len(places.labels) - 1)]
        here = np.minimum((np.array([row, column]) * plane.shape).astype(int), np.array(plane.shape) - 1)
        if plane[tuple(here)]:
            return int(plane[tuple(here)]) - 1
    there = np.flatnonzero(places.slices == slices[np.argmin(np.abs(slices - index))])
    middles = (places.boxes[there, :2] + places.boxes[there, 2:]) / 2
    return int(there[np.argmin(((middles - [row, column]) ** 2).sum(axis=1))])


def _nearest(
    room: _Gallery, space: Space, query: NDArray[np.float32], top: int, own: int | None, home: Path | None
) -> Found:
    asked = None if own is None else [own]
    patients = room.patients

    def blocks() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        start = 0
        for part in room.read():
            vectors = space.vectors(part.features, part.profiles)
            yield vectors, patients[start : start + len(vectors)]
            start += len(vectors)

    if home is None:
        return retrieval.nearest(query, blocks(), top, asked)
    try:
        return _index(room, space, blocks, home).search(query, top, asked)
    except NoIndex as error:
        raise Refused("no_index", str(error)) from None


def _index(room: _Gallery, space: Space, blocks: Any, home: Path) -> Inverted:
    """The index of what is searched under this weight, made when it is first asked for."""
    runs = [run for run in (room.searched.embeddings, room.searched.maps) if run]
    what = [*runs, done_by(room.session, runs), *(t.id for t in room.terms), repr(space.weight), str(room.whole)]
    path = home / "search" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:16]}.ivf"
    if path.is_file():
        return Inverted.read(path, room.patients)
    step = max(1, -(-len(room.members) // _SAMPLE))
    some = list(room.read([member.image for member in room.members[::step]]))
    index = Inverted(np.concatenate([space.vectors(p.features, p.profiles) for p in some]), len(room.patients))
    for vectors, patients in blocks():
        index.add(vectors, patients)
    path.parent.mkdir(parents=True, exist_ok=True)
    index.write(path)
    return index


def _by_term(
    room: _Gallery,
    standards: tuple[Standard, Standard],
    query: _Query | None,
    weight: float,
    top: int,
    own: int | None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows that show the term most; with a query, those that also look like it."""
    looks, means = standards
    patients = room.patients

    def blocks() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        start = 0
        for part in room.read():
            scores = part.profiles[:, 0]
            if query is not None:
                scores = retrieval.shown_and_alike(
                    looks(query.compared.features), looks(part.features), means(part.profiles)[:, 0], weight
                )
            yield scores, patients[start : start + len(scores)]
            start += len(scores)

    return retrieval.highest(blocks(), top, own)


def _rows(
    room: _Gallery,
    means: Standard,
    found: NDArray[np.int64],
    measures: NDArray[np.float32],
    top: int,
    asked: str,
) -> list[SimilarRow]:
    """The best of each image, told in words."""
    ends = np.cumsum([member.regions for member in room.members])
    chosen: dict[int, tuple[int, float]] = {}
    for row, measure in zip(found.tolist(), measures.tolist(), strict=True):
        number = int(np.searchsorted(ends, row, side="right")) if row >= 0 else -1
        if number >= 0 and number not in chosen and room.members[number].image != asked:
            chosen[number] = row - int(ends[number]) + room.members[number].regions, measure
    best = list(chosen.items())[:top]
    said = gallery.said(room.session, [room.members[number].study for number, _ in best])
    rows = []
    for rank, (number, (region, measure)) in enumerate(best, 1):
        member = room.members[number]
        profile = means(next(room.read([member.image])).profiles[region, None])[0]
        outstanding = sorted(zip(profile.tolist(), room.terms, strict=True), key=lambda pair: -pair[0])[:3]
        places = None if room.whole else similar.region_places(room.session, room.searched.embeddings, member.image)
        there = None if places is None else places.boxes[region].tolist()
        rows.append(
            SimilarRow(
                rank=rank,
                measure=measure,
                image=member.image,
                study=member.study,
                region=None if room.whole else region,
                slice=None if places is None else int(places.slices[region]),
                row=None if there is None else round((there[0] + there[2]) / 2, 4),
                column=None if there is None else round((there[1] + there[3]) / 2, 4),
                terms=", ".join(f"{term.name} {value:+.1f}" for value, term in outstanding if value > 1),
                reported=", ".join(said[member.study].present) if member.study in said else "",
            )
        )
    return rows
