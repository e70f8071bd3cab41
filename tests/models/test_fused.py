"""The coarse denoiser, the detector of planted anomalies, and their sum with principal components."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot
from scipy import ndimage
from torch.nn.functional import avg_pool2d

from phenotype.models import build
from phenotype.models.augment import coarse_noise, one_cycle, vary
from phenotype.models.figures import PixelFigures
from phenotype.models.planted import foreign, ragged, tinted
from phenotype.models.residuals import ResidualMap
from phenotype.models.stepping import Stepper
from phenotype.models.train import train

SIZE = 32


def random(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(name: str, folder, steps: int, **parameters):
    model, images = build(name, SIZE, seed=1, **parameters), Images(normal(100, SIZE, seed=1))
    plan = {"steps": steps, "batch_size": 8, "seed": 1, "learning_rate": 4e-3, "checkpoint_every": 10**6}
    train(model, images, folder=folder, **plan)
    return model


def spots_found(model) -> float:
    """Pixel average precision of its maps of 40 new images with a spot each."""
    healthy = normal(40, SIZE, seed=2)
    spotted, _ = with_spot(healthy, seed=3)
    return PixelFigures(model.score(torch.from_numpy(spotted))[1].numpy(), (spotted - healthy)[:, 0] > 0.2)()["ap"]


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    return trained("fused", tmp_path_factory.mktemp("fused"), 150, width=8, components=16)


def test_planted_spots_are_found_and_the_denoiser_learns_it(fused):
    """The detector needs more steps than a test has: on these images it has learnt nothing yet, and does no harm."""
    untrained = build("fused", SIZE, seed=1, width=8, components=16)
    with torch.no_grad():
        untrained.fit(Images(normal(100, SIZE, seed=1)), 1)
    before, after = spots_found(untrained.denoiser), spots_found(fused.denoiser)
    print(f"fused {spots_found(fused):.2f}, the denoiser alone {after:.2f}, untrained {before:.2f}")
    assert spots_found(fused) > 0.8
    assert after > before + 0.2


def test_the_map_is_the_blurred_sum_of_standardised_maps_by_the_root_of_its_spread(fused):
    x = torch.from_numpy(normal(100, SIZE, seed=1))
    members = [member.score(x)[1].numpy().astype(np.float64) for member in fused.members]
    left_out = fused.linear.residuals(fused.linear.left_out(x, len(x))).numpy().astype(np.float64)
    usual = [left_out, *members[1:]]
    total = sum((maps - own.mean()) / own.std() for maps, own in zip(members, usual, strict=True))
    by_hand = ndimage.gaussian_filter(total, (0, SIZE / 64, SIZE / 64), mode="reflect", truncate=3.5)
    scores, maps = fused.score(x)
    np.testing.assert_allclose(scores, by_hand.mean(axis=(1, 2)), atol=1e-4)  # of the sum: how unusual the image is
    centred = by_hand - by_hand.mean(axis=(1, 2), keepdims=True)
    spread = by_hand.std(axis=(1, 2), keepdims=True, ddof=1)
    np.testing.assert_allclose(maps, centred / np.sqrt(spread), atol=1e-4)


def test_residual_maps_equal_those_by_hand():
    rng = np.random.default_rng(1)
    place = np.linspace(0.5, 2.0, SIZE)  # a spread that differs from place to place
    healthy, new = (rng.normal(0.1, place, (count, SIZE, SIZE)).astype(np.float32) for count in (50, 4))
    made = ResidualMap((SIZE, SIZE))
    made.fit(torch.from_numpy(part)[:, None] for part in np.split(healthy, [20, 49]))
    expected = np.zeros(new.shape)
    for sigma in (0.5, 1.0, 2.0):  # 1, 2 and 4 of 64 pixels
        blurred, query = (
            ndimage.gaussian_filter(a.astype(np.float64), (0, sigma, sigma), mode="reflect", truncate=3.5)
            for a in (healthy, new)
        )
        mean, variance = (
            ndimage.gaussian_filter(a, 1.0, mode="reflect", truncate=3.5)
            for a in (blurred.mean(0), blurred.var(0, ddof=1))
        )
        expected += np.log1p(((query - mean) / np.sqrt(variance)) ** 2)
    np.testing.assert_allclose(made(torch.from_numpy(new)[:, None]).numpy(), expected, atol=1e-4)
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        made.fit([torch.zeros(1, 1, SIZE, SIZE)])


def test_principal_components_allow_for_what_they_have_learnt_by_heart():
    """With half as many components as images, standard deviations of new images' residuals are about 1 all the same."""
    images = normal(60, SIZE, seed=1)
    model = build("pca", SIZE, components=30)
    model.fit(Images(images), 1)

    def spread(array):
        x = torch.from_numpy(array)
        blurred = model.residuals._blurred(x - model.reconstruct(x))
        return float(((blurred - model.residuals.mean) / model.residuals.spread).square().mean().sqrt())

    assert 0.8 < spread(normal(60, SIZE, seed=2)) < 1.25
    assert spread(images) < 0.7


