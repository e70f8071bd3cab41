"""Generative adversarial networks: a generator z -> image, and a discriminator that tells its images from real ones.

`dcgan` (Radford et al. 2016, "Unsupervised representation learning with deep convolutional generative adversarial
networks") with the non-saturating loss of Goodfellow et al. 2014, and `wgan` (Arjovsky et al. 2017, "Wasserstein GAN",
with the gradient penalty of Gulrajani et al. 2017). The losses are functions of logits, the same for images here and
for numbers in `games`.

Departures from the papers: group norm where DCGAN has batch norm, so that an image is judged and generated alike in
training and in use, whatever its batch, and alike on one device and on several; no norm at all in the Wasserstein
critic, as its paper says; width 16 instead of 64 by default, and fewer critic updates, for a CPU.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.networks import decoder, encoder
from phenotype.models.ssim import blur

Losses = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class GANRecipe(base.Recipe):
    """Parameters of `GAN`."""

    latent: int = 64  # numbers in z
    width: int = 16  # channels of the first layer of each network; 64 in the paper
    critic_updates: int = 1  # updates of the discriminator for one of the generator

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        for name in ("latent", "width", "critic_updates"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WGANRecipe(GANRecipe):
    """Parameters of `WGAN`."""

    critic_updates: int = 3  # 5 in the paper
    gradient_penalty: float = 10.0  # weight


class GAN(base.ImageModel):
    """`generator` z -> images in [0, 1]; `trunk` images -> maps of 4 a side; `head` maps -> one logit, high for real.

    As an anomaly scorer it is the "P_D" of Schlegl et al. 2017: how little an image looks real to the discriminator,
    which never saw an anomaly. Its map is the size of the logit's gradient in the image.
    """

    recipe_type: ClassVar[type[base.Recipe]] = GANRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    adversary: ClassVar[str] = "discriminator"  # name of its optimizer
    norm: ClassVar[bool] = True  # whether the discriminator has group norms
    betas: ClassVar[tuple[float, float]] = (0.5, 0.999)  # of Adam
    recipe: GANRecipe

    def __init__(self, recipe: GANRecipe) -> None:
        super().__init__(recipe)
        self.generator = decoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)
        judge = encoder(recipe.size, recipe.width, 1, dims=recipe.dims, norm=self.norm)
        self.trunk, self.head = judge[:-2], judge[-2:]

    # ---- what others build on

    def generate(self, z: Tensor) -> Tensor:
        """Images (n, 1, *spatial) in [0, 1] of latent vectors (n, latent)."""
        images: Tensor = self.generator(z)
        return images

    def latents(self, n: int, random: Generator) -> Tensor:
        """Latent vectors (n, latent), standard normal, on the model's device."""
        return torch.randn(n, self.recipe.latent, generator=random).to(self.device)

    def sample(self, n: int, random: Generator) -> Tensor:
        """`n` new images (n, 1, *spatial) in [0, 1]."""
        return self.generate(self.latents(n, random))

    def features(self, x: Tensor) -> Tensor:
        """The discriminator's last maps (n, channels * 4 * 4) of images in [0, 1]: what feature matching compares."""
        maps: Tensor = self.trunk(2.0 * x - 1.0)
        return maps.flatten(1)

    def judge(self, x: Tensor) -> Tensor:
        """Logits (n,) of images in [0, 1], the higher the more real; the Wasserstein critic's have no zero."""
        logits: Tensor = self.head(self.trunk(2.0 * x - 1.0))
        return logits.squeeze(1)

    # ---- training

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        against = [*self.trunk.parameters(), *self.head.parameters()]
        return {
            self.adversary: Adam(against, lr=learning_rate, betas=self.betas),
            "generator": Adam(self.generator.parameters(), lr=learning_rate, betas=self.betas),
        }

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        turn = step % self.recipe.critic_updates == self.recipe.critic_updates - 1
        return (self.adversary, "generator") if turn else (self.adversary,)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> Losses:
        if update == "generator":
            return {"loss": self.generator_loss(self.judge(self.sample(len(x), random)))}
        with torch.no_grad():
            fake = self.sample(len(x), random)
        return self.adversary_losses(self.judge, x, fake, random)

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Tensor:
        """What the generator minimises, of the logits of its images."""

    @abstractmethod
    def adversary_losses(
        self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: Generator
    ) -> Losses:
        """What the discriminator minimises ("loss"), and what it is made of."""

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return {"images": x.squeeze(1), "samples": self.sample(len(x), random).squeeze(1)}

    # ---- use

    def _embed(self, x: Tensor) -> Tensor:
        return self.features(x)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            logits = self.judge(x)
            (gradient,) = torch.autograd.grad(logits.sum(), x)
        return -logits.detach(), blur(gradient.abs()).squeeze(1)


