"""A common space for images of one view of the body: each is laid onto the mean healthy one, and cropped to its lungs.

Congealing: Learned-Miller 2006, "Data driven image models through continuous joint alignment". Images are shifted,
scaled and turned so that they resemble their mean, which grows sharper in turn; nobody marks a landmark. Departures:
resemblance is the normalised correlation of images filtered to coarse structure and equal local contrast, not an
entropy of pixels; the crop is what lies around the two largest dark basins of the mean image, for lungs are dark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from phenotype.models.base import Source
from phenotype.models.ssim import blur

COARSE = 48  # side of the images that are compared, at most
IMAGES = 150  # that the mean is made of, at most
ROUNDS = 4  # of laying images onto their mean and taking the mean again
MARGIN = 0.06  # of the lungs' extent, around them
USUAL = (0.2, 0.2, 0.2, 0.2, 0.1)  # how far placements usually are from none: scales, shifts, turn
GRID = 1e-4  # placements are multiples of it: rounding then shows nowhere else


class Alignment(nn.Module):
    """Images (n, 1, size, size) -> crops (n, 1, side, side) in which the same place is the same anatomy.

    Before `fit` an image is placed as it is. A placement is found for each image alone, in 64 bits.
    """

    template: Tensor
    box: Tensor
    lungs: Tensor

    def __init__(self, size: int, side: int) -> None:
        super().__init__()
        self.size, self.side, coarse = size, side, min(size, COARSE)
        self.register_buffer("template", torch.zeros(1, 1, coarse, coarse).double())
        self.register_buffer("box", torch.tensor([-1.0, -1.0, 1.0, 1.0]).double())  # left, top, right, bottom
        self.register_buffer("lungs", torch.ones(1, 1, side, side))  # what of a crop they are, 0 to 1

    @torch.no_grad()
    def fit(self, images: Source, seed: int) -> None:
        """Learn the mean image from up to 150 of these, and where its lungs are; the whole of it where none are."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:IMAGES])
        x = torch.from_numpy(np.ascontiguousarray(images.take(chosen), np.float32)).to(self.template.device)
        coarse = self._coarse(x)
        placed = torch.zeros(len(x), 5, dtype=torch.float64, device=x.device)
        template = coarse.mean(0, keepdim=True)
        for turn in range(ROUNDS):
            placed = _climbed(coarse, template, _starts(coarse, template) if turn == 1 else placed, 25)
            placed = placed - placed.median(0).values  # the mean must not wander off
            template = _warped(coarse, _matrices(placed)).mean(0, keepdim=True)
        self.template = template
        mean = _warped(x.double(), _matrices(placed)).mean(0)[0]
        found = lungs(mean.cpu().numpy())
        if found is None:
            return
        rows, columns = np.nonzero(found)
        low = np.array([columns.min(), rows.min()]) / self.size * 2 - 1
        high = np.array([columns.max() + 1, rows.max() + 1]) / self.size * 2 - 1
        around = MARGIN * (high - low)
        self.box = torch.tensor(np.concatenate([low - around, high + around])).to(self.box)
        shown = torch.from_numpy(found)[None, None].to(self.box)
        nowhere = self._boxed(torch.zeros(1, 5).to(self.box))
        self.lungs = _warped(shown, nowhere, self.side).to(self.lungs)

    def place(self, x: Tensor) -> Tensor:
        """Matrices (n, 2, 3), 64 bits, that take places of the crop to places of the image, both from -1 to 1."""
        return self.placed(x)[0]

    def placed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Matrices as of `place`, and how much each image then resembles the mean (n,): a correlation, at most 1."""
        if not bool(self.template.any()):
            return self._boxed(torch.zeros(len(x), 5).to(self.box)), torch.zeros(len(x)).to(self.box)
        coarse = self._coarse(x)
        found = _climbed(coarse, self.template, _starts(coarse, self.template), 40)
        found = (found / GRID).round() * GRID
        return self._boxed(found), _resemblance(_warped(coarse, _matrices(found)), self.template)

    def crops(self, x: Tensor, placed: Tensor) -> Tensor:
        """Crops (n, 1, side, side), 64 bits, of images placed by `place`; the border repeated outside of them."""
        return _warped(x.double(), placed, self.side)

    def back(self, maps: Tensor, placed: Tensor) -> Tensor:
        """Maps (n, 1, k, k) of crops, whatever their side, where they belong in the images: (n, 1, size, size).

        0 outside the crop.
        """
        turned = torch.linalg.inv(placed[:, :, :2])
        inverse = torch.cat([turned, -turned @ placed[:, :, 2:]], 2)
        return _warped(maps.double(), inverse, self.size, "zeros")

    def _coarse(self, x: Tensor) -> Tensor:
        side = self.template.shape[-1]
        small = functional.interpolate(x.double(), size=(side, side), mode="area")
        low = blur(small, side / 8)
        detail = blur(small, side / 64) - low
        return detail / (blur(detail * detail, side / 8).clamp(min=0.0).sqrt() + 0.03)

    def _boxed(self, placed: Tensor) -> Tensor:
        """Matrices of placements (n, 5) and of the box of the crop after them."""
        matrices = _matrices(placed)
        middle, half = (self.box[:2] + self.box[2:]) / 2, (self.box[2:] - self.box[:2]) / 2
        turn = matrices[:, :, :2]
        return torch.cat([turn * half, matrices[:, :, 2:] + (turn @ middle)[:, :, None]], 2)


def lungs(mean: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """The dark basins of a mean image (size, size): one each side of the middle, as large as any threshold has them.

    A basin is enclosed: it does not touch the border. None where there are no two that take 2 % of the image each.
    """
    best, area, middle = None, 0.02 * mean.size, mean.shape[1] // 2
    for threshold in np.linspace(mean.min(), mean.max(), 60)[1:-1]:
        parts, count = ndimage.label(mean < threshold)
        outside = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
        enclosed = np.where(np.isin(parts, outside), 0, parts)
        sizes = [np.bincount(half.ravel(), minlength=count + 1) for half in np.split(enclosed, [middle], axis=1)]
        for one in sizes:
            one[0] = 0
        if min(one.max() for one in sizes) > area:
            area = min(one.max() for one in sizes)
            best = np.isin(enclosed, [one.argmax() for one in sizes])
    return best


def _matrices(placed: Tensor) -> Tensor:
    """(n, 2, 3) of placements (n, 5): logarithms of both scales, shifts, and a turn in radians."""
    (across, down), (cos, sin) = placed[:, :2].exp().unbind(1), (placed[:, 4].cos(), placed[:, 4].sin())
    rows = [across * cos, -down * sin, placed[:, 2], across * sin, down * cos, placed[:, 3]]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _warped(x: Tensor, matrices: Tensor, side: int | None = None, outside: str = "border") -> Tensor:
    shape = [len(x), x.shape[1], *[side or x.shape[-1]] * 2]
    if not len(x):
        return x.new_zeros(shape)
    grid = functional.affine_grid(matrices, shape, align_corners=False)
    return functional.grid_sample(x, grid, padding_mode=outside, align_corners=False)


def _resemblance(x: Tensor, template: Tensor) -> Tensor:
    """Normalised correlation (n,) of images with the template, the middle of them above all."""
    at = torch.linspace(-1.0, 1.0, template.shape[-1]).to(template) ** 4
    weight = torch.exp(-1.5 * (at[:, None] + at[None, :]))
    weight = weight / weight.sum()

    def centred(values: Tensor) -> Tensor:
        return values - (values * weight).sum((1, 2, 3), keepdim=True)

    a, b = centred(x), centred(template)
    norm = (a * a * weight).sum((1, 2, 3)) * (b * b * weight).sum((1, 2, 3))
    return (a * b * weight).sum((1, 2, 3)) / norm.clamp(min=1e-12).sqrt()


def _starts(x: Tensor, template: Tensor) -> Tensor:
    """Placements (n, 5): of a coarse grid of scales and shifts the best for each image."""
    best = torch.full((len(x),), -torch.inf).to(x)
    placed = torch.zeros(len(x), 5).to(x)
    for scale in (-0.3, -0.15, 0.0, 0.12):
        for down in (-0.25, -0.12, 0.0, 0.12, 0.25):
            for across in (-0.12, 0.0, 0.12):
                start = torch.tensor([scale, scale, across, down, 0.0]).to(x)
                far = float(scale**2 + down**2 + across**2) / 0.04
                value = _resemblance(_warped(x, _matrices(start[None]).expand(len(x), -1, -1)), template) - 0.01 * far
                better = value > best
                best, placed = best.where(~better, value), placed.where(~better[:, None], start)
    return placed


def _climbed(x: Tensor, template: Tensor, placed: Tensor, steps: int) -> Tensor:
    """Placements (n, 5) improved by gradients, each image on its own; what is far from usual costs a little."""
    placed = placed.clone()
    usual = torch.tensor(USUAL).to(placed)
    with torch.enable_grad():
        placed.requires_grad_(True)
        optimizer = Adam([placed], lr=0.03)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.03 * (1 - step / steps) + 1e-3
            likeness = _resemblance(_warped(x, _matrices(placed)), template)
            loss = (0.002 * (placed / usual).square().sum(1) - likeness).sum()
            (placed.grad,) = torch.autograd.grad(loss, placed)
            optimizer.step()
    return placed.detach()
