"""GANs with an encoder: after the GAN, in the rest of the same training, an encoder learns to find z of an image.

The three ways of Schlegl et al. 2019 (f-AnoGAN): izi (image -> z -> image), izi_f (the discriminator's features of both
images too) and ziz (z -> image -> z). The encoder ends in a linear layer: z is drawn from N(0, 1), and an encoder that
ended in tanh could not reach a third of it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.base import REDUCTIONS, Reduction, one_of
from phenotype.models.gan import GAN, Losses
from phenotype.models.networks import encoder

if TYPE_CHECKING:
    from phenotype.models.anogan import AnoGANRecipe
    from phenotype.models.fanogan import FAnoGANRecipe

Inversion = Literal["izi_f", "izi", "ziz"]
INVERSIONS: tuple[Inversion, ...] = ("izi_f", "izi", "ziz")
Scales = Literal["training", "paper"]
SCALES: tuple[Scales, ...] = ("training", "paper")


@dataclass(frozen=True, kw_only=True)
class InversionRecipe:
    """What the recipes of all GANs with an encoder have."""

    __slots__ = ()
    gan_share: float = 0.6  # of the steps, for the GAN; the rest trains the encoder
    inversion: Inversion = "izi_f"  # what the encoder is trained on
    kappa: float = 1.0  # weight of the features beside the residual where the encoder is trained
    scales: Scales = "training"  # the terms of the score over their means on training images, or as in the paper
    reduction: Reduction = "mean"  # how the residual becomes one number

    def check(self) -> None:
        """ValueError unless the values are possible."""
        one_of(self.inversion, INVERSIONS, "inversion")
        one_of(self.scales, SCALES, "scales")
        one_of(self.reduction, REDUCTIONS, "reduction")
        if not 0.0 < self.gan_share < 1.0:
            raise ValueError(f"gan_share must lie between 0 and 1, not at {self.gan_share}")
        if self.kappa < 0.0:
            raise ValueError(f"kappa must not be negative: {self.kappa}")


class Inverted(GAN):
    """A GAN and an `encoder` images -> z, to be combined with the kind of GAN: `class X(Inverted, WGAN)`."""

    recipe: FAnoGANRecipe | AnoGANRecipe

    def __init__(self, recipe: FAnoGANRecipe | AnoGANRecipe) -> None:
        super().__init__(recipe)
        self.encoder = encoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)
        self.register_buffer("scale", torch.ones(len(self.term_names)))

    scale: Tensor  # what each of the terms is divided by
    term_names: tuple[str, ...]

    def encode(self, x: Tensor) -> Tensor:
        """Latent vectors (n, latent) of images in [0, 1]."""
        z: Tensor = self.encoder(x)
        return z

    @abstractmethod
    def terms(self, x: Tensor, again: Tensor, inside: Tensor | None = None) -> dict[str, Tensor]:
        """What tells the images `x` from `again`, those generated for them, each (n,) and named as in `term_names`."""

    def scaled(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms as the recipe's `scales` says."""
        if self.recipe.scales == "paper":
            return terms
        return {name: values / self.scale[self.term_names.index(name)] for name, values in terms.items()}

    # ---- training

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return super().optimizers(learning_rate) | {"encoder": Adam(self.encoder.parameters(), lr=2 * learning_rate)}

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        first = self._gan_steps(steps)
        return super().updates(step, first) if step < first else ("encoder",)

    def rate(self, step: int, steps: int) -> float:
        """A cosine from 1 to 0 in each of the two phases."""
        first = self._gan_steps(steps)
        return super().rate(step, first) if step < first else super().rate(step - first, steps - first)

    def _gan_steps(self, steps: int) -> int:
        return round(steps * self.recipe.gan_share)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> Losses:
        if update != "encoder":
            return super().forward(update, x, random, y)
        if self.recipe.inversion == "ziz":
            z = self.latents(len(x), random)
            with torch.no_grad():
                images = self.generate(z)
            return {"loss": functional.mse_loss(self.encode(images), z)}
        again = self.generate(self.encode(x))
        residual = functional.mse_loss(again, x)
        if self.recipe.inversion == "izi":
            return {"loss": residual, "residual": residual}
        with torch.no_grad():
            features = self.features(x)
        feature = functional.mse_loss(self.features(again), features)
        return {"loss": residual + self.recipe.kappa * feature, "residual": residual, "feature": feature}

    def fit(self, images: base.Source, seed: int) -> None:
        """The means of the terms over training images as the encoder maps them: what they are divided by."""
        terms = [self.terms(x, self.generate(self.encode(x))) for x in spread(images, self)]
        means = [torch.cat([some[name] for some in terms]).mean() for name in self.term_names]
        self.scale.copy_(torch.stack(means).clamp(min=1e-12))

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        again = self.generate(self.encode(x))
        return super().pictures(x, random) | {"reconstructed": again.squeeze(1)}

    def _embed(self, x: Tensor) -> Tensor:
        return self.encode(x)


def spread(images: base.Source, model: base.ImageModel, most: int = 512) -> Iterator[Tensor]:
    """At most `most` of the images, spread over all of them, by batches on the model's device."""
    some = np.linspace(0, len(images) - 1, min(len(images), most)).astype(np.int64)
    for at in range(0, len(some), 64):
        yield torch.from_numpy(np.ascontiguousarray(images.take(some[at : at + 64]), np.float32)).to(model.device)
