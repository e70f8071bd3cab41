"""Where the map of a term is high: spots with their place, size and value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 64  # of the raster that boxes are drawn into
MOST = 3  # spots of a term in an image


@dataclass(frozen=True, slots=True)
class TermSeen:
    """A term on an image: whether it is called there, the scores (n,) of the image's regions, and where it peaks."""

    concept: str
    called: bool
    scores: NDArray[Any]
    slice: int


@dataclass(frozen=True, slots=True)
class Places:
    """The regions of an image: the slice (n,) and box (n, 4) of each as fractions; or, of supervoxels, `labels`
    (slices, rows, columns) that count them from 1."""

    slices: NDArray[Any]
    boxes: NDArray[Any]
    labels: NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of a slice where a term is seen: its place as fractions, the diameter (mm) of a disc of its area above
    half of its peak (None where the image has no size), and the value of its peak."""

    slice: int
    row: float
    column: float
    size_mm: float | None
    score: float


def raster(scores: NDArray[Any], places: Places, slice_: int) -> NDArray[np.float64]:
    """The map of one slice: the mean score of the regions that cover each pixel; NaN where none does."""
    if places.labels is not None:
        plane = places.labels[slice_]
        return np.asarray(np.concatenate([[np.nan], scores])[plane], np.float64)
    total, cover = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    here = np.flatnonzero(places.slices == slice_)
    corners = np.rint(np.asarray(places.boxes[here], np.float64) * SIDE).astype(int)
    low = np.clip(corners[:, :2], 0, SIDE - 1)
    high = np.clip(corners[:, 2:], low + 1, SIDE)
    for score, (top, left), (bottom, right) in zip(scores[here].tolist(), low, high, strict=True):
        total[top:bottom, left:right] += score
        cover[top:bottom, left:right] += 1
    return np.where(cover > 0, total / np.maximum(cover, 1), np.nan)


def spots(term: TermSeen, places: Places, size_mm: Sequence[float] | None) -> list[Spot]:
    """The spots of a term in the slice where it peaks, highest first, MOST at most; none where it is nowhere above 0.

    A spot is what is connected above half of the highest value of the slice; its place is that of its own peak.
    size_mm: of the whole slice, (rows, columns); None where that is not known
    """
    from scipy import ndimage

    seen = np.nan_to_num(raster(term.scores, places, term.slice), nan=-np.inf)
    highest = float(seen.max())
    if not highest > 0:
        return []
    parts, count = ndimage.label(seen >= highest / 2, structure=np.ones((3, 3)))
    peaks = ndimage.maximum(seen, parts, np.arange(1, count + 1))
    found = []
    for k in np.argsort(-np.asarray(peaks), kind="stable")[:MOST] + 1:
        peak = float(peaks[k - 1])
        own = parts == k
        top = np.argwhere(own & (seen >= peak - 1e-9))
        row, column = (top.mean(0) + 0.5) / seen.shape
        area = float((own & (seen >= peak / 2)).mean())
        size = None if size_mm is None else 2 * float(np.sqrt(area * size_mm[0] * size_mm[1] / np.pi))
        found.append(Spot(term.slice, float(row), float(column), size, peak))
    return found


def score_at(scores: NDArray[Any], places: Places, slice_: int, row: float, column: float) -> float | None:
    """The score of the map at a place (fractions); of the nearest slice that has regions; None where none covers it."""
    if places.labels is None and len(places.slices):
        there = np.unique(places.slices)
        slice_ = int(there[np.argmin(np.abs(there - slice_))])
    values = raster(scores, places, slice_)
    at = np.clip((np.array([row, column]) * values.shape).astype(int), 0, np.array(values.shape) - 1)
    value = float(values[tuple(at)])
    return value if np.isfinite(value) else None
