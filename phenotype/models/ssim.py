"""Structural similarity of images, as maps, in torch."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

SIGMA = 1.5
TRUNCATED = 3.5  # standard deviations: an 11 x 11 window of SIGMA, as in the paper


@lru_cache(maxsize=32)
def _blurring(length: int, sigma: float) -> Tensor:
    """The matrix (length, length) that takes Gaussian means along an axis, mirrored at both ends."""
    reach = int(TRUNCATED * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    window = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    at = (torch.arange(length)[:, None] + offsets) % (2 * length)  # d c b a | a b c d | d c b a
    mirrored = at.where(at < length, 2 * length - 1 - at)
    matrix: Tensor = (functional.one_hot(mirrored, length) * (window / window.sum())[:, None]).sum(1)
    return matrix


def blur(x: Tensor, sigma: float = SIGMA) -> Tensor:
    """Gaussian mean of images (n, c, *spatial), of the same size, mirrored at the borders; `sigma` in pixels.

    The window reaches 3.5 sigma: 11 a side for the default of 1.5.

    As a matrix product along each axis: at these sizes faster than convolutions, above all backwards.
    """
    for axis in range(2, x.ndim):
        x = (x.transpose(axis, -1) @ _blurring(int(x.shape[axis]), sigma).to(x).T).transpose(axis, -1)
    return x


def ssim_map(a: Tensor, b: Tensor, data_range: float = 1.0) -> Tensor:
    """Structural similarity of `a` and `b` (n, 1, *spatial) around each pixel, in their shape: 1 where they are equal.

    Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity"; the full map equals
    scikit-image's with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`.
    """
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    with torch.autocast(a.device.type, enabled=False):  # a variance as a difference of squares: nothing for 16 bits
        if a.dtype != torch.float64:
            a, b = a.float(), b.float()
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    return luminance * structure
