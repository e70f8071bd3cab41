"""Our SSIM against scikit-image's."""

import numpy as np
import pytest
import torch
from model_images import normal
from skimage.metrics import structural_similarity

from phenotype.models.ssim import ssim_map


@pytest.mark.parametrize("size", [16, 64])
def test_the_map_is_scikit_images(size):
    a, b = normal(4, size, seed=1), normal(4, size, seed=2)
    ours = ssim_map(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    for mine, one, other in zip(ours[:, 0], a[:, 0], b[:, 0], strict=True):
        _, theirs = structural_similarity(
            one.astype(np.float64),
            other.astype(np.float64),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        np.testing.assert_allclose(mine, theirs, atol=2e-4)  # float32 against float64
        assert theirs.min() < 0.9


def test_equal_images_are_wholly_similar():
    x = torch.from_numpy(normal(2, 16, seed=3))
    torch.testing.assert_close(ssim_map(x, x), torch.ones_like(x))


def test_mixed_precision_leaves_it_alone():
    a, b = (torch.from_numpy(normal(2, 16, seed=seed)) for seed in (1, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = ssim_map(a, b)
    assert torch.equal(mixed, ssim_map(a, b))
