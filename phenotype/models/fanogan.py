"""f-AnoGAN: a Wasserstein GAN learns the normal, an encoder finds the latent vector of an image in one pass.

Schlegl et al. 2019, "f-AnoGAN: Fast unsupervised anomaly detection with generative adversarial networks", with the
gradient penalty of Gulrajani et al. 2017.

Departures from the paper: strided convolutions instead of residual blocks, smaller for a CPU; the residual is blurred
before it is squared; and each term of the score is divided by its mean over the training images, so that kappa weighs
the same at any width. `scales="paper"` gives the paper's own terms, means of squares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from phenotype.models import base
from phenotype.models.base import dissimilarity_map, one_of, reduce_map, residual_map
from phenotype.models.gan import WGAN, WGANRecipe
from phenotype.models.inversion import InversionRecipe, Inverted

Term = Literal["combined", "residual", "feature", "ssim"]
TERMS: tuple[Term, ...] = ("combined", "residual", "feature", "ssim")


@dataclass(frozen=True, slots=True, kw_only=True)
class FAnoGANRecipe(InversionRecipe, WGANRecipe):
    """Parameters of `FAnoGAN`; `kappa` is also the weight of the feature term in the score."""

    term: Term = "combined"  # what the image score is made of

    def __post_init__(self) -> None:
        WGANRecipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        self.check()


class FAnoGAN(Inverted, WGAN):
    """Generator z -> image, critic image -> number, encoder image -> z; scored by residual and critic's features."""

    name: ClassVar[str] = "f-anogan"
    recipe_type: ClassVar[type[base.Recipe]] = FAnoGANRecipe
    scoring: ClassVar[tuple[str, ...]] = ("term", "reduction", "scales", "kappa")
    term_names = ("residual", "feature")
    recipe: FAnoGANRecipe

    def terms(self, x: Tensor, again: Tensor, inside: Tensor | None = None) -> dict[str, Tensor]:
        paper = self.recipe.scales == "paper"
        residual = (x - again).squeeze(1) if paper else residual_map(x, again)
        return {
            "residual": reduce_map(residual**2, self.recipe.reduction, inside),
            "feature": ((self.features(x) - self.features(again)) ** 2).mean(1),
        }

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        again = self.generate(self.encode(x))
        maps = residual_map(x, again)
        if self.recipe.term == "ssim":
            return reduce_map(dissimilarity_map(x, again), self.recipe.reduction, inside), maps
        terms = self.scaled(self.terms(x, again, inside))
        if self.recipe.term == "combined":
            return terms["residual"] + self.recipe.kappa * terms["feature"], maps
        return terms[self.recipe.term], maps
