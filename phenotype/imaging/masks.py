"""Where the body is, and where the lungs are: classical methods that need no training and no GPU.

Radiographs: two lungs of an average outline, dark on bright, are found by normalised cross-correlation over places and
sizes (Lewis 1995, "Fast normalized cross-correlation"), then their border is moved to where the picture has it, by
comparing each pixel with the mean grey values inside and outside near it, as in the active contours of Li et al. 2008
("Minimization of region-scalable fitting energy for image segmentation") but with the outline as a prior instead of a
penalty on length. CT: air inside the body (Hu et al. 2001, without their search for the thinnest line between lungs
that touch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging.window import resize

AIR_HU = -400.0  # half way between lung and soft tissue
SIDE = 128  # of the square in which the lungs of a radiograph are looked for
LEAST_QUALITY = 0.43  # of lungs that are believed: radiographs have 0.45 to 0.75, pictures of anything else less

Mask = NDArray[np.bool_]
Floats = NDArray[np.float32]
_Kind = TypeVar("_Kind", bound=np.generic)
Box = tuple[float, float, float, float]  # top, left, height, width as fractions of the image

# The outlines of average lungs, (row, column) in the box around both: drawn by hand.
_OUTLINES = (
    (
        *((0.02, 0.28), (0.08, 0.42), (0.3, 0.43), (0.6, 0.42), (0.86, 0.36)),
        *((0.87, 0.2), (1.0, 0.0), (0.6, 0.02), (0.3, 0.07), (0.1, 0.15)),
    ),
    (
        *((0.02, 0.72), (0.08, 0.58), (0.3, 0.57), (0.45, 0.62), (0.7, 0.72), (0.88, 0.8)),
        *((0.92, 0.9), (1.0, 1.0), (0.6, 0.98), (0.3, 0.93), (0.1, 0.85)),
    ),
)


@dataclass(frozen=True, slots=True)
class Lungs:
    """What was found.

    labels   uint8 of the image's shape: 1 the lung on the left of the picture (the patient's right), 2 the other
    quality  0 to 1. Radiographs: correlation with the average outline times Dice with it; CT: the part of the mask that
             is air, times how near the volume comes to a twentieth of the body's
    found    whether they are to be believed: `quality` is at least LEAST_QUALITY and both lungs are there (in CT: any)
    body     the body, as of `body_mask`
    """

    labels: NDArray[np.uint8]
    quality: float
    found: bool
    body: Mask

    @property
    def mask(self) -> Mask:
        """The lungs; the body where they were not found."""
        return self.labels > 0 if self.found else self.body


def body_mask(image: Floats) -> Mask:
    """The body in an image or volume with values in [0, 1], brighter is denser: bool of the same shape.

    The largest part above half of Otsu's threshold (Otsu 1979): the threshold itself parts bone from lung in a
    radiograph, half of it parts the body from the dark around it. Each row is then filled between its ends, since the
    lungs of an overexposed image are as dark as the air outside. All of it where nothing is bright.
    """
    return _filled_rows(_largest(image > _otsu(image) / 2))


def lung_mask(radiograph: Floats) -> Lungs:
    """The lungs of a frontal radiograph, (rows, columns) with values in [0, 1]; the patient upright.

    What lies in front of the heart and below the domes of the diaphragm does not count as lung.
    """
    from scipy import ndimage

    view = resize(radiograph, SIDE, SIDE).astype(np.float32)
    body = body_mask(view)
    smooth = ndimage.gaussian_filter(view, 0.7)
    correlation, box = _locate(view)
    box = _grown(box, 0.1)
    for _ in range(2):  # the second time from the size that was found
        sides = _sides(_border(smooth, body, box), box)
        both = sides[0] | sides[1]
        if not (sides[0].any() and sides[1].any()):
            break
        box = _grown(_box_of(both), 0.08)
    expected = _outline(box)
    agreement = 2.0 * (both & expected).sum() / max(1, both.sum() + expected.sum())
    labels = np.zeros(view.shape, np.uint8)
    for side, lung in enumerate(sides, 1):  # the borders were found in a smoothed image: half a pixel too far in
        labels[ndimage.binary_dilation(lung) & body & (labels == 0)] = side
    smaller = min(int(lung.sum()) for lung in sides)
    quality = float(np.clip(correlation, 0.0, 1.0) * agreement)
    found = quality >= LEAST_QUALITY and smaller >= 0.01 * SIDE * SIDE
    return Lungs(_nearest(labels, radiograph.shape), quality, found, _nearest(body, radiograph.shape))


def average_lungs(side: int, box: Box) -> NDArray[np.uint8]:
    """Lungs of the average outline that `lung_mask` looks for, laid into `box` of a square: labels (side, side)."""
    both = _outline(box, (side, side))
    middle = box[1] + box[3] / 2
    right = (np.arange(side) + 0.5) / side < middle
    return np.where(both, np.where(right, 1, 2), 0).astype(np.uint8)


def ct_lung_mask(hounsfield: Floats) -> Lungs:
    """The lungs of a CT slice (rows, columns) or volume (slices, rows, columns) in Hounsfield units.

    Vessels inside are filled. A slice below the lungs has none: `found` is false.
    """
    from scipy import ndimage

    body = _filled_rows(_largest(hounsfield > AIR_HU))
    step = ndimage.generate_binary_structure(hounsfield.ndim, 1)
    if hounsfield.ndim == 3:
        step[[0, -1]] = False
    air = (hounsfield < AIR_HU) & ndimage.binary_erosion(_enclosed(hounsfield > AIR_HU), step)
    air = ndimage.binary_opening(air, step)
    parts, count = ndimage.label(air)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = [int(k) for k in np.argsort(-sizes)[:2] if sizes[k] > 0.1 * sizes.max() and sizes[k] > 0]
    lungs = np.isin(parts, kept) if kept else np.zeros_like(air)
    closed = np.asarray(ndimage.binary_closing(lungs, step, iterations=3)) | lungs
    closed = _per_slice(ndimage.binary_fill_holes, closed) & body
    labels = np.zeros(hounsfield.shape, np.uint8)
    middle = np.argwhere(body)[:, -1].mean() if body.any() else hounsfield.shape[-1] / 2
    right = np.arange(hounsfield.shape[-1]) < middle
    for k in kept:
        columns = np.flatnonzero((parts == k).reshape(-1, hounsfield.shape[-1]).any(axis=0))
        across = len(kept) == 1 and columns[0] < middle < columns[-1]
        own = closed & _nearer(parts, k, kept)
        labels[own] = 1 if np.nonzero(parts == k)[-1].mean() < middle else 2
        if across:  # lungs that touch
            labels[own] = np.broadcast_to(np.where(right, 1, 2), own.shape)[own]
    size = int(closed.sum())
    quality = float(air[closed].mean()) * min(1.0, 10.0 * size / max(1, int(body.sum()))) if size else 0.0
    return Lungs(labels, quality, quality >= LEAST_QUALITY, body)


# ---- radiographs


def _locate(view: Floats) -> tuple[float, Box]:
    """The correlation with the average outline where it is highest, and the box there."""
    from scipy import ndimage
    from scipy.signal import fftconvolve

    side, pad = 48, 6
    small = ndimage.gaussian_filter(resize(view, side, side), 0.75)
    dark = np.pad(ndimage.gaussian_filter(small, side / 6) - small, pad, mode="edge")
    best, box = -1.0, (0.15, 0.1, 0.6, 0.8)
    for height in range(18, 42, 3):
        for width in range(24, 46, 3):
            pattern, zone = _pattern(height, width, pad)
            count = zone.sum()
            mean, square = (fftconvolve(values, zone, "valid") / count for values in (dark, dark**2))
            deviation = np.sqrt(np.maximum(square - mean**2, 1e-8) * count)
            correlation = fftconvolve(dark, pattern, "valid") / deviation
            row, column = np.unravel_index(int(correlation.argmax()), correlation.shape)
            if correlation[row, column] > best:
                best = float(correlation[row, column])
                box = row / side, column / side, height / side, width / side
    return best, box


@cache
def _pattern(height: int, width: int, pad: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The outline of that size as a filter of mean 0 and norm 1, and where it is not 0; turned for a convolution."""
    from scipy import ndimage

    inside = np.pad(_outline((0.0, 0.0, 1.0, 1.0), (height, width)), pad)
    zone = ndimage.binary_dilation(inside, iterations=5)
    pattern = np.where(zone, inside - inside[zone].mean(), 0.0)
    pattern /= np.sqrt((pattern**2).sum())
    return pattern[::-1, ::-1], zone[::-1, ::-1].astype(np.float64)


