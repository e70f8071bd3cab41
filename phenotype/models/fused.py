"""Three ways to see what is not healthy as one map: linear, restoring, and trained on planted anomalies.

The sum of the standardised maps of principal components (`pca`), of a denoiser of coarse noise (`coarse`) and of a
detector of planted anomalies (`planted`). They err in different places, and a lesion is in the same place for all.
Sums of standardised detectors: Aggarwal and Sathe 2015, "Theoretical foundations and algorithms for outlier ensembles".
The score is that of the sum; the map is the sum relative to the image's own mean and spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.optim import Optimizer

from phenotype.models import base
from phenotype.models.augment import one_cycle
from phenotype.models.base import REDUCTIONS, ImageModel, Reduction, Source, one_of, reduce_map
from phenotype.models.calibrate import batches
from phenotype.models.coarse import CoarseDenoiser, CoarseRecipe
from phenotype.models.pca import PCARecipe, PrincipalComponents
from phenotype.models.planted import PlantedDetector, PlantedRecipe
from phenotype.models.ssim import blur

Term = Literal["sum", "components", "denoiser", "detector"]
TERMS: tuple[Term, ...] = ("sum", "components", "denoiser", "detector")
MEMBERS = TERMS[1:]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedRecipe(base.Recipe):
    """Parameters of `Fused`."""

    width: int = 16  # channels of the first layer of each U-Net
    components: int = 64  # principal components
    term: Term = "sum"  # whose map: that of all, or of one member, in its standard deviations
    reduction: Reduction = "mean"  # how the map becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.reduction, REDUCTIONS, "reduction")


class Fused(base.ImageModel):
    """`linear`, `denoiser` and `detector`; the map is the sum of theirs, each in its standard deviations, blurred.

    What is standard is computed from the training images, once for a whole map.
    """

    name: ClassVar[str] = "fused"
    recipe_type: ClassVar[type[base.Recipe]] = FusedRecipe
    clip: ClassVar[float | None] = 1.0
    recipe: FusedRecipe
    mean: Tensor
    spread: Tensor

    def __init__(self, recipe: FusedRecipe) -> None:
        super().__init__(recipe)
        size, dims = recipe.size, recipe.dims
        self.linear = PrincipalComponents(
            PCARecipe(size=size, dims=dims, components=recipe.components, map_term="scales")
        )
        self.denoiser = CoarseDenoiser(CoarseRecipe(size=size, dims=dims, width=recipe.width))
        self.detector = PlantedDetector(PlantedRecipe(size=size, dims=dims, width=recipe.width))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("spread", torch.ones(3))

    @property
    def members(self) -> tuple[ImageModel, ...]:
        """The models whose maps are summed."""
        return self.linear, self.denoiser, self.detector

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return self.denoiser.optimizers(learning_rate) | self.detector.optimizers(learning_rate)

    def rate(self, step: int, steps: int) -> float:
        return one_cycle(step, steps)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        member = self.denoiser if update == "denoiser" else self.detector
        return member.forward(update, x, random)

    def fit(self, images: Source, seed: int) -> None:
        self.linear.fit(images, seed)
        self.denoiser.fit(images, seed)
        count, total, squares = 0, torch.zeros(3).double(), torch.zeros(3).double()
        for batch in batches(images, 64):
            x = torch.from_numpy(batch).to(self.device)
            maps = self._maps(x)
            maps[:, 0] = self.linear.residuals(self.linear.left_out(x, len(images)))  # not those it knows by heart
            maps = maps.double().cpu()
            count += maps[:, 0].numel()
            total += maps.sum((0, *range(2, maps.ndim)))
            squares += maps.square().sum((0, *range(2, maps.ndim)))
        self.mean = (total / count).to(self.mean)
        self.spread = (squares / count - (total / count).square()).clamp(min=1e-12).sqrt().to(self.spread)

    def _maps(self, x: Tensor) -> Tensor:
        """(n, members, *spatial), as each member has them."""
        return torch.stack([member._score(x, None)[1] for member in self.members], 1)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return self.denoiser.pictures(x, random) | self.detector.pictures(x, random)

    def _embed(self, x: Tensor) -> Tensor:
        """The members' codes beside each other."""
        return torch.cat([member._embed(x) for member in self.members], 1)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        shape = (1, 3, *[1] * self.recipe.dims)
        standard = (self._maps(x) - self.mean.view(shape)) / self.spread.view(shape)
        if self.recipe.term == "sum":
            standard = standard.sum(1, keepdim=True)
        else:
            standard = standard[:, [MEMBERS.index(self.recipe.term)]]
        maps = blur(standard, self.recipe.size / 64).squeeze(1)
        return reduce_map(maps, self.recipe.reduction, inside), _within(maps)


def _within(maps: Tensor) -> Tensor:
    """Maps (n, *spatial) less their mean, by the root of their spread: more of where in an image than of how unusual.

    By the whole spread, an image without a lesion would show as much as one with.
    """
    axes = tuple(range(1, maps.ndim))
    spread = maps.std(axes, keepdim=True).clamp(min=1e-6)
    return (maps - maps.mean(axes, keepdim=True)) / spread.sqrt()
