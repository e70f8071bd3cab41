"""From signed residuals to an anomaly map: how unusual they are at each pixel, at several scales."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from phenotype.models.ssim import blur

SCALES = (1.0, 2.0, 4.0)  # standard deviations of the blurs, in pixels of an image of 64; others in proportion
SMOOTH = 1.0  # of mean and variance over pixels: neighbours are alike, and images are few
FLOOR = 0.1  # least standard deviation of a pixel, in those of the median pixel


class ResidualMap(nn.Module):
    """Signed residuals (n, 1, *spatial) -> maps (n, *spatial): the sum over scales of log(1 + z^2).

    z is the residual blurred at one scale, in standard deviations from what `fit` saw of healthy images at that pixel
    and scale. Blurred before the sign is lost, since a lesion is brighter or darker as a whole and noise is not;
    standardised, since models err at edges, where a residual means nothing; the logarithm, so that no single scale
    decides alone (it is the Student t log-likelihood ratio of one degree of freedom).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.sigmas = tuple(scale * shape[0] / 64 for scale in SCALES)
        self.register_buffer("mean", torch.zeros(len(SCALES), *shape))
        self.register_buffer("spread", torch.ones(len(SCALES), *shape))

    def fit(self, residuals: Iterable[Tensor]) -> None:
        """Mean and spread at each pixel from batches (n, 1, *spatial) of residuals of healthy images, one at least.

        In 64 bits, in one pass.
        """
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for batch in residuals:
            blurred = self._blurred(batch)
            count += len(batch)
            total += blurred.sum(0)
            squares += blurred.square().sum(0)
        if count < 2:
            raise ValueError(f"the spread of residuals needs at least 2 images, not {count}")
        mean = total / count
        variance = ((squares - count * mean.square()) / (count - 1)).clamp(min=0.0)
        mean, variance = (blur(one[None], SMOOTH)[0] for one in (mean, variance))
        spread = variance.sqrt()
        usual = spread.flatten(1).median(1).values.view(-1, *[1] * (spread.ndim - 1))
        self.mean = mean.to(self.mean)
        self.spread = spread.maximum(FLOOR * usual).clamp(min=1e-6).to(self.spread)

    def forward(self, residuals: Tensor) -> Tensor:
        z = (self._blurred(residuals) - self.mean.double()) / self.spread.double()
        return torch.log1p(z.square()).sum(1).to(residuals.dtype)

    def _blurred(self, residuals: Tensor) -> Tensor:
        """(n, scales, *spatial), in 64 bits: in 32 it would show in a map whether an image was scored among others."""
        return torch.cat([blur(residuals.double(), sigma) for sigma in self.sigmas], 1)