def _border(smooth: Floats, body: Mask, box: Box) -> Mask:
    """The dark inside of an outline laid into `box`, its border moved to where the image has it."""
    from scipy import ndimage

    outline = _outline(box)
    depth = ndimage.distance_transform_edt(outline) - ndimage.distance_transform_edt(~outline)
    depth /= SIDE
    prior = np.where(depth > 0, np.minimum(depth / 0.08, 2.5), depth / 0.025)  # as log odds
    near = (depth > -0.12) & body

    def around(values: NDArray[np.generic]) -> NDArray[np.float64]:
        blurred = ndimage.gaussian_filter(values.astype(np.float64), 0.06 * SIDE, truncate=2.5)
        return np.asarray(blurred, np.float64)

    inside: Mask = outline & body
    for _ in range(8):
        dark, bright = (around(smooth * m) / np.maximum(around(m), 1e-3) for m in (inside & near, ~inside & near))
        contrast = np.maximum(bright - dark, 0.05)
        darker = np.clip(4.0 * ((dark + bright) / 2 - smooth) / contrast, -3.0, 3.0)
        inside = (ndimage.gaussian_filter(darker + prior, 1.0) > 0) & body
    return inside


def _sides(inside: Mask, box: Box) -> tuple[Mask, Mask]:
    """The largest part on each side, without holes, its outer border made convex: lungs are, ribs are not."""
    from scipy import ndimage
    from skimage.morphology import convex_hull_image

    parts, count = ndimage.label(ndimage.binary_opening(inside, iterations=2))
    found = [np.zeros_like(inside), np.zeros_like(inside)]
    middle = (box[1] + box[3] / 2) * SIDE
    for k in range(1, count + 1):
        part = parts == k
        side = int(np.nonzero(part)[1].mean() > middle)
        if part.sum() > found[side].sum():
            found[side] = part
    for side, part in enumerate(found):
        if not part.any():
            continue
        closed = ndimage.binary_closing(np.pad(part, 4), iterations=4)
        whole = ndimage.binary_fill_holes(closed)[4:-4, 4:-4]
        hull = convex_hull_image(whole)
        inward = whole[:, ::-1] if side == 0 else whole  # from the midline outwards
        reached = np.logical_or.accumulate(inward, axis=1)
        found[side] = whole | (hull & (reached[:, ::-1] if side == 0 else reached))
    return found[0], found[1]


