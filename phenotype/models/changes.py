"""Changes planted into aligned healthy crops, as many kinds as come to mind: what a detector of disease is to see.

In the line of Schlueter et al. 2022, "Natural synthetic anomalies for self-supervised anomaly detection and
localization" (what is planted comes from other images and is fitted in), and of Zavrtanik et al. 2021, "DRAEM" (its
outlines are thresholded noise); departures: opacities, lucencies, blur, textures, bent structures and changed detail
beside them, of any extent up to a whole side.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor
from torch.nn import functional

from phenotype.models.augment import coarse_noise
from phenotype.models.ssim import blur

CELLS = (2, 3, 4, 6, 9)  # a side of the noise whose peaks are the regions: from large regions to small ones
KINDS = ("opacity", "opacity", "dark", "smooth", "texture", "texture", "swap", "swap", "warp", "detail")  # by frequency
TWICE = 0.4  # share of the images that are changed in two ways


def nuisance(x: Tensor, random: Generator) -> Tensor:
    """Crops (n, 1, side, side) varied as healthy ones are: placed a little otherwise, exposed otherwise, noisier."""
    n = len(x)

    def drawn(most: float) -> Tensor:
        return (2.0 * torch.rand(n, generator=random) - 1.0) * most

    turn, right, down = drawn(0.05), drawn(0.03), drawn(0.03)
    rows = [1.0 + drawn(0.05), turn, right, -turn, 1.0 + drawn(0.05), down]
    grid = functional.affine_grid(torch.stack(rows, 1).view(n, 2, 3).to(x), list(x.shape), align_corners=False)
    moved = functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    exposed = moved.clamp(1e-3, 1.0) ** drawn(0.3).exp().view(n, 1, 1, 1).to(x)
    grain = 0.008 * torch.rand(n, 1, 1, 1, generator=random) * torch.randn(x.shape, generator=random)
    return (exposed + grain.to(x)).clamp(0.0, 1.0)


def regions(n: int, lungs: Tensor, random: Generator) -> Tensor:
    """Soft irregular regions (n, 1, side, side), 0 to 1, of 3 to 60 % of the lungs (1, 1, side, side)."""
    side = lungs.shape[-1]
    ramp = 6.0 * ((torch.arange(side) + 0.5) / side - 0.5)
    made = []
    for _ in range(n):
        cells = CELLS[int(torch.randint(len(CELLS), (), generator=random))]
        whole, way, extent, edge, detail = torch.rand(5, generator=random).tolist()
        height = coarse_noise(1, side, cells, random, "bicubic")
        if detail < 0.5:
            height = height + 0.5 * coarse_noise(1, side, 2 * cells, random, "bicubic")
        if whole < 0.22:  # one side, or what is above or below
            slope = ramp if way < 0.5 else -ramp
            height = 0.2 * height + (slope if whole < 0.12 else slope[:, None])
        limit = torch.quantile(height[lungs.cpu() > 0.5], 0.97 - 0.57 * extent**2)
        made.append(torch.sigmoid((height - limit) * 2.0 / (0.1 + 0.5 * edge)))
    return torch.cat(made).to(lungs) * lungs


def change(x: Tensor, others: Tensor, lungs: Tensor, random: Generator) -> tuple[Tensor, Tensor]:
    """Crops (n, 1, side, side) in [0, 1] with one or two changes each in one region, and the regions, 0 to 1.

    others   healthy crops (n, 1, side, side) that parts are taken from
    lungs    (1, 1, side, side), 0 to 1: where changes are, and what their strength is compared with
    """
    where, side = regions(len(x), lungs, random), x.shape[-1]
    detail = (((x - blur(x, side / 24)) ** 2 * lungs).sum((1, 2, 3)) / lungs.sum()).sqrt()
    beside = (x * (1.0 - lungs)).sum((1, 2, 3)) / (1.0 - lungs).sum().clamp(min=1e-3)
    contrast = (beside - (x * lungs).sum((1, 2, 3)) / lungs.sum()).abs().clamp(min=0.1)
    changed = []
    for n in range(len(x)):
        image = x[n : n + 1]
        for _ in range(1 + int(torch.rand((), generator=random) < TWICE)):
            kind = KINDS[int(torch.randint(len(KINDS), (), generator=random))]
            image = _changed(kind, image, others[n : n + 1], where[n : n + 1], contrast[n], detail[n], random)
        changed.append(image)
    return torch.cat(changed).clamp(0.0, 1.0), where


def _changed(
    kind: str, x: Tensor, other: Tensor, where: Tensor, contrast: Tensor, detail: Tensor, random: Generator
) -> Tensor:
    """One image (1, 1, side, side) with one change."""
    side = x.shape[-1]
    strength, b, c, d = torch.rand(4, generator=random).tolist()
    if kind == "opacity":
        grain = coarse_noise(1, side, (8, 16, 24)[int(3 * b)], random).to(x) if c > 0.4 else torch.zeros_like(x)
        x = x + where * contrast * (0.15 + 0.85 * strength) * (1.0 + 0.3 * grain)
        return torch.lerp(x, blur(x, side / 40), where * strength) if d < 0.5 else x
    if kind == "dark":
        darker: Tensor = x - where * contrast * (0.15 + 0.5 * strength)
        return darker
    if kind == "smooth":
        return torch.lerp(x, blur(x, side / 96 * (1.0 + 2.5 * strength)), where)
    if kind == "texture":
        grain = coarse_noise(1, side, max(2, int(side / (2.5 + 6.0 * b))), random, "bicubic").to(x)
        grain = 1.5 * grain.abs() - 1.0 if c < 0.4 else 2.0 * (grain - 0.8).clamp(min=0.0) if c < 0.7 else grain
        grained: Tensor = x + where * grain * detail * (0.4 + 1.6 * strength)
        return grained
    if kind == "swap":
        other = other.flip(-1) if strength < 0.5 else other
        other = other.roll((int((b - 0.5) * side * 0.3), int((c - 0.5) * side * 0.3)), (2, 3))
        weight = (where > 0.5).to(x) + 1e-4
        fitted = other + ((x - other) * weight).sum() / weight.sum() * (0.3 + 0.7 * d)
        return torch.lerp(x, fitted, where)
    if kind == "warp":
        bend = torch.cat([coarse_noise(1, side, 3, random, "bicubic") for _ in range(2)], 1).to(x)
        none = torch.eye(2, 3)[None].to(x)
        grid = functional.affine_grid(none, list(x.shape), align_corners=False)
        grid = grid + (bend * where * (0.02 + 0.06 * strength)).permute(0, 2, 3, 1)
        return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
    coarse = blur(x, side / 24)
    more = 0.3 + 1.2 * strength if b < 0.5 else -0.4 - 0.6 * strength
    detailed: Tensor = coarse + (x - coarse) * (1.0 + where * more)
    return detailed
