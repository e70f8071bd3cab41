"""Parts of a standardized image: patches on a regular grid, the box around a mask, plain texture features."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FEATURES = ("mean", "std", "gradient", *(f"lbp{i}" for i in range(10)), "row", "column")


def grid(shape: tuple[int, int], patch: int, stride: int) -> NDArray[np.int32]:
    """Boxes (n, 4) int32 (row0, col0, row1, col1) of square patches, row by row; what is left over is margin.

    Raises ValueError where not even one patch fits.
    """
    rows, columns = shape
    if patch < 1 or stride < 1 or patch > min(rows, columns):
        raise ValueError(f"no patch of {patch} with stride {stride} fits into {rows} x {columns}")
    top = np.arange((rows - patch) % stride // 2, rows - patch + 1, stride)
    left = np.arange((columns - patch) % stride // 2, columns - patch + 1, stride)
    row0, col0 = (v.ravel() for v in np.meshgrid(top, left, indexing="ij"))
    return np.stack([row0, col0, row0 + patch, col0 + patch], axis=1).astype(np.int32)


def cut(image: NDArray[np.float32], boxes: NDArray[np.int32]) -> NDArray[np.float32]:
    """The patches (n, patch, patch) of an image at boxes of one size, as of `grid`; a copy."""
    if len(boxes) == 0:
        return np.empty((0, 0, 0), dtype=image.dtype)
    patch = int(boxes[0, 2] - boxes[0, 0])
    windows = np.lib.stride_tricks.sliding_window_view(image, (patch, patch))
    return np.ascontiguousarray(windows[boxes[:, 0], boxes[:, 1]])


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The smallest box (row0, col0, row1, col1) around a mask; the whole image where the mask is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0, 0, mask.shape[0], mask.shape[1]
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def features(
    patches: NDArray[np.float32], boxes: NDArray[np.int32], body: tuple[int, int, int, int]
) -> NDArray[np.float32]:
    """Texture and location of patches: (n, len(FEATURES)) float32, columns as named in FEATURES.

    mean, std   of the values
    gradient    root mean square of the gradient
    lbp0..9     histogram of uniform rotation-invariant local binary patterns, 8 neighbours at distance 1 (Ojala et al.,
                PAMI 2002), sums to 1
    row, column the patch's centre in the body's box (`box_of`), 0 to 1, clipped
    """
    n = len(patches)
    vertical, horizontal = np.gradient(patches, axis=(1, 2)) if n else (patches, patches)
    height, width = max(1, body[2] - body[0]), max(1, body[3] - body[1])
    out = np.empty((n, len(FEATURES)), dtype=np.float32)
    out[:, 0] = patches.mean(axis=(1, 2))
    out[:, 1] = patches.std(axis=(1, 2))
    out[:, 2] = np.sqrt((vertical**2 + horizontal**2).mean(axis=(1, 2)))
    out[:, 3:13] = _binary_patterns(patches)
    out[:, 13] = ((boxes[:, 0] + boxes[:, 2]) / 2 - body[0]) / height
    out[:, 14] = ((boxes[:, 1] + boxes[:, 3]) / 2 - body[1]) / width
    out[:, 13:] = np.clip(out[:, 13:], 0.0, 1.0)
    return out


def _binary_patterns(patches: NDArray[np.float32]) -> NDArray[np.float64]:
    """Histograms (n, 10): how many neighbours in one run are as bright as an inner pixel; 9 for several runs."""
    n, height, width = patches.shape
    around = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    centre = patches[:, 1:-1, 1:-1]
    brighter = np.stack([patches[:, r : r + height - 2, c : c + width - 2] >= centre for r, c in around])
    changes = (brighter != np.roll(brighter, 1, axis=0)).sum(axis=0)
    pattern = np.where(changes <= 2, brighter.sum(axis=0), 9).reshape(n, -1)
    counts = (pattern[:, :, None] == np.arange(10)).sum(axis=1)
    return np.asarray(counts / max(1, pattern.shape[1]), dtype=np.float64)
