"""What every image model is: a recipe, losses for the training loop, embeddings and anomaly scores."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from phenotype.models.ssim import blur, ssim_map

Reduction = Literal["mean", "top10", "max"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "top10", "max")


class Source(Protocol):
    """Images to train on or to score, a memory map in practice: read by index, never held in memory as a whole."""

    def __len__(self) -> int: ...

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Images (n, 1, h, w) in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a model is made of; the fields of a family are its parameters."""

    size: int  # height and width of its input in pixels

    def __post_init__(self) -> None:
        halvings(self.size)


def halvings(size: int) -> int:
    """How often an image of `size` pixels is halved down to 4; ValueError unless size is 8, 16, 32, 64, ..."""
    times = int(math.log2(size / 4)) if size >= 8 else 0
    if not times or 4 * 2**times != size:
        raise ValueError(f"the input size must be 8, 16, 32, 64, 128 or a higher power of two, not {size}")
    return times


def one_of(value: str, known: tuple[str, ...], what: str) -> None:
    """ValueError unless `value` is one of the `known`: recipes come from files and command lines."""
    if value not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, not {value!r}")


class ImageModel(nn.Module, ABC):
    """A model of images (n, 1, size, size) with values in [0, 1].

    Training belongs to `phenotype.models.train`: it asks `updates` which optimizers move at a step, calls the model
    (`forward`) once for each of them and backpropagates the "loss" it returns. While one optimizer moves, only its own
    parameters receive gradients, so a family need not freeze anything by hand.
    """

    name: ClassVar[str]
    recipe_type: ClassVar[type[Recipe]]
    input_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    # ---- for the training loop

    @abstractmethod
    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        """The optimizers by name; each parameter belongs to exactly one."""

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        """Names of the optimizers that move at `step` of `steps`, in order: by default all of them, each step."""
        return tuple(self.optimizers(1.0))

    def rate(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of `steps`; by default a cosine from 1 to 0."""
        return 0.5 * (1.0 + math.cos(math.pi * step / steps))

    @abstractmethod
    def forward(self, update: str, x: Tensor, random: Generator) -> dict[str, Tensor]:
        """Losses of the batch `x` for the optimizer `update`: "loss" is minimised, the others are written to the log.

        `random` (on the CPU) is the only source of chance; it depends on nothing but seed, step and process.
        """

    # ---- for everybody else

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """One vector for each image: (n, d), in evaluation mode."""
        with self._evaluating(x):
            return self._embed(x)

    @torch.no_grad()
    def score(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly scores (n,), higher is more anomalous, and maps (n, h, w) of where; in evaluation mode.

        Raw values: they depend on the image alone, never on the others of its batch. `calibrate` gives them a meaning.
        """
        with self._evaluating(x):
            return self._score(x)

    @abstractmethod
    def _embed(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _score(self, x: Tensor) -> tuple[Tensor, Tensor]: ...

    @contextmanager
    def _evaluating(self, x: Tensor) -> Iterator[None]:
        size, (low, high) = self.recipe.size, self.input_range
        if x.ndim != 4 or tuple(x.shape[1:]) != (1, size, size) or x.dtype != torch.float32:
            shape = "x".join(str(side) for side in x.shape)
            raise ValueError(f"{self.name} takes float32 images (n, 1, {size}, {size}), not {x.dtype} of {shape}")
        if len(x) and not (low - 1e-4 <= float(x.min()) and float(x.max()) <= high + 1e-4):  # also false for NaN
            raise ValueError(f"{self.name} takes images with values in [{low:g}, {high:g}]")
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def reduce_map(maps: Tensor, reduction: Reduction) -> Tensor:
    """Image scores (n,) from maps (n, h, w): their mean, the mean of their highest tenth, or their maximum."""
    flat = maps.flatten(1)
    if reduction == "mean":
        return flat.mean(1)
    if reduction == "top10":
        return flat.topk(max(1, flat.shape[1] // 10), dim=1).values.mean(1)
    return flat.amax(1)


def residual_map(x: Tensor, reconstructed: Tensor) -> Tensor:
    """Absolute difference around each pixel: (n, h, w) from images (n, 1, h, w).

    Blurred before the sign is lost: noise cancels out, a lesion, brighter or darker as a whole, does not.
    """
    return blur(x - reconstructed).abs().squeeze(1)


def dissimilarity_map(x: Tensor, reconstructed: Tensor) -> Tensor:
    """1 - SSIM around each pixel: (n, h, w) from images (n, 1, h, w), 0 where they are equal, at most 2."""
    return 1.0 - ssim_map(x, reconstructed).squeeze(1)
