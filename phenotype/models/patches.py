"""What the models of patches share: features of every place of an image, from their own encoder or an ImageNet one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Generator, Tensor
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.backbone import Lite0, patch_features
from phenotype.models.base import REDUCTIONS, Reduction, Source, one_of, reduce_map
from phenotype.models.calibrate import batches
from phenotype.models.denoising import DenoisingAutoencoder, DenoisingRecipe
from phenotype.models.networks import channels, feature_maps


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchRecipe(base.Recipe):
    """Parameters that the models of patches share."""

    reduction: Reduction = "mean"  # of the map; disease that is spread out shows in the mean, a spot in the maximum
    width: int = 16  # of the own encoder: channels of its first layer
    latent: int = 32  # of the own encoder: numbers in its code

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.reduction, REDUCTIONS, "reduction")


class PatchModel(base.ImageModel):
    """Features of each place of a grid, and what is usual of them in the training images.

    With an own backbone, a denoising autoencoder is trained first and its encoder's maps of strides 4 and 8 are used;
    with Lite0 (`pretrained`) there is nothing to train. Features are in units of their spread over all training
    patches, so that layers and channels weigh alike. The map is the distance of each place, enlarged to the image;
    embeddings are mean features of the image.
    """

    pretrained: ClassVar[bool] = False
    fitted: ClassVar[tuple[str, ...]] = ("mean", "spread")
    recipe: PatchRecipe
    mean: Tensor
    spread: Tensor

    def __init__(self, recipe: PatchRecipe) -> None:
        super().__init__(recipe)
        if self.pretrained:
            self.lite0 = Lite0()
            self.strides = (8, 16) if recipe.size >= 64 else (4, 8)
            self.grid = recipe.size // self.strides[0]
        else:
            self.own = DenoisingAutoencoder(DenoisingRecipe(size=recipe.size, width=recipe.width, latent=recipe.latent))
            self.grid = recipe.size // 4
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("spread", torch.empty(0))

    @property
    def feature_count(self) -> int:
        """Numbers that describe a place."""
        if self.pretrained:
            return sum(Lite0.channels[stride] for stride in self.strides)
        return sum(channels(self.recipe.width, self.recipe.size)[1:3])

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {} if self.pretrained else {"autoencoder": Adam(self.own.parameters(), lr=learning_rate)}

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        return self.own(update, x, random)  # type: ignore[no-any-return]

    def features(self, x: Tensor) -> Tensor:
        """Features (n, channels, grid, grid) as the backbone gives them."""
        if not self.pretrained:
            return patch_features(feature_maps(self.own.encoder, x)[1:3])
        if torch.compiler.is_compiling():  # a graph takes a batch of any size at once
            return patch_features(self.lite0(x, self.strides))
        # One image at a time: the order of its sums, and so the last digits, would change with the batch.
        return torch.cat([patch_features(self.lite0(x[at : at + 1], self.strides)) for at in range(len(x))])

    def standardized(self, x: Tensor) -> Tensor:
        """Features (n, places, channels) of images, in units of their spread in the training images."""
        return (self.features(x).flatten(2).transpose(1, 2) - self.mean) / self.spread

    def fit(self, images: Source, seed: int) -> None:
        if self.pretrained:
            self.lite0.read_weights()
        total = torch.zeros(2, self.feature_count, dtype=torch.float64, device=self.device)
        for features in self._streamed(images):
            flat = features.double().flatten(2).transpose(1, 2).flatten(0, 1)
            total += torch.stack([flat.sum(0), (flat**2).sum(0)])
        total /= len(images) * self.grid**2
        self.mean = total[0].float()
        self.spread = (total[1] - total[0] ** 2).clamp(min=1e-12).sqrt().clamp(min=1e-6).float()
        self._fit(images, torch.Generator().manual_seed(seed))

    @abstractmethod
    def _fit(self, images: Source, random: Generator) -> None:
        """Learn what is usual of the standardised features."""

    @abstractmethod
    def distances(self, features: Tensor) -> Tensor:
        """How unusual each place (n, places) of images is, from their standardised features (n, places, channels)."""

    def _streamed(self, images: Source) -> Iterator[Tensor]:
        for part in batches(images, 32):
            yield self.features(torch.from_numpy(part).to(self.device))

    def _standardized_batches(self, images: Source) -> Iterator[Tensor]:
        for part in batches(images, 32):
            yield self.standardized(torch.from_numpy(part).to(self.device))

    def _embed(self, x: Tensor) -> Tensor:
        return self.standardized(x).mean(1)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return {"images": x.squeeze(1)} if self.pretrained else self.own.pictures(x, random)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        if not torch.compiler.is_compiling() and not len(x):
            return x.new_zeros(0), x.new_zeros(0, *self.recipe.shape)
        grids = self.distances(self.standardized(x)).reshape(-1, 1, self.grid, self.grid)
        maps = functional.interpolate(grids, self.recipe.shape, mode="bilinear", align_corners=False).squeeze(1)
        return reduce_map(maps, self.recipe.reduction, inside), maps
