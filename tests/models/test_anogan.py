"""AnoGAN and f-AnoGAN do what their papers say; each test is for a fault of a well-known implementation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot

from phenotype.models import build
from phenotype.models.anogan import COMPARISON
from phenotype.models.files import tensors_hash
from phenotype.models.inversion import INVERSIONS
from phenotype.models.mapping import SCHEDULES
from phenotype.models.train import train

SIZE = 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An AnoGAN that has learnt a little."""
    model = build("anogan", SIZE, seed=1, width=8, latent=16)
    train(
        model,
        Images(normal(100, SIZE, seed=1)),
        folder=tmp_path_factory.mktemp("anogan"),
        steps=400,
        batch_size=16,
        seed=1,
        learning_rate=2e-3,
        checkpoint_every=1000,
    )
    model.zero_grad(set_to_none=True)
    return model


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Images not seen in training, their number no multiple of a group."""
    return torch.from_numpy(normal(37, SIZE, seed=2))


def test_each_image_is_searched_for(trained, x):
    """PyOD's AnoGAN compares every image with one and the same: here each has its own, nearer than the median."""
    again = trained.map_to_latent(x, SCHEDULES["fast"]).images
    assert float((again[0] - again[1]).abs().max()) > 0.02
    constant = torch.from_numpy(normal(100, SIZE, seed=1)).median(0).values
    residual, against = ((x - one).abs().flatten(1).mean(1) for one in (again, constant))
    assert float((residual < against).float().mean()) > 0.85
    shuffled = (x - again.roll(1, 0)).abs().flatten(1).mean(1)  # nearest to its own, not to any
    assert float(residual.mean()) < 0.9 * float(shuffled.mean())


def test_a_search_brings_an_image_nearer_than_the_encoder_and_the_short_one_as_near_as_the_papers(trained, x):
    loss = {name: float(trained.map_to_latent(x[:16], SCHEDULES[name]).loss.mean()) for name in SCHEDULES}
    print(loss)
    assert loss["brief"] < loss["encoder"]
    assert loss["fast"] < 1.02 * loss["paper"]
    assert loss["paper"] < loss["brief"]


def test_scoring_changes_nothing_in_the_networks(trained, x):
    """In PyOD the optimizer of the search holds generator and discriminator too, and dropout is on."""
    before = tensors_hash(trained.state_dict())
    trained.train()
    flags = [parameter.requires_grad for parameter in trained.parameters()]
    first, second = trained.score(x)[0], trained.score(x)[0]
    assert torch.equal(first, second)
    assert tensors_hash(trained.state_dict()) == before
    assert trained.training and flags == [parameter.requires_grad for parameter in trained.parameters()]
    assert all(parameter.grad is None for parameter in trained.parameters())
    assert torch.equal(trained.eval().score(x)[0], first)


