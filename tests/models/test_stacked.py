"""Layers are pretrained one after the other, and that helps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, blobs, normal

from phenotype.models import build
from phenotype.models.train import train

SIZE = 16
PLAN = {"batch_size": 16, "seed": 1, "learning_rate": 3e-3, "checkpoint_every": 10**6}


def test_the_layers_are_those_of_the_paper():
    model = build("stacked", 16)
    assert [(layer.in_features, layer.out_features) for layer in model.down] == [
        (256, 1000),
        (1000, 500),
        (500, 250),
        (250, 2),
    ]
    assert [(layer.in_features, layer.out_features) for layer in model.up] == [
        (1000, 256),
        (500, 1000),
        (250, 500),
        (2, 250),
    ]
    assert model.embed(torch.rand(3, 1, 16, 16)).shape == (3, 2)


def test_one_layer_after_the_other_then_all():
    model = build("stacked", SIZE, hidden="20-10", pretraining=0.6)
    updates = [model.updates(step, 20) for step in range(20)]
    assert updates == [("layer1",)] * 4 + [("layer2",)] * 4 + [("layer3",)] * 4 + [("all",)] * 8
    assert build("stacked", SIZE, pretraining=0.0).updates(0, 20) == ("all",)


def test_a_layer_reconstructs_what_the_layer_before_it_gives():
    """The loss of a layer, computed by hand; and only its own weights receive gradients."""
    model, x = build("stacked", SIZE, hidden="20-10", latent=3), torch.from_numpy(normal(6, SIZE, seed=1))
    figures = model("layer2", x, torch.Generator())
    with torch.no_grad():
        first = torch.sigmoid(x.flatten(1) @ model.down[0].weight.T + model.down[0].bias)
        second = torch.sigmoid(first @ model.down[1].weight.T + model.down[1].bias)
        again = torch.sigmoid(second @ model.up[1].weight.T + model.up[1].bias)
        entropy = -(first * again.log() + (1 - first) * (1 - again).log()).mean()
    assert float(figures["loss"].detach()) == pytest.approx(float(entropy), rel=1e-5)
    figures["loss"].backward()
    moved = {key for key, value in model.named_parameters() if value.grad is not None}
    assert moved == {"down.1.weight", "down.1.bias", "up.1.weight", "up.1.bias"}


def test_pretraining_lowers_the_error_that_the_same_number_of_steps_reaches(tmp_path):
    x = torch.from_numpy(blobs(60, SIZE, seed=2))
    training = Images(blobs(160, SIZE, seed=1))
    mean_image = float((x - torch.from_numpy(training.array).mean(0)).pow(2).mean())
    errors = {}
    for share in (0.0, 0.4):
        each = []
        for seed in (1, 2):
            model = build("stacked", SIZE, seed=seed, hidden="100-50-25", pretraining=share)
            train(model, training, folder=tmp_path / f"{share}-{seed}", steps=600, **PLAN)
            with torch.no_grad():
                each.append(float((model.reconstruct(x) - x).pow(2).mean()))
        errors[share] = np.array(each)
    print(f"mean image {mean_image:.5f}, from scratch {errors[0.0]}, pretrained {errors[0.4]}")
    assert (errors[0.4] < 0.9 * errors[0.0]).all()
    assert errors[0.4].max() < 0.8 * mean_image


@pytest.mark.parametrize("wrong", [{"hidden": "100-x"}, {"hidden": ""}, {"hidden": "0"}, {"pretraining": 1.0}])
def test_layers_that_are_none_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build("stacked", SIZE, **wrong)
