"""The density in torch is scikit-learn's, and it is what the score is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from model_images import Images, normal
from sklearn.mixture import GaussianMixture

from phenotype.models import build

SIZE = 16


def fitted(count=80, **parameters):
    model = build("gmm", SIZE, components=6, **parameters)
    model.fit(Images(normal(count, SIZE, seed=1)), seed=3)
    return model


def test_the_score_is_the_negative_log_likelihood_of_scikit_learn():
    model = fitted(mixtures=4, term="density")

    def coordinates(images):
        return (model.embed(torch.from_numpy(images)).double() / model.variances.double().sqrt()).numpy()

    oracle = GaussianMixture(4, reg_covar=0.05, random_state=3).fit(coordinates(normal(80, SIZE, seed=1)))
    others = normal(20, SIZE, seed=2)
    scores, _ = model.score(torch.from_numpy(others))
    assert scores.numpy() == pytest.approx(-oracle.score_samples(coordinates(others)), rel=1e-4)
    assert np.ptp(scores.numpy()) > 1  # not a constant that any model would meet


def test_one_gaussian_has_the_closed_form():
    model = fitted(mixtures=1, ridge=1e-9, term="density")
    x = torch.from_numpy(normal(10, SIZE, seed=2))
    z = model.embed(x).double() / model.variances.double().sqrt()
    expected = 0.5 * (z**2).sum(1) * 80 / 79 + 3 * math.log(2 * math.pi) - 3 * math.log(80 / 79)
    assert model.score(x)[0].numpy() == pytest.approx(expected.numpy(), rel=1e-3)


def test_what_the_components_leave_over_counts_only_in_the_complete_density():
    density, complete = fitted(term="density"), fitted(term="complete")
    x = torch.from_numpy(normal(20, SIZE, seed=2))
    outside = torch.randn(SIZE * SIZE, generator=torch.Generator().manual_seed(0))
    outside -= density.components.T @ (density.components @ outside)  # a direction that no component sees
    moved = (x + 0.02 * outside.reshape(1, 1, SIZE, SIZE)).clamp(0, 1)
    before, after = density.score(x)[0], density.score(moved)[0]
    assert after.numpy() == pytest.approx(before.numpy(), abs=0.1)
    assert bool((complete.score(moved)[0] > complete.score(x)[0] + 10).all())


def test_few_images_make_few_gaussians():
    assert len(fitted(count=25, mixtures=5).means) == 2


@pytest.mark.parametrize("wrong", [{"mixtures": 0}, {"ridge": 0.0}])
def test_what_has_no_density_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        fitted(**wrong)
