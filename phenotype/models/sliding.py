"""A model of patches at work on whole views and volumes: a sliding window with overlap, blended into one map.

Windows overlap by half and weigh less towards their borders, where a patch lacks its surroundings (as in nnU-Net,
Isensee et al. 2021, there with a Gaussian; here with a raised cosine, whose halves add up to 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from phenotype.models import base
from phenotype.models.base import REDUCTIONS, ImageModel, Reduction, one_of, reduce_map

VALUES = 1 << 18  # pixels or voxels of the windows that are scored at once
LEAST = 0.25  # of a window must be inside for it to count


@dataclass(frozen=True, slots=True, kw_only=True)
class SlidingRecipe(base.Recipe):
    """`size` is the side of the views, any that is no smaller than the patch."""

    patch: int
    reduction: Reduction = "top10"

    def __post_init__(self) -> None:
        one_of(self.reduction, REDUCTIONS, "reduction")
        if self.size < self.patch:
            raise ValueError(f"no patch of {self.patch} fits into a view of {self.size}")


class Sliding(ImageModel):
    """A trained model of patches as a model of views of `size` pixels (or, with dims 3, cubic volumes of that side).

    The score is the mean of the scores of all patches, of their highest tenth ("top10"), or the highest ("max"), of
    those patches that lie inside to a quarter at least. It is not trained; `calibrate` it on whole views.
    """

    name: ClassVar[str] = "sliding"
    recipe_type: ClassVar[type[base.Recipe]] = SlidingRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    recipe: SlidingRecipe

    def __init__(self, model: ImageModel, size: int, reduction: Reduction = "top10") -> None:
        dims, patch = model.recipe.dims, model.recipe.size
        super().__init__(SlidingRecipe(size=size, dims=dims, patch=patch, reduction=reduction))
        self.model = model
        self.eval()

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {}

    def _embed(self, x: Tensor) -> Tensor:
        """The mean of the patches' codes."""
        side = self.recipe.patch
        codes = [torch.cat([self.model.embed(b) for _, b in _windows(one[0], side, None)]).mean(0) for one in x]
        return torch.stack(codes)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        found = [slide(self.model, one[0], None if inside is None else inside[n]) for n, one in enumerate(x)]
        scores = [reduce_map(patches[None], self.recipe.reduction) for patches, _ in found]
        return torch.cat(scores), torch.stack([seen for _, seen in found])


@torch.no_grad()
def slide(model: ImageModel, image: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Scores of the patches (k,) of an image of any shape, no side shorter than a patch, and one map of its shape.

    `inside`, bool of the image's shape, says what counts: windows of which less than a quarter is inside are left out
    (but for an image of which nothing else is left); the map is 0 outside, and where no window reached.

    Memory beside the image and two maps of its shape is bounded, whatever that shape.
    """
    if image.ndim != model.recipe.dims or min(image.shape) < model.recipe.size:
        raise ValueError(
            f"a model of {model.recipe.dims}-D patches of {model.recipe.size} cannot slide over {tuple(image.shape)}"
        )
    side = model.recipe.size
    weight = torch.ones((), device=image.device)
    bell = torch.sin(torch.pi * (torch.arange(side, device=image.device) + 0.5) / side) ** 2
    for _ in range(image.ndim):
        weight = weight[..., None] * bell
    total, weights = torch.zeros_like(image), torch.zeros_like(image)
    scores = []
    for places, patches in _windows(image, side, inside):
        counted = None if inside is None else torch.stack([inside[at] for at in places])
        own, maps = model.score(patches, counted)
        scores.append(own)
        for at, seen in zip(places, maps, strict=True):
            total[at] += seen * weight
            weights[at] += weight
    blended = total / weights.clamp(min=1e-12)
    return torch.cat(scores), blended if inside is None else blended * inside


def _windows(image: Tensor, side: int, inside: Tensor | None) -> Iterator[tuple[list[tuple[slice, ...]], Tensor]]:
    """Places and images (n, 1, ...) of windows that overlap by half, the last of a row flush with the border."""
    starts = [sorted({*range(0, n - side + 1, max(1, side // 2)), n - side}) for n in image.shape]
    everywhere = [tuple(slice(at, at + side) for at in corner) for corner in itertools.product(*starts)]
    kept = everywhere
    if inside is not None:
        share = np.array([float(inside[at].float().mean()) for at in everywhere])
        kept = [at for at, s in zip(everywhere, share, strict=True) if s >= min(LEAST, share.max())]
    step = max(1, VALUES // side**image.ndim)
    for start in range(0, len(kept), step):
        part = kept[start : start + step]
        yield part, torch.stack([image[at] for at in part])[:, None]
