"""AnoGAN: a DCGAN learns the normal; an image is as anomalous as it is far from the nearest image the GAN can make.

Schlegl et al. 2017, "Unsupervised anomaly detection with generative adversarial networks to guide marker discovery":
A(x) = (1 - lambda) R(x) + lambda D(x), of the residual R = sum |x - G(z)| and the discrimination loss D = sum |f(x) -
f(G(z))| of the discriminator's features (Salimans et al. 2016), z found by `mapping.search`. The paper's reference
discrimination loss, the cross-entropy of D(G(z)) after Yeh et al. 2017 ("Semantic image inpainting with deep
generative models"), is there as `guidance`; `COMPARISON` has the paper's comparison as recipes of one trained model.

Departures from the paper: an encoder, trained after the GAN, gives the search its start, and the search is short
(`search="paper"`: 500 steps from a random start); each term is divided by its mean over the training images, so that
lambda weighs the same at any width (`scales="paper"`: as in the paper). Those of `gan` and of `mapping` come on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from phenotype.models import base
from phenotype.models.base import dissimilarity_map, one_of, reduce_map, residual_map
from phenotype.models.gan import DCGAN, GANRecipe
from phenotype.models.inversion import InversionRecipe, Inverted
from phenotype.models.mapping import SCHEDULES, Mapping, Schedule, frozen, in_groups, random_starts, search

Guidance = Literal["feature", "cross-entropy"]
GUIDANCES: tuple[Guidance, ...] = ("feature", "cross-entropy")
Term = Literal["combined", "residual", "feature", "cross-entropy", "discriminator", "ssim"]
TERMS: tuple[Term, ...] = ("combined", "residual", "feature", "cross-entropy", "discriminator", "ssim")
WIDE = 32  # from this width on, channels-last is the faster order of numbers

# The paper's comparison on one trained network: model.scored_by(**COMPARISON["GAN_R"]).
COMPARISON: dict[str, dict[str, Any]] = {
    "P_D": {"term": "discriminator"},
    "GAN_R": {"guidance": "cross-entropy", "term": "combined"},
    "AnoGAN": {"guidance": "feature", "term": "combined"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnoGANRecipe(InversionRecipe, GANRecipe):
    """Parameters of `AnoGAN`."""

    gan_share: float = 0.7
    weight: float = 0.1  # lambda: of the discrimination loss; 1 - lambda is the residual's
    guidance: Guidance = "feature"  # what the discrimination loss is
    search: str = "brief"  # the schedule of the mapping: encoder, brief, fast or paper
    tolerance: float = 0.0  # above 0, an image's search ends when it gains less than this part in 20 steps
    term: Term = "combined"  # what the image score is made of

    def __post_init__(self) -> None:
        GANRecipe.__post_init__(self)
        one_of(self.guidance, GUIDANCES, "guidance")
        one_of(self.search, tuple(SCHEDULES), "search")
        one_of(self.term, TERMS, "term")
        if not 0.0 <= self.weight <= 1.0:
            raise ValueError(f"weight must lie between 0 and 1, not at {self.weight}")
        if not 0.0 <= self.tolerance < 1.0:
            raise ValueError(f"tolerance must lie between 0 and 1, not at {self.tolerance}")
        self.check()


class AnoGAN(Inverted, DCGAN):
    """Generator z -> image, discriminator image -> logit, encoder image -> z where the search for z starts."""

    name: ClassVar[str] = "anogan"
    recipe_type: ClassVar[type[base.Recipe]] = AnoGANRecipe
    scoring: ClassVar[tuple[str, ...]] = (
        *("term", "reduction", "scales"),
        *("weight", "guidance", "search", "tolerance"),
    )
    term_names = ("residual", "feature", "cross-entropy")
    recipe: AnoGANRecipe

    def terms(self, x: Tensor, again: Tensor, inside: Tensor | None = None) -> dict[str, Tensor]:
        pixels = x[0].numel() if len(x) else 1  # of a mean the paper's sum
        return {
            "residual": reduce_map((x - again).abs().squeeze(1), self.recipe.reduction, inside) * pixels,
            "feature": (self.features(x) - self.features(again)).abs().sum(1),
            "cross-entropy": functional.softplus(-self.judge(again)),
        }

    def map_to_latent(self, x: Tensor, schedule: Schedule | None = None) -> Mapping:
        """Where images (n, 1, *spatial) are mapped to, and how their losses fell; by the recipe's schedule, or another.

        The loss is A(x) of the paper, its terms as the recipe's `scales` says. An image's path is its own, whatever
        the others are.
        """
        with self._evaluating(x), torch.no_grad():
            return self._frozen()._map(x, schedule or self._schedule())

    def _schedule(self) -> Schedule:
        return SCHEDULES[self.recipe.search].stopping(self.recipe.tolerance)

    def _frozen(self) -> AnoGAN:
        return frozen(self, channels_last=self.recipe.width >= WIDE and self.recipe.dims == 2)

    def _map(self, x: Tensor, schedule: Schedule) -> Mapping:
        if schedule.from_encoder:
            (start,) = in_groups(lambda some: (self.encode(some),), x)
        else:
            start = random_starts(x, self.recipe.latent)
        (features,) = in_groups(lambda some: (self.features(some),), x)
        return search(self.generate, self._mapping_loss, (x, features), start, schedule)

    def _mapping_loss(self, again: Tensor, x: Tensor, features: Tensor) -> Tensor:
        terms = {"residual": (again - x).abs().flatten(1).sum(1)}
        if self.recipe.guidance == "feature":
            terms["feature"] = (self.features(again) - features).abs().sum(1)
        else:
            terms["cross-entropy"] = functional.softplus(-self.judge(again))
        return self._anomaly(self.scaled(terms))

    def _anomaly(self, terms: dict[str, Tensor]) -> Tensor:
        weight = self.recipe.weight
        return (1.0 - weight) * terms["residual"] + weight * terms[self.recipe.guidance]

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.recipe.term == "discriminator":
            return super()._score(x, inside)
        still = self._frozen()
        again = still._map(x, self._schedule()).images
        scores, maps = in_groups(still._compare, x, again, *(() if inside is None else (inside,)))
        return scores, maps

    def _compare(self, x: Tensor, again: Tensor, inside: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps = residual_map(x, again)
        if self.recipe.term == "ssim":
            return reduce_map(dissimilarity_map(x, again), self.recipe.reduction, inside), maps
        terms = self.scaled(self.terms(x, again, inside))
        return self._anomaly(terms) if self.recipe.term == "combined" else terms[self.recipe.term], maps
