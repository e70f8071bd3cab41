"""Frontal radiographs laid onto one thorax (`imaging.thorax`) by their lungs.

Of both lungs, found by `masks.lung_mask`, the borders at eight heights and the ends are landmarks: an affine map takes
those of the image to those of the thorax, and a thin-plate spline (Bookstein 1989) what is left of the way, smoothed
and fading at the image's edges. Lungs that are white with fluid are not seen as far as they go, which would draw
everything on that side downwards or outwards. So each lung must be darker than what is around it; else the other one
stands for it, mirrored at the middle of the body, or the box around the body has to do. Which of these was done is the
`route`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import grids, masks, regions, thorax
from phenotype.imaging.grids import Grid
from phenotype.imaging.window import resize

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

SIDE = 256  # of the view in which the lungs are looked for, its longer side
HEIGHTS = (np.arange(8) + 0.5) / 8  # of the landmarks on a lung's borders: the part of its area that lies above
ENDS = (0.005, 0.995)  # of its top and its bottom
POINTS = 24  # nodes of a grid along the longer side
SMOOTHING = 0.01  # of the spline: how far landmarks may be missed, squared, against how far it bends
WHITE = 0.45  # a lung that is not darker against its surroundings than this part of the other one is white
USUAL = 0.6  # quality of the lungs of usual radiographs, as `masks.lung_mask` measures it
ROUTES = {"lungs": 1.0, "one lung": 0.7, "body": 0.4}  # the ways, and what quality each can reach


@dataclass(frozen=True, slots=True)
class Placed:
    """How a radiograph lies in the thorax.

    route    "lungs"; "one lung" where the other is white; "body" where neither was found
    quality  0 to 1: Dice of the thorax's lungs with those of the image, times how sure those are and how plausible the
             size, shape and turn of the image is, times what the route can reach
    """

    route: str
    quality: float
    reason: str
    forward: Grid


def place(pixels: Floats) -> Placed:
    """Lay a frontal radiograph (rows, columns) onto the thorax; bright is dense, the patient upright."""
    view = view_of(pixels)
    found = masks.lung_mask(view)
    shape = grids.grid_shape(pixels.shape, POINTS)
    right, left = (_darkness(view, found, side) for side in (1, 2))
    good = [side for side, own, other in ((1, right, left), (2, left, right)) if own > 0.02 and own >= WHITE * other]
    if len(good) == 1:
        ways = [_by_one(found, good[0], shape), _by_body(found, shape)]
        return max(ways, key=lambda way: way.quality)  # of equals the first
    if len(good) == 2 and found.found:
        return _by_lungs(found, shape)
    return _by_body(found, shape)


def place_by_body(pixels: Floats, reason: str) -> Placed:
    """Lay a radiograph of any view onto the thorax by the box around the body; of no quality."""
    body = masks.body_mask(view_of(pixels))
    nothing = masks.Lungs(np.zeros(body.shape, np.uint8), 0.0, False, body)
    placed = _by_body(nothing, grids.grid_shape(pixels.shape, POINTS))
    return Placed(placed.route, 0.0, reason, placed.forward)


def view_of(pixels: Floats) -> Floats:
    """The radiograph from 0 to 1, its longer side SIDE pixels."""
    low, high = (float(v) for v in np.percentile(pixels, (1.0, 99.0)))
    rows, columns = pixels.shape
    scale = SIDE / max(rows, columns)
    seen = np.clip((pixels - low) / max(high - low, 1e-6), 0.0, 1.0)
    return resize(seen, max(8, round(rows * scale)), max(8, round(columns * scale))).astype(np.float32)


def _darkness(view: Floats, found: masks.Lungs, side: int) -> float:
    """How much darker a lung is than the body around it; 0 where there is none."""
    from scipy.ndimage import binary_dilation

    lung = found.labels == side
    ring = binary_dilation(lung, iterations=8) & (found.labels == 0) & found.body
    if lung.mean() < 0.01 or not ring.any():
        return 0.0
    return max(0.0, float(view[ring].mean() - view[lung].mean()))


# ------------------------------------------------------------------------------------------------ landmarks


def landmarks(lung: NDArray[np.bool_], side: int) -> Points:
    """Places (18, 2), as fractions, on the border of a lung: of its outer and its inner border at eight heights, and
    its top and the bottom of its outer wall. `side` is 1 for the lung on the left of the picture, 2 for the other.

    Heights are those above which a given part of the lung's area lies: dark air of the neck that was taken for the tip
    of a lung makes it longer, but has little area.
    """
    area = np.concatenate([[0.0], np.cumsum(lung.sum(axis=1, dtype=np.float64))])
    heights = np.interp(np.append(HEIGHTS, ENDS), area / area[-1], np.arange(len(area)))
    line = lung[np.clip(heights.astype(int), 0, len(lung) - 1)]
    left = line.argmax(axis=1).astype(float)
    right = lung.shape[1] - line[:, ::-1].argmax(axis=1).astype(float)
    outer, inner = (left, right) if side == 1 else (right, left)
    ends = np.array([(left[-2] + right[-2]) / 2, outer[-1]])
    columns = np.concatenate([outer[:-2], inner[:-2], ends])
    rows = np.concatenate([heights[:-2], heights[:-2], heights[-2:]])
    return np.asarray(np.stack([rows, columns], 1) / np.array(lung.shape), np.float64)


@cache
def _wanted(side: int) -> Points:
    return landmarks(thorax.lungs() == side, side)


# ------------------------------------------------------------------------------------------------ the ways


def _by_lungs(found: masks.Lungs, shape: tuple[int, ...]) -> Placed:
    own = np.concatenate([landmarks(found.labels == side, side) for side in (1, 2)])
    wanted = np.concatenate([_wanted(1), _wanted(2)])
    matrix, shift = _affine(own, wanted)
    nodes = grids.nodes(shape)
    forward = np.asarray(nodes @ matrix.T + shift + _bend(own, wanted - (own @ matrix.T + shift), nodes), np.float32)
    return _judged("lungs", "", found, (1, 2), matrix, forward)


def _by_one(found: masks.Lungs, side: int, shape: tuple[int, ...]) -> Placed:
    """By one lung and its mirror image: what it says of the other side is symmetry, not sight, so nothing is bent."""
    own = landmarks(found.labels == side, side)
    _, left, _, right = regions.box_of(found.body)
    middle = (left + right) / 2 / found.body.shape[1]
    mirrored = own * [1, -1] + [0, 2 * middle]
    wanted = _wanted(side)
    matrix, shift = _affine(
        np.concatenate([own, mirrored]),
        np.concatenate([wanted, wanted * [1, -1] + [0, 2 * thorax.LUNGS[1] + thorax.LUNGS[3]]]),
    )
    forward = np.asarray(grids.nodes(shape) @ matrix.T + shift, np.float32)
    which = "right" if side == 2 else "left"  # of the patient: that on the left of the picture is the right lung
    return _judged("one lung", f"the {which} lung is white or not seen", found, (side,), matrix, forward)


def _by_body(found: masks.Lungs, shape: tuple[int, ...]) -> Placed:
    row0, col0, row1, col1 = regions.box_of(found.body)
    rows, columns = found.body.shape
    low, high = np.array([row0 / rows, col0 / columns]), np.array([row1 / rows, col1 / columns])
    scale = np.array(thorax.BODY[2:]) / np.maximum(high - low, 1e-3)
    forward = np.asarray((grids.nodes(shape) - low) * scale + thorax.BODY[:2], np.float32)
    return _judged("body", "no lungs were found", found, (), np.diag(scale), forward)


def _judged(
    route: str, reason: str, found: masks.Lungs, sides: tuple[int, ...], matrix: Points, forward: Grid
) -> Placed:
    expected = grids.warp_labels(thorax.lungs(), forward, found.labels.shape)
    seen = sides or (1, 2)
    own, there = np.isin(found.labels, seen), np.isin(expected, seen)
    dice = 2.0 * float((own & there & (found.labels == expected)).sum()) / max(1, int(own.sum() + there.sum()))
    sure = min(1.0, found.quality / USUAL) if len(sides) != 1 else 1.0  # one lung alone is unlike any two
    usual = plausible(matrix, found.labels.shape)
    return Placed(route, round(ROUTES[route] * dice * sure * usual, 6), reason, forward)


def plausible(matrix: Points, shape: tuple[int, ...]) -> float:
    """1 for a map of fractions of an image of `shape` (rows, columns) that keeps sizes and angles about as they are,
    less the more it stretches, squeezes or turns."""
    rows, columns = shape
    matrix = matrix @ np.diag([1 / rows, 1 / columns]) * max(rows, columns)
    _, sizes, _ = np.linalg.svd(matrix)
    across = matrix / np.linalg.norm(matrix, axis=0)
    lean = float(abs(across[:, 0] @ across[:, 1]))  # shear
    turn = float(abs(np.arctan2(across[0, 1], across[1, 1])))
    size, aspect = float(np.log(np.sqrt(sizes.prod()) + 1e-9)), float(np.log(sizes[0] / max(sizes[1], 1e-9)))
    return float(np.exp(-0.5 * ((size / 0.5) ** 2 + (aspect / 0.5) ** 2 + (lean / 0.3) ** 2 + (turn / 0.3) ** 2)))


def _affine(own: Points, wanted: Points) -> tuple[Points, Points]:
    """The matrix and shift that take points nearest to those wanted, by least squares."""
    solved, *_ = np.linalg.lstsq(np.hstack([own, np.ones((len(own), 1))]), wanted, rcond=None)
    return np.asarray(solved[:2].T, np.float64), np.asarray(solved[2], np.float64)


def _bend(own: Points, rest: Points, nodes: NDArray[Any]) -> Points:
    """What is left of the way at landmarks, spread by a thin-plate spline; nothing at the image's edges."""
    from scipy.interpolate import RBFInterpolator

    along = np.linspace(0.0, 1.0, 5)
    rim = np.array([(a, b) for a in along for b in along if {a, b} & {0.0, 1.0}])
    rim = rim[np.linalg.norm(rim[:, None] - own[None], axis=-1).min(axis=1) > 0.08]
    points, values = np.concatenate([own, rim]), np.concatenate([rest, np.zeros((len(rim), 2))])
    spline = RBFInterpolator(points, values, kernel="thin_plate_spline", smoothing=SMOOTHING)
    return np.asarray(spline(nodes.reshape(-1, 2)).reshape(nodes.shape), np.float64)
