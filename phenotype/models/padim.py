"""PaDiM: what a patch looks like is a Gaussian of its own at each place, and unusual is what is far from its mean.

Defard et al. 2021, "PaDiM: a patch distribution modeling framework for anomaly detection and localization". It departs
in the regularisation: the covariance of a place is shrunk towards the mean covariance of all places, by the share
channels / (channels + images), where the paper adds 0.01 to its diagonal: a hundred images do not make a covariance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor

from phenotype.models import base
from phenotype.models.base import Source
from phenotype.models.patches import PatchModel, PatchRecipe


@dataclass(frozen=True, slots=True, kw_only=True)
class PaDiMRecipe(PatchRecipe):
    """Parameters of `PaDiM`."""

    selected: int = 64  # features that count, drawn at random

    def __post_init__(self) -> None:
        PatchRecipe.__post_init__(self)
        if self.selected < 1:
            raise ValueError(f"selected must be at least 1, not {self.selected}")


class PaDiM(PatchModel):
    """A Gaussian for each place; a place is as unusual as its Mahalanobis distance."""

    name: ClassVar[str] = "padim"
    recipe_type: ClassVar[type[base.Recipe]] = PaDiMRecipe
    fitted: ClassVar[tuple[str, ...]] = (*PatchModel.fitted, "chosen", "means", "whitening")
    recipe: PaDiMRecipe
    chosen: Tensor
    means: Tensor
    whitening: Tensor

    def __init__(self, recipe: PaDiMRecipe) -> None:
        super().__init__(recipe)
        self.register_buffer("chosen", torch.empty(0, dtype=torch.int64))  # (d,) of the features
        self.register_buffer("means", torch.empty(0))  # (places, d)
        self.register_buffer("whitening", torch.empty(0))  # (places, d, d): what makes distances plain ones

    def _fit(self, images: Source, random: Generator) -> None:
        count = min(self.recipe.selected, self.feature_count)
        self.chosen = torch.randperm(self.feature_count, generator=random)[:count].sort().values.to(self.device)
        total = torch.zeros(self.grid**2, count, dtype=torch.float64, device=self.device)
        products = torch.zeros(self.grid**2, count, count, dtype=torch.float64, device=self.device)
        for features in self._standardized_batches(images):
            at = features[:, :, self.chosen].double().transpose(0, 1)  # (places, n, d)
            total += at.sum(1)
            products += at.transpose(1, 2) @ at
        means = total / len(images)
        covariances = products / len(images) - means[:, :, None] * means[:, None, :]
        share = count / (count + len(images))
        shrunk = (1.0 - share) * covariances + share * covariances.mean(0)
        shrunk += 1e-6 * torch.eye(count, dtype=shrunk.dtype, device=shrunk.device)
        self.means = means.float()
        self.whitening = torch.linalg.inv(torch.linalg.cholesky(shrunk)).float()

    def distances(self, features: Tensor) -> Tensor:
        away = features[:, :, self.chosen] - self.means
        distances: Tensor = torch.linalg.vector_norm((self.whitening @ away[..., None]).squeeze(3), dim=2)
        return distances


class PaDiMLite0(PaDiM):
    """PaDiM on features of EfficientNet-Lite0, trained on ImageNet."""

    name: ClassVar[str] = "padim-lite0"
    pretrained: ClassVar[bool] = True