def test_principal_components_mark_spots_better_by_scales():
    model = build("pca", SIZE)
    model.fit(Images(normal(100, SIZE, seed=1)), 1)
    assert spots_found(model) > spots_found(model.scored_by(map_term="residual"))


def test_coarse_noise_is_coarse_and_the_same_from_the_same_chance():
    noise, fine = coarse_noise(200, SIZE, 4, random()), torch.randn(200, 1, SIZE, SIZE, generator=random())
    assert torch.equal(noise, coarse_noise(200, SIZE, 4, random()))
    assert 0.5 < float(noise.std()) < 1.0 and abs(float(noise.mean())) < 0.05
    kept = [float(avg_pool2d(one, 4).var() / one.var()) for one in (noise, fine)]
    assert kept[0] > 0.7 and kept[1] < 0.1  # averaging over the width of half a cell takes away fine noise only
    per_pixel = noise.std(0)
    assert float(per_pixel.std() / per_pixel.mean()) < 0.1  # rolled: as strong between grid points as on them


def test_healthy_images_vary_and_stay_images():
    x = torch.from_numpy(normal(20, SIZE, seed=1))
    varied = vary(x, random())
    assert varied.shape == x.shape and float(varied.min()) >= 0.0 and float(varied.max()) <= 1.0
    assert 0.01 < float((varied - x).abs().mean()) < 0.15
    assert torch.equal(varied, vary(x, random()))


def test_regions_are_ragged_of_the_size_asked_for():
    masks = torch.cat([ragged(8, SIZE, 0.15, random(seed)) for seed in range(20)])
    share = masks.mean((1, 2, 3))
    assert float(share.min()) > 0.015 and float(share.max()) < 0.17 and float(share.std()) > 0.02
    assert float(masks.min()) >= 0.0 and float(masks.max()) <= 1.0


@pytest.mark.parametrize("change", [foreign, tinted])
def test_what_is_planted_is_where_it_is_said_to_be(change):
    x = torch.from_numpy(normal(16, SIZE, seed=1))
    changed, mask = change(x, 0.15, random())
    assert torch.equal(changed[mask == 0], x[mask == 0])
    assert float((changed - x).abs()[mask > 0.5].mean()) > 0.03


def test_planted_truth_is_visible_and_some_images_stay_healthy():
    model = build("planted", SIZE, width=8, planted=0.5)
    x = torch.from_numpy(normal(200, SIZE, seed=1))
    planted, truth = model.plant(x, random())
    untouched = (planted == x).flatten(1).all(1)
    assert 0.35 < float(untouched.float().mean()) < 0.65
    assert not truth[untouched].any() and 0.01 < float(truth.mean()) < 0.1
    assert set(truth.unique().tolist()) == {0.0, 1.0}


def test_the_rate_rises_within_a_tenth_and_falls_to_nothing():
    rates = [one_cycle(step, 200) for step in range(200)]
    assert rates[0] < 0.06 and rates[19] == pytest.approx(1.0) and rates[-1] < 1e-3
    assert rates[:20] == sorted(rates[:20]) and rates[19:] == sorted(rates[19:], reverse=True)
    assert all(math.isfinite(one_cycle(0, steps)) for steps in (1, 2, 3))


@pytest.mark.parametrize("clip", [1.0, None])
def test_gradients_are_no_longer_than_the_family_allows(monkeypatch, clip):
    from lightning_fabric import Fabric

    from phenotype.models.stepping import Plan

    kind = type(build("coarse-dae", SIZE, width=8))
    monkeypatch.setattr(kind, "clip", clip)
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda *a: {k: 1000 * v for k, v in forward(*a).items()})
    model, images = build("coarse-dae", SIZE, width=8), Images(normal(8, SIZE, seed=1))
    plan = Plan(
        model="coarse-dae",
        recipe={},
        initial_weights="",
        images=8,
        data="",
        steps=10,
        batch_size=4,
        accumulate=1,
        seed=1,
        learning_rate=1e-3,
        devices=1,
        watch=None,
    )
    stepper = Stepper(Fabric(accelerator="cpu", devices=1), model, images, plan)
    stepper.take(0)
    length = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert (float(length) <= 1.0 + 1e-4) == (clip is not None)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("coarse-dae", {"noise": 1.5}),
        ("coarse-dae", {"cells": 1}),
        ("planted", {"planted": 0.0}),
        ("planted", {"largest": 0.01}),
        ("fused", {"components": 0}),
        ("fused", {"width": 0}),
    ],
)
def test_parameters_without_sense_are_refused(name, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build(name, SIZE, **wrong)
