"""A variational autoencoder: codes are distributions near N(0, 1), so that new images can be drawn.

Kingma and Welling 2014, "Auto-encoding variational Bayes"; beta: Higgins et al. 2017, "beta-VAE". Pixels are Gaussian
around the decoded image with one variance for all of them, at its optimum: Rybkin et al. 2021, "Simple and effective
VAE training with calibrated decoders" (sigma-VAE). A variance of 1, the usual squared error, would drown
pixels in [0, 1] in the divergence of the codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.autoencoder import error_map
from phenotype.models.base import REDUCTIONS, Reduction, Source, one_of, reduce_map, residual_map
from phenotype.models.calibrate import batches
from phenotype.models.networks import decoder, encoder

Term = Literal["elbo", "residual", "ssim", "both"]
TERMS: tuple[Term, ...] = ("elbo", "residual", "ssim", "both")
NARROWEST = 1e-5  # least variance of a pixel: a perfect reconstruction has no density


@dataclass(frozen=True, slots=True, kw_only=True)
class VAERecipe(base.Recipe):
    """Parameters of `VariationalAutoencoder`."""

    latent: int = 32  # numbers in the code
    width: int = 16  # channels of the first layer; they double at each halving, up to four times as many
    beta: float = 1.0  # weight of the divergence of the codes from N(0, 1)
    term: Term = "ssim"  # what the image score is made of; elbo: the lower bound of the density, with its sign turned
    reduction: Reduction = "mean"  # how the map of `term` becomes the image score; elbo is always a sum

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.reduction, REDUCTIONS, "reduction")
        if self.beta < 0.0:
            raise ValueError(f"beta must not be negative, not {self.beta}")


class VariationalAutoencoder(base.ImageModel):
    """Encoder to the mean and log variance of a code, decoder of codes drawn from there.

    Embedding and score take the mean of the code, not a draw: the same image has the same score.
    """

    name: ClassVar[str] = "vae"
    recipe_type: ClassVar[type[base.Recipe]] = VAERecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    recipe: VAERecipe
    variance: Tensor

    def __init__(self, recipe: VAERecipe) -> None:
        super().__init__(recipe)
        self.encoder = encoder(recipe.size, recipe.width, 2 * recipe.latent, dims=recipe.dims)
        self.decoder = decoder(recipe.size, recipe.width, recipe.latent, dims=recipe.dims)
        self.register_buffer("variance", torch.ones(()))  # of a pixel around its decoded value; `fit` measures it

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {"autoencoder": Adam(self.parameters(), lr=learning_rate)}

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        mean, log_variance = self.posterior(x)
        noise = torch.randn(mean.shape, generator=random).to(x.device)
        again = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        squared = (again - x).pow(2).mean()
        pixels = x[0].numel()
        # The optimal variance is the mean squared error; put into the density it leaves the logarithm.
        nll = 0.5 * pixels * (math.log(2.0 * math.pi) + squared.clamp(min=NARROWEST).log() + 1.0)
        divergence = divergence_from_standard(mean, log_variance).mean()
        return {
            "loss": (nll + self.recipe.beta * divergence) / pixels,
            "squared": squared,
            "divergence": divergence,
        }

    def fit(self, images: Source, seed: int) -> None:
        """The variance of a pixel around what the mean of the code gives."""
        total = 0.0
        for part in batches(images):
            x = torch.from_numpy(part).to(self.device)
            total += float((x - self.reconstruct(x)).double().pow(2).mean((1, *range(2, x.ndim))).sum())
        self.variance = torch.full_like(self.variance, max(total / len(images), NARROWEST))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance (n, latent) of the codes of images (n, 1, *spatial)."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 6.0)  # an exponential of what an untrained layer says must be finite

    def decode(self, codes: Tensor) -> Tensor:
        """Images (n, 1, *spatial) in [0, 1] of codes (n, latent)."""
        images: Tensor = self.decoder(codes)
        return images

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images (n, 1, *spatial) as the means of their codes give them back, in [0, 1]."""
        return self.decode(self.posterior(x)[0])

    @torch.no_grad()
    def sample(self, n: int, random: Generator) -> Tensor:
        """`n` new images (n, 1, *spatial) in [0, 1], decoded from codes drawn from N(0, 1); `random` on the CPU."""
        return self.decode(torch.randn(n, self.recipe.latent, generator=random).to(self.device))

    def _embed(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return {
            "images": x.squeeze(1),
            "reconstructed": self.reconstruct(x).squeeze(1),
            "drawn": self.sample(len(x), random).squeeze(1),
        }

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.posterior(x)
        again = self.decode(mean)
        maps = residual_map(x, again)
        if self.recipe.term != "elbo":
            return reduce_map(error_map(x, again, self.recipe.term), self.recipe.reduction, inside), maps
        surprise = 0.5 * ((x - again).squeeze(1) ** 2 / self.variance + (2.0 * math.pi * self.variance).log())
        nll = reduce_map(surprise, "mean", inside) * surprise[:1].numel()
        return nll + divergence_from_standard(mean, log_variance), maps


def divergence_from_standard(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Kullback-Leibler divergence (n,) of N(mean, exp(log_variance)), each (n, d), from N(0, 1), in nats."""
    return 0.5 * (mean.pow(2) + log_variance.exp() - 1.0 - log_variance).sum(1)
