"""f-AnoGAN: a Wasserstein GAN learns the normal, an encoder finds the latent vector of an image in one pass.

Schlegl et al. 2019, "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks" (the izi_f
training), with the gradient penalty of Gulrajani et al. 2017. Small enough for a CPU.
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
from phenotype.models.networks import decoder, encoder

Term = Literal["combined", "residual", "feature", "ssim"]
TERMS: tuple[Term, ...] = ("combined", "residual", "feature", "ssim")


@dataclass(frozen=True, slots=True, kw_only=True)
class FAnoGANRecipe(base.Recipe):
    """Parameters of `FAnoGAN`."""

    latent: int = 64  # numbers in z
    width: int = 16  # channels of the first layer of each network
    critic_updates: int = 3  # updates of the critic for one of the generator
    gradient_penalty: float = 10.0
    gan_share: float = 0.6  # of the steps, for the GAN; the rest trains the encoder
    kappa: float = 1.0  # weight of the feature term beside the residual
    term: Term = "combined"  # what the image score is made of
    reduction: Reduction = "mean"  # how the residual becomes one number

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.reduction, REDUCTIONS, "reduction")
        if not 0.0 < self.gan_share < 1.0:
            raise ValueError(f"gan_share must lie between 0 and 1, not at {self.gan_share}")


class FAnoGAN(base.ImageModel):
    """Generator z -> image, critic image -> number, encoder image -> z.

    z is drawn from N(0, 1) and the encoder ends in a linear layer, so both have the same range. The critic has no
    normalisation and no dropout: the gradient penalty is a property of one image.
    """

    name: ClassVar[str] = "f-anogan"
    recipe_type: ClassVar[type[base.Recipe]] = FAnoGANRecipe
    recipe: FAnoGANRecipe

    def __init__(self, recipe: FAnoGANRecipe) -> None:
        super().__init__(recipe)
        self.generator = decoder(recipe.size, recipe.width, recipe.latent)
        critic = encoder(recipe.size, recipe.width, 1, norm=False)
        self.features, self.judge = critic[:-1], critic[-1]
        self.encoder = encoder(recipe.size, recipe.width, recipe.latent)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        critic = [*self.features.parameters(), *self.judge.parameters()]
        return {
            "critic": Adam(critic, lr=learning_rate, betas=(0.0, 0.9)),
            "generator": Adam(self.generator.parameters(), lr=learning_rate, betas=(0.0, 0.9)),
            "encoder": Adam(self.encoder.parameters(), lr=2 * learning_rate),
        }

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        if step >= self._gan_steps(steps):
            return ("encoder",)
        turn = step % self.recipe.critic_updates == self.recipe.critic_updates - 1
        return ("critic", "generator") if turn else ("critic",)

    def rate(self, step: int, steps: int) -> float:
        """A cosine from 1 to 0 in each of the two phases."""
        first = self._gan_steps(steps)
        return super().rate(step, first) if step < first else super().rate(step - first, steps - first)

    def _gan_steps(self, steps: int) -> int:
        return round(steps * self.recipe.gan_share)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        if update == "encoder":
            return self._encoder_losses(x)
        z = torch.randn(len(x), self.recipe.latent, generator=random).to(x.device)
        if update == "generator":
            return {"loss": -self._judge(self.generator(z)).mean()}
        with torch.no_grad():
            fake = self.generator(z)
        distance = self._judge(x).mean() - self._judge(fake).mean()
        penalty = self._gradient_penalty(x, fake, random)
        return {
            "loss": self.recipe.gradient_penalty * penalty - distance,
            "distance": distance,
            "penalty": penalty,
        }

    def _encoder_losses(self, x: Tensor) -> dict[str, Tensor]:
        again = self.generator(self.encoder(x))
        residual = functional.mse_loss(again, x)
        feature = functional.mse_loss(self._features(again), self._features(x))
        return {"loss": residual + self.recipe.kappa * feature, "residual": residual, "feature": feature}

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.features(2.0 * x - 1.0)
        return features

    def _judge(self, x: Tensor) -> Tensor:
        judged: Tensor = self.judge(self._features(x))
        return judged.squeeze(1)

    def _gradient_penalty(self, real: Tensor, fake: Tensor, random: Generator) -> Tensor:
        """Mean squared distance of the critic's gradient norm from 1, between real and generated images."""
        at = torch.rand(len(real), 1, 1, 1, generator=random).to(real.device)
        between = torch.lerp(fake, real, at).requires_grad_()
        (gradient,) = torch.autograd.grad(self._judge(between).sum(), between, create_graph=True)
        norms: Tensor = gradient.flatten(1).pow(2).sum(1).add(1e-12).sqrt()  # the root of 0 has no derivative
        return (norms - 1.0).pow(2).mean()

    def _embed(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)
        return z

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        again = self.generator(self.encoder(x))
        residual = residual_map(x, again)
        if self.recipe.term == "ssim":
            return reduce_map(dissimilarity_map(x, again), self.recipe.reduction, inside), residual
        squared = reduce_map(residual**2, self.recipe.reduction, inside)
        if self.recipe.term == "residual":
            return squared, residual
        feature = ((self._features(x) - self._features(again)) ** 2).mean(1)
        return feature if self.recipe.term == "feature" else squared + self.recipe.kappa * feature, residual
