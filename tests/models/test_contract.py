"""The contract that every entry of MODELS keeps; a new model passes by its line in the table alone."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_images import Images, images_for, normal

from phenotype.models import MODELS, build, model_class
from phenotype.models.files import ModelFileError, load_model, tensors_hash
from phenotype.models.stepping import Order
from phenotype.models.train import TrainingDiverged, _agree, train

SIZE, STEPS = 16, 24
PLAN = {"steps": STEPS, "batch_size": 8, "seed": 5, "learning_rate": 1e-3, "checkpoint_every": 3}
every_model = pytest.mark.parametrize("name", sorted(MODELS))
stepwise = [name for name in sorted(MODELS) if MODELS[name].steps]  # the others are computed from all images at once
every_stepwise_model = pytest.mark.parametrize("name", stepwise)


def source(name: str, count: int = 30) -> Images:
    """What the family learns from."""
    return images_for(model_class(name).told, normal(count, SIZE, seed=1))


def plan(name: str, **changed) -> dict:
    """PLAN, for a family that learns in steps or not."""
    return PLAN | ({} if MODELS[name].steps else {"steps": 0}) | changed


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(normal(30, SIZE, seed=1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict[str, Path]:
    """A folder for each model, trained without interruption."""
    return {
        name: train(build(name, SIZE, seed=2), source(name), folder=tmp_path_factory.mktemp(name), **plan(name))
        for name in MODELS
    }


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
    train(build(name, SIZE, seed=2), source(name), folder=tmp_path, **plan(name, steps=200, learning_rate=2e-3))
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


# ---- continuing

CHILD = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}, {root!r}]
from model_images import images_for, normal
from phenotype.models import build, model_class
from phenotype.models.train import train
images = images_for(model_class({name!r}).told, normal(30, {size}, seed=1))
train(build({name!r}, {size}, seed=2), images, folder=Path({folder!r}),
      progress=lambda step, steps, text: print(step, flush=True), **{plan!r})
"""


