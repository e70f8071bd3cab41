"""GANs learn what images look like; their losses are the papers'; z has directions that mean something."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal

from phenotype.models import build
from phenotype.models.diagnostics import report
from phenotype.models.gan import attribute_vector, cross_entropy, gradient_penalty, non_saturating, saturating
from phenotype.models.train import train

SIZE = 16


def half_with_spot(count: int, seed: int) -> np.ndarray:
    """Every second image has a bright square in the middle."""
    images = normal(count, SIZE, seed)
    images[::2, :, 6:10, 6:10] = (images[::2, :, 6:10, 6:10] + 0.4).clip(0, 1)
    return images


def spotted(images: torch.Tensor) -> torch.Tensor:
    """Whether the middle is brighter than what is above and below."""
    middle = images[:, 0, 6:10, 6:10].mean((1, 2))
    beside = torch.cat([images[:, 0, 2:4, 6:10], images[:, 0, 12:14, 6:10]], 1).mean((1, 2))
    return middle - beside > 0.2


TRAINING = {"dcgan": (400, 1e-3), "wgan": (1000, 2e-3)}  # steps, learning rate


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    models = {}
    for name, (steps, learning_rate) in TRAINING.items():
        models[name] = build(name, SIZE, seed=1, width=8, latent=16)
        train(
            models[name],
            Images(half_with_spot(200, seed=1)),
            folder=tmp_path_factory.mktemp(name),
            steps=steps,
            batch_size=16,
            seed=1,
            learning_rate=learning_rate,
            checkpoint_every=1000,
        )
    return models


@pytest.mark.parametrize("name", sorted(TRAINING))
def test_samples_are_like_what_was_learnt_and_vary(name, trained):
    real, embed = torch.from_numpy(half_with_spot(200, seed=2)), build("cae", SIZE).embed
    diagnosis = report(trained[name], real, embed, torch.Generator().manual_seed(1), 200)
    before = report(build(name, SIZE, width=8), real, embed, torch.Generator().manual_seed(1), 200)
    print(name, diagnosis)
    assert not diagnosis.collapsed, diagnosis.reasons
    assert before.collapsed
    assert diagnosis.frechet < before.frechet / 4


@torch.no_grad()
def test_a_wasserstein_gan_keeps_what_half_of_the_images_have(trained):
    """The plain GAN loses it: it makes images without the spot alone."""
    random = torch.Generator().manual_seed(2)
    share = {name: spotted(model.sample(1000, random)).float().mean().item() for name, model in trained.items()}
    print(share)
    assert 0.3 < share["wgan"] < 0.7
    assert share["dcgan"] < 0.1


@torch.no_grad()
def test_arithmetic_in_z_adds_what_some_images_have(trained):
    assert spotted(torch.from_numpy(half_with_spot(100, seed=3))).tolist() == [True, False] * 50  # the measure
    model, random = trained["wgan"], torch.Generator().manual_seed(2)
    z = model.latents(1000, random)
    direction = attribute_vector(z, spotted(model.generate(z)))
    new = model.latents(400, random)
    without = new[~spotted(model.generate(new))]
    other = torch.randn(16, generator=random)
    other *= direction.norm() / other.norm()
    added = spotted(model.generate(without + direction)).float().mean()
    by_chance = spotted(model.generate(without + other)).float().mean()
    print(f"the spot appears in {added:.2f}, along another direction in {by_chance:.2f}")
    assert added >= 0.8
    assert by_chance <= added - 0.3


def test_an_attribute_that_all_have_has_no_direction():
    z = torch.randn(4, 3)
    for wrong in (torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool), torch.ones(4), torch.ones(3) > 0):
        with pytest.raises(ValueError, match="some True"):
            attribute_vector(z, wrong)
    assert torch.equal(attribute_vector(z[:2], torch.tensor([True, False])), z[0] - z[1])


@pytest.mark.parametrize("name", ["dcgan", "wgan"])
def test_what_others_build_on(name):
    model, random = build(name, SIZE, width=8, latent=5), torch.Generator().manual_seed(1)
    z = model.latents(3, random)
    x = model.generate(z)
    assert z.shape == (3, 5) and x.shape == (3, 1, SIZE, SIZE) and x.min() >= 0 and x.max() <= 1
    assert torch.equal(model.sample(3, torch.Generator().manual_seed(1)), x)
    assert model.features(x).ndim == 2
    torch.testing.assert_close(model.head(model.trunk(2 * x - 1)).squeeze(1), model.judge(x))
    torch.testing.assert_close(model.score(x.detach())[0], -model.judge(x.detach()))
    with pytest.raises(ValueError, match="latent must be at least 1"):
        build(name, SIZE, latent=0)


@pytest.mark.parametrize("norm", [0.0, 1.0, 3.0])
def test_the_gradient_penalty_of_a_slope_is_known(norm):
    """A linear critic has the same gradient everywhere."""
    slope = torch.full((4,), norm / 2)
    real, fake = torch.randn(2, 5, 4)
    penalty = gradient_penalty(lambda x: x @ slope, real, fake, torch.Generator().manual_seed(1))
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-4)


def test_the_losses_are_those_of_the_game():
    even = torch.zeros(4, requires_grad=True)
    assert cross_entropy(even, even).item() == pytest.approx(2 * np.log(2))  # Goodfellow et al.: at the equilibrium
    found_out = torch.full((4,), -10.0, requires_grad=True)
    (strong,) = torch.autograd.grad(non_saturating(found_out), found_out)
    (weak,) = torch.autograd.grad(saturating(found_out), found_out)
    assert (strong < 0).all() and (weak < 0).all()  # both push the logits up
    assert strong.abs().sum() > 1000 * weak.abs().sum()
