"""`phenotype expert`: regions that experts drew, taken in, compared with the maps of terms, and shown beside them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from sqlalchemy.orm import Session

from db.queries import expert as queries
from db.queries.expert import ReadImage
from db.queries.labels import concept_ids
from db.session import open_database, vault_key
from phenotype import show
from phenotype.commands.steps import FINISHED_WITH_FAILURES
from phenotype.identity import content_hash, surrogate
from phenotype.settings import Settings
from phenotype.show import Csv, Json
from phenotype.stage import Refused, find_run

if TYPE_CHECKING:
    from phenotype.linking.agreement import Case, Figure
    from phenotype.linking.expert import Drawn
    from phenotype.linking.expert_files import Images, Outcome

GROUPS = 5  # of patients: the threshold of each is tuned on the others

expert_app = typer.Typer(help="What experts drew, beside what the maps of terms show.", no_args_is_help=True)

Maps = Annotated[str, typer.Option(help="the run of `map`; nothing for the current one")]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a file: regions kept, and things that could not be used, by reason."""

    file: int
    state: str
    reason: str
    things: int
    regions: int


@expert_app.command("import")
def import_regions(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="tables (CSV), NIfTI, pictures or DICOM SEG", exists=True)],
    reader: Annotated[str, typer.Option(help="who drew, where the file does not say: a label such as A or R2")] = "",
    image: Annotated[str, typer.Option(help="the image that a mask is of, where its name does not say")] = "",
    concept: Annotated[str, typer.Option(help="the concept drawn, where the file does not say")] = "",
    name: Annotated[list[str] | None, typer.Option(help="LABEL=CONCEPT: how a name or number is to be read")] = None,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Take in boxes and masks that experts drew. A file that is taken in again replaces what it held before.

    Readers are kept as labels: anything but a role with a number or letter (A, R2, expert) becomes a pseudonym.
    """
    from phenotype.linking.expert_files import Outcome, Told, read_file

    pairs = [entry.partition("=") for entry in name or []]
    if not all(label and sign and called for label, sign, called in pairs):
        raise Refused("name", "--name is LABEL=CONCEPT, such as 1=nodule")
    told = Told(reader, image, concept, {label: called for label, _, called in pairs})
    rows: list[Taken] = []
    with open_database(context.obj.database).writing() as session:
        key = vault_key(session)
        images = _images(session)
        for number, path in enumerate(files, 1):
            try:
                outcomes = list(read_file(path, images, told))
            except Refused as error:
                outcomes = [Outcome(0, reader, reason=str(error))]
            file_id = content_hash(key, hashlib.sha256(path.read_bytes()).hexdigest())[:16]
            rows += _keep(session, key, file_id, number, outcomes)
    show.records(rows, Taken, as_json, as_csv)
    if any(row.state == "quarantined" for row in rows):
        raise typer.Exit(FINISHED_WITH_FAILURES)


def _images(session: Session) -> "Images":
    from phenotype.linking.expert import Plane, Target
    from phenotype.linking.expert_files import Images

    @lru_cache(maxsize=64)
    def target(image: str) -> Target:
        found = queries.geometry(session, image)
        planes = tuple(
            Plane(
                None if p.position is None else (p.position[0], p.position[1], p.position[2]),
                None if p.orientation is None else tuple(p.orientation),
                None if p.spacing is None else (p.spacing[0], p.spacing[1]),
            )
            for p in found.planes
        )
        return Target(image, found.rows, found.columns, planes)

    @lru_cache(maxsize=4096)
    def named(name: str) -> tuple[tuple[str, int | None], ...]:
        return tuple((found.image, found.slice) for found in queries.images_named(session, name))

    @lru_cache(maxsize=64)
    def series(uid: str) -> tuple[tuple[str, int | None], ...]:
        return tuple((found.image, found.slice) for found in queries.images_of_series(session, uid))

    return Images(named, series, target, queries.concept_names(session))


def _keep(session: Session, key: bytes, file_id: str, number: int, outcomes: "list[Outcome]") -> Iterator[Taken]:
    """Write what was found in a file; what became of it, by reason."""
    from phenotype.linking.expert import reader_of, region_id

    records: list[dict[str, Any]] = []
    regions: dict[str, dict[str, Any]] = {}
    counts: dict[tuple[str, str], list[int]] = {}
    for outcome in outcomes:
        reader = reader_of(outcome.reader, f"reader-{surrogate(key, 'reader', outcome.reader.strip().lower())[:6]}")
        state = "quarantined" if outcome.reason else "ingested"
        own = {"file_id": file_id, "reader": reader}
        records.append(own | {"number": outcome.number, "state": state, "reason": outcome.reason})
        for image, concept, drawn in outcome.regions:
            mark = region_id(image, concept, reader, drawn)
            edges = dict(zip(("top", "left", "bottom", "right"), drawn.box, strict=True))
            row = own | edges | {"id": mark, "image_id": image, "concept_id": concept}
            regions[mark] = row | {"slice": drawn.slice, "mask": drawn.mask}
        tally = counts.setdefault((state, outcome.reason), [0, 0])
        tally[0] += 1
        tally[1] += len(outcome.regions)
    queries.keep(session, file_id, records, regions.values())
    for (state, reason), (things, found) in counts.items():
        yield Taken(number, state, reason, things, found)


# ------------------------------------------------------------------------------------------------ compared


@expert_app.command()
def compare(context: typer.Context, maps: Maps = "", as_json: Json = False, as_csv: Csv = False) -> None:
    """How well the maps agree with each reader, and readers with each other: overlap, pointing, areas, kappa, extent.

    A reader who drew anything into an image is taken to have looked there for all that they draw anywhere.
    """
    database = open_database(context.obj.database)
    with database.writing() as session:
        run = find_run(session, "map", maps)
        asked = queries.drawn_concepts(session)
        if not asked:
            raise Refused("no_regions", "no expert has drawn anything: `phenotype expert import` takes it in")
        rows: list[dict[str, Any]] = []
        for concept in dict.fromkeys(concept for concept, _, _ in asked):
            readers = [reader for other, _, reader in asked if other == concept]
            for (reader, against), figures in _compared(session, run, concept, readers).items():
                own = {"run_id": run, "concept_id": concept, "reader": reader, "against": against}
                rows += [own | {"figure": figure.name} | _interval(figure) for figure in figures]
        queries.keep_agreement(session, run, rows)
        found = queries.agreements(session, run)
        contradictions = len(queries.expert_disagreements(session, run, 10_000))
    show.records(found, queries.AgreementRow, as_json, as_csv)
    show.messages.print(f"{contradictions} contradictions: phenotype expert disagreements", markup=False)


def _interval(figure: "Figure") -> dict[str, Any]:
    return {"value": figure.value, "low": figure.low, "high": figure.high, "count": figure.count}


def _compared(session: Session, run: str, concept: str, readers: list[str]) -> "dict[tuple[str, str], list[Figure]]":
    """The figures of each reader against the map, and against each other reader; images are read once."""
    from phenotype.linking.agreement import compare as figures_of
    from phenotype.linking.agreement import measure, thresholds_for

    tuned, fixed = thresholds_for(queries.map_scores(session, run, concept)), np.array([0.5])
    tried = {"map": tuned} | dict.fromkeys(readers, fixed)
    measured: dict[tuple[str, str], list[Any]] = {
        pair: [] for pair in [*((reader, "map") for reader in readers), *permutations(readers, 2)]
    }
    for image in queries.read_images(session, run, concept):
        for (reader, against), case in _cases(image, concept, readers).items():
            measured[reader, against].append(measure(case, tried[against]))
    return {pair: figures_of(some, tried[pair[1]]) for pair, some in measured.items()}


def _cases(image: ReadImage, concept: str, readers: list[str]) -> "dict[tuple[str, str], Case]":
    """What is compared on an image: the map and the readers who have looked at it."""
    from phenotype.linking.agreement import Case, drawn_on, map_on

    group = image.fold % GROUPS
    looked = {mark.reader for mark in image.marks}
    own = {reader: _drawn(image, concept, reader) for reader in readers if reader in looked}
    found = {}
    if image.scores is not None and image.slices is not None and image.boxes is not None and len(image.scores):
        seen = map_on(image.scores, image.slices, image.boxes, image.labels)
        call = {"here": True, "not here": False}.get(image.call)
        slices = np.unique(image.slices)
        for reader, regions in own.items():
            found[reader, "map"] = Case(image.patient, group, seen, drawn_on(regions, slices), call)
    for reader, other in permutations(own, 2):
        slices = np.unique([region.slice for region in (*own[reader], *own[other])] or [0])
        seen = drawn_on(own[other], slices).astype(np.float32)
        drawn = drawn_on(own[reader], slices)
        found[reader, other] = Case(image.patient, group, seen, drawn, bool(own[other]))
    return found


def _drawn(image: ReadImage, concept: str, reader: str) -> "list[Drawn]":
    from phenotype.linking.expert import Drawn

    own = (mark for mark in image.marks if mark.reader == reader and mark.concept == concept)
    regions = [Drawn(mark.slice, mark.box, mark.mask) for mark in own]
    return [region for region in regions if not region.nothing]


@expert_app.command()
def disagreements(
    context: typer.Context,
    maps: Maps = "",
    limit: Annotated[int, typer.Option(help="how many rows at most")] = 100,
    as_json: Json = False,
    as_csv: Csv = False,
) -> None:
    """Where a map and a reader contradict each other, with what speaks for either, and what the reports say."""
    with open_database(context.obj.database).reading() as session:
        rows = queries.expert_disagreements(session, find_run(session, "map", maps), limit)
    show.records(rows, queries.ExpertDisagreement, as_json, as_csv)


@expert_app.command()
def picture(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="the PNG file to write")],
    concept: Annotated[str, typer.Option(help="a concept, by id or name; nothing for all that experts drew")] = "",
    cases: Annotated[int, typer.Option(help="images of each concept", min=1)] = 3,
    maps: Maps = "",
) -> None:
    """A picture of images, the maps of terms over them, and what experts drew."""
    from phenotype.explore.films import Films
    from phenotype.explore.side_by_side import Shown, write_side_by_side
    from phenotype.imaging.cache import cache_folder

    settings: Settings = context.obj
    database = open_database(settings.database)
    with database.reading() as session:
        run = find_run(session, "map", maps)
        names = {c: n for c, n, _ in queries.drawn_concepts(session)}
        wanted = names
        if concept:
            found = concept_ids(session, [concept]).get(concept, "")
            wanted = {c: n for c, n in names.items() if c == found}
        if not wanted:
            raise Refused("no_regions", "no expert has drawn this: `phenotype expert import` takes regions in")
        films = Films(session, cache_folder(settings.home_of(database)))
        shown = [
            Shown(name, queries.tuned_threshold(session, run, one), row, films.view(row.image))
            for one, name in wanted.items()
            for row in queries.side_by_side(session, run, one, cases)
        ]
    written = write_side_by_side(shown, out)
    show.messages.print(f"wrote {out}: {written} images", markup=False)