@pytest.mark.parametrize("search", ["brief", "paper"])
def test_neither_order_nor_batch_changes_a_score(trained, x, search, monkeypatch):
    """Anomalib's GANomaly scales by a running minimum and maximum, f-AnoGAN's original drops the last batch."""
    monkeypatch.setitem(SCHEDULES, "paper", dataclasses.replace(SCHEDULES["paper"], steps=60))
    model = trained.scored_by(search=search)
    scores, maps = model.score(x)
    assert scores.shape == (37,)
    for rows in (torch.arange(37).flip(0), torch.tensor([36]), torch.tensor([5, 36])):
        some, some_maps = model.score(x[rows])
        torch.testing.assert_close(some, scores[rows], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(some_maps, maps[rows], rtol=1e-6, atol=1e-6)


def test_lambda_weighs_the_discrimination_loss(trained, x):
    again = trained.map_to_latent(x)
    terms = trained.scaled(trained.terms(x, again.images))
    scores = trained.score(x)[0]
    torch.testing.assert_close(scores, 0.9 * terms["residual"] + 0.1 * terms["feature"], rtol=1e-4, atol=1e-4)
    for weight, term in ((0.0, "residual"), (1.0, "feature")):
        model = trained.scored_by(weight=weight)
        assert torch.equal(model.score(x)[0], model.scored_by(term=term).score(x)[0])


def test_the_papers_terms_are_sums(trained, x):
    model = trained.scored_by(scales="paper")
    again = model.map_to_latent(x).images
    features = model.features(x) - model.features(again)
    expected = 0.9 * (x - again).abs().flatten(1).sum(1) + 0.1 * features.abs().sum(1)
    torch.testing.assert_close(model.score(x)[0], expected, rtol=1e-4, atol=1e-4)
    cross = model.scored_by(guidance="cross-entropy")
    again = cross.map_to_latent(x).images
    probability = torch.sigmoid(cross.judge(again))
    expected = 0.9 * (x - again).abs().flatten(1).sum(1) - 0.1 * probability.log()
    torch.testing.assert_close(cross.score(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_the_papers_comparison_shares_one_trained_network(trained, x):
    scores = {name: trained.scored_by(**changes).score(x)[0] for name, changes in COMPARISON.items()}
    torch.testing.assert_close(scores["P_D"], -trained.judge(x).detach())
    assert len({tuple(values.tolist()) for values in scores.values()}) == 3
    assert trained.scored_by(weight=0.5).generator is trained.generator
    assert trained.recipe.weight == 0.1
    for wrong in ({"latent": 4}, {"best": True}):
        with pytest.raises(ValueError, match=r"how a trained anogan is scored must be one of .*guidance"):
            trained.scored_by(**wrong)
    with pytest.raises(ValueError, match="weight must lie between 0 and 1"):
        trained.scored_by(weight=2.0)


def test_terms_weigh_the_same_on_training_images(trained):
    images = torch.from_numpy(normal(100, SIZE, seed=1))
    terms = trained.scaled(trained.terms(images, trained.generate(trained.encode(images))))
    for name, values in terms.items():
        assert float(values.detach().mean()) == pytest.approx(1.0, abs=0.01), name
    raw = trained.terms(images, trained.generate(trained.encode(images)))
    assert float(raw["residual"].detach().mean()) > 3 * float(raw["cross-entropy"].detach().mean())


def test_what_is_outside_does_not_count(trained, x):
    spotted = torch.from_numpy(with_spot(x.numpy(), seed=1)[0])
    inside = torch.zeros(37, SIZE, SIZE, dtype=torch.bool)
    inside[:, :, : SIZE // 2] = True
    model = trained.scored_by(search="encoder", term="residual")
    again = model.generate(model.encode(spotted)).detach()
    expected = (spotted - again).abs()[:, 0, :, : SIZE // 2].flatten(1).mean(1) * SIZE**2
    torch.testing.assert_close(model.score(spotted, inside)[0] * model.scale[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inversion", INVERSIONS)
def test_the_encoder_reaches_all_of_the_latent_space(inversion):
    """A03ki's f-AnoGAN draws z from N(0, 1) and ends its encoder in tanh: a third of each number cannot be reached."""
    model = build("f-anogan", SIZE, seed=1, width=8, latent=4, inversion=inversion)
    for layer in model.generator:  # untrained, it makes images that hardly differ
        if isinstance(layer, torch.nn.ConvTranspose2d):
            layer.weight.data *= 4
    random = torch.Generator().manual_seed(0)
    z = model.latents(300, random)
    images = model.generate(z).detach()
    assert float((model.encode(images).abs() > 1).float().mean()) < 0.05  # it is to be learnt
    optimizer = model.optimizers(2e-3)["encoder"]
    for _ in range(200):
        optimizer.zero_grad()
        model("encoder", images[torch.randint(300, (16,), generator=random)], random)["loss"].backward()
        optimizer.step()
    found = model.encode(images).detach()
    assert 0.2 < float((found.abs() > 1).float().mean()) < 0.45  # of N(0, 1): 0.32
    assert float(found.abs().max()) > 1.8
    assert float((found - z).pow(2).mean()) < 0.5  # 1 for an encoder that says 0


def test_f_anogan_terms(tmp_path):
    model = build("f-anogan", SIZE, seed=1, width=8)
    x = torch.from_numpy(normal(20, SIZE, seed=3))
    model.fit(Images(x.numpy()), seed=0)
    terms = {term: model.scored_by(term=term).score(x)[0] for term in ("combined", "residual", "feature", "ssim")}
    torch.testing.assert_close(terms["combined"], terms["residual"] + terms["feature"])
    assert float(terms["residual"].mean()) == pytest.approx(1.0, abs=0.01)
    again = model.generate(model.encode(x)).detach()
    squares = (x - again).pow(2).flatten(1).mean(1)
    features = (model.features(x) - model.features(again)).pow(2).mean(1).detach()
    torch.testing.assert_close(model.scored_by(scales="paper", kappa=2.0).score(x)[0], squares + 2 * features)


def test_an_adversarial_autoencoder_is_scored_by_residual_and_by_its_discriminators_features(tmp_path):
    model = build("adversarial-cae", SIZE, seed=1, width=8)
    images = normal(60, SIZE, seed=1)
    train(
        model,
        Images(images),
        folder=tmp_path,
        steps=200,
        batch_size=16,
        seed=1,
        learning_rate=2e-3,
        checkpoint_every=1000,
    )
    x = torch.from_numpy(images)
    terms = {term: model.scored_by(term=term).score(x)[0] for term in ("combined", "residual", "feature")}
    torch.testing.assert_close(terms["combined"], terms["residual"] + terms["feature"])
    assert [float(terms[term].mean()) for term in ("residual", "feature")] == pytest.approx([1.0, 1.0], abs=0.01)
    spotted = torch.from_numpy(with_spot(normal(60, SIZE, seed=4), seed=5)[0])
    healthy = torch.from_numpy(normal(60, SIZE, seed=6))
    for term in terms:
        scorer = model.scored_by(term=term)
        assert float(np.median(scorer.score(spotted)[0])) > float(np.median(scorer.score(healthy)[0])), term