def _outline(box: Box, shape: tuple[int, int] = (SIDE, SIDE)) -> Mask:
    from skimage.draw import polygon2mask

    (top, left, height, width), size = box, np.asarray(shape)
    laid = [(np.asarray(o) * (height, width) + (top, left)) * size for o in _OUTLINES]
    return np.asarray(polygon2mask(shape, laid[0]) | polygon2mask(shape, laid[1]))


def _grown(box: Box, by: float) -> Box:
    """A larger box: more so at its bottom, where the thin recesses of the lungs are seen last."""
    top, left, height, width = box
    return top - by * height, left - by * width / 2, height * (1 + 1.3 * by), width * (1 + by)


def _box_of(mask: Mask) -> Box:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = rows[0] / SIDE, columns[0] / SIDE
    return float(top), float(left), float((rows[-1] + 1) / SIDE - top), float((columns[-1] + 1) / SIDE - left)


def _nearest(values: NDArray[_Kind], shape: tuple[int, ...]) -> NDArray[_Kind]:
    at = [((np.arange(n) + 0.5) * size / n).astype(np.intp) for n, size in zip(shape, values.shape, strict=True)]
    return values[np.ix_(*at)]


# ---- both


def _largest(mask: Mask) -> Mask:
    """The largest connected part; all of the image where there is none."""
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count == 0:
        return np.ones(mask.shape, np.bool_)
    return np.asarray(parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:])))


def _filled_rows(mask: Mask) -> Mask:
    after = np.logical_or.accumulate(mask, axis=-1)
    before = np.logical_or.accumulate(mask[..., ::-1], axis=-1)[..., ::-1]
    return np.asarray(after & before)


def _enclosed(dense: Mask) -> Mask:
    """The body and the air in it, not the air around it: holes of each slice filled."""
    from scipy import ndimage

    return _per_slice(ndimage.binary_fill_holes, _largest(dense))


def _per_slice(function: Callable[[Mask], Mask], mask: Mask) -> Mask:
    return np.asarray(function(mask) if mask.ndim == 2 else np.stack([function(one) for one in mask]), np.bool_)


def _nearer(parts: NDArray[np.int32], k: int, kept: list[int]) -> Mask:
    """The voxels that are nearer to part `k` than to the other one that was kept."""
    from scipy import ndimage

    if len(kept) == 1:
        return np.ones(parts.shape, np.bool_)
    distances = [ndimage.distance_transform_edt(parts != part) for part in kept]
    return np.asarray(np.argmin(distances, axis=0) == kept.index(k))


def _otsu(image: Floats) -> float:
    """The threshold that parts the values of an image in [0, 1] into two classes as far apart as possible."""
    counts = np.bincount((np.clip(image, 0.0, 1.0).ravel() * 255).astype(np.intp), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    above = below[-1] - below
    total = np.cumsum(counts * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    if not np.isfinite(between).any():
        return 0.0
    best = np.flatnonzero(between >= np.nanmax(between) * (1 - 1e-9))  # of equals, as in a drawing, the middle
    return (float(best.mean()) + 0.5) / 255
