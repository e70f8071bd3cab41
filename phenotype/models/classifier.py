"""A classifier that starts from what an autoencoder has learnt without labels.

Schlegl, Ofner and Langs 2014, "Unsupervised pre-training across image domains improves lung tissue classification":
the encoder learns from unlabelled images, also of other sources, and is then fine-tuned with few labels. The paper
pretrains convolutional restricted Boltzmann machines; here it is an autoencoder. Where an image speaks for a class is
read off exactly: Zhou et al. 2016, "Learning deep features for discriminative localization" (class activation maps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.feature_autoencoder import SMOOTH
from phenotype.models.networks import channels, encoder, feature_maps

# Maps are normalised, so their averages differ by some hundredths between images: as they are, the linear layer would
# hardly learn in some hundred steps.
SCALE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierRecipe(base.Recipe):
    """Parameters of `Classifier`."""

    classes: int = 2  # class 0 is the normal one
    width: int = 16  # channels of the first layer; they double at each halving, up to four times as many

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, not {self.classes}")


class Classifier(base.ImageModel):
    """The convolutions of an `Autoencoder`, their maps of all depths averaged over the image, one linear layer.

    Averages and a linear layer can be swapped, so the class activation map is exact: with two classes its mean is the
    image's log odds of class 1, but for a constant; with more, the others are weighted by their probabilities among
    themselves. The score is the probability of classes other than 0; embeddings are the averages.
    """

    name: ClassVar[str] = "classifier"
    recipe_type: ClassVar[type[base.Recipe]] = ClassifierRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    told: ClassVar[Literal["nothing", "classes", "images"]] = "classes"
    recipe: ClassifierRecipe

    def __init__(self, recipe: ClassifierRecipe) -> None:
        super().__init__(recipe)
        *convolutions, _, _ = encoder(recipe.size, recipe.width, 1, dims=recipe.dims)  # without Flatten and Linear
        self.convolutions = nn.Sequential(*convolutions)
        self.head = nn.Linear(sum(channels(recipe.width, recipe.size)), recipe.classes)

    def initialise_from(self, pretrained: base.ImageModel) -> None:
        """Start from the convolutions of a trained "cae" or "dae", or another with their encoder, of the same size.

        Before training: `train` then continues from there. ValueError if it has other convolutions.
        """
        given = getattr(pretrained, "encoder", None)
        mine = self.convolutions.state_dict()
        if given is None:
            raise ValueError(f"{pretrained.name} has no encoder to start from; use a cae, dae or vae")
        theirs = given[: len(self.convolutions)].state_dict()
        if {key: value.shape for key, value in mine.items()} != {key: value.shape for key, value in theirs.items()}:
            raise ValueError(f"the encoder of {pretrained.recipe} is not that of {self.recipe}: same size, dims, width")
        self.convolutions.load_state_dict(theirs)

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {"classifier": Adam(self.parameters(), lr=learning_rate)}

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        y = cast(Tensor, y)
        if int(y.max()) >= self.recipe.classes:
            raise ValueError(
                f"{self.name} knows classes below {self.recipe.classes} (and -1, unknown), not {int(y.max())}"
            )
        known = (y >= 0).sum()
        losses = functional.cross_entropy(self._logits(x), y, ignore_index=-1, reduction="sum")
        return {"loss": losses / known.clamp(min=1), "known": known.float()}

    def _averages(self, x: Tensor) -> Tensor:
        return torch.cat([one.flatten(2).mean(2) for one in feature_maps(self.convolutions, x)], dim=1)

    def _logits(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(SCALE * self._averages(x))
        return logits

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Of each class for each image: (n, classes)."""
        with self._evaluating(x):
            return self._logits(x).softmax(1)

    def _embed(self, x: Tensor) -> Tensor:
        return self._averages(x)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        maps = feature_maps(self.convolutions, x)
        averages = torch.cat([one.flatten(2).mean(2) for one in maps], dim=1)
        logits = self.head(SCALE * averages)
        shares = logits[:, 1:].softmax(1)  # of the abnormal classes among themselves
        evidence = SCALE * (shares @ self.head.weight[1:] - self.head.weight[0])  # (n, channels)
        shown = torch.zeros_like(x)
        for one, weights in zip(maps, evidence.split([one.shape[1] for one in maps], dim=1), strict=True):
            level = torch.einsum("nc...,nc->n...", one, weights)[:, None]
            shown = shown + functional.interpolate(level, self.recipe.shape, mode=SMOOTH[self.recipe.dims])
        return logits.softmax(1)[:, 1:].sum(1), shown.squeeze(1)
