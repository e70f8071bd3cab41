"""The standardized view: any image as a square of values in [0, 1], and the way back to its own pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

LUNG_WINDOW = (-1350.0, 150.0)  # HU: centre -600, width 1500
WINDOWS: dict[str, tuple[float, float]] = {  # HU, as radiologists set them for these organs
    "lung": LUNG_WINDOW,
    "mediastinum": (-135.0, 215.0),  # centre 40, width 350
    "soft": (-160.0, 240.0),  # centre 40, width 400
    "bone": (-500.0, 1300.0),  # centre 400, width 1800
    "brain": (0.0, 80.0),  # centre 40, width 80
    "liver": (-20.0, 140.0),  # centre 60, width 160
}


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
    window    (low, high), instead of these; `window_of` knows them by name
    box       (row0, col0, row1, col1): only this part of the image is seen, stretched to the square; what of it lies
              outside of the image repeats the image's border

    Without a box the longer side fills the view, the shorter one is centred on black. Resized by area averaging: each
    pixel of the view is the exact mean of what it covers, so nothing aliases and the result is the same everywhere.
    """
    if pixels.ndim != 2 or 0 in pixels.shape:
        raise ValueError(f"one image of rows x columns is needed, not {pixels.ndim} dimensions")
    top, left = (box or (0, 0))[:2]
    if box is not None:
        around = np.maximum(0, [[-box[0], box[2] - pixels.shape[0]], [-box[1], box[3] - pixels.shape[1]]])
        pixels = pixels[max(0, box[0]) : max(0, box[2]), max(0, box[1]) : max(0, box[3])]
        if 0 in pixels.shape:
            raise ValueError("the box holds nothing of the image")
        pixels = np.pad(pixels, around, "edge")
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


def window_of(name: str, modality: str, values: Iterable[NDArray[np.float32]]) -> tuple[float, float]:
    """The (low, high) that an image is seen through.

    name    one of WINDOWS; "percentile": from the 1st to the 99th percentile of `values`; "": lung for CT, else
            percentiles. Only CT has a unit: whatever the name, everything else is seen through its percentiles
    values  what to take the percentiles of: all slices of an image together, so that they remain comparable

    Raises ValueError for a name that is none of these.
    """
    if name not in ("", "percentile", *WINDOWS):
        raise ValueError(f"'{name}' is no window; use {', '.join(WINDOWS)} or percentile")
    if modality == "CT" and name != "percentile":
        return WINDOWS[name or "lung"]
    low, high = np.percentile(np.concatenate([v.ravel() for v in values]), (1.0, 99.0))
    return float(low), float(high)


def resample(volume: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """A volume with other numbers of slices, rows and columns: the mean over the length that each new voxel covers
    along an axis where there are fewer, linear interpolation where there are more. No more than one slice and a
    hundredth of the volume are held in another precision."""
    flat = np.empty((len(volume), *shape[1:]), np.float32)
    for i, one in enumerate(volume):
        flat[i] = _fitted(_fitted(one.astype(np.float64), shape[1]).T, shape[2]).T
    if len(volume) == shape[0]:
        return flat
    out = np.empty(shape, np.float32)
    step = max(1, shape[1] // 100)
    for row in range(0, shape[1], step):
        rows = flat[:, row : row + step]
        out[:, row : row + step] = _fitted(rows.reshape(len(rows), -1).astype(np.float64), shape[0]).reshape(
            shape[0], *rows.shape[1:]
        )
    return out


def _fitted(image: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    length = image.shape[0]
    if count <= length:
        return _average(image, count)
    at = np.clip((np.arange(count) + 0.5) * (length / count) - 0.5, 0, length - 1)
    below = np.minimum(at.astype(np.intp), max(0, length - 2))
    part = (at - below)[:, None]
    return np.asarray(image[below] * (1 - part) + image[np.minimum(below + 1, length - 1)] * part, np.float64)


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
