"""How healthy images vary without being ill, for training: exposure, position, size and tilt."""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional


def vary(x: Tensor, random: Generator) -> Tensor:
    """Images (n, 1, side, side) in [0, 1], each a little shifted, scaled, turned, and exposed otherwise.

    Standard deviations 2 % of the side, 6 % and 3 degrees, cut at two of them; contrast up to 10 % and brightness up
    to 0.05 more or less. The border is repeated where the image has moved away.
    """
    n = len(x)
    scale, angle, down, right = torch.randn(4, n, generator=random).clamp(-2.0, 2.0)
    scale, angle = 1.0 + 0.06 * scale, 0.05 * angle
    shift = 0.04 * torch.stack([right, down], 1)  # the side is 2 long in these units
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(n, 2, 2)
    where = torch.cat([scale[:, None, None] * turn, shift[:, :, None]], 2).to(x.device)
    grid = functional.affine_grid(where, list(x.shape), align_corners=False)
    moved = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (2.0 * torch.rand(2, n, 1, 1, 1, generator=random) - 1.0).to(x.device)
    exposed = (moved - 0.5) * (1.0 + 0.1 * contrast) + 0.5 + 0.05 * brightness
    return torch.clamp(exposed, 0.0, 1.0)


def coarse_noise(n: int, side: int, cells: int, random: Generator, mode: str = "bilinear") -> Tensor:
    """Gaussian noise of unit size on a grid of `cells` a side, enlarged to (n, 1, side, side) and rolled by chance.

    Kascenas et al. 2022: noise as coarse as lesions, which no local mean removes.
    """
    grid = torch.randn(n, 1, cells, cells, generator=random)
    noise = functional.interpolate(grid, size=(side, side), mode=mode, align_corners=False)
    shifts = torch.randint(side, (n, 2), generator=random).tolist()
    return torch.stack([one.roll(tuple(shift), (1, 2)) for one, shift in zip(noise, shifts, strict=True)])


def one_cycle(step: int, steps: int) -> float:
    """The share of the highest learning rate at `step`: up within a tenth of the steps, down to nothing by the last.

    Smith and Topin 2018, "Super-convergence", with cosines.
    """
    warm = max(0.1 * steps, 1.0)
    up = (step + 1) / warm
    if up < 1.0:
        return 0.04 + 0.96 * _ease(up)
    return _ease(1.0 - (step + 1 - warm) / max(steps - warm, 1.0))


def _ease(share: float) -> float:
    """From 0 to 1 along half a cosine."""
    return float(0.5 - 0.5 * torch.cos(torch.tensor(torch.pi * share, dtype=torch.float64)))
