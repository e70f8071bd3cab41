"""A deep autoencoder of fully connected layers, pretrained layer by layer, then trained as a whole.

Hinton and Salakhutdinov 2006, "Reducing the dimensionality of data with neural networks" (784-1000-500-250-2, sigmoid
units, a linear code). Each layer is pretrained as an autoencoder of what the layer before it gives, as in Bengio et al.
2007, "Greedy layer-wise training of deep networks", rather than as a restricted Boltzmann machine: one loss, one
optimizer and one loop for both phases.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.autoencoder import TERMS, Term, error_map
from phenotype.models.base import REDUCTIONS, Reduction, one_of, reduce_map, residual_map

WHOLE = "all"  # the update of all layers


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedRecipe(base.Recipe):
    """Parameters of `StackedAutoencoder`."""

    hidden: str = "1000-500-250"  # units of the layers between image and code
    latent: int = 2  # numbers in the code: 2 can be plotted
    pretraining: float = 0.4  # share of the steps in which single layers learn; 0 trains from scratch
    term: Term = "ssim"  # what the image score is made of
    reduction: Reduction = "mean"  # how the map of `term` becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")
        one_of(self.reduction, REDUCTIONS, "reduction")
        if not all(units.isdecimal() and int(units) for units in self.hidden.split("-")):
            raise ValueError(f"hidden must be numbers of units such as 1000-500-250, not {self.hidden!r}")
        if not 0.0 <= self.pretraining < 1.0:
            raise ValueError(f"pretraining must be at least 0 and less than 1, not {self.pretraining}")


class StackedAutoencoder(base.ImageModel):
    """Layers of sigmoid units down to a linear code, and back; pixels are read as probabilities, as in the paper.

    Optimizers: "layer1", "layer2", ... each of one layer and its mirror image, and "all" of all of them.
    """

    name: ClassVar[str] = "stacked"
    recipe_type: ClassVar[type[base.Recipe]] = StackedRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    recipe: StackedRecipe

    def __init__(self, recipe: StackedRecipe) -> None:
        super().__init__(recipe)
        sizes = [recipe.size**recipe.dims, *map(int, recipe.hidden.split("-")), recipe.latent]
        self.down = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.up = nn.ModuleList(nn.Linear(b, a) for a, b in pairwise(sizes))  # up[i] undoes down[i]

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        layers = {
            f"layer{number}": Adam([*down.parameters(), *up.parameters()], lr=learning_rate)
            for number, (down, up) in enumerate(zip(self.down, self.up, strict=True), start=1)
        }
        return {**layers, WHOLE: Adam(self.parameters(), lr=learning_rate)}

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        first = self._pretraining(steps)
        return (WHOLE,) if step >= first else (f"layer{step * len(self.down) // first + 1}",)

    def rate(self, step: int, steps: int) -> float:
        """Constant while layers are pretrained, then a cosine from 1 to 0."""
        first = self._pretraining(steps)
        return 1.0 if step < first else super().rate(step - first, steps - first)

    def _pretraining(self, steps: int) -> int:
        return round(steps * self.recipe.pretraining)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        pixels = x.flatten(1)
        if update == WHOLE:
            logits = self._logits(self._codes(pixels))
        else:
            layer = int(update.removeprefix("layer")) - 1
            pixels = self._codes(pixels, layer).detach()  # what this layer is to reconstruct
            logits = self.up[layer](self._codes(pixels, layer + 1, layer))
        return {
            "loss": functional.binary_cross_entropy_with_logits(logits, pixels),
            "squared": functional.mse_loss(torch.sigmoid(logits), pixels),
        }

    def _codes(self, values: Tensor, end: int | None = None, start: int = 0) -> Tensor:
        """Values before layer `start` taken to behind the layer before `end`: sigmoids, and a linear code at last."""
        for layer in range(start, len(self.down) if end is None else end):
            values = self.down[layer](values)
            if layer + 1 < len(self.down):
                values = torch.sigmoid(values)
        return values

    def _logits(self, codes: Tensor) -> Tensor:
        """Codes (n, latent) -> logits of the pixels (n, pixels)."""
        for up in reversed(self.up[1:]):
            codes = torch.sigmoid(up(codes))
        logits: Tensor = self.up[0](codes)
        return logits

    def decode(self, codes: Tensor) -> Tensor:
        """Images (n, 1, *spatial) of codes (n, latent)."""
        return torch.sigmoid(self._logits(codes)).reshape(-1, 1, *self.recipe.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The images (n, 1, *spatial) as their codes give them back, in [0, 1]."""
        return self.decode(self._codes(x.flatten(1)))

    def _embed(self, x: Tensor) -> Tensor:
        return self._codes(x.flatten(1))

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return {"images": x.squeeze(1), "reconstructed": self.reconstruct(x).squeeze(1)}

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        again = self.reconstruct(x)
        return reduce_map(error_map(x, again, self.recipe.term), self.recipe.reduction, inside), residual_map(x, again)
