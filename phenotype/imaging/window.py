"""The standardized view: any image as a square of values in [0, 1], and the way back to its own pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LUNG_WINDOW = (-1350.0, 150.0)  # HU: centre -600, width 1500


@dataclass(frozen=True, slots=True)
class Frame:
    """How a standardized view lies over the original: view = original * scale + offset, (row, column).

    Coordinates are continuous: pixel i covers [i, i + 1).
    """

    scale: tuple[float, float]
    offset: tuple[float, float]

    def to_view(self, points: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) row and column in the original -> in the standardized view."""
        found: NDArray[np.float64] = np.asarray(points, dtype=np.float64) * self.scale + np.asarray(self.offset)
        return found

    def to_original(self, points: ArrayLike) -> NDArray[np.float64]:
        """(..., 2) row and column in the standardized view -> in the original."""
        found: NDArray[np.float64] = (np.asarray(points, dtype=np.float64) - self.offset) / np.asarray(self.scale)
        return found


def standardize(
    pixels: NDArray[np.float32],
    modality: str,
    size: int,
    window: tuple[float, float] | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> tuple[NDArray[np.float32], Frame]:
    """One image as (size, size) float32 in [0, 1], and its `Frame`.

    pixels    (rows, columns), as of `read_pixels`
    modality  "CT" is seen through the lung window; everything else is stretched between its 1st and 99th percentile
    window    (low, high), instead of these

    box       (row0, col0, row1, col1): only this part of the image is seen, stretched to the square

    Without a box the longer side fills the view, the shorter one is centred on black. Resized by area averaging: each
    pixel of the view is the exact mean of what it covers, so nothing aliases and the result is the same everywhere.
    """
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(f"one image of rows x columns is needed, not {pixels.ndim} dimensions")
    top, left = (box or (0, 0))[:2]
    if box is not None:
        pixels = pixels[box[0] : box[2], box[1] : box[3]]
        if 0 in pixels.shape:
            raise ValueError("the box holds nothing of the image")
    if window is not None:
        low, high = window
    elif modality == "CT":
        low, high = LUNG_WINDOW
    else:
        low, high = (float(v) for v in np.percentile(pixels, (1.0, 99.0)))
    rows, columns = pixels.shape
    longest = max(rows, columns)
    height, width = max(1, round(rows * size / longest)), max(1, round(columns * size / longest))
    # The window comes before the averaging: one metal marker must not brighten its surroundings.
    seen = np.clip((pixels.astype(np.float64) - low) / max(high - low, 1e-6), 0.0, 1.0)
    if box is not None:
        scale = size / rows, size / columns
        view = np.clip(resize(seen, size, size), 0.0, 1.0).astype(np.float32)
        return view, Frame(scale, (-top * scale[0], -left * scale[1]))
    small = resize(seen, height, width)
    top, left = (size - height) // 2, (size - width) // 2
    view = np.zeros((size, size), dtype=np.float32)
    view[top : top + height, left : left + width] = np.clip(small, 0.0, 1.0)
    return view, Frame((height / rows, width / columns), (float(top), float(left)))


def slices(count: int, n: int) -> NDArray[np.intp]:
    """Indices of `n` evenly spaced slices of a volume of `count`, neither end included where it has more.

    Slice i stands for the middle of the i-th of n equal parts; a volume of fewer slices gives each of them once.
    """
    n = min(n, count)
    return np.asarray((np.arange(n) + 0.5) * count / n, dtype=np.intp)


def resize(image: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """(rows, columns) -> (height, width): each new pixel is the mean over the area that it covers."""
    return _average(_average(np.asarray(image, dtype=np.float64), height).T, width).T


def _average(image: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    # The integral of a step function is piecewise linear: its values at the new edges give exact means over any span.
    length = image.shape[0]
    if length == count:
        return image
    integral = np.zeros((length + 1, image.shape[1]))
    np.cumsum(image, axis=0, out=integral[1:])
    edges = np.arange(count + 1) * (length / count)
    below = np.minimum(edges.astype(np.intp), length - 1)
    part = (edges - below)[:, None]
    at_edges = integral[below] * (1 - part) + integral[below + 1] * part
    return np.asarray(np.diff(at_edges, axis=0) * (count / length), dtype=np.float64)
