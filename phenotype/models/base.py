"""What every image model is: a recipe, losses for the training loop, embeddings and anomaly scores.

Images are tensors (n, 1, *spatial): spatial is (size, size), or (size, size, size) for a model of volumes (`dims` 3).
"""

from __future__ import annotations

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, Self

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
        """Images (n, 1, *spatial) in [0, 1]."""
        ...


class ToldSource(Source, Protocol):
    """A source for models that are told something beside each image: a class, or the image it is to become."""

    def targets(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        """Classes (n,) int64, -1 where nothing is known, or images (n, 1, *spatial) in [0, 1]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a model is made of; the fields of a family are its parameters."""

    size: int  # height and width of its input in pixels, and depth where it has three dimensions
    dims: int = 2  # 2 for images, 3 for volumes

    def __post_init__(self) -> None:
        halvings(self.size)
        if self.dims not in (2, 3):
            raise ValueError(f"dims must be 2 or 3, not {self.dims}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (size, size) or (size, size, size)."""
        return (self.size,) * self.dims


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
    """A model of images (n, 1, *recipe.shape) with values in [0, 1].

    Training belongs to `phenotype.models.train`: it asks `updates` which optimizers move at a step, calls the model
    (`forward`) once for each of them and backpropagates the "loss" it returns. While one optimizer moves, only its own
    parameters receive gradients, so a family need not freeze anything by hand. After the last step it calls `fit` for
    what is computed from all training images at once (principal components, a memory of patches).
    """

    name: ClassVar[str]
    recipe_type: ClassVar[type[Recipe]]
    input_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    dimensions: ClassVar[tuple[int, ...]] = (2,)  # the values of `dims` that the family can be built with
    told: ClassVar[Literal["nothing", "classes", "images"]] = "nothing"  # what training needs beside the images
    clip: ClassVar[float | None] = None  # longest gradient of an update; longer ones are shortened to it
    fitted: ClassVar[tuple[str, ...]] = ()  # buffers whose shape `fit` decides
    scoring: ClassVar[tuple[str, ...]] = ("term", "map_term", "reduction")  # fields that say how trained weights score

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        if recipe.dims not in self.dimensions:
            raise ValueError(f"{self.name} knows dims {' and '.join(map(str, self.dimensions))}, not {recipe.dims}")
        self.recipe = recipe

    @property
    def device(self) -> torch.device:
        """Where its numbers are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        for name in self.fitted:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=self.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    # ---- for the training loop

    @abstractmethod
    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        """The optimizers by name; each parameter belongs to at least one. None at all where there is only `fit`."""

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        """Names of the optimizers that move at `step` of `steps`, in order: by default all of them, each step."""
        return tuple(self.optimizers(1.0))

    def rate(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of `steps`; by default a cosine from 1 to 0."""
        return 0.5 * (1.0 + math.cos(math.pi * step / steps))

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        """Losses of the batch `x` for the optimizer `update`: "loss" is minimised, the others are written to the log.

        `random` (on the CPU) is the only source of chance; it depends on nothing but seed, step and process. `y` is
        what the source tells beside the images, None unless the family's `told` asks for it. TypeError for a model that
        has no optimizers, and so nothing to learn in steps.
        """
        raise TypeError(f"{self.name} is not learned in steps")

    def prepare(self, images: Source, seed: int) -> None:
        """Compute what the steps need of all training images; once, before the first step. As `fit` otherwise."""

    def fit(self, images: Source, seed: int) -> None:
        """Compute what needs all training images at once; after the last step, in evaluation mode, without gradients.

        The same weights, images and seed give the same result, bit for bit.
        """

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        """Named rows (n, *spatial) of images in [0, 1] for the sample sheet of a training, made from images `x`."""
        return {"images": x.squeeze(1)}

    # ---- for everybody else

    @torch.no_grad()
    def embed(self, x: Tensor) -> Tensor:
        """One vector for each image: (n, d), in evaluation mode."""
        with self._evaluating(x):
            return self._embed(x)

    @torch.no_grad()
    def score(self, x: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Anomaly scores (n,), higher is more anomalous, and maps (n, *spatial) of where; in evaluation mode.

        `inside` (n, *spatial), bool, says what counts (the body, the lungs): the map is 0 elsewhere, and where the
        score is made of a map, only what is inside counts. Raw values: they depend on the image alone, never on the
        others of its batch. `calibrate` gives them a meaning.
        """
        if inside is not None and (inside.dtype != torch.bool or inside.shape != x[:, 0].shape):
            raise ValueError(f"inside must be bool of the images' shape {tuple(x[:, 0].shape)}")
        with self._evaluating(x):
            scores, maps = self._score(x, inside)
        return scores, maps if inside is None else maps * inside

    def scored_by(self, **changes: Any) -> Self:
        """This model, its weights shared, scored by other values of the recipe's fields named in `scoring`.

        ValueError for any other field: what was trained one way is not what would have been trained another way.
        """
        fields = [name for name in self.scoring if hasattr(self.recipe, name)]
        for name in changes:
            one_of(name, tuple(fields), f"how a trained {self.name} is scored")
        other = copy.copy(self)
        other.recipe = replace(self.recipe, **changes)
        return other

    @abstractmethod
    def _embed(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]: ...

    @contextmanager
    def _evaluating(self, x: Tensor) -> Iterator[None]:
        shape, (low, high) = self.recipe.shape, self.input_range
        if tuple(x.shape[1:]) != (1, *shape) or x.dtype != torch.float32:
            wanted, given = ", ".join(map(str, shape)), "x".join(str(side) for side in x.shape)
            raise ValueError(f"{self.name} takes float32 images (n, 1, {wanted}), not {x.dtype} of {given}")
        if len(x) and not (low - 1e-4 <= float(x.min()) and float(x.max()) <= high + 1e-4):  # also false for NaN
            raise ValueError(f"{self.name} takes images with values in [{low:g}, {high:g}]")
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)


def reduce_map(maps: Tensor, reduction: Reduction, inside: Tensor | None = None) -> Tensor:
    """Image scores (n,) from maps (n, *spatial): their mean, the mean of their highest tenth, or their maximum.

    Of what is `inside` (n, *spatial) only, where that is given; of all where nothing of an image is inside.
    """
    flat = maps.flatten(1)
    if inside is None:
        if reduction == "mean":
            return flat.mean(1)
        if reduction == "top10":
            return flat.topk(max(1, flat.shape[1] // 10), dim=1).values.mean(1)
        return flat.amax(1)
    counted = inside.flatten(1)
    counted = counted | ~counted.any(1, keepdim=True)
    number = counted.sum(1)
    if reduction == "mean":
        return (flat * counted).sum(1) / number
    ranked = flat.masked_fill(~counted, -torch.inf).sort(dim=1, descending=True).values
    if reduction == "max":
        return ranked[:, 0]
    top = torch.arange(ranked.shape[1], device=ranked.device) < (number // 10).clamp(min=1)[:, None]
    return ranked.where(top, 0.0).sum(1) / top.sum(1)


def residual_map(x: Tensor, reconstructed: Tensor) -> Tensor:
    """Absolute difference around each pixel: (n, *spatial) from images (n, 1, *spatial).

    Blurred before the sign is lost: noise cancels out, a lesion, brighter or darker as a whole, does not.
    """
    return blur(x - reconstructed).abs().squeeze(1)


def dissimilarity_map(x: Tensor, reconstructed: Tensor) -> Tensor:
    """1 - SSIM around each pixel: (n, *spatial) from images (n, 1, *spatial), 0 where they are equal, at most 2.

    In 64 bits: in 32 the differences of squares would show whether an image was scored alone or among others.
    """
    return (1.0 - ssim_map(x.double(), reconstructed.double())).squeeze(1).to(x.dtype)
