"""How regions of an image look, in numbers with names: means over boxes or labelled regions of what filters see.

A filter's answer (`channels`) is a picture, so that regions of any shape, in slices and volumes, are described alike:
differences of Gaussians, bright and dark apart, in the line of Burt and Adelson 1983; gradients by direction (Dalal and
Triggs 2005) in equal local contrast; local binary patterns at two radii (Ojala et al. 2002). Of labelled regions also
moments and co-occurrences of grey values (Haralick et al. 1973).

The lungs are nearly each other's mirror image, in all that age, build and exposure make of them: what differs from the
mirrored place (`contralateral`) is more often disease than what differs from other people.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BANDS = (1, 2, 4, 8, 16)  # standard deviations of the Gaussians, in pixels
EDGES = (1.5, 3.0)  # at which gradients are taken
DIRECTIONS = ("across", "falling", "down", "rising")  # the way that grey values change: down is a horizontal line
RADII = (2, 5)  # of the local binary patterns
PATTERNS = 10  # uniform patterns of eight neighbours, the last for all others
LEVELS = 8  # of grey, of co-occurrences
LEAST = 1e-3  # added before a logarithm: a thousandth of the range of grey values
MOMENTS = ("mean", "std", "skewness", "kurtosis")
HARALICK = ("contrast", "homogeneity", "energy", "correlation", "entropy")

_BANDS = tuple(f"{kind} {s}" for s in BANDS for kind in ("bright", "dark"))
_EDGES = tuple(f"edge {s:g} {way}" for s in EDGES for way in DIRECTIONS)
_PATTERNS = tuple(f"lbp {r} {b}" for r in RADII for b in range(PATTERNS))
CHANNELS: tuple[str, ...] = ("mean", "skewness", *_BANDS, *_EDGES, *_PATTERNS)
_LOGARITHMS = np.array([name.startswith(("bright", "dark", "edge")) for name in CHANNELS])


def columns(scales: Sequence[float] = (1, 2)) -> tuple[str, ...]:
    """Names of the columns of `texture`."""
    return tuple(name if scale == 1 else f"{name} x{scale:g}" for scale in scales for name in CHANNELS)


def texture(pixels: Floats, boxes: NDArray[np.integer], scales: Sequence[float] = (1, 2)) -> Floats:
    """Describe boxes (n, 4) of an image (rows, columns) in [0, 1] by (n, len(columns(scales))) float32.

    Each box is described as it is and, larger by the other `scales`, with what is around it, cut off at the image's
    borders. Boxes are top, left, bottom, right in pixels, the last two exclusive; an empty one is a ValueError.
    """
    seen = channels(pixels)
    return np.hstack([in_logarithms(over_boxes(seen, _scaled(boxes, scale, pixels.shape))) for scale in scales])


def channels(pixels: Floats) -> Floats:
    """What the filters see in an image (rows, columns) in [0, 1]: (len(CHANNELS), rows, columns)."""
    from scipy import ndimage
    from skimage.feature import local_binary_pattern

    image = np.asarray(pixels, np.float32)

    def low(picture: NDArray[np.floating], scale: float) -> Floats:
        return np.asarray(ndimage.gaussian_filter(picture, scale, mode="nearest", truncate=3.0), np.float32)

    smooth = [image, *(low(image, s) for s in BANDS)]
    middle = smooth[-1]
    spread = np.sqrt(np.maximum(low(image * image, BANDS[-1]) - middle**2, 0.0)) + 0.01
    equal = (image - middle) / spread
    found: list[NDArray[np.floating]] = [image, equal**3]
    for finer, coarser in pairwise(smooth):
        found += [np.maximum(finer - coarser, 0.0), np.maximum(coarser - finer, 0.0)]
    for scale in EDGES:
        down, across = np.gradient(low(equal, scale))
        size, turn = np.hypot(down, across), np.arctan2(down, across) * 4 / np.pi
        # a gradient between two directions counts for both, by nearness; to either side of a line it is the same one
        found += [size * np.maximum(1 - np.abs((turn - k + 2) % 4 - 2), 0.0) for k in range(len(DIRECTIONS))]
    grey = (np.clip(low(image, 0.7), 0.0, 1.0) * 1023).astype(np.int32)
    for radius in RADII:
        patterns = local_binary_pattern(grey, 8, radius, "uniform")
        found += [(patterns == b).astype(np.float32) for b in range(PATTERNS)]
    return np.stack(found).astype(np.float32)


def over_boxes(seen: Floats, boxes: NDArray[np.integer]) -> Floats:
    """Means (n, c) of pictures (c, rows, columns) over boxes (n, 4), by sums over corners (Crow 1984)."""
    top, left, bottom, right = np.asarray(boxes, np.int64).T
    if np.any(bottom <= top) or np.any(right <= left):
        raise ValueError("a box is empty: needs top < bottom and left < right")
    sums = np.zeros((seen.shape[0], seen.shape[1] + 1, seen.shape[2] + 1))
    sums[:, 1:, 1:] = seen.cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    total = sums[:, bottom, right] - sums[:, top, right] - sums[:, bottom, left] + sums[:, top, left]
    return np.asarray((total / ((bottom - top) * (right - left))).T, np.float32)


def over_labels(seen: NDArray[np.floating], labels: NDArray[np.integer]) -> Floats:
    """Means (n, c) of pictures (c, *shape) over the regions 1 to n of a label map (*shape); 0 is outside."""
    flat = labels.ravel()
    sums = np.stack([np.bincount(flat, one.ravel(), minlength=int(flat.max(initial=0)) + 1) for one in seen], axis=1)
    sizes = np.bincount(flat)
    return np.asarray(sums[1:] / np.maximum(sizes[1:, None], 1), np.float32)


def moments(image: Floats, labels: NDArray[np.integer]) -> Floats:
    """Moments (n, len(MOMENTS)) of the grey values of regions 1 to n, 2-D or 3-D; kurtosis 0 is that of a Gaussian."""
    exact = np.asarray(image, np.float64)
    mean = over_labels(exact[None], labels)[:, 0]
    apart = exact - np.concatenate([[0.0], mean])[labels]
    second, third, fourth = over_labels(np.stack([apart**2, apart**3, apart**4]), labels).T
    flat = second < 1e-10  # one grey value: it has no shape
    safe = np.where(flat, 1.0, second)
    shape = [np.where(flat, 0.0, third / safe**1.5), np.where(flat, 0.0, fourth / safe**2 - 3)]
    return np.stack([mean, np.sqrt(second), *shape], axis=1).astype(np.float32)


def haralick(image: Floats, labels: NDArray[np.integer], distance: int = 1) -> Floats:
    """Texture (n, len(HARALICK)) of co-occurring grey values in regions 1 to n of an image in [0, 1], 2-D or 3-D.

    Pairs of voxels `distance` apart along each axis, both in the region, either order; grey values in 8 levels.
    """
    count = int(labels.max(initial=0))
    grey = np.minimum((np.clip(image, 0.0, 1.0) * LEVELS).astype(np.int64), LEVELS - 1)
    pairs = np.zeros((count + 1) * LEVELS**2)
    for axis in range(image.ndim):
        ahead = [slice(None)] * image.ndim
        behind = [slice(None)] * image.ndim
        ahead[axis], behind[axis] = slice(distance, None), slice(None, -distance)
        one, other = labels[tuple(behind)], labels[tuple(ahead)]
        same = one == other
        cell = one[same].astype(np.int64) * LEVELS**2 + grey[tuple(behind)][same] * LEVELS + grey[tuple(ahead)][same]
        pairs += np.bincount(cell, minlength=pairs.size)
    table = pairs.reshape(-1, LEVELS, LEVELS)[1:]
    table = table + table.transpose(0, 2, 1)
    table /= np.maximum(table.sum(axis=(1, 2), keepdims=True), 1)
    level = np.arange(LEVELS)
    apart = level[:, None] - level
    rates = table.sum(axis=2)
    mean = rates @ level
    variance = rates @ level**2 - mean**2
    together = np.einsum("nij,i,j->n", table, level, level) - mean**2
    found = [
        (table * apart**2).sum(axis=(1, 2)),
        (table / (1 + apart**2)).sum(axis=(1, 2)),
        (table**2).sum(axis=(1, 2)),
        np.where(variance > 1e-10, together / np.maximum(variance, 1e-10), 1.0),
        -(table * np.log(np.maximum(table, 1e-12))).sum(axis=(1, 2)),
    ]
    return np.stack(found, axis=1).astype(np.float32)


def contralateral(vectors: Floats, positions: NDArray[np.floating]) -> Floats:
    """Vectors (n, d) of regions less those of the region nearest to the mirrored place.

    `positions` (n, 2) are rows and columns, 0 to 1, in a space whose midline is the column 0.5.
    """
    from scipy.spatial import cKDTree

    places = np.asarray(positions, np.float64)
    if not len(places):
        return np.empty_like(vectors)
    _, nearest = cKDTree(places).query(places * [1, -1] + [0, 1])
    return np.asarray(vectors - vectors[nearest], np.float32)


def in_logarithms(means: Floats) -> Floats:
    """Means (n, len(CHANNELS)), those of strengths as logarithms: a share more is a share more of any strength."""
    # differences of sums may lie a rounding below 0
    return np.where(_LOGARITHMS, np.log(np.maximum(means, 0) + np.float32(LEAST)), means)


def _scaled(boxes: NDArray[np.integer], scale: float, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Boxes around the same centres, their sides `scale` times as long, cut off at the image's borders."""
    corners = np.asarray(boxes, np.float64)
    more = np.tile((corners[:, 2:] - corners[:, :2]) * (scale - 1) / 2, 2) * [-1, -1, 1, 1]
    return np.clip(np.rint(corners + more), 0, np.tile(shape, 2)).astype(np.int64)
