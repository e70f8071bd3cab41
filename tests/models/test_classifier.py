"""Classes are learnt from the images whose class is known; where they are seen is exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal
from sklearn.metrics import roc_auc_score

from phenotype.models import build
from phenotype.models.train import train

SIZE = 32
PLAN = {"batch_size": 16, "seed": 1, "learning_rate": 1e-3, "checkpoint_every": 1000}


class Told(Images):
    """Images with a haze over one "lung" (class 1) and without (0)."""

    def __init__(self, count, seed, known=1.0):
        self.sides = np.random.default_rng([seed, 3]).choice([0.3, 0.7], count)
        y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
        hazes = np.stack([0.35 * np.exp(-((x - side) ** 2 + (y - 0.5) ** 2) / (2 * 0.15**2)) for side in self.sides])
        hazy = (normal(count, SIZE, seed=seed) + hazes[:, None]).clip(0, 1).astype(np.float32)
        super().__init__(np.concatenate([normal(count, SIZE, seed=seed + 1), hazy]))
        self.truth = np.repeat(np.array([0, 1]), count)
        unknown = np.random.default_rng(seed).random(2 * count) >= known
        self.classes = np.where(unknown, -1, self.truth)

    def targets(self, indices):
        return self.classes[indices]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Half of the classes are unknown."""
    model = build("classifier", SIZE, seed=1, width=8)
    train(model, Told(60, seed=1, known=0.5), folder=tmp_path_factory.mktemp("classifier"), steps=120, **PLAN)
    return model


def test_classes_are_found_and_so_is_where(model):
    told = Told(40, seed=11)
    x = torch.from_numpy(told.array)
    scores, maps = model.score(x)
    p = model.probabilities(x)
    torch.testing.assert_close(p.sum(1), torch.ones(80))
    torch.testing.assert_close(scores, p[:, 1])
    accuracy = float((p.argmax(1).numpy() == told.truth).mean())
    columns = maps[40:].mean(1)
    leftness = (columns[:, : SIZE // 2].mean(1) - columns[:, SIZE // 2 :].mean(1)).numpy()
    sides = roc_auc_score(told.sides < 0.5, leftness)
    print(f"accuracy {accuracy:.3f}, AUROC of the side {sides:.2f}")
    assert accuracy > 0.9
    assert sides > 0.9


def test_the_mean_of_the_map_is_the_log_odds(model):
    x = torch.from_numpy(Told(10, seed=21).array)
    _, maps = model.score(x)
    p = model.probabilities(x).double()
    constant = float(model.head.bias[1] - model.head.bias[0])
    torch.testing.assert_close(maps.double().mean((1, 2)) + constant, (p[:, 1] / p[:, 0]).log(), rtol=1e-3, atol=1e-3)


def test_unknown_classes_do_not_count():
    model, x = build("classifier", SIZE, width=8), torch.from_numpy(normal(6, SIZE, seed=1))
    random = torch.Generator()
    some = model("classifier", x, random, torch.tensor([0, 1, -1, -1, -1, -1]))["loss"]
    torch.testing.assert_close(some, model("classifier", x[:2], random, torch.tensor([0, 1]))["loss"])
    none = model("classifier", x, random, torch.full((6,), -1))["loss"]
    none.backward()
    assert float(none.detach()) == 0.0
    assert all(float(p.grad.abs().max()) == 0.0 for p in model.parameters())


def test_a_class_beyond_those_declared_is_refused():
    with pytest.raises(ValueError, match="not 5"):
        build("classifier", SIZE)("classifier", torch.rand(2, 1, SIZE, SIZE), torch.Generator(), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="classes"):
        build("classifier", SIZE, classes=1)


@pytest.mark.parametrize("name", ["cae", "dae", "vae"])
def test_it_starts_from_the_convolutions_of_an_autoencoder(name):
    pretrained, model = build(name, SIZE, seed=1, width=8), build("classifier", SIZE, seed=2, width=8)
    x = torch.from_numpy(normal(3, SIZE, seed=1))
    with torch.no_grad():
        theirs = pretrained.encoder[:-2](x)
        assert not torch.equal(model.convolutions(x), theirs)
        model.initialise_from(pretrained)
        assert torch.equal(model.convolutions(x), theirs)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [("cae", {"width": 16}, "width"), ("pca", {}, "no encoder"), ("cae", {"dims": 3, "width": 8}, "dims")],
)
def test_other_convolutions_are_refused(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        build("classifier", SIZE, width=8).initialise_from(build(name, SIZE, **parameters))
