"""An autoencoder of features: what is unusual shows in how things look together, not in grey values alone.

After Shi et al. 2021, "Unsupervised anomaly segmentation via deep feature reconstruction" (DFR): feature maps of
several depths are brought to one grid, and an autoencoder reconstructs them. It departs from DFR twice. The features
are not those of a network trained on photographs, but of an encoder that first learns to reconstruct the training
images and is then frozen. And the code is one for the whole grid, not one for each place (1 x 1 convolutions): those
reconstructed planted spots as well as all else (AUROC 0.74 against 0.99 on the tests' images of 32 x 32 pixels).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.autoencoder import Autoencoder, AutoencoderRecipe
from phenotype.models.base import REDUCTIONS, Reduction, Source, one_of, reduce_map
from phenotype.models.calibrate import batches
from phenotype.models.networks import channels, decoder, encoder, feature_maps

SMOOTH = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureAutoencoderRecipe(base.Recipe):
    """Parameters of `FeatureAutoencoder`."""

    latent: int = 32  # numbers in the code of the image, and in that of its features
    width: int = 16  # channels of the first layer; they double at each halving, up to four times as many
    first_share: float = 0.5  # of the steps, for the first phase
    reduction: Reduction = "top10"  # how the map becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.reduction, REDUCTIONS, "reduction")
        if not 0.0 < self.first_share < 1.0:
            raise ValueError(f"first_share must lie between 0 and 1, not at {self.first_share}")


class FeatureAutoencoder(base.ImageModel):
    """Encoder and decoder of images (phase one), then an autoencoder of the encoder's feature maps (phase two).

    The map is the mean squared error of the features at each place, each channel in units of its usual error in the
    training images; on the grid, brought to the image's size. Embeddings are image codes.
    """

    name: ClassVar[str] = "feature-ae"
    recipe_type: ClassVar[type[base.Recipe]] = FeatureAutoencoderRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    recipe: FeatureAutoencoderRecipe
    usual: Tensor

    def __init__(self, recipe: FeatureAutoencoderRecipe) -> None:
        super().__init__(recipe)
        self.images = Autoencoder(
            AutoencoderRecipe(size=recipe.size, dims=recipe.dims, latent=recipe.latent, width=recipe.width)
        )
        count = sum(channels(recipe.width, recipe.size))
        self.grid = max(8, recipe.size // 4)
        self.code = encoder(self.grid, 2 * recipe.width, recipe.latent, dims=recipe.dims, inputs=count)
        *layers, _ = decoder(self.grid, 2 * recipe.width, recipe.latent, dims=recipe.dims, outputs=count)
        self.decode = nn.Sequential(*layers)  # without the sigmoid: features may have any value
        self.register_buffer("usual", torch.ones(count))  # mean squared error of each channel in training images

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {
            "autoencoder": Adam(self.images.parameters(), lr=learning_rate),
            "features": Adam([*self.code.parameters(), *self.decode.parameters()], lr=learning_rate),
        }

    def updates(self, step: int, steps: int) -> tuple[str, ...]:
        return ("autoencoder",) if step < self._first(steps) else ("features",)

    def rate(self, step: int, steps: int) -> float:
        """A cosine from 1 to 0 in each of the two phases."""
        first = self._first(steps)
        return super().rate(step, first) if step < first else super().rate(step - first, steps - first)

    def _first(self, steps: int) -> int:
        return round(steps * self.recipe.first_share)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        if update == "autoencoder":
            return self.images.losses(x, self.images.reconstruct(x))
        features = self.features(x)
        return {"loss": functional.mse_loss(self.decode(self.code(features)), features)}

    def features(self, x: Tensor) -> Tensor:
        """The encoder's maps of all depths as one (n, channels, *grid), a quarter of the image's side, at least 8."""
        grid = (self.grid,) * self.recipe.dims
        # Coarse maps are interpolated, fine ones averaged ("area" takes any number of dimensions).
        return torch.cat(
            [
                functional.interpolate(one, grid, mode="area" if one.shape[2] > self.grid else SMOOTH[self.recipe.dims])
                for one in feature_maps(self.images.encoder, x)
            ],
            dim=1,
        )

    def fit(self, images: Source, seed: int) -> None:
        """The usual error of each channel: some are hard to reconstruct in any image."""
        total = torch.zeros_like(self.usual, dtype=torch.float64)
        for part in batches(images):
            error = self._error(torch.from_numpy(part).to(self.device))
            total += error.double().flatten(2).mean(2).sum(0)
        self.usual = (total / len(images)).clamp(min=1e-6).to(self.usual.dtype)

    def _error(self, x: Tensor) -> Tensor:
        features = self.features(x)
        error: Tensor = (self.decode(self.code(features)) - features) ** 2
        return error

    def _embed(self, x: Tensor) -> Tensor:
        return self.images._embed(x)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return self.images.pictures(x, random)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        error = torch.einsum("nc...,c->n...", self._error(x), 1.0 / self.usual) / len(self.usual)
        maps = functional.interpolate(error[:, None], self.recipe.shape, mode=SMOOTH[self.recipe.dims]).squeeze(1)
        return reduce_map(maps, self.recipe.reduction, inside), maps
