"""The contract that every entry of MODELS keeps; a new model passes by its line in the table alone.

That every family continues to the same weights is shown in test_continuing.py.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from model_images import Images, normal
from model_trainings import SIZE, Trained, every_model, every_stepwise_model, plan, source

from phenotype.models import build
from phenotype.models.files import ModelFileError, load_model, tensors_hash
from phenotype.models.train import train


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(normal(30, SIZE, seed=1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory)


def test_the_package_alone_does_not_import_torch():
    code = "import sys, phenotype.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@every_model
def test_building_is_a_function_of_its_arguments(name):
    state = torch.get_rng_state()
    one, same, other = build(name, SIZE, seed=3), build(name, SIZE, seed=3), build(name, SIZE, seed=4)
    assert tensors_hash(one.state_dict()) == tensors_hash(same.state_dict())
    assert tensors_hash(one.state_dict()) != tensors_hash(other.state_dict()) or not any(True for _ in one.parameters())
    assert torch.equal(state, torch.get_rng_state())


@every_model
@pytest.mark.parametrize("wrong", [{"size": 24}, {"size": 4}, {"size": 16, "colour": 3}, {"size": 16, "term": "best"}])
def test_a_wrong_parameter_is_refused(name, wrong):
    with pytest.raises(ValueError, match=r"size|colour|term"):
        build(name, **wrong)


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"cae, .*f-anogan"):
        build("vgg", SIZE)


@every_model
def test_each_parameter_belongs_to_an_optimizer(name):
    model = build(name, SIZE)
    owned = {id(p) for one in model.optimizers(1e-3).values() for group in one.param_groups for p in group["params"]}
    assert owned == {id(parameter) for parameter in model.parameters()}


@every_stepwise_model
def test_each_update_moves_its_own_parameters_only(name, tmp_path):
    """Trained for one step more, only what the step's updates own has changed."""
    model = build(name, SIZE)
    optimizers = model.optimizers(1e-3)
    for steps in (3, 4):
        fresh = build(name, SIZE)
        before = {key: value.clone() for key, value in fresh.state_dict().items()}
        train(fresh, source(name), folder=tmp_path / str(steps), **plan(name, steps=steps))
        moved = {name for step in range(steps) for name in model.updates(step, steps)}
        assert moved <= set(optimizers)
        owners = {
            key: {
                o for o, one in optimizers.items() if any(parameter is p for g in one.param_groups for p in g["params"])
            }
            for key, parameter in model.named_parameters()
        }
        changed = {key for key in owners if not torch.equal(before[key], fresh.state_dict()[key])}
        assert all(owners[key] & moved for key in changed)
        for optimizer in moved:
            assert any(optimizer in owners[key] for key in changed), optimizer


@every_stepwise_model
def test_reconstruction_or_distance_improves(name, tmp_path):
    """What each optimizer minimises at the end is lower than at the beginning (a critic's grows its distance first)."""
    model = build(name, SIZE, seed=2)
    if not {"autoencoder", "encoder", "critic"} & set(model.optimizers(1.0)):
        pytest.skip("nothing in its losses falls for sure")
    train(model, source(name), folder=tmp_path, **plan(name, steps=200, learning_rate=2e-3))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    for key in ("autoencoder/loss", "encoder/residual", "critic/loss"):
        losses = [line[key] for line in lines if key in line]
        if losses:
            assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3]), key


@every_model
def test_embeddings_and_scores_have_their_shapes(name, trained, images):
    model = load_model(trained[name])
    x = torch.from_numpy(images.array[:5])
    vectors, (scores, maps) = model.embed(x), model.score(x)
    assert vectors.ndim == 2 and len(vectors) == 5
    assert scores.shape == (5,) and maps.shape == (5, SIZE, SIZE)
    assert all(torch.isfinite(values).all() and not values.requires_grad for values in (vectors, scores, maps))
    assert float(vectors.std(0).max()) > 0 and float(scores.std()) > 0  # not one answer for all images
    assert model.score(x[:0])[0].shape == (0,)


@every_model
def test_a_score_is_of_the_image_alone(name, trained, images):
    model = load_model(trained[name])
    model.train()  # whatever mode it is left in
    x = torch.from_numpy(images.array)
    close = {"atol": 1e-6, "rtol": 1e-6}
    for values in (lambda y: model.score(y)[0], lambda y: model.score(y)[1], model.embed):
        together = values(x)
        assert torch.equal(together, values(x))
        torch.testing.assert_close(together.flip(0), values(x.flip(0)), **close)
        torch.testing.assert_close(together, torch.cat([values(one[None]) for one in x]), **close)
    assert model.training


@every_model
@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(1, 1, SIZE, SIZE + 1),
        torch.zeros(1, 3, SIZE, SIZE),
        torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64),
        torch.full((1, 1, SIZE, SIZE), 255.0),
        torch.full((1, 1, SIZE, SIZE), torch.nan),
    ],
)
def test_images_that_are_not_as_declared_are_refused(name, wrong):
    with pytest.raises(ValueError, match=f"{name} takes"):
        build(name, SIZE).score(wrong)


@every_model
def test_a_saved_model_is_the_same_model(name, trained, images):
    model = build(name, SIZE, seed=2)
    train(model, source(name), folder=trained[name], **plan(name))  # finished: reads the result
    again = load_model(trained[name])
    assert again.recipe == model.recipe and not again.training
    x = torch.from_numpy(images.array)
    for mine, theirs in zip((model.embed(x), *model.score(x)), (again.embed(x), *again.score(x)), strict=True):
        assert torch.equal(mine, theirs)
    assert not (trained[name] / "checkpoints").exists()


@every_model
def test_a_damaged_model_is_refused(name, trained, tmp_path):
    """Each of 60 flipped bits, and each cut, is seen."""
    rng = random.Random(7)
    files = {path.name: path.read_bytes() for path in trained[name].glob("model.*")}
    assert sorted(files) == ["model.json", "model.safetensors"]
    for file, content in files.items():
        for trial in range(30):
            damaged = bytearray(content)
            if trial % 10 == 9:
                del damaged[rng.randrange(len(damaged)) :]
            else:
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            for other, whole in files.items():
                (tmp_path / other).write_bytes(bytes(damaged) if other == file else whole)
            with pytest.raises(ModelFileError, match=file.replace(".", r"\.")):
                load_model(tmp_path)
    (tmp_path / "model.json").unlink()
    with pytest.raises(ModelFileError, match=r"model\.json is missing"):
        load_model(tmp_path)
