"""Features of all depths on one grid, an encoder that is frozen in the second phase, and errors in usual units."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from model_images import Images, normal
from torch.nn import functional

from phenotype.models import build
from phenotype.models.train import train

SIZE = 32


def test_features_are_the_maps_of_all_depths():
    model, x = build("feature-ae", SIZE, width=8), torch.from_numpy(normal(3, SIZE, seed=1))
    with torch.no_grad():
        features = model.features(x)
        fine = model.images.encoder[:3](x)  # convolution, norm, rectifier
        deep = model.images.encoder[:9](x)
    assert fine.shape == (3, 8, 16, 16) and deep.shape == (3, 32, 4, 4)
    assert features.shape == (3, 8 + 16 + 32, 8, 8)
    torch.testing.assert_close(features[:, :8], functional.avg_pool2d(fine, 2))
    torch.testing.assert_close(features[:, 24:].mean((2, 3)), deep.mean((2, 3)), atol=1e-5, rtol=1e-4)


def test_the_second_phase_leaves_the_encoder_alone(tmp_path):
    model = build("feature-ae", SIZE, width=8, first_share=0.5)
    plan = {"batch_size": 8, "seed": 1, "learning_rate": 2e-3, "checkpoint_every": 100}
    states = []

    def progress(step, steps, text):
        states.append({key: value.clone() for key, value in model.state_dict().items()})

    train(model, Images(normal(30, SIZE, seed=1)), folder=tmp_path, steps=6, progress=progress, **plan)
    same = [{key for key in model.state_dict() if torch.equal(a[key], b[key])} for a, b in pairwise(states)]
    images = {key for key in model.state_dict() if key.startswith("images.")}
    assert not images & same[0] and images <= same[3]
    assert not {key for key in same[3] if key.startswith(("code.", "decode."))}


def test_errors_are_in_units_of_what_is_usual():
    """On the images that it was fitted to, the maps' mean is 1."""
    model, images = build("feature-ae", SIZE, width=8), normal(20, SIZE, seed=1)
    model.fit(Images(images), seed=0)
    assert float(model.score(torch.from_numpy(images))[1].mean()) == pytest.approx(1.0, rel=1e-3)


def test_volumes():
    model = build("feature-ae", 16, dims=3, width=4)
    scores, maps = model.score(torch.rand(2, 1, 16, 16, 16))
    assert scores.shape == (2,) and maps.shape == (2, 16, 16, 16)
