"""Conditional GANs make images of the class asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal

from phenotype.models import build
from phenotype.models.train import train

SIZE = 16
CLASSES = 2


class Sided(Images):
    """A bright square in the left lung (class 0) or in the right one (class 1); one class in ten is not told."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(normal(count, SIZE, seed))
        self.side = np.arange(count) % CLASSES
        self.told = np.where(np.arange(count) % 10 == 9, -1, self.side).astype(np.int64)
        for image, side in zip(self.array, self.side, strict=True):
            at = 3 + 7 * side
            image[0, 6:10, at : at + 3] = (image[0, 6:10, at : at + 3] + 0.4).clip(0, 1)

    def targets(self, indices):
        return self.told[indices]


def side(images: torch.Tensor) -> torch.Tensor:
    """The class by the property that makes it: where it is brighter."""
    return (images[:, 0, 6:10, 10:13].mean((1, 2)) > images[:, 0, 6:10, 3:6].mean((1, 2))).long()


@pytest.fixture(scope="module", params=["cgan", "ac-gan"])
def trained(request, tmp_path_factory):
    model = build(request.param, SIZE, seed=1, width=8, latent=16)
    folder = tmp_path_factory.mktemp(request.param)
    train(
        model,
        Sided(200, seed=1),
        folder=folder,
        steps=300,
        batch_size=16,
        seed=1,
        learning_rate=2e-3,
        checkpoint_every=1000,
    )
    return model


@torch.no_grad()
def test_images_are_of_the_class_asked_for(trained):
    assert (side(torch.from_numpy(Sided(100, seed=2).array)).numpy() == Sided(100, seed=2).side).all()  # the measure
    z, y = trained.latents(200, torch.Generator().manual_seed(5)), torch.arange(200) % CLASSES
    asked, other = trained.generate(z, y), trained.generate(z, 1 - y)
    right = (side(asked) == y).float().mean().item()
    print(f"{trained.name}: {right:.3f} of the class asked for")
    assert right >= 0.9
    assert (side(other) == y).float().mean() <= 0.1  # the same z, another class
    assert asked.flatten(1).std(0).mean() > 0.02  # not one image a class


@torch.no_grad()
def test_classes_are_drawn_where_none_is_asked_for(trained):
    found = side(trained.sample(200, torch.Generator().manual_seed(6)))
    assert 60 < int(found.sum()) < 140


def test_an_auxiliary_classifier_says_the_class(trained):
    if trained.name != "ac-gan":
        pytest.skip("only AC-GAN has a classifier")
    new = Sided(100, seed=3)
    probabilities = trained.class_probabilities(torch.from_numpy(new.array))
    assert probabilities.shape == (100, CLASSES)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(100))
    assert (probabilities.argmax(1).numpy() == new.side).mean() >= 0.9


def test_a_discriminator_knows_an_image_of_another_class(trained):
    if trained.name != "cgan":
        pytest.skip("only cGAN's discriminator is told the class")
    new = Sided(100, seed=3)
    x, y = torch.from_numpy(new.array), torch.from_numpy(new.side)
    with torch.no_grad():
        right, wrong, best = trained.judge(x, y), trained.judge(x, 1 - y), trained.judge(x)
    assert (right > wrong).float().mean() >= 0.9
    torch.testing.assert_close(best, torch.maximum(right, wrong))


@pytest.mark.parametrize("name", ["cgan", "ac-gan"])
def test_what_is_told_must_fit(name):
    model, x, random = build(name, SIZE, width=8), torch.rand(4, 1, SIZE, SIZE), torch.Generator().manual_seed(1)
    for update in model.optimizers(1e-3):
        unknown = model(update, x, random, torch.full((4,), -1))  # no class is known at all
        assert torch.isfinite(unknown["loss"])
    with pytest.raises(ValueError, match="from 0 to 2"):
        model("generator", x, random, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match="not nothing"):
        model("generator", x, random)
    with pytest.raises(ValueError, match="at least 2"):
        build(name, SIZE, classes=1)
