"""Files that experts' regions come in, each thing in them laid on its image, or the reason why it cannot be."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from phenotype.executors import Refused
from phenotype.linking.expert import NOTHING, Drawn, Row, Target, concept_of, lay_box, lay_mask, read_table, slice_of
from phenotype.linking.expert_masks import (
    NIFTI,
    PICTURES,
    LabelMap,
    Segment,
    lay_labels,
    nearest_slice,
    read_mask,
    read_segmentation,
    values_of,
)

TABLES = (".csv", ".tsv", ".txt")


@dataclass(frozen=True, slots=True)
class Images:
    """What is known of the images of the database.

    named, series   images that a name (id, SOP instance UID, accession number), or the UID of a series, may mean, each
                    with the slice of it where that is meant
    target          an image's size and slices
    concepts        names and codes of concepts in lower case, to their ids
    """

    named: Callable[[str], Sequence[tuple[str, int | None]]]
    series: Callable[[str], Sequence[tuple[str, int | None]]]
    target: Callable[[str], Target]
    concepts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one thing in a file: regions (image, concept, drawn), or the reason why not."""

    number: int
    reader: str
    regions: tuple[tuple[str, str, Drawn], ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """What the caller says of a file: who drew, on which image, which concept, and how names in it are to be read."""

    reader: str = ""
    image: str = ""
    concept: str = ""
    names: Mapping[str, str] = field(default_factory=dict)


def read_file(path: Path, images: Images, told: Told) -> Iterator[Outcome]:
    """The things in a file, one after the other; one that cannot be used costs no other.

    A table, a NIfTI file or a picture of labels, or a DICOM segmentation. Refused where the file is none of them.
    """
    name = path.name.lower()
    if name.endswith(TABLES):
        text = _text(path)
        for row in read_table(text):
            yield _outcome(row.number, row.reader or told.reader, partial(_of_row, row, path.parent, images, told))
    elif name.endswith((*NIFTI, *PICTURES)):
        labels = read_mask(path)
        meant = told.image or path.name[: -len(next(end for end in (*NIFTI[::-1], *PICTURES) if name.endswith(end)))]
        for value in values_of(labels):
            yield _outcome(value, told.reader, partial(_of_label, labels, value, meant, images, told))
    else:
        for number, segment in enumerate(read_segmentation(path), 1):
            yield _outcome(number, told.reader, partial(_of_segment, segment, images, told))


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _outcome(number: int, reader: str, lay: Callable[[], list[tuple[str, str, Drawn]]]) -> Outcome:
    if not reader:
        nobody = Refused("reader", "nobody is named who drew this: a column `reader`, or --reader")
        return Outcome(number, reader, reason=str(nobody))
    try:
        return Outcome(number, reader, tuple(lay()))
    except Refused as error:
        return Outcome(number, reader, reason=str(error))


def _of_row(row: Row, folder: Path, images: Images, told: Told) -> list[tuple[str, str, Drawn]]:
    if row.refusal:
        raise row.refusal
    concept = _concept(row.concept, images, told, default=not row.concept)
    found = _meant(row, images, told)
    image, index = _one(found)
    target = images.target(image)
    index = row.slice if row.slice is not None else index
    if row.box:
        return [(image, concept, lay_box(target, index, row.box))]
    if not row.mask:
        return [(image, concept, NOTHING)]
    beside = PurePosixPath(row.mask.replace("\\", "/"))
    if beside.is_absolute() or ".." in beside.parts or not (folder / beside).is_file():
        raise Refused("mask", "the file of the mask does not lie beside the table, or in a folder there")
    labels = read_mask(folder / beside)
    if index is not None and len(labels.labels) == 1 and target.slices > 1:  # a mask of one slice
        plane = labels.labels[0] == row.label if row.label is not None else labels.labels[0] != 0
        drawn = lay_mask(target, index, plane)
        return [(image, concept, drawn or Drawn(slice_of(target, index), NOTHING.box))]
    return [(image, concept, one) for one in lay_labels(labels, target, row.label) or [NOTHING]]


def _meant(row: Row, images: Images, told: Told) -> Sequence[tuple[str, int | None]]:
    """The images that a row may mean: by its image, by that as the name of a file, by its accession number."""
    names = [row.image, PurePosixPath(row.image.replace("\\", "/")).stem, row.accession, told.image]
    for name in names:
        found = images.named(name) if name else ()
        if found:
            return found
    if not any(names):
        raise Refused("no_image", "the row does not say which image it is of")
    return ()


def _of_label(labels: LabelMap, value: int, meant: str, images: Images, told: Told) -> list[tuple[str, str, Drawn]]:
    image, _ = _one(images.named(meant))
    # a mask of nothing but one value needs no name for it
    concept = _concept(str(value), images, told, default=len(values_of(labels)) == 1)
    return [(image, concept, drawn) for drawn in lay_labels(labels, images.target(image), value)]


def _of_segment(segment: Segment, images: Images, told: Told) -> list[tuple[str, str, Drawn]]:
    concept = _concept(segment.name, images, told, segment.code)
    found: Sequence[tuple[str, int | None]] = images.named(segment.source) if segment.source else ()
    if not found and segment.series:
        found = images.series(segment.series)
    if not found and told.image:
        found = images.named(told.image)
    image, index = _one(found)
    target = images.target(image)
    if index is None and segment.position is not None:
        index = nearest_slice(target, segment.position)
    drawn = lay_mask(target, index, segment.mask)
    return [(image, concept, drawn)] if drawn else []


def _one(found: Sequence[tuple[str, int | None]]) -> tuple[str, int | None]:
    if not found:
        raise Refused("image", "the image is not in the database: take it in first, or name it by its id; then again")
    if len(found) > 1:
        raise Refused("several", f"{len(found)} images are meant: name one by its id (image_view lists them)")
    return found[0]


def _concept(called: str, images: Images, told: Told, code: str = "", *, default: bool = False) -> str:
    renamed = next((told.names[n] for n in (called, code) if n in told.names), "")
    if not renamed and (default or not called) and told.concept:
        renamed = told.concept
    if not (renamed or called):
        raise Refused("concept", "no concept is named: a column `concept`, or --concept")
    if not renamed and called.isdigit():
        raise Refused("concept", f"what is label {called}? Say so by --name {called}=CONCEPT")
    return concept_of(renamed or called, images.concepts, "" if renamed else code)
