"""The divergence against its closed form, what beta does, and images drawn from the prior."""

from __future__ import annotations

import math

import pytest
import torch
from model_images import Images, blobs, normal
from torch.distributions import Independent, Normal, kl_divergence

from phenotype.models import build
from phenotype.models.train import train
from phenotype.models.variational import divergence_from_standard

SIZE = 16


def trained(folder, steps=250, **parameters):
    model = build("vae", SIZE, seed=1, width=8, latent=8, **parameters)
    train(
        model,
        Images(blobs(160, SIZE, seed=1)),
        folder=folder,
        steps=steps,
        batch_size=16,
        seed=1,
        learning_rate=5e-3,
        checkpoint_every=1000,
    )
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("vae"))


def test_the_divergence_is_that_of_torch_distributions():
    random = torch.Generator().manual_seed(0)
    mean, log_variance = (torch.randn(50, 7, generator=random, dtype=torch.float64) for _ in range(2))
    posterior = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    prior = Independent(Normal(torch.zeros(7).double(), torch.ones(7).double()), 1)
    torch.testing.assert_close(divergence_from_standard(mean, log_variance), kl_divergence(posterior, prior))
    # By hand: N(1, 1) is half a nat from N(0, 1), N(0, e) is (e - 2) / 2.
    by_hand = divergence_from_standard(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.0], [1.0]]))
    assert by_hand.tolist() == pytest.approx([0.5, (math.e - 2) / 2])


def test_the_loss_is_the_bound_at_the_best_variance():
    """The negative bound, with the variance that minimises it, from torch's own density of a Gaussian."""
    model, x = build("vae", SIZE, seed=1, width=8, beta=1.0), torch.from_numpy(normal(6, SIZE, seed=2))
    with torch.no_grad():
        figures = model("autoencoder", x, torch.Generator().manual_seed(3))
        mean, log_variance = model.posterior(x)
        code = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=torch.Generator().manual_seed(3))
        again = model.decode(code)

        def bound(variance):
            log_density = Normal(again, variance**0.5).log_prob(x).flatten(1).sum(1)
            return float((divergence_from_standard(mean, log_variance) - log_density).mean() / SIZE**2)

    best = float(figures["squared"])
    assert float(figures["loss"]) == pytest.approx(bound(best), rel=1e-5)
    assert bound(best) < min(bound(0.8 * best), bound(1.25 * best))


def test_a_larger_beta_keeps_codes_nearer_to_the_prior(tmp_path):
    x = torch.from_numpy(blobs(60, SIZE, seed=2))
    divergences = []
    for beta in (0.1, 1.0, 20.0):
        model = trained(tmp_path / str(beta), steps=120, beta=beta)
        with torch.no_grad():
            posterior = model.posterior(x)
        divergences.append(float(divergence_from_standard(*posterior).mean()))
    print(divergences)
    assert divergences[0] > 1.2 * divergences[1] and divergences[1] > 1.2 * divergences[2]


def test_images_drawn_are_like_those_it_learnt_from(model):
    drawn = model.sample(60, torch.Generator().manual_seed(0))
    assert drawn.shape == (60, 1, SIZE, SIZE)
    assert float(drawn.min()) >= 0.0 and float(drawn.max()) <= 1.0
    assert torch.equal(drawn, model.sample(60, torch.Generator().manual_seed(0)))
    assert not torch.equal(drawn, model.sample(60, torch.Generator().manual_seed(1)))
    real = torch.from_numpy(blobs(60, SIZE, seed=2))
    untrained = build("vae", SIZE, seed=1, width=8, latent=8).sample(60, torch.Generator().manual_seed(0))

    def nearest(images):
        return float(torch.cdist(images.flatten(1), real.flatten(1)).amin(1).mean())

    others = torch.from_numpy(blobs(60, SIZE, seed=3))
    print(nearest(drawn), nearest(others), nearest(untrained))
    assert nearest(drawn) < 0.5 * nearest(untrained) and nearest(drawn) < 3.0 * nearest(others)
    assert float(drawn.std(0).mean()) > 0.2 * float(real.std(0).mean())  # and not one image for all codes


def test_fit_measures_the_variance_of_a_pixel(model):
    x = torch.from_numpy(blobs(160, SIZE, seed=1))
    with torch.no_grad():
        assert float(model.variance) == pytest.approx(float((model.reconstruct(x) - x).pow(2).mean()), rel=1e-4)


def test_the_score_elbo_is_the_bound_at_the_mean_of_the_code(model):
    x = torch.from_numpy(blobs(10, SIZE, seed=2))
    with torch.no_grad():
        mean, log_variance = model.posterior(x)
        density = Normal(model.decode(mean), model.variance.sqrt()).log_prob(x).flatten(1).sum(1)
    scores, _ = model.scored_by(term="elbo").score(x)
    torch.testing.assert_close(scores, divergence_from_standard(mean, log_variance) - density, rtol=1e-4, atol=1e-2)


def test_a_negative_beta_is_refused():
    with pytest.raises(ValueError, match="beta"):
        build("vae", SIZE, beta=-1.0)
