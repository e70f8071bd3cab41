"""From scores of regions to a map over the image: its peak, whether that hits, and the side of the patient it is on."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Side = Literal["right", "left", "midline"]
SIDES = ("right", "left")
ZONES = ("upper", "middle", "lower")


@dataclass(frozen=True, slots=True)
class Peak:
    """Where a map is highest, in pixels of the map (centre of the pixel), and its value there."""

    row: int
    column: int
    value: float


def pixel_boxes(fractions: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.int64]:
    """Boxes (n, 4) of top, left, bottom, right: from fractions of an image to pixels of a map of (rows, columns).

    Bottom and right are exclusive. Every box keeps at least one pixel, also on a map much coarser than the image.
    """
    rows, columns = shape
    corners = np.rint(np.asarray(fractions, np.float64) * [rows, columns, rows, columns]).astype(np.int64)
    first = np.clip(corners[:, :2], 0, [rows - 1, columns - 1])
    last = np.clip(corners[:, 2:], first + 1, [rows, columns])
    return np.hstack([first, last])


def pixel_map(scores: NDArray[Any], boxes: NDArray[Any], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Mean score (rows, columns) of the regions that cover each pixel; NaN where none does.

    scores (n,); boxes (n, 4) in pixels: top, left, bottom, right, the last two exclusive. What lies outside the image
    is cut off; a box of no pixel, or a count of boxes other than of scores, is a ValueError.
    """
    scores, boxes = np.asarray(scores, np.float64), np.asarray(boxes, np.int64)
    if scores.ndim != 1 or boxes.shape != (scores.size, 4):
        raise ValueError("needs scores (n,) and boxes (n, 4)")
    if np.any(boxes[:, 2:] <= boxes[:, :2]):
        raise ValueError("a box is empty: needs top < bottom and left < right")
    total, cover = np.zeros(shape), np.zeros(shape)
    # Box by box and not by sums over corners: pixels under the same boxes then get the very same float, and a flat peak
    # is flat.
    for score, (top, left, bottom, right) in zip(scores.tolist(), np.maximum(boxes, 0).tolist(), strict=True):
        total[top:bottom, left:right] += score
        cover[top:bottom, left:right] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / cover, np.float32)


def peak(values: NDArray[Any]) -> Peak:
    """The highest place of a map (rows, columns), NaN left out.

    Maps of overlapping patches are flat on top: of the (first, in reading order) plateau, the pixel nearest to its
    middle, so that the peak is not dragged to the top left corner. A map of nothing but NaN is a ValueError.
    """
    if not np.any(np.isfinite(values)):
        raise ValueError("the map is empty: no region covers it")
    highest = np.nanmax(values)
    plateaus, _ = ndimage.label(values == highest, structure=np.ones((3, 3)))
    rows, columns = np.nonzero(plateaus == 1)
    nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
    return Peak(int(rows[nearest]), int(columns[nearest]), float(highest))


def pointing_hit(found: Peak, mask: NDArray[Any], *, tolerance: float = 0.0) -> bool:
    """The pointing game: does the peak lie in the mask (rows, columns), or within `tolerance` pixels of it?

    After J. Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016, who allow 15 pixels. An empty
    mask has no answer: ValueError.
    """
    rows, columns = np.nonzero(mask)
    if rows.size == 0:
        raise ValueError("the mask is empty: there is nothing to point at")
    nearest = np.min((rows - found.row) ** 2 + (columns - found.column) ** 2)
    return bool(nearest <= tolerance**2)


def side_of(column: float, columns: int, *, midline: float | None = None, margin: float = 0.0) -> Side:
    """The patient's side at a column of a frontal image or an axial slice.

    Frontal radiographs (PA and AP alike) are displayed as if the patient faced the reader, and axial slices from the
    feet: the patient's right is on the left of the image. `midline` is the column of the spine, the middle of the image
    where not given; within `margin` columns of it the answer is "midline". Lateral views have no such side.
    """
    middle = (columns - 1) / 2 if midline is None else midline
    if abs(column - middle) <= margin:
        return "midline"
    return "right" if column < middle else "left"


def side_contrast(values: NDArray[Any], *, midline: float | None = None, share: float = 0.05) -> float:
    """How much more a map (rows, columns) sees in the patient's right half than in the left: positive where right.

    The difference of the means of the highest `share` of pixels of either half. A half that no region covers is a
    ValueError.
    """
    middle = (values.shape[1] - 1) / 2 if midline is None else midline
    columns = np.arange(values.shape[1])
    right, left = (_highest(values[:, half], share) for half in (columns < middle, columns > middle))
    return right - left


def field_scores(
    scores: NDArray[Any],
    places: NDArray[Any],
    lungs: tuple[float, float],
    *,
    zones: int = 3,
    midline: float = 0.5,
    share: float = 0.1,
) -> NDArray[np.float64]:
    """What a map sees in each field of a frontal radiograph: (zones, 2), columns as SIDES of the patient.

    scores (n,); places (n, 2) of the regions' centres, row and column; `lungs` the rows of their top and bottom, which
    zones, from the top down, divide evenly: ZONES of 3, whole lungs of 1; `midline` a column. A field's score is the
    mean of its highest `share` of regions, NaN where none lies in it; what is above or below the lungs counts to the
    nearest zone.
    """
    scores, places = np.asarray(scores, np.float64), np.asarray(places, np.float64)
    top, bottom = lungs
    zone = np.clip(((places[:, 0] - top) / (bottom - top) * zones).astype(int), 0, zones - 1)
    side = (places[:, 1] >= midline).astype(int)
    fields = np.full((zones, 2), np.nan)
    for row, column in np.ndindex(fields.shape):
        own = scores[(zone == row) & (side == column)]
        if np.isfinite(own).any():
            fields[row, column] = _highest(own, share)
    return fields


def _highest(values: NDArray[Any], share: float) -> float:
    finite = np.sort(values[np.isfinite(values)].astype(np.float64))
    if finite.size == 0:
        raise ValueError("no region covers this half of the image")
    return float(finite[-max(1, round(share * finite.size)) :].mean())
