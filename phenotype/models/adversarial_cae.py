"""Adversarial convolutional autoencoder: its reconstructions must also pass for real images before a discriminator.

The aCAE that Schlegl et al. 2017 (AnoGAN) compare with, after Pathak et al. 2016, "Context encoders: feature learning
by inpainting": squared error and adversarial loss weighted 0.999 to 0.001. As in the comparison, the whole image is
reconstructed; nothing of it is hidden. Scored by the residual, by the discriminator's features of both images, or by
both, each divided by its mean over the training images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.base import REDUCTIONS, Reduction, dissimilarity_map, one_of, reduce_map, residual_map
from phenotype.models.gan import cross_entropy, non_saturating
from phenotype.models.inversion import spread
from phenotype.models.networks import decoder, encoder

Term = Literal["combined", "residual", "feature", "ssim"]
TERMS: tuple[Term, ...] = ("combined", "residual", "feature", "ssim")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialAutoencoderRecipe(base.Recipe):
    """Parameters of `AdversarialAutoencoder`."""

    latent: int = 32  # numbers in the code
    width: int = 16  # channels of the first layer of each network
    adversarial: float = 0.001  # weight of the adversarial loss; the rest is the squared error's
    term: Term = "combined"  # what the image score is made of
    reduction: Reduction = "mean"  # how the residual becomes one number

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.reduction, REDUCTIONS, "reduction")
        if not 0.0 <= self.adversarial < 1.0:
            raise ValueError(f"adversarial must lie between 0 and 1, not at {self.adversarial}")


class AdversarialAutoencoder(base.ImageModel):
    """`encoder` image -> code, `decoder` code -> image, and `trunk` and `head` of the discriminator image -> logit."""

    name: ClassVar[str] = "adversarial-cae"
    recipe_type: ClassVar[type[base.Recipe]] = AdversarialAutoencoderRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    recipe: AdversarialAutoencoderRecipe
    scale: Tensor  # means of residual and feature over training images

    def __init__(self, recipe: AdversarialAutoencoderRecipe) -> None:
        super().__init__(recipe)
        self.encoder = encoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)
        self.decoder = decoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)
        judge = encoder(recipe.size, recipe.width, 1, dims=recipe.dims)
        self.trunk, self.head = judge[:-2], judge[-2:]
        self.register_buffer("scale", torch.ones(2))

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images (n, 1, *spatial) as their codes give them back, in [0, 1]."""
        again: Tensor = self.decoder(self.encoder(x))
        return again

    def features(self, x: Tensor) -> Tensor:
        """The discriminator's last maps (n, channels * 4 * 4) of images in [0, 1]."""
        maps: Tensor = self.trunk(2.0 * x - 1.0)
        return maps.flatten(1)

    def judge(self, x: Tensor) -> Tensor:
        """Logits (n,) of images in [0, 1], the higher the more real."""
        logits: Tensor = self.head(self.trunk(2.0 * x - 1.0))
        return logits.squeeze(1)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        itself = [*self.encoder.parameters(), *self.decoder.parameters()]
        against = [*self.trunk.parameters(), *self.head.parameters()]
        return {
            "discriminator": Adam(against, lr=0.5 * learning_rate, betas=(0.5, 0.999)),
            "autoencoder": Adam(itself, lr=learning_rate),
        }

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        if update == "discriminator":
            with torch.no_grad():
                again = self.reconstruct(x)
            return {"loss": cross_entropy(self.judge(x), self.judge(again))}
        again = self.reconstruct(x)
        squared, against = functional.mse_loss(again, x), non_saturating(self.judge(again))
        return {
            "loss": torch.lerp(squared, against, self.recipe.adversarial),
            "squared": squared,
            "adversarial": against,
        }

    def fit(self, images: base.Source, seed: int) -> None:
        """The means of residual and feature terms over training images."""
        terms = torch.cat([torch.stack(self._terms(x, self.reconstruct(x), None)) for x in spread(images, self)], dim=1)
        self.scale.copy_(terms.mean(1).clamp(min=1e-12))

    def _terms(self, x: Tensor, again: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        residual = reduce_map(residual_map(x, again), self.recipe.reduction, inside)
        return residual, (self.features(x) - self.features(again)).abs().mean(1)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return {"images": x.squeeze(1), "reconstructed": self.reconstruct(x).squeeze(1)}

    def _embed(self, x: Tensor) -> Tensor:
        code: Tensor = self.encoder(x)
        return code

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        again = self.reconstruct(x)
        maps = residual_map(x, again)
        if self.recipe.term == "ssim":
            return reduce_map(dissimilarity_map(x, again), self.recipe.reduction, inside), maps
        residual, feature = (
            term / scale for term, scale in zip(self._terms(x, again, inside), self.scale, strict=True)
        )
        return {"residual": residual, "feature": feature, "combined": residual + feature}[self.recipe.term], maps
