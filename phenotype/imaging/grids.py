"""Where the points of one array lie in another: grids of points, their concatenation, their inverse.

A grid is float32 (g_1, ..., g_d, d): its nodes are spread evenly over an array of d axes, corners included, and each
says where it lies in the other array. Both are measured in fractions along their axes: 0 is the outer border of the
first voxel, 1 that of the last. Between nodes a grid is linear; beyond them it goes on as the affine part of all of it,
so that what lies outside the field of view has a sound place too. Nothing here needs an image or a library of
registration.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.float32]
Points = NDArray[np.float64]
Corner = tuple[float, ...]


def nodes(shape: Sequence[int]) -> Points:
    """The places (*shape, d) of the nodes of a grid of this shape; at least two along each axis."""
    if min(shape) < 2:
        raise ValueError("a grid has at least two nodes along each axis")
    return np.stack(np.meshgrid(*(np.linspace(0.0, 1.0, n) for n in shape), indexing="ij"), axis=-1)


def centres(shape: Sequence[int]) -> Points:
    """The places (*shape, d) of the middles of the voxels of an array."""
    return np.stack(np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij"), axis=-1)


def grid_shape(extent: Sequence[float], points: int) -> tuple[int, ...]:
    """How many nodes a grid over an array of this extent (mm) has: `points` along its longest axis."""
    return tuple(max(2, round(points * length / max(extent))) for length in extent)


def affine_part(grid: NDArray[Any]) -> tuple[Points, Points]:
    """The matrix (d, d) and shift (d,) that come nearest to a grid: places are mapped to matrix @ place + shift."""
    at = nodes(grid.shape[:-1]).reshape(-1, grid.ndim - 1) - 0.5
    values = np.asarray(grid, np.float64).reshape(-1, grid.shape[-1])
    matrix = values.T @ at / np.square(at).sum(0)  # the axes of even nodes are orthogonal
    return matrix, values.mean(0) - matrix @ np.full(len(matrix), 0.5)


def apply(grid: NDArray[Any], points: NDArray[Any]) -> Points:
    """Where points (..., d) lie in the other array."""
    from scipy.ndimage import map_coordinates

    matrix, shift = affine_part(grid)
    flat = np.asarray(points, np.float64).reshape(-1, grid.ndim - 1)
    rest = np.asarray(grid, np.float64) - (nodes(grid.shape[:-1]) @ matrix.T + shift)
    at = (flat * (np.array(grid.shape[:-1]) - 1)).T
    own = np.stack([map_coordinates(rest[..., k], at, order=1, mode="nearest") for k in range(rest.shape[-1])], -1)
    return np.asarray((flat @ matrix.T + shift + own).reshape(points.shape), np.float64)


def compose(first: NDArray[Any], second: NDArray[Any]) -> Grid:
    """The grid over the first's array that leads where `second` takes what `first` leads to."""
    return np.asarray(apply(second, first), np.float32)


def invert(grid: NDArray[Any], shape: Sequence[int], steps: int = 60) -> Grid:
    """The grid of `shape` that leads back, by Newton's method with the affine part as slope (Chen et al. 2008).

    Where the grid folds there is no way back; the place found last is then as good as any.
    """
    matrix, shift = affine_part(grid)
    back = np.linalg.inv(matrix)
    wanted = nodes(shape)
    found = (wanted - shift) @ back.T
    for _ in range(steps):
        off = apply(grid, found) - wanted
        if np.abs(off).max() < 1e-6:
            break
        found = found - 0.9 * off @ back.T
    return np.asarray(found, np.float32)


def folded(grid: NDArray[Any]) -> float:
    """The share of a grid's cells whose orientation is turned inside out, 0 to 1."""
    values = np.asarray(grid, np.float64)
    axes = values.ndim - 1
    inner = (slice(None, -1),) * axes
    slopes = [
        np.diff(values, axis=k)[tuple(s if n != k else slice(None) for n, s in enumerate(inner))] for k in range(axes)
    ]
    turned = np.linalg.det(np.stack(slopes, axis=-1)) * np.sign(np.linalg.det(affine_part(grid)[0]))
    return float((turned <= 0).mean())


def in_view(forward: NDArray[Any]) -> tuple[Corner, Corner] | None:
    """The corners of the part of the reference that an image shows, or None where it shows nothing of it.

    forward: the grid over the image of places in the reference.
    """
    flat = np.asarray(forward, np.float64).reshape(-1, forward.shape[-1])
    low, high = np.clip(flat.min(0), 0.0, 1.0), np.clip(flat.max(0), 0.0, 1.0)
    if np.any(high <= low):
        return None
    return tuple(low.tolist()), tuple(high.tolist())


def warp_labels(labels: NDArray[Any], forward: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """A label map of the reference as it lies over an image of `shape`; 0 where the image shows more than that.

    forward: the grid over the image of places in the reference. Nearest voxel, so that labels stay labels.
    """
    found = np.zeros(tuple(shape), labels.dtype)
    size = np.array(labels.shape)
    for first in range(shape[0]):  # one plane at a time: places take 24 times the memory of labels
        at = centres((1, *shape[1:]))
        at[..., 0] = (first + 0.5) / shape[0]
        places = apply(forward, at)[0]
        index = np.floor(places * size).astype(np.intp)
        inside = np.all((index >= 0) & (index < size), axis=-1)
        found[first][inside] = labels[tuple(np.moveaxis(index[inside], -1, 0))]
    return found
