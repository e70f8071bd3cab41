"""Frontal radiographs laid onto their mean, and by way of its lungs onto the thorax.

What a house's radiographs have in common is learned from some of them, without a landmark (`models.alignment`, after
Learned-Miller 2006); its lungs are those of the thorax. An image is shifted, scaled and a little turned until it
resembles the mean. Nothing has to be found in the image itself, so that lungs which are white, or not whole in view, do
as well. The mean is coarse (48 x 48) and of many patients: nobody is seen in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from phenotype.imaging import grids, thorax
from phenotype.imaging.window import resize
from phenotype.models import alignment
from phenotype.models.alignment import Alignment
from phenotype.normalization.radiographs import POINTS, Placed, plausible, view_of

Floats = NDArray[np.float32]

LEAST, MOST = 30, alignment.IMAGES  # radiographs that a mean is made of
ROUTE = "mean"
# How much an image resembles the mean where it is none of its kind, and where it is a usual one: of Shenzhen's
# radiographs 98 % have 0.77 or more, of those upside down none more than 0.65.
STRANGE, USUAL = 0.5, 0.9


class Squares:
    """Radiographs (rows, columns) as the `Source` that an Alignment learns from: squares of `thorax.SIDE`."""

    def __init__(self, images: Sequence[Floats]) -> None:
        self._squares = np.stack([square(image) for image in images])

    def __len__(self) -> int:
        return len(self._squares)

    def take(self, indices: NDArray[np.int64]) -> Floats:
        """Images (n, 1, SIDE, SIDE)."""
        return self._squares[indices][:, None]


def square(pixels: Floats) -> Floats:
    """A radiograph of any shape from 0 to 1, stretched to a square."""
    return np.asarray(resize(view_of(pixels), thorax.SIDE, thorax.SIDE), np.float32)


def learn(images: Sequence[Floats]) -> Alignment | None:
    """The mean of frontal radiographs; None where they are fewer than LEAST, or it has no two lungs."""
    if len(images) < LEAST:
        return None
    mean = _unlearned()
    mean.fit(Squares(images), seed=0)
    return None if bool((mean.lungs == 1).all()) else mean


def to_arrays(mean: Alignment) -> dict[str, NDArray[Any]]:
    """A mean as plain arrays, to be kept."""
    return {name: value.numpy() for name, value in mean.state_dict().items()}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Alignment:
    """What `to_arrays` gave."""
    mean = _unlearned()
    mean.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
    return mean


def place(pixels: Floats, mean: Alignment) -> Placed:
    """Lay a frontal radiograph onto the thorax by way of the mean; its quality says how much it resembles that."""
    matrices, resemblance = mean.placed(torch.from_numpy(square(pixels))[None, None])
    matrix, shift = matrices[0, :, :2].numpy()[::-1, ::-1], matrices[0, :, 2].numpy()[::-1]  # rows before columns
    # the crop around the mean's lungs, from 0 to 1 along each side, is the window of the thorax
    shift = (shift + 1 - matrix.sum(axis=1)) / 2
    low, size = _window()
    forward_matrix = np.diag(size) @ np.linalg.inv(matrix)
    forward_shift = low - forward_matrix @ shift
    forward = grids.nodes(grids.grid_shape(pixels.shape, POINTS)) @ forward_matrix.T + forward_shift
    usual = float(np.clip((float(resemblance[0]) - STRANGE) / (USUAL - STRANGE), 0.0, 1.0))
    quality = usual * plausible(forward_matrix, pixels.shape)
    return Placed(ROUTE, round(quality, 6), "", np.asarray(forward, np.float32))


def _unlearned() -> Alignment:
    return Alignment(thorax.SIDE, alignment.COARSE)


def _window() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corner and size of the window of the thorax: its lungs with the margin that an Alignment's crop has."""
    top, left, height, width = thorax.LUNGS
    size = np.array([height, width])
    around = alignment.MARGIN * size
    return np.array([top, left]) - around, size + 2 * around
