"""Principal components: an image is normal as far as a few directions of the training images make it up.

Turk and Pentland 1991, "Eigenfaces for recognition"; as a density, Tipping and Bishop 1999, "Probabilistic principal
component analysis". Linear, computed at once, the baseline that an autoencoder must beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA, IncrementalPCA
from torch import Generator, Tensor
from torch.optim import Optimizer

from phenotype.models import base
from phenotype.models.autoencoder import error_map
from phenotype.models.base import REDUCTIONS, Reduction, Source, one_of, reduce_map, residual_map
from phenotype.models.calibrate import batches
from phenotype.models.residuals import ResidualMap

MapTerm = Literal["residual", "scales"]
MAP_TERMS: tuple[MapTerm, ...] = ("residual", "scales")
Term = Literal["residual", "ssim", "both", "mahalanobis"]
TERMS: tuple[Term, ...] = ("residual", "ssim", "both", "mahalanobis")
AT_ONCE = 2**28  # numbers in memory at once, 1 GiB: more images than that are computed in parts
NOISE = 1e-6  # least variance of a pixel outside the components: no training image may be left over


@dataclass(frozen=True, slots=True, kw_only=True)
class PCARecipe(base.Recipe):
    """Parameters of `PrincipalComponents`."""

    components: int = 30  # directions; fewer where there are not more images than that
    term: Term = "ssim"  # what the image score is made of; mahalanobis: the distance under probabilistic PCA
    map_term: MapTerm = "scales"  # what the map is made of; scales: the signed residual in standard deviations
    reduction: Reduction = "mean"  # how the map of `term` becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.map_term, MAP_TERMS, "map_term")
        one_of(self.reduction, REDUCTIONS, "reduction")
        if self.components < 1:
            raise ValueError(f"components must be at least 1, not {self.components}")


class PrincipalComponents(base.ImageModel):
    """Mean image, directions of greatest variance, and the variance along each; the map is what they leave over.

    Embeddings are the projections onto the directions, in the order of their variance. Up to 1 GiB of images is
    computed at once (scikit-learn's PCA), more in parts (its IncrementalPCA, an approximation).
    """

    name: ClassVar[str] = "pca"
    recipe_type: ClassVar[type[base.Recipe]] = PCARecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    fitted: ClassVar[tuple[str, ...]] = ("components", "variances")
    recipe: PCARecipe
    mean: Tensor
    components: Tensor
    variances: Tensor
    noise: Tensor

    def __init__(self, recipe: PCARecipe) -> None:
        super().__init__(recipe)
        pixels = recipe.size**recipe.dims
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.empty(0, pixels))  # (k, pixels), orthonormal
        self.register_buffer("variances", torch.empty(0))  # (k,)
        self.register_buffer("noise", torch.ones(()))  # variance of a pixel outside the components
        self.residuals = ResidualMap(recipe.shape)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {}

    def fit(self, images: Source, seed: int) -> None:
        pixels = len(self.mean)
        count = min(self.recipe.components, len(images) - 1, pixels)
        if count < 1:
            raise ValueError(f"principal components need at least 2 images, not {len(images)}")
        pca: PCA | IncrementalPCA
        if len(images) * pixels <= AT_ONCE:
            pca = PCA(count, random_state=seed)
            pca.fit(images.take(np.arange(len(images))).reshape(len(images), -1))
        else:
            pca = IncrementalPCA(count)
            for part in batches(images, max(256, 4 * count)):
                pca.partial_fit(part.reshape(len(part), -1))
        outside = pca.explained_variance_[0] / pca.explained_variance_ratio_[0] - pca.explained_variance_.sum()
        self.mean = self._kept(pca.mean_)
        self.components = self._kept(pca.components_)
        self.variances = self._kept(pca.explained_variance_.clip(NOISE))
        self.noise = self._kept(max(outside / max(pixels - count, 1), NOISE))
        taken = (torch.from_numpy(part).to(self.device) for part in batches(images, 64))
        self.residuals.fit(self.left_out(x, len(images)) for x in taken)

    def left_out(self, x: Tensor, count: int) -> Tensor:
        """What the components of the others would leave over, about, of some of `count` training images.

        An image pulls the components towards itself by its leverage; divided by the rest, its residual is what a new
        image's would be (PRESS, Allen 1974). Of few images the residuals would else be far too small.
        """
        pull = (self._project(x) ** 2 / self.variances.double()).sum(1) / (count - 1) + 1.0 / count
        return (x - self.reconstruct(x)) / (1.0 - pull).clamp(min=0.1).to(x.dtype).view(-1, *[1] * (x.ndim - 1))

    def _kept(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images (n, 1, *spatial) as their components make them up; values may leave [0, 1] a little."""
        codes = self._project(x)
        again = (codes @ self.components.double() + self.mean.double()).reshape(x.shape)
        return again.to(x.dtype)

    def _project(self, x: Tensor) -> Tensor:
        """Projections (n, k), in 64 bits: sums of thousands of pixels that must not depend on the batch."""
        return (x.flatten(1).double() - self.mean.double()) @ self.components.double().T

    def _embed(self, x: Tensor) -> Tensor:
        return self._project(x).to(x.dtype)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        shown = self.components[: len(x)].reshape(-1, *self.recipe.shape)
        low, high = shown.flatten(1).aminmax(dim=1)
        low, high = (bound.reshape(-1, *[1] * self.recipe.dims) for bound in (low, high))
        return {
            "images": x.squeeze(1),
            "reconstructed": self.reconstruct(x).squeeze(1).clamp(0.0, 1.0),
            "components": (shown - low) / (high - low),
        }

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        again = self.reconstruct(x)
        maps = residual_map(x, again) if self.recipe.map_term == "residual" else self.residuals(x - again)
        if self.recipe.term == "mahalanobis":
            along = (self._project(x) ** 2 / self.variances.double()).sum(1)
            return (along + self._outside(x, again)).sqrt().to(x.dtype), maps
        return reduce_map(error_map(x, again, self.recipe.term), self.recipe.reduction, inside), maps

    def _outside(self, x: Tensor, again: Tensor) -> Tensor:
        """Squared distance (n,) from the space of the components, in units of the variance there; 64 bits."""
        return ((x - again).double() ** 2).flatten(1).sum(1) / self.noise.double()
