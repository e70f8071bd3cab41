"""What experts have drawn into images: boxes and masks out of tables, and how they come to lie on an image.

A table (CSV) has a row for each thing drawn: which image (`image`: our id, or the SOP instance UID; or `accession`),
`concept`, `reader`, `slice` counted from 0 (not needed for a radiograph), and a box `top`, `left`, `bottom`, `right`
(the last two exclusive) in pixels, or in fractions of the image where none is above 1. In place of a box `mask` may
name a file beside the table (NIfTI, or a picture for a radiograph), and `label` a value in it. A row without either
says that the reader looked for the concept and saw none.

Masks out of NIfTI and DICOM SEG are in `phenotype.linking.expert_masks`.
"""

import csv
import difflib
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from phenotype.executors import Refused

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# meaning -> names of its column, in lower case and without anything but letters
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": ("image", "imageid", "sopinstanceuid", "instance", "instanceuid"),
    "accession": ("accession", "accessionnumber", "study", "studyid"),
    "concept": ("concept", "finding", "term", "classname", "class"),
    "reader": ("reader", "readerid", "radid", "rater", "annotator", "observer"),
    "slice": ("slice", "sliceindex"),
    "top": ("top", "ymin"),
    "left": ("left", "xmin"),
    "bottom": ("bottom", "ymax"),
    "right": ("right", "xmax"),
    "mask": ("mask", "maskfile", "segmentation"),
    "label": ("label", "labelvalue", "value"),
}
LARGEST = 512  # rows and columns of a mask that is kept
EDGES = ("top", "left", "bottom", "right")
# Words that name a role and not a person; with them a number or a letter
_LABEL = re.compile(
    r"(?=.)(reader|rater|expert|radiologist|annotator|observer|consensus|truth|model|algorithm|r)?"
    r"[-_ ]?([a-z]|\d{1,3})?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table, not yet laid on an image. `accession` and `image` may be personal data: they are not written
    anywhere. `refusal` says why the row cannot be used."""

    number: int  # counted from 1, the header left out
    image: str = ""
    accession: str = ""
    concept: str = ""
    reader: str = ""
    slice: int | None = None
    box: tuple[float, float, float, float] | None = None
    mask: str = ""
    label: int | None = None
    refusal: Refused | None = None


@dataclass(frozen=True, slots=True)
class Plane:
    """A slice of an image and where it lies in the patient (mm); None where its header does not say."""

    position: tuple[float, float, float] | None
    orientation: tuple[float, ...] | None  # six direction cosines: of a row, of a column
    spacing: tuple[float, float] | None  # between rows, between columns


@dataclass(frozen=True, slots=True)
class Target:
    """The image that regions are laid on."""

    image: str
    rows: int
    columns: int
    planes: tuple[Plane, ...]  # of each slice, in order

    @property
    def slices(self) -> int:
        """Their number."""
        return len(self.planes)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A region on a slice: its box as fractions, and its mask (rows, columns) over the whole slice where there is one.

    The box is (0, 0, 0, 0) where the reader looked for the concept and saw none.
    """

    slice: int
    box: tuple[float, float, float, float]
    mask: Mask | None = None

    @property
    def nothing(self) -> bool:
        """Whether nothing was drawn."""
        return self.box[2] <= self.box[0]


NOTHING = Drawn(0, (0.0, 0.0, 0.0, 0.0))


def read_table(text: str) -> list[Row]:
    """The rows of a table; one that cannot be understood says why. Refused where the header lacks what is needed."""
    first = text.lstrip("\ufeff").splitlines()[:1]
    delimiter = max(",;\t", key=(first or [""])[0].count)
    lines = [cells for cells in csv.reader(io.StringIO(text.lstrip("\ufeff")), delimiter=delimiter) if any(cells)]
    if not lines:
        raise Refused("no_header", "the table is empty")
    names = [re.sub(r"[^a-z]", "", cell.lower()) for cell in lines[0]]
    found = {what: next((names.index(name) for name in usual if name in names), -1) for what, usual in COLUMNS.items()}
    if max(found["image"], found["accession"]) < 0:
        raise Refused("no_columns", "no column says which image a row is of: name one `image` or `accession`")
    return [_row(number, cells, found) for number, cells in enumerate(lines[1:], 1)]


def _row(number: int, cells: list[str], found: Mapping[str, int]) -> Row:
    value = {what: cells[i].strip() if 0 <= i < len(cells) else "" for what, i in found.items()}
    row = Row(number, value["image"], value["accession"], value["concept"], value["reader"], mask=value["mask"])
    try:
        index, label = (_whole(value[what], what) for what in ("slice", "label"))
        edges = [_number(value[edge], edge) for edge in EDGES]
    except Refused as error:
        return replace(row, refusal=error)
    given = [edge for edge in edges if edge is not None]
    if len(given) not in (0, 4):
        missing = next(edge for edge, v in zip(EDGES, edges, strict=True) if v is None)
        return replace(row, refusal=Refused("box", f"the box has no {missing}: give all four edges, or none"))
    box = (given[0], given[1], given[2], given[3]) if given else None
    return replace(row, slice=index, box=box, label=label)


def _number(text: str, what: str) -> float | None:
    if text == "":
        return None
    try:
        value = float(text)
    except ValueError:
        raise Refused("number", f"{what} is no number") from None
    if not np.isfinite(value):
        raise Refused("number", f"{what} is {value}; it must be a number")
    return value


def _whole(text: str, what: str) -> int | None:
    value = _number(text, what)
    if value is not None and value != int(value):
        raise Refused("number", f"{what} is {value}; it must be a whole number")
    return None if value is None else int(value)


# ------------------------------------------------------------------------------------------------ laid on an image


def lay_box(target: Target, index: int | None, box: tuple[float, float, float, float]) -> Drawn:
    """A box in pixels or fractions on a slice of an image, cut off at its edges.

    Refused, with the value and what to do, where the slice is not there or the box lies outside or holds nothing.
    """
    slice_ = slice_of(target, index)
    top, left, bottom, right = box
    told = f"top {top:g}, left {left:g}, bottom {bottom:g}, right {right:g}"
    if not (bottom > top and right > left):
        raise Refused("empty_box", f"the box ({told}) holds nothing: bottom must be above top, right above left")
    if max(box) > 1:  # pixels
        top, bottom = top / target.rows, bottom / target.rows
        left, right = left / target.columns, right / target.columns
    top, left, bottom, right = max(top, 0.0), max(left, 0.0), min(bottom, 1.0), min(right, 1.0)
    if not (bottom > top and right > left):
        size = f"{target.rows} rows and {target.columns} columns"
        raise Refused("outside", f"the box ({told}) lies outside the image, which has {size}: is it of this image?")
    return Drawn(slice_, (top, left, bottom, right))


def lay_mask(target: Target, index: int | None, mask: Mask) -> Drawn | None:
    """A mask over a slice, with its box; None where it is empty. Refused where it has another size than the image."""
    slice_ = slice_of(target, index)
    if mask.shape != (target.rows, target.columns):
        size, wanted = (" x ".join(map(str, shape)) for shape in (mask.shape, (target.rows, target.columns)))
        raise Refused("size", f"the mask is {size}, the image {wanted}: draw it on the image as it was delivered")
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    top, bottom = rows[0] / target.rows, (rows[-1] + 1) / target.rows
    left, right = columns[0] / target.columns, (columns[-1] + 1) / target.columns
    return Drawn(slice_, (float(top), float(left), float(bottom), float(right)), _thinned(mask))


def _thinned(mask: Mask) -> Mask:
    """A mask of at most 512 rows and columns: of a radiograph's full size it would take megabytes."""
    at = [((np.arange(min(n, LARGEST)) + 0.5) * n / min(n, LARGEST)).astype(np.intp) for n in mask.shape]
    thinned = np.asarray(mask[np.ix_(*at)], np.bool_)
    if not thinned.any():  # what is thinner than the steps
        for row, column in np.argwhere(mask):
            thinned[row * thinned.shape[0] // mask.shape[0], column * thinned.shape[1] // mask.shape[1]] = True
    return thinned


def slice_of(target: Target, index: int | None) -> int:
    """The slice that is meant: that of a radiograph need not be named."""
    if index is None:
        if target.slices > 1:
            raise Refused("no_slice", f"the image has {target.slices} slices: say which, counted from 0")
        return 0
    if not 0 <= index < target.slices:
        raise Refused("slice", f"slice {index} of an image that has {target.slices}: they are counted from 0")
    return index


# ------------------------------------------------------------------------------------------------ names


def concept_of(called: str, concepts: Mapping[str, str], code: str = "") -> str:
    """The concept that is called so, by id, name or code; `concepts` maps all these, in lower case, to ids.

    Refused where there is none, with the nearest name that there is; what was asked for is not repeated, since a column
    that was shifted may hold anything.
    """
    for name in (called, code):
        known = concepts.get(name.strip().lower()) if name else None
        if known:
            return known
    near = difflib.get_close_matches(called.strip().lower(), concepts, n=1, cutoff=0.7)
    hint = f"did you mean '{concepts[near[0]]}'?" if near else "`phenotype sql` with concept_view lists them"
    raise Refused("concept", f"the lexicon has no concept of this name or code: {hint}, and --name maps other names")


def reader_of(name: str, pseudonym: str) -> str:
    """The label of a reader: the name as it is where it is a role (A, R2, expert, reader-1), else the pseudonym.

    Readers are people: who they are is nobody's business here.
    """
    name = name.strip()
    return name if _LABEL.fullmatch(name) else pseudonym


def region_id(image: str, concept: str, reader: str, drawn: Drawn) -> str:
    """A digest: the same region drawn twice, or delivered twice, is one."""
    digest = hashlib.sha256(
        repr([image, concept, reader, drawn.slice, [round(edge, 7) for edge in drawn.box]]).encode()
    )
    if drawn.mask is not None:
        digest.update(np.packbits(drawn.mask).tobytes())
    return digest.hexdigest()[:16]
