"""How radiographs look in a common space, in numbers: asymmetry, energy of bands, grey values and gradients.

Images are laid onto each other first (`alignment`): then the same number is the same anatomy in all of them, and
healthy images vary little enough for plain statistics. Distances: Mahalanobis 1936 with the covariance shrunk as by
Ledoit and Wolf 2004, "A well-conditioned estimator for large-dimensional covariance matrices", and to the nearest
neighbours (Ramaswamy et al. 2000). Gradients in the line of Dalal and Triggs 2005, energies of the Laplacian pyramid
of Burt and Adelson 1983.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor
from torch.nn import functional

from phenotype.models import base
from phenotype.models.aligned import Aligned
from phenotype.models.base import Source, one_of

Term = Literal["asymmetry", "energy", "pixels", "gradients", "max"]
TERMS: tuple[Term, ...] = ("asymmetry", "energy", "pixels", "gradients", "max")
KINDS = TERMS[:-1]
FINE = 32  # side of the crops whose grey values are compared
ZONES, OCTAVES = 10, 5  # a side, and bands, of the energy
NEIGHBOURS = 5
SCALES = 3  # of the gradients
STATISTICS = ("mean", "spread", "root")
LEVELS = 256  # of grey, of the histograms


@dataclass(frozen=True, slots=True, kw_only=True)
class TextureRecipe(base.Recipe):
    """Parameters of `Texture`."""

    term: Term = "max"  # what the score is the distance of; max: the higher of asymmetry and energy

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, TERMS, "term")


class Texture(Aligned):
    """Aligned crops -> descriptors -> distances from what healthy ones are, in standard deviations of held-out ones."""

    name: ClassVar[str] = "texture"
    recipe_type: ClassVar[type[base.Recipe]] = TextureRecipe
    fitted: ClassVar[tuple[str, ...]] = ("memory", *(f"{what}_{kind}" for what in STATISTICS for kind in KINDS))
    recipe: TextureRecipe
    memory: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, recipe: TextureRecipe) -> None:
        super().__init__(recipe)
        for name in self.fitted:
            self.register_buffer(name, torch.empty(0))
        self.register_buffer("centre", torch.zeros(len(KINDS)).double())  # of the logarithms of distances
        self.register_buffer("scale", torch.ones(len(KINDS)).double())

    def fit(self, images: Source, seed: int) -> None:
        parts, held = [], []
        for x in self.sample(images, seed):
            parts.append({kind: flat(one) for kind, one in self._described(x)[0].items()})
            held.append(self.held_out(x))
        apart = torch.cat(held)
        for kind in KINDS:
            found = torch.cat([part[kind] for part in parts])
            known = found[~apart]
            mean, spread = known.mean(0), known.std(0).clamp(min=1e-3)
            z = (known - mean) / spread
            kept = {"mean": mean, "spread": spread}
            if kind == "energy":
                self.memory = z.float()
            else:
                covariance, _ = ledoit_wolf(z.cpu().numpy(), assume_centered=True)
                kept["root"] = torch.linalg.inv(torch.linalg.cholesky(torch.from_numpy(covariance))).to(z)
            for what, value in kept.items():
                setattr(self, f"{what}_{kind}", value.float())
        distances = torch.stack([self._distance(kind, torch.cat([p[kind] for p in parts])[apart]) for kind in KINDS], 1)
        self.centre, self.scale = distances.mean(0), distances.std(0).clamp(min=1e-6)

    def _described(self, x: Tensor) -> tuple[dict[str, list[Tensor]], Tensor]:
        """Descriptors of the images' crops, and where these lie."""
        placed = self.alignment.place(x)
        return descriptors(self.alignment.crops(x, placed)), placed

    def _z(self, kind: str, values: Tensor) -> Tensor:
        z: Tensor = (values - getattr(self, f"mean_{kind}").double()) / getattr(self, f"spread_{kind}").double()
        return z

    def _distance(self, kind: str, values: Tensor) -> Tensor:
        """Logarithms (n,) of the distances of descriptors (n, d) from the healthy ones'."""
        z = self._z(kind, values)
        if kind == "energy":
            apart = torch.cdist(z, self.memory.double(), compute_mode="donot_use_mm_for_euclid_dist")
            away = apart.topk(min(NEIGHBOURS, len(self.memory)), dim=1, largest=False).values.mean(1)
        else:
            away = (z @ getattr(self, f"root_{kind}").double().T).norm(dim=1)
        return away.clamp(min=1e-9).log()

    def parts(self, found: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """Of descriptors the score (n,) by each term, in standard deviations of held-out healthy images; 64 bits."""
        z: dict[str, Tensor] = {
            kind: (self._distance(kind, flat(found[kind])) - self.centre[at]) / self.scale[at]
            for at, kind in enumerate(KINDS)
        }
        return {**z, "max": torch.maximum(z["asymmetry"], z["energy"])}

    def where(self, found: dict[str, list[Tensor]], term: str) -> Tensor:
        """Maps (n, 1, 32, 32) of the crop: the mean of log(1 + z^2) of the descriptors of a place; 64 bits."""
        maps = []
        for kind in ("asymmetry", "energy") if term == "max" else (term,):
            z = torch.split(self._z(kind, flat(found[kind])), [one.shape[1:].numel() for one in found[kind]], dim=1)
            grids = [
                _sized(value.view_as(one).square().log1p(), FINE) for value, one in zip(z, found[kind], strict=True)
            ]
            maps.append(torch.cat(grids, 1).mean(1, keepdim=True))
        return torch.stack(maps).mean(0)

    def _embed(self, x: Tensor) -> Tensor:
        found, _ = self._described(x)
        return torch.cat([self._z(kind, flat(found[kind])) for kind in ("energy", "gradients")], 1).to(x.dtype)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        found, placed = self._described(x)
        maps = self.alignment.back(self.where(found, self.recipe.term), placed).squeeze(1)
        return self.parts(found)[self.recipe.term].to(x.dtype), maps.to(x.dtype)


def descriptors(crops: Tensor) -> dict[str, list[Tensor]]:
    """Of aligned crops (n, 1, side, side) grids (n, c, h, w) by kind, which do not depend on exposure.

    asymmetry  equalised grey values less those of the mirrored crop, the left half
    energy     logarithms of mean absolute values in zones, of the bands of a Laplacian pyramid
    pixels     equalised grey values
    gradients  logarithms of mean gradients in zones, in four directions, at three scales
    """
    equal = _sized(equalised(crops), FINE)
    centred = crops - crops.mean((1, 2, 3), keepdim=True)
    image = 0.25 * centred / (centred.square().mean((1, 2, 3), keepdim=True).sqrt() + 1e-6)
    energy, gradients = [], []
    for octave in range(OCTAVES):
        low = _low(_low(image)) if octave else _low(image)
        zones = min(ZONES, max(1, image.shape[-1] // 2))
        energy.append(_zones((image - low).abs(), zones))
        if octave < SCALES:
            down, across = torch.gradient(low, dim=(2, 3))
            size, turn = torch.hypot(down, across), torch.atan2(down, across) * 4 / torch.pi
            near = [(1 - ((turn - k + 2).remainder(4) - 2).abs()).clamp(min=0.0) for k in range(4)]
            gradients.append(_zones(torch.cat([size * one for one in near], 1), min(8, zones)))
        if image.shape[-1] < 4:
            break
        image = low[..., ::2, ::2]
    mirrored = (equal - equal.flip(-1))[..., : FINE // 2]
    return {
        "asymmetry": [torch.cat([mirrored, -mirrored.flip(-1)], -1)],
        "energy": energy,
        "pixels": [equal],
        "gradients": gradients,
    }


def flat(grids: list[Tensor]) -> Tensor:
    """Grids (n, c, h, w) as vectors (n, d)."""
    return torch.cat([one.flatten(1) for one in grids], 1)


def equalised(crops: Tensor) -> Tensor:
    """Crops (n, 1, side, side) with each grey value replaced by the share of darker ones.

    A pixel counts for the two levels beside it, by nearness: no value moves by a jump.
    """
    at = crops.flatten(1).clamp(0.0, 1.0) * (LEVELS - 1)
    below = at.floor().long().clamp(max=LEVELS - 2)
    above = at - below
    counts = torch.zeros(len(at), LEVELS).to(at)
    counts.scatter_add_(1, below, 1 - above).scatter_add_(1, below + 1, above)
    darker = (counts.cumsum(1) - counts / 2) / at.shape[1]
    low, high = darker.gather(1, below), darker.gather(1, below + 1)
    return (low + (high - low) * above).view_as(crops)


def _zones(x: Tensor, side: int) -> Tensor:
    return (functional.adaptive_avg_pool2d(x, side) + 1e-3).log()


def _sized(x: Tensor, side: int) -> Tensor:
    if x.shape[-1] >= side:
        return functional.adaptive_avg_pool2d(x, side)
    return functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def _low(x: Tensor) -> Tensor:
    """Without the finest details: binomial weights of five pixels along both axes, the border repeated."""
    for axis in (2, 3):
        x = x.transpose(axis, -1)
        n = x.shape[-1]
        padded = torch.cat([x[..., :1], x[..., :1], x, x[..., -1:], x[..., -1:]], -1)
        shifted = [weight / 16 * padded[..., k : k + n] for k, weight in enumerate((1, 4, 6, 4, 1))]
        x = torch.stack(shifted).sum(0).transpose(axis, -1)
    return x
