"""The latent vector whose generated image comes nearest to a given one, found by gradient descent: AnoGAN's mapping.

Schlegl et al. 2017, "Unsupervised anomaly detection with generative adversarial networks to guide marker discovery":
z is drawn from N(0, 1) and moved by Adam, 500 steps for each image, against (1 - lambda) * residual + lambda *
discrimination loss (here: any loss that is given). Images are mapped many at a time, and yet each one alone: losses
are added up, not averaged, Adam keeps its moments for each number of each z, and images that are finished leave without
a trace in the others.

Departures from the paper, neither for the worse: the z of the lowest loss on the way is taken, not the last; the start
of an image is drawn from the image itself, so that it has one score, not one for each call.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

GROUP = 32  # images that are computed at once
# Matrix products of one to three rows round otherwise than those of more (seen with MKL), and hundreds of steps make a
# difference of 1e-7 a visible one. From this many rows on, each image gets the same bits among any others.
ROWS = 8
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How z is moved: Adam with `learning_rate`, constant or falling to 0 as a cosine."""

    steps: int
    learning_rate: float
    cosine: bool = True
    from_encoder: bool = True  # where z starts: at the encoder's answer, or drawn from N(0, 1)
    # An image is finished when `patience` steps have not lowered its loss by this part; 0: never before the last step.
    tolerance: float = 0.0
    patience: int = 20

    def rate(self, step: int) -> float:
        """The learning rate at `step`."""
        return self.learning_rate * (0.5 * (1.0 + math.cos(math.pi * step / self.steps)) if self.cosine else 1.0)

    def stopping(self, tolerance: float) -> Schedule:
        """This schedule, with images leaving when they are finished."""
        return replace(self, tolerance=tolerance)


SCHEDULES: dict[str, Schedule] = {
    "encoder": Schedule(0, 0.0),  # no search: what f-AnoGAN does
    "brief": Schedule(20, 0.1),
    "fast": Schedule(100, 0.8),  # as near as "paper" in a fifth of the steps
    "paper": Schedule(500, 0.05, cosine=False, from_encoder=False),  # the paper names no learning rate
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """Where the images (n) were mapped to, and how it went."""

    z: Tensor  # (n, latent), of the lowest loss on the way
    images: Tensor  # (n, 1, *spatial) generated from it
    loss: Tensor  # (n,) the lowest loss
    losses: Tensor  # (steps + 1, n) after each number of steps; NaN where an image was finished before
    steps: Tensor  # (n,) int64, taken for each image


def search(
    generate: Callable[[Tensor], Tensor],
    loss: Callable[..., Tensor],
    targets: tuple[Tensor, ...],
    start: Tensor,
    schedule: Schedule,
) -> Mapping:
    """Move each of the latent vectors `start` (n, latent) until its generated image has the lowest loss.

    `loss(generated, *targets)` gives one number (n,) for each image; the targets are tensors (n, ...) that stay: the
    images, their features. Neither it nor `generate` may let the images of a batch see each other. The networks behind
    them receive no gradients; give frozen ones (`frozen`), which also saves the time of computing them.
    """
    if not len(start):
        images = generate(start)
        nothing = start.new_zeros(0)
        return Mapping(start, images, nothing, start.new_zeros(schedule.steps + 1, 0), nothing.long())
    parts = [
        _search_group(generate, loss, tuple(t[at : at + GROUP] for t in targets), start[at : at + GROUP], schedule)
        for at in range(0, len(start), GROUP)
    ]
    return Mapping(
        torch.cat([part.z for part in parts]),
        torch.cat([part.images for part in parts]),
        torch.cat([part.loss for part in parts]),
        torch.cat([part.losses for part in parts], dim=1),
        torch.cat([part.steps for part in parts]),
    )


def _search_group(
    generate: Callable[[Tensor], Tensor],
    loss: Callable[..., Tensor],
    targets: tuple[Tensor, ...],
    start: Tensor,
    schedule: Schedule,
    betas: tuple[float, float] = (0.9, 0.999),
) -> Mapping:
    n = len(start)
    z, best_z = start.clone(), start.clone()
    first, second = torch.zeros_like(z), torch.zeros_like(z)  # Adam's moments (Kingma and Ba 2015)
    losses = start.new_full((schedule.steps + 1, n), torch.nan)
    best = start.new_full((n,), torch.inf)
    best_images: Tensor | None = None
    mark, marked_at = best.clone(), torch.zeros(n, dtype=torch.int64, device=start.device)
    active = torch.arange(n, device=start.device)
    rows = _padded(active)
    kept = tuple(t[rows] for t in targets)
    for step in range(schedule.steps + 1):
        with torch.enable_grad():
            moved = z[rows].requires_grad_()
            images = generate(moved)
            each = loss(images, *kept)
            gradient = torch.autograd.grad(each.sum(), moved)[0][: len(active)] if step < schedule.steps else None
        each, images = each.detach()[: len(active)], images.detach()[: len(active)]
        losses[step, active] = each
        better = each < best[active]
        best_images = images.clone() if best_images is None else best_images
        best[active[better]], best_z[active[better]] = each[better], z[active[better]]
        best_images[active[better]] = images[better]
        if gradient is None:
            break
        # in place of torch.optim.Adam, whose one step count and moments would have to be cut when images leave
        for moments, beta, value in zip((first, second), betas, (gradient, gradient**2), strict=True):
            moments[active] = beta * moments[active] + (1.0 - beta) * value
        unbiased = [m[active] / (1.0 - b ** (step + 1)) for m, b in zip((first, second), betas, strict=True)]
        z[active] -= schedule.rate(step) * unbiased[0] / (unbiased[1].sqrt() + 1e-8)
        if schedule.tolerance:
            lowered = best[active] < mark[active] * (1.0 - schedule.tolerance)
            mark[active[lowered]], marked_at[active[lowered]] = best[active[lowered]], step
            going = step - marked_at[active] < schedule.patience
            if not going.all():
                active = active[going]
                if not len(active):
                    break
                rows = _padded(active)
                kept = tuple(t[rows] for t in targets)
    assert best_images is not None  # noqa: S101 - there is at least one evaluation
    return Mapping(best_z, best_images, best, losses, (~losses.isnan()).sum(0) - 1)


def in_groups(function: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
    """`function` of tensors (n, ...) by groups, the last one included, each row with the same bits among any others."""
    n = len(rows[0])
    parts = []
    for at in range(0, max(n, 1), GROUP):
        some = torch.arange(at, min(at + GROUP, n), device=rows[0].device)
        filled = _padded(some)
        parts.append(tuple(value[: len(some)] for value in function(*(row[filled] for row in rows))))
    return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def _padded(rows: Tensor) -> Tensor:
    """Indices of a group, the last of them repeated up to a multiple of `ROWS`."""
    missing = -len(rows) % ROWS
    return torch.cat([rows, rows[-1:].expand(missing)]) if missing else rows


def random_starts(x: Tensor, latent: int) -> Tensor:
    """Latent vectors (n, latent) drawn from N(0, 1), each seeded by the pixels of its image and by nothing else."""
    drawn = []
    for image in x.cpu().contiguous():
        seed = int.from_bytes(hashlib.sha256(image.numpy().tobytes()).digest()[:7], "big")
        drawn.append(torch.randn(latent, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(drawn).to(x) if drawn else x.new_zeros(0, latent)


def frozen(model: Network, channels_last: bool = False) -> Network:
    """A copy of `model` in evaluation mode that takes no gradients; `channels_last` is faster for wide 2-D networks."""
    still = copy.deepcopy(model).eval().requires_grad_(False)
    if channels_last:
        still.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    return still
