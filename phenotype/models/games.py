"""The adversarial game on numbers instead of images: small enough to be watched, with the very losses of `gan`.

The one-dimensional game of Goodfellow et al. 2014 (a generator learns a normal distribution or a mixture), and the
ring of eight Gaussians on which a plain GAN loses modes (Metz et al. 2017, "Unrolled generative adversarial networks",
section 3.1). Two players meet with the same networks, first weights, optimizers, numbers of updates and draws; only
the loss differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam

from phenotype.models.base import one_of
from phenotype.models.gan import (
    cross_entropy,
    gradient_penalty,
    non_saturating,
    saturating,
    wasserstein,
    wasserstein_generator,
)

Loss = Literal["non-saturating", "minimax", "wasserstein"]
LOSSES: tuple[Loss, ...] = ("non-saturating", "minimax", "wasserstein")
Reality = Callable[[int, Generator], Tensor]
LATENT = 8
GENERATOR_LOSS: dict[Loss, Callable[[Tensor], Tensor]] = {
    "non-saturating": non_saturating,
    "minimax": saturating,
    "wasserstein": wasserstein_generator,
}


@dataclass(frozen=True, slots=True)
class Moment:
    """The game at one step."""

    step: int
    samples: Tensor  # (n, d) of the generator
    judged: Tensor  # logits of the discriminator on the grid asked for
    adversary_loss: float
    generator_loss: float


def play(
    reality: Reality,
    loss: Loss,
    *,
    steps: int,
    seed: int,
    width: int = 64,
    critic_updates: int = 1,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    penalty: float = 1.0,
    grid: Tensor | None = None,
    watch: int = 0,
    samples: int = 1024,
) -> list[Moment]:
    """Let a generator learn `reality` (n, random) -> (n, d) against a discriminator; returns the game as it went.

    Both are networks of three layers, `width` wide. A moment is kept every `watch` steps, and at the end: `samples` of
    the generator, and the discriminator's logits at the places `grid` (m, d). `loss` is one of `LOSSES`; `penalty`
    weighs the gradient penalty of "wasserstein". The same arguments give the same game, bit for bit.
    """
    one_of(loss, LOSSES, "loss")
    random = Generator().manual_seed(seed)
    dimensions = reality(1, random).shape[1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator, judge = _network(LATENT, dimensions, width), _network(dimensions, 1, width)
    mine = Adam(generator.parameters(), lr=learning_rate, betas=(0.5, 0.9))
    theirs = Adam(judge.parameters(), lr=learning_rate, betas=(0.5, 0.9))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the fastest for networks as small, and sums of floats depend on it
    try:
        moments = []
        for step in range(1, steps + 1):
            for _ in range(critic_updates):
                real = reality(batch_size, random)
                fake = generator(torch.randn(batch_size, LATENT, generator=random)).detach()
                if loss == "wasserstein":
                    slope = gradient_penalty(judge, real, fake, random)
                    against = penalty * slope - wasserstein(judge(real), judge(fake))
                else:
                    torch.rand(batch_size, 1, generator=random)  # drawn by the penalty too: the draws stay the same
                    against = cross_entropy(judge(real), judge(fake))
                theirs.zero_grad()
                against.backward()  # type: ignore[no-untyped-call]
                theirs.step()
            judged = judge(generator(torch.randn(batch_size, LATENT, generator=random)))
            towards = GENERATOR_LOSS[loss](judged)
            mine.zero_grad()
            towards.backward()  # type: ignore[no-untyped-call]
            mine.step()
            if step == steps or (watch and step % watch == 0):
                with torch.no_grad():
                    z = torch.randn(samples, LATENT, generator=Generator().manual_seed(seed + 1))
                    seen = judge(grid) if grid is not None else torch.empty(0, 1)
                    moments.append(Moment(step, generator(z), seen, against.item(), towards.item()))
        return moments
    finally:
        torch.set_num_threads(threads)


def _network(inputs: int, outputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
    )


def mixture(centres: Tensor, sigma: float) -> Reality:
    """A reality of equally likely Gaussians of deviation `sigma` around `centres` (k, d)."""

    def draw(n: int, random: Generator) -> Tensor:
        which = torch.randint(len(centres), (n,), generator=random)
        return centres[which] + sigma * torch.randn(n, centres.shape[1], generator=random)

    return draw


def ring(modes: int = 8, radius: float = 2.0) -> Tensor:
    """Places (modes, 2) on a circle."""
    angle = torch.arange(modes) * (2 * math.pi / modes)
    return radius * torch.stack([angle.cos(), angle.sin()], 1)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How samples spread over the modes of a mixture."""

    modes: int  # that have samples: at least a quarter of their share
    close: float  # share of the samples within three deviations of a mode


def coverage(samples: Tensor, centres: Tensor, sigma: float) -> Coverage:
    """Which of the `centres` (k, d) the `samples` (n, d) reach; a sample counts for its nearest, within 3 `sigma`."""
    distance, nearest = torch.cdist(samples, centres).min(1)
    close = distance <= 3 * sigma
    counts = torch.bincount(nearest[close], minlength=len(centres))
    return Coverage(int((counts >= len(samples) / len(centres) / 4).sum()), float(close.float().mean()))