class DCGAN(GAN):
    """A deep convolutional GAN with the non-saturating loss."""

    name: ClassVar[str] = "dcgan"

    def generator_loss(self, fake: Tensor) -> Tensor:
        return non_saturating(fake)

    def adversary_losses(
        self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: Generator
    ) -> Losses:
        logits_real, logits_fake = judge(real), judge(fake)
        right = torch.cat([logits_real > 0, logits_fake <= 0]).float().mean()
        return {"loss": cross_entropy(logits_real, logits_fake), "right": right}


class WGAN(GAN):
    """A Wasserstein GAN: the critic's distance of real from generated images, kept honest by the gradient penalty."""

    name: ClassVar[str] = "wgan"
    recipe_type: ClassVar[type[base.Recipe]] = WGANRecipe
    adversary: ClassVar[str] = "critic"
    norm: ClassVar[bool] = False
    betas: ClassVar[tuple[float, float]] = (0.0, 0.9)
    recipe: WGANRecipe

    def generator_loss(self, fake: Tensor) -> Tensor:
        return wasserstein_generator(fake)

    def adversary_losses(
        self, judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: Generator
    ) -> Losses:
        distance = wasserstein(judge(real), judge(fake))
        penalty = gradient_penalty(judge, real, fake, random)
        return {"loss": self.recipe.gradient_penalty * penalty - distance, "distance": distance, "penalty": penalty}


def cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    """Loss of a discriminator of the logits (n,) of real and of generated samples: Goodfellow et al. 2014."""
    return functional.softplus(-real).mean() + functional.softplus(fake).mean()


def non_saturating(fake: Tensor) -> Tensor:
    """Loss of the generator in that game, of the logits of its samples: their -log probability of being real."""
    return functional.softplus(-fake).mean()


def saturating(fake: Tensor) -> Tensor:
    """Loss of the generator in the minimax game: log probability of being found out; no slope where all are."""
    return -functional.softplus(fake).mean()


def wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Distance of real from generated samples by a critic's values: it maximises it, the generator minimises it."""
    return real.mean() - fake.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """Loss of the generator in that game, of the critic's values of its samples."""
    return -fake.mean()


def gradient_penalty(judge: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: Generator) -> Tensor:
    """Mean squared distance of the critic's gradient norm from 1, between real and generated samples.

    Gulrajani et al. 2017. `judge` takes samples in the shape of `real` and answers each on its own: no batch norm.
    """
    at = torch.rand(len(real), *[1] * (real.ndim - 1), generator=random).to(real.device)
    between = torch.lerp(fake, real, at).requires_grad_()
    (gradient,) = torch.autograd.grad(judge(between).sum(), between, create_graph=True)
    norms: Tensor = gradient.flatten(1).pow(2).sum(1).add(1e-12).sqrt()  # the root of 0 has no derivative
    return (norms - 1.0).pow(2).mean()


def attribute_vector(z: Tensor, has: Tensor) -> Tensor:
    """The direction (latent,) in z of what some images have: mean of the z (n, latent) that `has` (n,) it - of others.

    Added to the z of an image without, it gives an image with it: the vector arithmetic of Radford et al. 2016, who
    look at generated images and note which of them have it. ValueError if all have it, or none.
    """
    if has.dtype != torch.bool or has.shape != z.shape[:1] or has.all() or not has.any():
        raise ValueError(
            f"has must be bool, one for each z, some True and some False, not {has.dtype} of {tuple(has.shape)} with "
            f"{int(has.sum())} True beside {len(z)} z"
        )
    return z[has].mean(0) - z[~has].mean(0)
