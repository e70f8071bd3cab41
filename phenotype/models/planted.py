"""A U-Net that marks what was planted into healthy images: anomalies are made while it learns, none is needed.

In the line of Zavrtanik et al. 2021, "DRAEM", and Schlueter et al. 2022, "Natural synthetic anomalies": regions of
ragged outline are filled with another healthy image, or made brighter or darker. Departures: the detector sees the
image alone, without a reconstruction beside it; the outlines are thresholded coarse noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from phenotype.models import base
from phenotype.models.augment import coarse_noise, one_cycle, vary
from phenotype.models.base import REDUCTIONS, Reduction, one_of, reduce_map
from phenotype.models.coarse import WEIGHT_DECAY
from phenotype.models.ssim import blur
from phenotype.models.unet import HalvedUNet

OUTLINES = (3, 4, 6, 8)  # cells a side of the noise whose peaks are the regions: from large regions to small ones
VISIBLE = 0.03  # least change of a pixel, in grey values, that the detector is asked to see


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedRecipe(base.Recipe):
    """Parameters of `PlantedDetector`."""

    width: int = 16  # channels of the first layer of the U-Net
    planted: float = 0.85  # share of the images in which something is planted
    largest: float = 0.15  # of the image that is planted, at most
    reduction: Reduction = "mean"  # how the map becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.reduction, REDUCTIONS, "reduction")
        if self.width < 1 or not 0.0 < self.planted <= 1.0 or not 0.02 < self.largest < 1.0:
            raise ValueError(
                f"width must be at least 1, planted between 0 and 1 and largest between 0.02 and 1, "
                f"not {self.width}, {self.planted} and {self.largest}"
            )


class PlantedDetector(base.ImageModel):
    """Image -> logits that a pixel was changed, which is its anomaly map, slightly blurred."""

    name: ClassVar[str] = "planted"
    recipe_type: ClassVar[type[base.Recipe]] = PlantedRecipe
    clip: ClassVar[float | None] = 1.0
    recipe: PlantedRecipe

    def __init__(self, recipe: PlantedRecipe) -> None:
        super().__init__(recipe)
        self.net = HalvedUNet(recipe.size, recipe.width)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {"detector": AdamW(self.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)}

    def rate(self, step: int, steps: int) -> float:
        return one_cycle(step, steps)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        planted, truth = self.plant(vary(x, random), random)
        return {"loss": functional.binary_cross_entropy_with_logits(self.net(planted), truth)}

    def plant(self, x: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
        """Images (n, 1, side, side) with something planted into most of them, and where: 1 on what visibly changed."""
        n = len(x)
        (fill, where), (tint, beside) = foreign(x, self.recipe.largest, random), tinted(x, self.recipe.largest, random)
        kind, share = torch.rand(2, n, 1, 1, 1, generator=random).to(x.device)
        changed, mask = torch.where(kind < 0.5, fill, tint), torch.where(kind < 0.5, where, beside)
        planted = torch.where(share < self.recipe.planted, changed, x)
        visible = functional.avg_pool2d(planted - x, 3, stride=1, padding=1).abs() > VISIBLE
        return planted, ((mask > 0.5) & visible).to(x.dtype)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        planted, truth = self.plant(x, random)
        rows = {"images": x, "planted": planted, "truth": truth, "found": self.net(planted).sigmoid()}
        return {name: images.squeeze(1) for name, images in rows.items()}

    def _embed(self, x: Tensor) -> Tensor:
        return self.net.code(x)[-1].flatten(2).mean(2)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        maps = blur(self.net.exactly(x), self.recipe.size / 64).squeeze(1).to(x.dtype)
        return reduce_map(maps, self.recipe.reduction, inside), maps


def ragged(n: int, side: int, largest: float, random: Generator) -> Tensor:
    """Irregular regions (n, 1, side, side), 1 inside, that take 2 % to `largest` of the image; edges soft or hard."""
    cells = OUTLINES[int(torch.randint(len(OUTLINES), (), generator=random))]
    heights = coarse_noise(n, side, cells, random, "bicubic")
    heights += 0.5 * coarse_noise(n, side, 2 * cells, random, "bicubic")
    share = 0.02 + (largest - 0.02) * torch.rand(n, generator=random)
    ranked = heights.flatten(1).sort(dim=1).values
    at = ((1.0 - share) * (ranked.shape[1] - 1)).long()[:, None]
    mask = (heights > ranked.gather(1, at)[:, :, None, None]).to(heights.dtype)
    reach = int(torch.randint(3, (), generator=random))
    for _ in range(2 if reach else 0):
        mask = functional.avg_pool2d(mask, 2 * reach + 1, stride=1, padding=reach)
    return mask


def foreign(x: Tensor, largest: float, random: Generator) -> tuple[Tensor, Tensor]:
    """Images with ragged regions of another one, shifted and more or less transparent, and these regions."""
    n, side = len(x), x.shape[-1]
    mask = ragged(n, side, largest, random).to(x.device)
    others = (torch.arange(n) + torch.randint(1, max(n, 2), (n,), generator=random)) % n
    shifts = torch.randint(-(side // 4), side // 4 + 1, (n, 2), generator=random).tolist()
    other = torch.stack([x[at].roll(tuple(by), (1, 2)) for at, by in zip(others.tolist(), shifts, strict=True)])
    opacity = 0.25 + 0.75 * torch.rand(n, 1, 1, 1, generator=random).to(x.device)
    return torch.lerp(x, other, mask * opacity), mask


def tinted(x: Tensor, largest: float, random: Generator) -> tuple[Tensor, Tensor]:
    """Images with ragged regions 0.06 to 0.4 brighter or darker, unevenly, and these regions."""
    n, side = len(x), x.shape[-1]
    mask = ragged(n, side, largest, random).to(x.device)
    amount, sign = torch.rand(2, n, 1, 1, 1, generator=random).to(x.device)
    texture = 1.0 + 0.4 * coarse_noise(n, side, 12, random).to(x.device)
    change = (0.06 + 0.34 * amount) * torch.where(sign < 0.5, -1.0, 1.0)
    return (x + mask * change * texture).clamp(0.0, 1.0), mask
