"""A denoising U-Net that takes away noise as coarse as lesions: what it takes away of an image is not healthy.

Kascenas et al. 2022, "Denoising autoencoders for unsupervised anomaly detection in brain MRI". An autoencoder needs a
narrow code so that it cannot copy a lesion; here everything is handed across and the noise alone forbids it, so that
what is healthy is restored sharply. Departures: the map is made of the signed residual at several scales, in
standard deviations at each pixel (`residuals`), healthy images are varied in training, and the U-Net is small.
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
from phenotype.models.base import REDUCTIONS, Reduction, Source, one_of, reduce_map
from phenotype.models.calibrate import batches
from phenotype.models.residuals import ResidualMap
from phenotype.models.unet import HalvedUNet

WEIGHT_DECAY = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class CoarseRecipe(base.Recipe):
    """Parameters of `CoarseDenoiser`."""

    width: int = 16  # channels of the first layer of the U-Net
    noise: float = 0.2  # standard deviation of the noise, in grey values of [0, 1]
    cells: int = 8  # a side of the grid that the noise is drawn on
    reduction: Reduction = "mean"  # how the map becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.reduction, REDUCTIONS, "reduction")
        if self.width < 1 or not 0.0 < self.noise < 1.0 or self.cells < 2:
            raise ValueError(
                f"width must be at least 1, noise between 0 and 1 and cells at least 2, "
                f"not {self.width}, {self.noise} and {self.cells}"
            )


class CoarseDenoiser(base.ImageModel):
    """Image with coarse noise -> image; applied to an image as it is, what it changes is anomalous."""

    name: ClassVar[str] = "coarse-dae"
    recipe_type: ClassVar[type[base.Recipe]] = CoarseRecipe
    clip: ClassVar[float | None] = 1.0
    recipe: CoarseRecipe

    def __init__(self, recipe: CoarseRecipe) -> None:
        super().__init__(recipe)
        self.net = HalvedUNet(recipe.size, recipe.width)
        self.residuals = ResidualMap(recipe.shape)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {"denoiser": AdamW(self.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)}

    def rate(self, step: int, steps: int) -> float:
        return one_cycle(step, steps)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        healthy = vary(x, random)
        squared = functional.mse_loss(self.restore(self.corrupt(healthy, random)), healthy)
        return {"loss": 10.0 * squared, "squared": squared}

    def corrupt(self, x: Tensor, random: Generator) -> Tensor:
        """Images with coarse noise added; values may leave [0, 1] by it."""
        noise = coarse_noise(len(x), self.recipe.size, self.recipe.cells, random)
        return x + self.recipe.noise * noise.to(x.device)

    def restore(self, x: Tensor) -> Tensor:
        """Images (n, 1, side, side) as the denoiser would have them; values may leave [0, 1] a little."""
        restored: Tensor = self.net(x)
        return restored

    def fit(self, images: Source, seed: int) -> None:
        taken = (torch.from_numpy(batch).to(self.device) for batch in batches(images, 64))
        self.residuals.fit(x - self.net.exactly(x) for x in taken)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        noisy = self.corrupt(x, random)
        rows = {"images": x, "noisy": noisy, "denoised": self.restore(noisy), "restored": self.restore(x)}
        return {name: images.squeeze(1).clamp(0.0, 1.0) for name, images in rows.items()}

    def _embed(self, x: Tensor) -> Tensor:
        return self.net.code(x)[-1].flatten(2).mean(2)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        maps = self.residuals(x - self.net.exactly(x)).to(x.dtype)
        return reduce_map(maps, self.recipe.reduction, inside), maps
