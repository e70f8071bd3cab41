"""Principal components are scikit-learn's, and what they say can be computed from what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal
from sklearn.decomposition import PCA

from phenotype.models import build, pca

SIZE = 16


def fitted(images, **parameters):
    model = build("pca", SIZE, **parameters)
    model.fit(Images(images), seed=0)
    return model


def test_projections_and_reconstructions_are_those_of_scikit_learn():
    images, others = normal(60, SIZE, seed=1), normal(20, SIZE, seed=2)
    model = fitted(images, components=10)
    oracle = PCA(10, svd_solver="full").fit(images.reshape(60, -1))
    x = torch.from_numpy(others)
    codes = oracle.transform(others.reshape(20, -1))
    assert model.embed(x).numpy() == pytest.approx(codes, abs=1e-4)
    again = oracle.inverse_transform(codes).reshape(others.shape)
    assert model.reconstruct(x).numpy() == pytest.approx(again, abs=1e-5)


def test_more_components_leave_less_over():
    images, x = normal(60, SIZE, seed=1), torch.from_numpy(normal(20, SIZE, seed=2))
    errors = [float((fitted(images, components=k).reconstruct(x) - x).pow(2).mean()) for k in (1, 5, 30)]
    assert errors[0] > errors[1] > errors[2]


def test_there_are_fewer_components_than_images():
    assert fitted(normal(5, SIZE, seed=1)).embed(torch.from_numpy(normal(3, SIZE, seed=2))).shape == (3, 4)
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        fitted(normal(1, SIZE, seed=1))


def test_the_mahalanobis_distance_is_that_of_the_density():
    """Against the distance with the whole covariance matrix of probabilistic PCA."""
    images, x = normal(80, SIZE, seed=1), normal(10, SIZE, seed=2)
    model = fitted(images, components=6, term="mahalanobis")
    axes, noise = model.components.double().numpy(), float(model.noise)
    variances = model.variances.double().numpy() - noise
    covariance = (axes.T * variances) @ axes + noise * np.eye(SIZE * SIZE)
    away = x.reshape(10, -1).astype(np.float64) - images.reshape(80, -1).mean(0, dtype=np.float64)
    expected = np.sqrt((away @ np.linalg.inv(covariance) * away).sum(1))
    assert model.score(torch.from_numpy(x))[0].numpy() == pytest.approx(expected, rel=1e-3)
    # The variance outside the components is what scikit-learn's covariance has there, on average over all directions.
    whole = images.reshape(80, -1).var(0, ddof=1, dtype=np.float64).sum()
    assert noise == pytest.approx((whole - model.variances.double().sum().item()) / (SIZE * SIZE - 6), rel=1e-3)


def test_computed_in_parts_it_is_nearly_the_same(monkeypatch):
    images, x = normal(600, SIZE, seed=1), torch.from_numpy(normal(30, SIZE, seed=2))
    at_once = fitted(images, components=8)
    monkeypatch.setattr(pca, "AT_ONCE", 1)
    in_parts = fitted(images, components=8)
    assert not torch.equal(in_parts.components, at_once.components)
    errors = [float((model.reconstruct(x) - x).pow(2).mean()) for model in (at_once, in_parts)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)


def test_volumes():
    volumes = np.random.default_rng(0).random((12, 1, 8, 8, 8), dtype=np.float32)
    model = build("pca", 8, dims=3, components=11)
    model.fit(Images(volumes), seed=0)
    x = torch.from_numpy(volumes)
    scores, maps = model.score(x)
    assert scores.shape == (12,) and maps.shape == (12, 8, 8, 8)
    torch.testing.assert_close(model.reconstruct(x), x, atol=1e-5, rtol=0)  # eleven directions hold twelve volumes
