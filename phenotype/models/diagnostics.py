"""Whether a generator has collapsed: its samples against real images.

    Diagnosis diagnose(samples: Tensor (n, 1, h, w), real: Tensor (m, 1, h, w), embed: images -> (n, d) | None)
    Diagnosis.as_dict() -> dict[str, float], Diagnosis.collapsed -> bool, Diagnosis.reasons -> tuple[str, ...]
    Diagnosis report(model, real, embed, random, n): draws the samples from `model.sample(n, random)` first

`embed` is a space in which distances mean likeness: any `ImageModel.embed`, or None for the pixels themselves.
Everything is deterministic, on the CPU, and takes a second for some hundred images of each.

Diversity is the mean distance of two samples over that of two real images. Density and coverage: Naeem et al. 2020,
"Reliable fidelity and diversity metrics for generative models", precision and recall: Kynkaanniemi et al. 2019,
"Improved precision and recall metric for assessing generative models"; Frechet distance: Heusel et al. 2017, "GANs
trained by a two time-scale update rule", here in the space given, with the covariances shrunk (Ledoit and Wolf 2004),
since images are fewer than dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.covariance import ledoit_wolf
from torch import Generator, Tensor

Embed = Callable[[Tensor], Tensor]
Float64 = npt.NDArray[np.float64]
NEIGHBOURS = 5
# Half of the real images against the other half have a diversity of 1 and a coverage of about 0.97 (with 5 neighbours,
# Naeem et al.). A generator below these has lost most of what is real.
LEAST_DIVERSITY = 0.5
LEAST_COVERAGE = 0.1
LEAST_NEAREST = 0.1


class Sampler(Protocol):
    """A model that makes images."""

    def sample(self, n: int, random: Generator) -> Tensor:
        """`n` new images (n, 1, h, w)."""
        ...


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Figures of samples against real images; `collapsed` says what they mean together."""

    diversity: float  # mean distance of two samples / of two real images: 1 where they vary as much
    coverage: float  # share of real images with a sample among them and their 5 nearest: 1 is best
    density: float  # samples around real images, in units of real ones: 1 where samples lie as real images do
    precision: float  # share of samples that lie where real images lie
    recall: float  # share of real images that lie where samples lie
    nearest: float  # share of real images that are some sample's nearest, over what real images would reach
    frechet: float  # distance of the two normal distributions in the given space, in its units squared

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong, in words; empty where nothing is."""
        found = (
            (self.diversity < LEAST_DIVERSITY, f"samples vary {self.diversity:.2f} times as much as real images"),
            (self.coverage < LEAST_COVERAGE, f"only {self.coverage:.0%} of real images have a sample near them"),
            (self.nearest < LEAST_NEAREST, f"samples resemble {self.nearest:.0%} as many real images as they should"),
        )
        return tuple(text for wrong, text in found if wrong)

    @property
    def collapsed(self) -> bool:
        """Whether samples hardly vary, or all of them are unlike what is real."""
        return bool(self.reasons)

    def as_dict(self) -> dict[str, float]:
        """The figures by name."""
        return asdict(self)


def report(model: Sampler, real: Tensor, embed: Embed | None, random: Generator, n: int) -> Diagnosis:
    """Diagnose `n` samples of `model` against `real` images (m, 1, h, w)."""
    with torch.no_grad():
        return diagnose(model.sample(n, random), real, embed)


@torch.no_grad()
def diagnose(samples: Tensor, real: Tensor, embed: Embed | None) -> Diagnosis:
    """Diagnose samples (n, 1, h, w) against real images (m, 1, h, w), in the space of `embed`, or of pixels.

    Diversity is always of pixels: a space may be blind to what a generator no longer varies. Give as many samples as
    real images, some hundred: coverage falls with fewer samples. ValueError if either are fewer than 6.
    """
    if min(len(samples), len(real)) <= NEIGHBOURS:
        raise ValueError(
            f"a diagnosis needs at least {NEIGHBOURS + 1} samples and real images, not {len(samples)} and {len(real)}"
        )
    pixels = [_flat(images) for images in (samples, real)]
    made, true = pixels if embed is None else [_flat(embed(images)) for images in (samples, real)]
    apart, among_true, among_made = torch.cdist(true, made), torch.cdist(true, true), torch.cdist(made, made)
    radius, radius_made = _kth(among_true), _kth(among_made)
    within = apart <= radius[:, None]  # (m, n): the sample lies in the real image's neighbourhood
    near = len(set(apart.argmin(0).tolist()))
    expected = len(true) * (1.0 - (1.0 - 1.0 / len(true)) ** len(made))  # of images drawn like the real ones
    return Diagnosis(
        diversity=_spread(pixels[0]) / max(_spread(pixels[1]), 1e-12),
        coverage=float(within.any(1).double().mean()),
        density=float(within.sum()) / (NEIGHBOURS * len(made)),
        precision=float(within.any(0).double().mean()),
        recall=float((apart <= radius_made[None, :]).any(1).double().mean()),
        nearest=min(1.0, near / expected),
        frechet=frechet_distance(made.numpy(), true.numpy()),
    )


def frechet_distance(a: Float64, b: Float64) -> float:
    """Squared Frechet distance of the normal distributions of `a` (n, d) and `b` (m, d), with shrunk covariances."""
    mean_a, mean_b = a.mean(0), b.mean(0)
    cov_a, cov_b = ledoit_wolf(a)[0], ledoit_wolf(b)[0]
    # tr (A B)^(1/2), the eigenvalues of A B being those of the symmetric A^(1/2) B A^(1/2): no complex numbers.
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0.0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0.0)).sum()
    distance = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2.0 * cross
    return max(0.0, float(distance))


def _flat(images: Tensor) -> Tensor:
    return images.detach().cpu().flatten(1).double()


def _kth(distances: Tensor) -> Tensor:
    """Distance of each to its NEIGHBOURS-th nearest but itself."""
    return distances.kthvalue(NEIGHBOURS + 1, dim=1).values


def _spread(vectors: Tensor) -> float:
    """Mean distance of two of them."""
    return float(torch.cdist(vectors, vectors).sum()) / (len(vectors) * (len(vectors) - 1))
