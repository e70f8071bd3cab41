"""A collapsed generator is told from a healthy one by its samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import normal

from phenotype.models import build
from phenotype.models.diagnostics import diagnose, frechet_distance, report

SIZE = 16


@pytest.fixture(scope="module")
def real() -> torch.Tensor:
    return torch.from_numpy(normal(200, SIZE, seed=1))


def constant(n, real):
    return real[:1].expand(n, -1, -1, -1)


def noisy_constant(n, real):
    """One image with a little noise, as of a generator that nearly ignores z."""
    noise = 0.02 * torch.randn(n, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    return (real[:1] + noise).clamp(0, 1)


def three_images(n, real):
    return real[torch.arange(n) % 3]


def static(n, real):
    """As varied as may be, and nothing real."""
    return torch.rand(n, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("space", ["pixels", "cae"])
@pytest.mark.parametrize("forced", [constant, noisy_constant, three_images, static])
def test_a_forced_collapse_is_caught(forced, space, real):
    embed = None if space == "pixels" else build("cae", SIZE).embed
    diagnosis = diagnose(forced(200, real), real, embed)
    assert diagnosis.collapsed and diagnosis.reasons, diagnosis


@pytest.mark.parametrize("space", ["pixels", "cae"])
def test_real_images_against_real_images_are_healthy(space, real):
    embed = None if space == "pixels" else build("cae", SIZE).embed
    diagnosis = diagnose(torch.from_numpy(normal(200, SIZE, seed=2)), real, embed)
    assert not diagnosis.collapsed, diagnosis
    assert diagnosis.diversity == pytest.approx(1.0, abs=0.1)
    assert diagnosis.coverage > 0.9 and diagnosis.density > 0.8 and diagnosis.nearest > 0.8
    assert diagnosis.precision > 0.8 and diagnosis.recall > 0.8
    assert diagnosis.frechet < diagnose(static(200, real), real, embed).frechet / 10
    assert all(type(value) is float for value in diagnosis.as_dict().values())


def test_a_model_that_ignores_z_is_caught(real):
    class Ignoring:
        def sample(self, n, random):
            torch.randn(n, 4, generator=random)
            return torch.full((n, 1, SIZE, SIZE), 0.5)

    assert report(Ignoring(), real, None, torch.Generator().manual_seed(1), 100).collapsed


def test_frechet_distance_of_normal_distributions_is_the_known_one():
    """(mean difference)^2 + sum of (difference of deviations)^2, where the axes are those of the space."""
    rng = np.random.default_rng(1)
    a = rng.normal(0, [1.0, 2.0], (20000, 2))
    b = rng.normal([3.0, 0.0], [1.0, 1.0], (20000, 2))
    assert frechet_distance(a, b) == pytest.approx(9 + 1, rel=0.05)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
    few = rng.normal(size=(10, 50))  # fewer than dimensions
    assert np.isfinite(frechet_distance(few, few + 1)) and frechet_distance(few, few + 1) == pytest.approx(50, rel=1e-6)


def test_too_few_are_refused(real):
    with pytest.raises(ValueError, match="at least 6"):
        diagnose(real[:5], real, None)
