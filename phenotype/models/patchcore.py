"""PatchCore: an image is as unusual as its patches are far from the nearest patch of any healthy image.

Roth et al. 2022, "Towards total recall in industrial anomaly detection". It departs in three things: the image score is
the mean over its places by default (the paper takes the maximum: scratches are small, pneumonia is not), the coreset is
chosen from a random part of the patches, and a memory can be told to count only near the place where it was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from phenotype.models import base
from phenotype.models.base import Source
from phenotype.models.patches import PatchModel, PatchRecipe

PRESAMPLE = 20_000  # patches that the coreset is chosen from
PROJECTED = 64  # dimensions in which it is chosen: distances survive (Johnson and Lindenstrauss 1984)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchCoreRecipe(PatchRecipe):
    """Parameters of `PatchCore`."""

    memory: int = 1000  # patches remembered
    reach: float = 0.0  # share of the side within which a remembered patch counts; 0: everywhere

    def __post_init__(self) -> None:
        PatchRecipe.__post_init__(self)
        if self.memory < 1 or not 0.0 <= self.reach <= 1.0:
            raise ValueError(f"memory must be at least 1 and reach in [0, 1], not {self.memory} and {self.reach}")


class PatchCore(PatchModel):
    """A coreset of the training images' patches; a place is as unusual as its nearest neighbour there is far."""

    name: ClassVar[str] = "patchcore"
    recipe_type: ClassVar[type[base.Recipe]] = PatchCoreRecipe
    fitted: ClassVar[tuple[str, ...]] = (*PatchModel.fitted, "memory", "places")
    scoring: ClassVar[tuple[str, ...]] = ("reduction", "reach")
    recipe: PatchCoreRecipe
    memory: Tensor
    places: Tensor

    def __init__(self, recipe: PatchCoreRecipe) -> None:
        super().__init__(recipe)
        self.register_buffer("memory", torch.empty(0, self.feature_count))  # (m, channels), standardised
        self.register_buffer("places", torch.empty(0, dtype=torch.int64))  # (m,), of the grid, row by row

    def _fit(self, images: Source, random: Generator) -> None:
        each = max(1, min(self.grid**2, PRESAMPLE // len(images)))
        patches, places = [], []
        for features in self._standardized_batches(images):
            for one in features:
                chosen = torch.randperm(self.grid**2, generator=random)[:each].to(one.device)
                patches.append(one[chosen])
                places.append(chosen)
        found, where = torch.cat(patches), torch.cat(places)
        if len(found) > PRESAMPLE:
            kept = torch.randperm(len(found), generator=random)[:PRESAMPLE].to(found.device)
            found, where = found[kept], where[kept]
        core = coreset(found, self.recipe.memory, random)
        self.memory, self.places = found[core], where[core]

    def distances(self, features: Tensor) -> Tensor:
        # As a product in 64 bits: the distance to itself is 0, whatever the batch, and as fast as in 32 bits directly.
        own, memory = features.double(), self.memory.double()
        squared = (own**2).sum(2, keepdim=True) + (memory**2).sum(1) - 2.0 * own @ memory.T
        if self.recipe.reach > 0.0:
            place = torch.arange(own.shape[1], device=own.device)
            rows = (place[:, None] // self.grid - self.places // self.grid).abs()
            columns = (place[:, None] % self.grid - self.places % self.grid).abs()
            near = torch.maximum(rows, columns) <= self.recipe.reach * self.grid
            near |= ~near.any(1, keepdim=True)  # nothing remembered there: then anything
            squared = squared.masked_fill(~near, torch.inf)
        return squared.amin(2).clamp(min=0.0).sqrt().to(features.dtype)


class PatchCoreLite0(PatchCore):
    """PatchCore on features of EfficientNet-Lite0, trained on ImageNet."""

    name: ClassVar[str] = "patchcore-lite0"
    pretrained: ClassVar[bool] = True


def coreset(points: Tensor, count: int, random: Generator) -> Tensor:
    """Indices of `count` of the points (n, d), each the farthest from those before it; all where there are no more.

    Greedy k-centre (Gonzalez 1985): no point is more than twice as far from its nearest one as the best choice allows.
    """
    if len(points) <= count:
        return torch.arange(len(points), device=points.device)
    if points.shape[1] > PROJECTED:
        directions = torch.randn(points.shape[1], PROJECTED, generator=random) / PROJECTED**0.5
        points = points @ directions.to(points)
    at = int(torch.randint(len(points), (1,), generator=random))
    chosen = [at]
    nearest = torch.full((len(points),), torch.inf, device=points.device)
    while len(chosen) < count:
        nearest = torch.minimum(nearest, ((points - points[at]) ** 2).sum(1))
        at = int(nearest.argmax())
        chosen.append(at)
    return torch.tensor(chosen, device=points.device)
