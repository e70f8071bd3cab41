"""Models of found phenotypes: plain arrays that say to which phenotype a case belongs, also one never seen before."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from scipy.special import logsumexp

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Assignment:
    """Phenotype of each case (n,), -1 for none, and how much each belongs to each (n, k), rows summing to at most 1."""

    labels: Labels
    responsibilities: Floats


@dataclass(frozen=True, slots=True)
class Space:
    """Descriptors (n, d) standardised, turned to principal axes and whitened: (n, p)."""

    center: Floats  # (d,)
    scale: Floats  # (d,)
    axes: Floats  # (d, p)

    @classmethod
    def of(cls, descriptors: Floats, *, dimensions: int, variance: float) -> "Space":
        """The fewest principal axes that hold this share of the variance, `dimensions` at most.

        Columns that do not vary count for nothing. ValueError where none varies.
        """
        center, spread = descriptors.mean(axis=0), descriptors.std(axis=0)
        varies = spread > 1e-9 * np.maximum(1.0, np.abs(center))
        if not varies.any():
            raise ValueError("no descriptor varies between the cases: there is nothing to tell them apart by")
        scale = np.where(varies, spread, np.inf)  # infinite: such a column becomes 0 in cases to come as well
        standard = (descriptors - center) / scale
        values, vectors = np.linalg.eigh(standard.T @ standard / len(standard))
        values, vectors = values[::-1], vectors[:, ::-1]
        held = np.cumsum(values) / values.sum()
        p = min(dimensions, int(np.searchsorted(held, variance)) + 1, int(np.sum(values > 1e-9 * values[0])))
        vectors, values = vectors[:, :p], values[:p]
        # The sign of an axis is arbitrary: the largest loading shall be positive.
        signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(p)])
        return cls(center, scale, vectors * signs / np.sqrt(values))

    def place(self, descriptors: ArrayLike) -> Floats:
        """Cases in this space; ValueError where their descriptors are not (n, d) finite numbers."""
        matrix = finite(descriptors)
        if matrix.shape[1] != self.center.size:
            raise ValueError(
                f"cases have {matrix.shape[1]} descriptors, the phenotypes were found with {self.center.size}"
            )
        return np.asarray(((matrix - self.center) / self.scale) @ self.axes, np.float64)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Gaussian mixture: responsibilities are posterior probabilities, the phenotype is the most probable."""

    space: Space
    weights: Floats  # (k,)
    means: Floats  # (k, p)
    roots: Floats  # (k, p, p): Cholesky factors of the precisions

    @property
    def k(self) -> int:
        """Number of phenotypes."""
        return int(self.weights.size)

    def assign(self, descriptors: ArrayLike) -> Assignment:
        """Phenotypes of cases (n, d). Every case gets one, however unlike it is to all."""
        joint = self._joint(descriptors)
        posterior = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
        return Assignment(joint.argmax(axis=1).astype(np.int64), posterior)

    def log_density(self, descriptors: ArrayLike) -> Floats:
        """How usual each case (n, d) is under the mixture: log density in its space, (n,)."""
        return np.asarray(logsumexp(self._joint(descriptors), axis=1), np.float64)

    def _joint(self, descriptors: ArrayLike) -> Floats:
        """Log density of each case together with each component, (n, k)."""
        points = self.space.place(descriptors)
        squares = [
            (((points - mean) @ root) ** 2).sum(axis=1) for mean, root in zip(self.means, self.roots, strict=True)
        ]
        determinants = np.log(np.diagonal(self.roots, axis1=1, axis2=2)).sum(axis=1)
        constant = points.shape[1] * np.log(2 * np.pi)
        return np.asarray((np.stack(squares, axis=1) + constant) / -2 + determinants + np.log(self.weights))

    def pick(self, groups: Sequence[int]) -> "Mixture":
        """The model of these groups alone, numbered in this order."""
        picked = list(groups)
        weights = self.weights[picked]
        return Mixture(self.space, weights / weights.sum(), self.means[picked], self.roots[picked])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The model as plain arrays."""
        return {**_space_arrays(self.space), "weights": self.weights, "means": self.means, "roots": self.roots}


@dataclass(frozen=True, slots=True)
class Density:
    """Dense groups as the cases in them: a case belongs where its nearest case does, if it is as near as these are."""

    space: Space
    points: Floats  # (n, p) the cases that the groups were found in
    labels: Labels  # (n,), -1 for none
    strengths: Floats  # (n,), how deep in its group each lies, 0 to 1
    reach: Floats  # (k,) largest distance of a case of the group to its nearest fellow

    @property
    def k(self) -> int:
        """Number of phenotypes."""
        return int(self.reach.size)

    def assign(self, descriptors: ArrayLike) -> Assignment:
        """Phenotypes of cases (n, d); -1 for those near no group."""
        points = self.space.place(descriptors)
        distance, nearest = KDTree(self.points).query(points)
        labels = self.labels[nearest].copy()
        inside = labels >= 0
        inside[inside] = distance[inside] <= self.reach[labels[inside]]
        labels[~inside] = -1
        responsibilities = np.zeros((len(points), self.k))
        rows = np.flatnonzero(inside)
        responsibilities[rows, labels[rows]] = self.strengths[nearest[rows]]
        return Assignment(labels, responsibilities)

    def pick(self, groups: Sequence[int]) -> "Density":
        """The model of these groups alone, numbered in this order; cases of others belong to none."""
        picked = list(groups)
        number = np.full(self.k + 1, -1)  # the last entry is what a label of -1 finds
        number[picked] = np.arange(len(picked))
        return replace(self, labels=number[self.labels].astype(np.int64), reach=self.reach[picked])

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The model as plain arrays."""
        groups = {"points": self.points, "labels": self.labels, "strengths": self.strengths, "reach": self.reach}
        return {**_space_arrays(self.space), **groups}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Mixture | Density:
    """The model that `to_arrays` described; ValueError where the arrays are of no such model."""
    try:
        space = Space(*(np.asarray(arrays[name], np.float64) for name in ("center", "scale", "axes")))
        if "means" in arrays:
            return Mixture(space, *(np.asarray(arrays[name], np.float64) for name in ("weights", "means", "roots")))
        points, strengths, reach = (np.asarray(arrays[name], np.float64) for name in ("points", "strengths", "reach"))
        return Density(space, points, np.asarray(arrays["labels"], np.int64), strengths, reach)
    except KeyError as missing:
        raise ValueError(f"not an array set of phenotypes: {missing} is missing") from None


def finite(descriptors: ArrayLike) -> Floats:
    """Descriptors as a matrix (n, d) of finite numbers, or a ValueError."""
    matrix = np.asarray(descriptors, np.float64)
    if matrix.ndim != 2 or not np.all(np.isfinite(matrix)):
        raise ValueError("descriptors are a matrix (n, d) of finite numbers")
    return matrix


def _space_arrays(space: Space) -> dict[str, NDArray[Any]]:
    return {"center": space.center, "scale": space.scale, "axes": space.axes}
