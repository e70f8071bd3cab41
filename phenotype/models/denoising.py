"""A denoising autoencoder: it must restore what was taken away, and so learn how pixels depend on each other.

Vincent et al. 2008, "Extracting and composing robust features with denoising autoencoders", with a convolutional
network. Scored on the image as it is, without corruption.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from phenotype.models import base
from phenotype.models.autoencoder import Autoencoder, AutoencoderRecipe
from phenotype.models.base import one_of

Corruption = Literal["masking", "gaussian"]
CORRUPTIONS: tuple[Corruption, ...] = ("masking", "gaussian")


@dataclass(frozen=True, slots=True, kw_only=True)
class DenoisingRecipe(AutoencoderRecipe):
    """Parameters of `DenoisingAutoencoder`."""

    corruption: Corruption = "masking"  # pixels set to 0, or noise added to all
    level: float = 0.25  # share of the pixels set to 0, or standard deviation of the noise

    def __post_init__(self) -> None:
        AutoencoderRecipe.__post_init__(self)
        one_of(self.corruption, CORRUPTIONS, "corruption")
        if not 0.0 < self.level < 1.0:
            raise ValueError(f"level must lie between 0 and 1, not at {self.level}")


class DenoisingAutoencoder(Autoencoder):
    """The autoencoder, trained to reconstruct the clean image from a corrupted one."""

    name: ClassVar[str] = "dae"
    recipe_type: ClassVar[type[base.Recipe]] = DenoisingRecipe
    recipe: DenoisingRecipe

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        return self.losses(x, self.reconstruct(self.corrupt(x, random)))

    def corrupt(self, x: Tensor, random: Generator) -> Tensor:
        """Images with pixels set to 0 or noise added, each pixel by itself; values may leave [0, 1] by the noise."""
        if self.recipe.corruption == "masking":
            return x * (torch.rand(x.shape, generator=random).to(x.device) >= self.recipe.level)
        return x + self.recipe.level * torch.randn(x.shape, generator=random).to(x.device)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        corrupted = self.corrupt(x, random)
        restored = self.reconstruct(corrupted)
        return {
            **super().pictures(x, random),
            "corrupted": corrupted.squeeze(1).clamp(0.0, 1.0),
            "restored": restored.squeeze(1),
        }
