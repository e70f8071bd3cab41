"""Radiographs against their own mirror image: how unusual the difference of the two lungs is, and an image's sharpness.

What two people differ in (age, build, exposure) both lungs of one person share, and most disease is worse on one side;
which is why radiologists compare the sides. The lungs are described by the strength of the bands of a Laplacian pyramid
(Burt and Adelson 1983), bright and dark details apart, in patches at two scales; an image is as unusual as its
differences of mirrored patches are far from the nearest healthy ones' (Ramaswamy et al. 2000).

Sharpness is the logarithm of an image's gradient energy, and counts by its distance from the usual to either side:
disease adds structure (cavities, nodules) or covers it (consolidation). It knows no place, and sees an unusual
apparatus as well as an unusual chest: where the sick were imaged otherwise than the healthy it says that, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from phenotype.models import base
from phenotype.models.aligned import Aligned
from phenotype.models.base import Source, one_of
from phenotype.models.ssim import blur

Term = Literal["sum", "asymmetry", "sharpness"]
TERMS: tuple[Term, ...] = ("sum", "asymmetry", "sharpness")
BANDS = (1 / 192, 1 / 96, 1 / 48, 1 / 24, 1 / 12)  # standard deviations of the Gaussians, of the crop's side
CELLS = 16  # a side of the crop; a patch is 2 x 2 of them, or 4 x 4, around each of their inner corners
FAR = 6.0  # standard deviations from the usual; what is further is as far
NEIGHBOURS = 5
IN_LUNGS = 0.25  # share of a patch or its mirror image that must be lungs for it to count


@dataclass(frozen=True, slots=True, kw_only=True)
class SymmetryRecipe(base.Recipe):
    """Parameters of `Symmetry`."""

    term: Term = "sum"  # what the score is

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")


class Symmetry(Aligned):
    """Distances of an image's asymmetry and sharpness from the usual, each in standard deviations of held-out images.

    The map is that of asymmetry whatever the term: it is the same on both sides, for a difference does not tell which
    of two places is ill.
    """

    name: ClassVar[str] = "symmetry"
    recipe_type: ClassVar[type[base.Recipe]] = SymmetryRecipe
    fitted: ClassVar[tuple[str, ...]] = ("memory", "mean", "spread")
    recipe: SymmetryRecipe
    memory: Tensor
    mean: Tensor
    spread: Tensor
    usual: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, recipe: SymmetryRecipe) -> None:
        super().__init__(recipe)
        for name in self.fitted:
            self.register_buffer(name, torch.empty(0))
        self.register_buffer("usual", torch.tensor([0.0, 1.0]).double())  # mean and spread of sharpness
        self.register_buffer("centre", torch.zeros(2).double())  # of both distances
        self.register_buffer("scale", torch.ones(2).double())

    def fit(self, images: Source, seed: int) -> None:
        sides, sharp, held = [], [], []
        for x in self.sample(images, seed):
            sides.append(self._differences(x)[0])
            sharp.append(sharpness(x))
            held.append(self.held_out(x))
        found, details, apart = torch.cat(sides), torch.cat(sharp), torch.cat(held)
        known = found[~apart]
        self.mean, self.spread = known.mean(0).float(), known.std(0).clamp(min=1e-3).float()
        self.memory = self._z(known).flatten(1).float()
        self.usual = torch.stack([details[~apart].mean(), details[~apart].std().clamp(min=1e-6)])
        distances = self._distances(self._z(found[apart]), details[apart])
        self.centre, self.scale = distances.mean(0), distances.std(0).clamp(min=1e-6)

    def _differences(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Left patches less their mirror images (n, c, h, w // 2), and where the images' crops lie; 64 bits."""
        placed = self.alignment.place(x)
        found = strengths(self.alignment.crops(x, placed))
        return (found - found.flip(-1))[..., : found.shape[-1] // 2], placed

    def _z(self, sides: Tensor) -> Tensor:
        """In standard deviations from the usual at each place, 0 outside the lungs."""
        share = patches(self.alignment.lungs.double())[0]
        inside = torch.maximum(share, share.flip(-1))[..., : sides.shape[-1]] >= IN_LUNGS
        z: Tensor = ((sides - self.mean.double()) / self.spread.double()).clamp(-FAR, FAR) * inside
        return z

    def _distances(self, z: Tensor, details: Tensor) -> Tensor:
        """Distances (n, 2) of asymmetry, as a logarithm, and of sharpness from the healthy ones'."""
        apart = torch.cdist(z.flatten(1), self.memory.double(), compute_mode="donot_use_mm_for_euclid_dist")
        nearest = apart.topk(min(NEIGHBOURS, len(self.memory)), dim=1, largest=False).values.mean(1)
        mean, spread = self.usual
        return torch.stack([nearest.clamp(min=1e-9).log(), (details - mean).abs() / spread], 1)

    def _embed(self, x: Tensor) -> Tensor:
        """What differs between the sides, and the sharpness, in standard deviations from the usual."""
        mean, spread = self.usual
        details = (sharpness(x) - mean) / spread
        return torch.cat([self._z(self._differences(x)[0]).flatten(1), details[:, None]], 1).to(x.dtype)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        sides, placed = self._differences(x)
        z = self._z(sides)
        asymmetry, sharp = ((self._distances(z, sharpness(x)) - self.centre) / self.scale).unbind(1)
        score = {"sum": asymmetry + sharp, "asymmetry": asymmetry, "sharpness": sharp}[self.recipe.term]
        left = z.square().log1p().mean(1, keepdim=True)
        middle = left.new_zeros(*left.shape[:3], 1)  # its own mirror image
        maps = self.alignment.back(torch.cat([left, middle, left.flip(-1)], 3), placed).squeeze(1)
        return score.to(x.dtype), maps.to(x.dtype)


def sharpness(x: Tensor) -> Tensor:
    """The logarithm (n,) of the mean squared gradient of images (n, 1, size, size) at half their size; 64 bits."""
    half = functional.avg_pool2d(x.double(), 2)
    down, across = half.diff(dim=2)[..., :-1], half.diff(dim=3)[..., :-1, :]
    return (down.square() + across.square()).mean((1, 2, 3)).clamp(min=1e-12).log()


def strengths(crops: Tensor) -> Tensor:
    """Patches (n, 22, 15, 15) of crops (n, 1, side, side): grey value, and logarithms of what is in ten bands.

    Both at two scales, of grey values from 0 to 1 between the 1st and the 99th percentile. The bands are differences of
    Gaussians, what is brighter and what is darker than its surroundings apart.
    """
    ranked = crops.flatten(1).sort(dim=1).values
    end = ranked.shape[1] // 100
    low, high = ranked[:, end, None, None, None], ranked[:, -1 - end, None, None, None]
    image = ((crops - low) / (high - low).clamp(min=1e-6)).clamp(0.0, 1.0)
    smooth = [image, *(blur(image, share * image.shape[-1]) for share in BANDS)]
    bands = [finer - coarser for finer, coarser in pairwise(smooth)]
    apart = torch.cat([part for band in bands for part in (band.clamp(min=0.0), (-band).clamp(min=0.0))], 1)
    found = [torch.cat([patches(image, wide), (patches(apart, wide) + 1e-3).log()], 1) for wide in (1, 2)]
    return torch.cat(found, 1)


def patches(x: Tensor, wide: int = 1) -> Tensor:
    """Means (n, c, 15, 15) of overlapping patches of (n, c, side, side), or of the twice as `wide` around them."""
    cells = functional.adaptive_avg_pool2d(x, CELLS)
    return functional.avg_pool2d(cells, 2 * wide, stride=1, padding=wide - 1, count_include_pad=False)
