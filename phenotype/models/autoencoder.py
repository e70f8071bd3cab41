"""A convolutional autoencoder: what it cannot reconstruct through a narrow code is not what it has learnt as normal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.base import REDUCTIONS, Reduction, dissimilarity_map, one_of, reduce_map, residual_map
from phenotype.models.networks import decoder, encoder
from phenotype.models.ssim import ssim_map

Term = Literal["residual", "ssim", "both"]
TERMS: tuple[Term, ...] = ("residual", "ssim", "both")
SSIM_SHARE = 0.84  # of the mix of 1 - SSIM and absolute residual: Zhao et al. 2017


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoencoderRecipe(base.Recipe):
    """Parameters of `Autoencoder`."""

    latent: int = 32  # numbers in the code
    width: int = 16  # channels of the first layer; they double at each halving, up to four times as many
    ssim_weight: float = 1.0  # weight of 1 - SSIM beside the squared error in training
    term: Term = "ssim"  # what the image score is made of
    map_term: Term = "residual"  # what the map is made of
    reduction: Reduction = "mean"  # how the map of `term` becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.map_term, TERMS, "map_term")
        one_of(self.reduction, REDUCTIONS, "reduction")


class Autoencoder(base.ImageModel):
    """Convolutional autoencoder with a small code, trained on squared error and 1 - SSIM.

    Bergmann et al. 2018, "Improving unsupervised defect segmentation by applying structural similarity to
    autoencoders". The code is small and has no place: codes that keep a grid copy a lesion through.
    """

    name: ClassVar[str] = "cae"
    recipe_type: ClassVar[type[base.Recipe]] = AutoencoderRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    recipe: AutoencoderRecipe

    def __init__(self, recipe: AutoencoderRecipe) -> None:
        super().__init__(recipe)
        self.encoder = encoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)
        self.decoder = decoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {"autoencoder": Adam(self.parameters(), lr=learning_rate)}

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        return self.losses(x, self.reconstruct(x))

    def losses(self, x: Tensor, reconstructed: Tensor) -> dict[str, Tensor]:
        """Of reconstructions of the images `x`: "loss" and what it is made of."""
        squared = functional.mse_loss(reconstructed, x)
        dissimilarity = 1.0 - ssim_map(x, reconstructed).mean()
        # The squared error of [0, 1] images is some hundredths: times ten it weighs like 1 - SSIM.
        return {
            "loss": 10.0 * squared + self.recipe.ssim_weight * dissimilarity,
            "squared": squared,
            "dissimilarity": dissimilarity,
        }

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images (n, 1, *spatial) as their codes give them back, in [0, 1]."""
        again: Tensor = self.decoder(self.encoder(x))
        return again

    def _embed(self, x: Tensor) -> Tensor:
        code: Tensor = self.encoder(x)
        return code

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        again = self.reconstruct(x)
        return {"images": x.squeeze(1), "reconstructed": again.squeeze(1)}

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        reconstructed = self.reconstruct(x)
        score = reduce_map(error_map(x, reconstructed, self.recipe.term), self.recipe.reduction, inside)
        return score, error_map(x, reconstructed, self.recipe.map_term)


def error_map(x: Tensor, reconstructed: Tensor, term: Term) -> Tensor:
    """Reconstruction error at each pixel (n, *spatial): absolute residual, 1 - SSIM, or their mix."""
    if term == "residual":
        return residual_map(x, reconstructed)
    if term == "ssim":
        return dissimilarity_map(x, reconstructed)
    return torch.lerp(residual_map(x, reconstructed), dissimilarity_map(x, reconstructed), SSIM_SHARE)
