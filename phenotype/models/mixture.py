"""A Gaussian mixture over principal components: normal is what has a high density.

The density of an image is that of its projections under the mixture, times an isotropic Gaussian over what the
components leave over: Moghaddam and Pentland 1997, "Probabilistic visual learning for object representation". The
mixture is scikit-learn's; what it learnt is kept as tensors and evaluated in torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from sklearn.mixture import GaussianMixture as Mixture
from torch import Tensor

from phenotype.models import base
from phenotype.models.base import Source, one_of, residual_map
from phenotype.models.calibrate import batches
from phenotype.models.pca import PrincipalComponents

Term = Literal["density", "complete"]
TERMS: tuple[Term, ...] = ("density", "complete")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureRecipe(base.Recipe):
    """Parameters of `GaussianMixture`."""

    components: int = 30  # principal components; fewer where there are not more images than that
    mixtures: int = 5  # Gaussians; fewer where there are not ten images for each
    ridge: float = 0.05  # added to the variances of each Gaussian, whose whole is 1 along each component
    term: Term = "complete"  # density of the projections alone, or complete: with what the components leave over

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        if min(self.components, self.mixtures) < 1:
            raise ValueError(f"components and mixtures must be at least 1, not {self.components} and {self.mixtures}")
        if self.ridge <= 0.0:
            raise ValueError(f"ridge must be above 0, not {self.ridge}: few images would make a variance 0")


class GaussianMixture(PrincipalComponents):
    """Gaussians with full covariances over projections that were scaled to variance 1; the score is -log density.

    The map is what the principal components leave over. It is not made of the density: its gradient is a sum of
    component images, each spread over the whole picture, and would show shapes where nothing is.
    """

    name: ClassVar[str] = "gmm"
    recipe_type: ClassVar[type[base.Recipe]] = MixtureRecipe
    fitted: ClassVar[tuple[str, ...]] = (*PrincipalComponents.fitted, "log_weights", "means", "precision_roots")
    recipe: MixtureRecipe  # type: ignore[assignment]
    log_weights: Tensor
    means: Tensor
    precision_roots: Tensor

    def __init__(self, recipe: MixtureRecipe) -> None:
        super().__init__(recipe)  # type: ignore[arg-type]
        self.register_buffer("log_weights", torch.empty(0))  # (m,)
        self.register_buffer("means", torch.empty(0, 0))  # (m, k)
        self.register_buffer("precision_roots", torch.empty(0, 0, 0))  # (m, k, k), upper; root @ root.T = precision

    def fit(self, images: Source, seed: int) -> None:
        super().fit(images, seed)
        parts = [self._standardized(torch.from_numpy(part).to(self.device)).cpu().numpy() for part in batches(images)]
        count = min(self.recipe.mixtures, max(1, len(images) // 10))
        mixture = Mixture(count, reg_covar=self.recipe.ridge, random_state=seed).fit(np.concatenate(parts))
        self.log_weights = self._kept(np.log(mixture.weights_))
        self.means = self._kept(mixture.means_)
        self.precision_roots = self._kept(mixture.precisions_cholesky_)

    def _standardized(self, x: Tensor) -> Tensor:
        return self._project(x) / self.variances.double().sqrt()

    def log_density(self, x: Tensor) -> Tensor:
        """Log density (n,), in 64 bits, of the standardized projections of images (n, 1, *spatial)."""
        away = self._standardized(x)[:, None, :] - self.means.double()
        roots = self.precision_roots.double()
        squared = (torch.einsum("nmk,mkl->nml", away, roots) ** 2).sum(2)
        log_volume = roots.diagonal(dim1=1, dim2=2).log().sum(1)
        constant = 0.5 * away.shape[2] * math.log(2.0 * math.pi)
        return torch.logsumexp(self.log_weights.double() + log_volume - 0.5 * squared, dim=1) - constant

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        again = self.reconstruct(x)
        score = -self.log_density(x)
        if self.recipe.term == "complete":  # up to a constant that is the same for all images
            score = score + 0.5 * self._outside(x, again)
        return score.to(x.dtype), residual_map(x, again)
