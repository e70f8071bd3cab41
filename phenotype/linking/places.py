"""What is usual at a place of the body: the mean and spread of values there, over many images.

A region is not strange because it is bright, but because it is brighter than lungs are there. The place is that of the
region's centre in the box around the body, or in the common space that images lie in (Hofmanninger et al. 2017).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
GRID = 10  # cells along each side
LEAST = 20  # values in a cell; one with fewer has the mean and spread of all


def cells(positions: Floats) -> NDArray[np.int64]:
    """The cell (n,) of each position (n, 2 or 3) of (slice,) row and column, 0 to 1; of those outside, the nearest."""
    steps = np.clip((positions * GRID).astype(np.int64), 0, GRID - 1)
    return np.asarray(np.ravel_multi_index(tuple(steps.T), (GRID,) * steps.shape[1]), np.int64)


@dataclass(frozen=True, slots=True)
class Usual:
    """Mean and standard deviation (cells, d) of values at each place."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, values: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]], columns: int, axes: int = 2) -> Self:
        """From cells (n,) of positions of `axes` and values (n, columns) of many images; streaming, in float64."""
        count = np.zeros((GRID**axes, 1))
        total, squares = np.zeros((GRID**axes, columns)), np.zeros((GRID**axes, columns))
        for where, what in values:
            exact = what.astype(np.float64)
            np.add.at(count, where, 1.0)
            np.add.at(total, where, exact)
            np.add.at(squares, where, exact**2)
        n = max(1.0, float(count.sum()))
        everywhere = total.sum(axis=0) / n
        spread = np.sqrt(np.maximum(squares.sum(axis=0) / n - everywhere**2, 0.0))
        mean = np.where(count >= LEAST, total / np.maximum(count, 1), everywhere)
        variance = np.where(count >= LEAST, squares / np.maximum(count, 1) - mean**2, spread**2)
        # what hardly varies at a place must not be blown up to a great deviation there
        deviation = np.maximum(np.sqrt(np.maximum(variance, 0.0)), 0.1 * spread + 1e-6)
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def deviations(self, where: NDArray[np.int64], what: NDArray[np.floating]) -> Floats:
        """Values (n, d) at cells (n,) in standard deviations from what is usual there."""
        return np.asarray((what - self.mean[where]) / self.deviation[where], np.float32)

    def to_arrays(self, prefix: str) -> dict[str, Floats]:
        """Plain arrays, to be kept."""
        return {f"{prefix}/mean": self.mean, f"{prefix}/deviation": self.deviation}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]], prefix: str) -> Self:
        """What `to_arrays` gave."""
        return cls(np.asarray(arrays[f"{prefix}/mean"]), np.asarray(arrays[f"{prefix}/deviation"]))
