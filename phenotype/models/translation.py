"""From image to image: a U-Net with a discriminator of patches.

`pix2pix`: Isola et al. 2017, "Image-to-image translation with conditional adversarial networks": told an image for
each image (a lung mask, or the image of a mask), it learns to make the one of the other. `healthy` learns with the same
networks, told nothing, to give back healthy images in which lesions were planted on the fly; what it changes in an
image is what is not healthy (in the line of Zavrtanik et al. 2021, "DRAEM", and Baur et al. 2020, "SteGANomaly").

Departures from the paper: group norm for batch norm and no dropout, so that an image has one translation, whatever its
batch; nothing is deeper than 4 pixels a side; width 16 instead of 64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Adam, Optimizer

from phenotype.models import base
from phenotype.models.base import REDUCTIONS, Reduction, halvings, one_of, reduce_map, residual_map
from phenotype.models.gan import Losses, cross_entropy, non_saturating
from phenotype.models.networks import CONV, UNCONV, channels, group_norm

ZOOM = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TranslationRecipe(base.Recipe):
    """Parameters of `Pix2Pix`."""

    width: int = 16  # channels of the first layer of each network; 64 in the paper
    l1_weight: float = 100.0  # of the absolute difference beside the adversarial loss
    reduction: Reduction = "mean"  # how the map becomes the image score

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.reduction, REDUCTIONS, "reduction")
        if self.width < 1 or self.l1_weight < 0:
            raise ValueError(f"width must be at least 1 and l1_weight 0, not {self.width} and {self.l1_weight}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthyRecipe(TranslationRecipe):
    """Parameters of `Healthy`."""

    reduction: Reduction = "top10"  # lesions are small


class UNet(nn.Module):
    """Images (n, 1, *spatial) -> images (n, 1, *spatial) in [0, 1]; what is halved away is handed across.

    Ronneberger et al. 2015, "U-Net", with the strided convolutions of pix2pix.
    """

    def __init__(self, size: int, width: int, dims: int) -> None:
        super().__init__()
        widths = channels(width, size)
        conv, unconv = CONV[dims], UNCONV[dims]
        self.down = nn.ModuleList(
            nn.Sequential(conv(before, after, 4, stride=2, padding=1), group_norm(after), nn.LeakyReLU(0.2))
            for before, after in zip([1, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            nn.Sequential(unconv(before, after, 4, stride=2, padding=1), group_norm(after), nn.ReLU())
            for before, after in zip(
                [widths[-1], *(2 * one for one in widths[-2::-1])], [*widths[-2::-1], width], strict=True
            )
        )
        self.out = conv(width + 1, 1, 3, padding=1)

    def code(self, x: Tensor) -> list[Tensor]:
        """Maps at each scale, the image first, those of 4 a side last."""
        scales = [2.0 * x - 1.0]
        for layer in self.down:
            scales.append(layer(scales[-1]))
        return scales

    def forward(self, x: Tensor) -> Tensor:
        *across, maps = self.code(x)
        for layer, beside in zip(self.up, reversed(across), strict=True):
            maps = torch.cat([layer(maps), beside], 1)
        image: Tensor = self.out(maps).sigmoid()
        return image


def patch_discriminator(size: int, width: int, dims: int) -> nn.Sequential:
    """Pairs of images (n, 2, *spatial) -> logits (n, 1, ...) of their overlapping patches, each of 38 a side."""
    layers: list[nn.Module] = []
    before = 2
    for level in range(min(3, halvings(size))):
        after = width * 2**level
        layers.append(CONV[dims](before, after, 4, stride=2, padding=1))
        if level:
            layers.append(group_norm(after))
        layers.append(nn.LeakyReLU(0.2))
        before = after
    return nn.Sequential(*layers, CONV[dims](before, 1, 3, padding=1))


class Pix2Pix(base.ImageModel):
    """`translator` image -> image; `discriminator` pair of images -> logits of patches, high for a real pair.

    Its anomaly map is the discriminator's doubt that the translation belongs to the image, -log probability, patch by
    patch: high where the image is not of the kind that the translator has learnt.
    """

    name: ClassVar[str] = "pix2pix"
    recipe_type: ClassVar[type[base.Recipe]] = TranslationRecipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)
    told: ClassVar[Literal["nothing", "classes", "images"]] = "images"
    recipe: TranslationRecipe

    def __init__(self, recipe: TranslationRecipe) -> None:
        super().__init__(recipe)
        self.translator = UNet(recipe.size, recipe.width, recipe.dims)
        self.discriminator = patch_discriminator(recipe.size, recipe.width, recipe.dims)

    @torch.no_grad()
    def translate(self, x: Tensor) -> Tensor:
        """What the images become: (n, 1, *spatial) in [0, 1], in evaluation mode."""
        with self._evaluating(x):
            translated: Tensor = self.translator(x)
        return translated

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {
            "discriminator": Adam(self.discriminator.parameters(), lr=learning_rate, betas=(0.5, 0.999)),
            "translator": Adam(self.translator.parameters(), lr=learning_rate, betas=(0.5, 0.999)),
        }

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> Losses:
        given, wanted = self._pair(x, random, y)
        if update == "discriminator":
            with torch.no_grad():
                made = self.translator(given)
            return {"loss": 0.5 * cross_entropy(self._judge(given, wanted), self._judge(given, made))}
        made = self.translator(given)
        adversarial, difference = non_saturating(self._judge(given, made)), functional.l1_loss(made, wanted)
        return {
            "loss": adversarial + self.recipe.l1_weight * difference,
            "adversarial": adversarial,
            "difference": difference,
        }

    def _pair(self, x: Tensor, random: Generator, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the translator is given, and what it is to make of it."""
        if y is None or y.shape != x.shape:
            raise ValueError(f"{self.name} must be told an image of {tuple(x.shape[1:])} beside each image")
        return x, y

    def _judge(self, given: Tensor, made: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(2.0 * torch.cat([given, made], 1) - 1.0)
        return logits

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        return {"images": x.squeeze(1), "translated": self.translator(x).squeeze(1)}

    def _embed(self, x: Tensor) -> Tensor:
        return self.translator.code(x)[-1].flatten(2).mean(2)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        doubt = functional.softplus(-self._judge(x, self.translator(x)))
        maps = functional.interpolate(doubt, self.recipe.shape, mode=ZOOM[self.recipe.dims]).squeeze(1)
        return reduce_map(maps, self.recipe.reduction, inside), maps


class Healthy(Pix2Pix):
    """Image -> its healthy counterpart, learnt from healthy images in which lesions are planted on the fly.

    Its anomaly map is the absolute difference of an image from its counterpart, in grey values.
    """

    name: ClassVar[str] = "healthy"
    recipe_type: ClassVar[type[base.Recipe]] = HealthyRecipe
    told: ClassVar[Literal["nothing", "classes", "images"]] = "nothing"

    def _pair(self, x: Tensor, random: Generator, y: Tensor | None) -> tuple[Tensor, Tensor]:
        return plant(x, random), x

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        planted = plant(x, random)
        rows = {"images": x, "planted": planted, "counterparts": self.translator(planted)}
        return {name: images.squeeze(1) for name, images in rows.items()}

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        maps = residual_map(x, self.translator(x))
        return reduce_map(maps, self.recipe.reduction, inside), maps


def plant(x: Tensor, random: Generator) -> Tensor:
    """Images (n, 1, *spatial) in [0, 1] with something in them that was not there; a quarter is left as it is.

    A third of the rest gets a soft spot, brighter or darker; a third a texture; a third a piece of another place of
    another image of the batch. All of ragged outline, 1/16 to 1/4 of the image's side in radius.
    """
    n, dims = len(x), x.ndim - 2
    axes = [torch.linspace(0.0, 1.0, side) for side in x.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        drawn = torch.rand(n, *(shape or (1,)), generator=random) * (high - low) + low
        return drawn.view(n, -1, *[1] * dims)

    outline, texture = clouds(n, x.shape[2:], random), clouds(n, x.shape[2:], random)
    radius = uniform(1 / 16, 1 / 4)
    stretched = (grid - uniform(0.1, 0.9, dims)) * uniform(0.7, 1.4, dims)
    distance = stretched.pow(2).sum(1, keepdim=True).sqrt() / radius + 0.3 * outline
    mask = ((1.2 - distance) / uniform(0.1, 0.9)).clamp(0.0, 1.0)  # from a sharp edge to a soft one
    sign = torch.where(uniform(0.0, 1.0) < 0.5, -1.0, 1.0)
    strength = uniform(0.1, 0.5)
    mask, added = mask.to(x.device), (mask * strength).to(x.device)
    shift = [int(torch.randint(side, (), generator=random)) for side in x.shape[2:]]
    elsewhere = x.roll((1, *shift), dims=(0, *range(2, x.ndim)))
    kinds = torch.stack(
        [x + added * sign.to(x.device), x + added * texture.to(x.device), torch.lerp(x, elsewhere, mask), x]
    )
    chosen = torch.randint(4, (n,), generator=random).to(x.device)
    return kinds[chosen, torch.arange(n, device=x.device)].clamp(0.0, 1.0)


def clouds(n: int, shape: tuple[int, ...], random: Generator) -> Tensor:
    """Random smooth textures (n, 1, *shape) of mean 0 and about unit size: noise of several scales summed (Perlin)."""
    total = torch.zeros(n, 1, *shape)
    for octave, cells in enumerate((4, 8, 16)):
        noise = torch.randn(n, 1, *[min(cells, side) for side in shape], generator=random)
        total += functional.interpolate(noise, shape, mode=ZOOM[len(shape)]) / 2**octave
    return total