@every_stepwise_model
def test_killed_and_continued_gives_the_same_weights(name, trained, tmp_path):
    seed = int(os.environ.get("PHENOTYPE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    at = random.Random(f"{seed}{name}").randrange(1, STEPS)
    print(f"PHENOTYPE_TEST_SEED={seed}: {name} killed after step {at}")
    here = Path(__file__).resolve()
    code = CHILD.format(
        tests=str(here.parent), root=str(here.parents[2]), name=name, size=SIZE, folder=str(tmp_path), plan=PLAN
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in child.stdout:
        if int(line) >= at:
            break
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert child.returncode == -signal.SIGKILL
    steps: list[int] = []
    train(
        build(name, SIZE, seed=2), source(name), folder=tmp_path, progress=lambda step, *_: steps.append(step), **PLAN
    )
    assert (tmp_path / "model.safetensors").read_bytes() == (trained[name] / "model.safetensors").read_bytes()
    assert (tmp_path / "log.jsonl").read_bytes() == (trained[name] / "log.jsonl").read_bytes()
    assert steps[-1] == STEPS and (at < 4 or steps[0] > 1), "it started from the beginning"


class Crash(BaseException):
    """Stands for the process's end."""


@every_model
def test_a_crash_at_each_write_loses_nothing(name, trained, tmp_path, monkeypatch):
    """Crash at the 1st, 2nd, ... fsync and rename of a run, each time continuing from what the last crash left."""
    real = {"fsync": os.fsync, "replace": Path.replace}
    countdown = itertools.repeat(1)

    def guard(call):
        def guarded(*args):
            if next(countdown) == 0:
                raise Crash
            return call(*args)

        return guarded

    monkeypatch.setattr(os, "fsync", guard(real["fsync"]))
    monkeypatch.setattr(Path, "replace", guard(real["replace"]))
    crashes = 0
    for writes in itertools.count(1):
        countdown = itertools.chain(range(writes, -1, -1), itertools.repeat(1))
        try:
            train(build(name, SIZE, seed=2), source(name), folder=tmp_path, **plan(name))
        except Crash:
            crashes += 1
        else:
            break
    assert crashes > (5 if MODELS[name].steps else 2)
    assert (tmp_path / "model.safetensors").read_bytes() == (trained[name] / "model.safetensors").read_bytes()
    assert (tmp_path / "log.jsonl").read_bytes() == (trained[name] / "log.jsonl").read_bytes()


def stop_at(step: int):
    """A progress callback that ends the training at `step`."""

    def progress(done: int, steps: int, text: str) -> None:
        if done == step:
            raise Crash

    return progress


@every_stepwise_model
@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "tensors missing", "both"])
def test_a_damaged_checkpoint_is_passed_over(name, damage, trained, tmp_path, caplog):
    with pytest.raises(Crash):
        train(build(name, SIZE, seed=2), source(name), folder=tmp_path, progress=stop_at(20), **PLAN)
    manifests = sorted((tmp_path / "checkpoints").glob("*.json"))
    assert [path.stem for path in manifests] == ["00000015", "00000018"]
    for manifest in manifests if damage == "both" else manifests[-1:]:
        tensors = manifest.with_suffix(".safetensors")
        content = tensors.read_bytes()
        if damage == "cut":
            tensors.write_bytes(content[:-100])
        elif damage == "manifest":
            manifest.write_text(manifest.read_text().replace('"step": 18', '"step": 19'))
        elif damage == "tensors missing":
            tensors.unlink()
        else:
            tensors.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    steps: list[int] = []
    train(
        build(name, SIZE, seed=2), source(name), folder=tmp_path, progress=lambda step, *_: steps.append(step), **PLAN
    )
    assert steps[0] == (1 if damage == "both" else 16)
    assert "passed over a checkpoint" in caplog.text
    assert (tmp_path / "model.safetensors").read_bytes() == (trained[name] / "model.safetensors").read_bytes()
    assert (tmp_path / "log.jsonl").read_bytes() == (trained[name] / "log.jsonl").read_bytes()


@pytest.mark.parametrize("change", [{"steps": 25}, {"seed": 6}, {"learning_rate": 2e-3}, {"batch_size": 4}])
@pytest.mark.parametrize("finished", [False, True])
def test_another_training_is_not_continued(change, finished, images, tmp_path):
    progress = stop_at(STEPS + 1 if finished else 5)
    if finished:
        train(build("cae", SIZE, seed=2), images, folder=tmp_path, progress=progress, **PLAN)
    else:
        with pytest.raises(Crash):
            train(build("cae", SIZE, seed=2), images, folder=tmp_path, progress=progress, **PLAN)
    with pytest.raises(ValueError, match=next(iter(change))):
        train(build("cae", SIZE, seed=2), images, folder=tmp_path, **{**PLAN, **change})
    with pytest.raises(ValueError, match="data"):
        train(build("cae", SIZE, seed=2), Images(images.array[::-1].copy()), folder=tmp_path, **PLAN)
    with pytest.raises(ValueError, match="initial_weights"):
        train(build("cae", SIZE, seed=3), images, folder=tmp_path, **PLAN)


def test_threads_and_chance_are_the_callers_again(images, tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    train(build("cae", SIZE), images, folder=tmp_path, threads=threads + 1, **{**PLAN, "steps": 2})
    assert torch.get_num_threads() == threads
    assert torch.equal(state, torch.get_rng_state())


def test_two_processes_train_one_model(images, tmp_path):
    """The GAN with its gradient of a gradient; `train` itself checks that both processes end with the same weights."""
    model = build("f-anogan", SIZE, seed=2)
    start = tensors_hash(model.state_dict())
    train(model, images, folder=tmp_path, devices=2, **{**PLAN, "steps": 8})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(8))
    assert tensors_hash(load_model(tmp_path).state_dict()) == tensors_hash(model.state_dict()) != start


def test_processes_that_differ_are_noticed():
    class Apart:
        """Two processes whose sums differ in one weight."""

        def all_gather(self, total):
            return torch.stack([total, total + torch.nn.functional.one_hot(torch.tensor(3), len(total)) * 1e-6])

    with pytest.raises(RuntimeError, match="different weights"):
        _agree(Apart(), build("cae", SIZE))


def test_every_image_comes_once_an_epoch():
    order = Order(images=10, batch_size=4, seed=3)
    batches = [order.indices(step) for step in range(10)]
    epochs = np.concatenate(batches).reshape(4, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    fresh = Order(images=10, batch_size=4, seed=3)
    assert all((fresh.indices(step) == batches[step]).all() for step in (7, 2, 9))  # whatever came before
    assert len(Order(images=3, batch_size=8, seed=3).indices(5)) == 8  # fewer images than a batch


def test_a_diverging_training_says_so(images, tmp_path):
    model = build("cae", SIZE)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.inf)
    with pytest.raises(TrainingDiverged, match="step 0"):
        train(model, images, folder=tmp_path, **PLAN)
