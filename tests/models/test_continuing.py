"""A training that was killed, crashed, stopped or damaged continues to the same weights, bit for bit."""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from model_images import Images, normal
from model_trainings import (
    PLAN,
    SIZE,
    STEPS,
    Crash,
    Forks,
    Trained,
    every_stepwise_model,
    plan,
    same_result,
    source,
    stop_at,
)

from phenotype.models import MODELS, build
from phenotype.models.autoencoder import Autoencoder
from phenotype.models.files import load_model, tensors_hash
from phenotype.models.stepping import Order
from phenotype.models.train import TrainingDiverged, _agree, train


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(normal(30, SIZE, seed=1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory)


@pytest.fixture(scope="module")
def forks():
    forks = Forks()
    yield forks
    forks.close()


def continued(name: str, folder: Path, **changed) -> list[int]:
    """Train on in `folder`; the steps done."""
    steps: list[int] = []
    model = build(name, SIZE, seed=2)
    train(model, source(name), folder=folder, progress=lambda step, *_: steps.append(step), **plan(name, **changed))
    return steps


@every_stepwise_model
def test_killed_and_continued_gives_the_same_weights(name, trained, forks, tmp_path):
    seed = int(os.environ.get("PHENOTYPE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    at = random.Random(f"{seed}{name}").randrange(1, STEPS)
    print(f"PHENOTYPE_TEST_SEED={seed}: {name} killed after step {at}")
    with forks.training(name, tmp_path) as training:
        while (training.step() or at) < at:
            pass
        os.kill(training.pid, signal.SIGKILL)
    assert training.code == -signal.SIGKILL
    steps = continued(name, tmp_path)
    assert same_result(tmp_path, trained[name])
    assert steps[-1] == STEPS and (at < 4 or steps[0] > 1), "it started from the beginning"


@pytest.mark.parametrize("name", ["cae", "f-anogan", "pca"])
def test_a_crash_at_each_write_loses_nothing(name, trained, tmp_path, monkeypatch):
    """Crash at the 1st, 2nd, ... fsync and rename of a run, each time continuing from what the last crash left."""
    whole = trained[name]  # before anything crashes
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
            train(build(name, SIZE, seed=2), source(name), folder=tmp_path, **plan(name, checkpoint_every=9))
        except Crash:
            crashes += 1
        else:
            break
    assert crashes > (5 if MODELS[name].steps else 2)
    assert same_result(tmp_path, whole)


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> dict[str, Path]:
    """Trainings that crashed at step 20, with the checkpoints of steps 15 and 18."""
    folders = {}
    for name in ("cae", "f-anogan"):
        folders[name] = tmp_path_factory.mktemp(f"half-{name}")
        with pytest.raises(Crash):
            train(build(name, SIZE, seed=2), source(name), folder=folders[name], progress=stop_at(20), **PLAN)
    return folders


@pytest.mark.parametrize("name", ["cae", "f-anogan"])
@pytest.mark.parametrize("damage", ["flip", "cut", "manifest", "tensors missing", "both"])
def test_a_damaged_checkpoint_is_passed_over(name, damage, half, trained, tmp_path, caplog):
    shutil.copytree(half[name], tmp_path, dirs_exist_ok=True)
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
    steps = continued(name, tmp_path)
    assert steps[0] == (1 if damage == "both" else 16)
    assert "passed over a checkpoint" in caplog.text
    assert same_result(tmp_path, trained[name])


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


# ---- whenever checkpoints are written, and when it is asked to stop


@pytest.mark.parametrize("name", ["cae", "f-anogan"])
def test_checkpoints_by_the_minute_change_nothing(name, trained, tmp_path):
    """One after every step, by the clock alone: continued at step 20 from the checkpoint of step 19."""
    by_the_clock = {"checkpoint_every": 10**6, "checkpoint_minutes": 0.0}
    with pytest.raises(Crash):
        train(build(name, SIZE, seed=2), source(name), folder=tmp_path, progress=stop_at(20), **PLAN | by_the_clock)
    assert continued(name, tmp_path, **by_the_clock)[0] == 20
    assert same_result(tmp_path, trained[name])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_writes_a_checkpoint_first(number, trained, forks, tmp_path):
    with forks.training("cae", tmp_path, checkpoint_every=10**6) as training:
        while training.step() < 7:
            pass
        os.kill(training.pid, number)
    assert training.code == 128 + number
    assert training.steps[-1] < STEPS, "it did not stop"
    assert continued("cae", tmp_path)[0] == training.steps[-1] + 1
    assert same_result(tmp_path, trained["cae"])


def test_two_processes_stop_together(images, tmp_path):
    """SIGTERM to the process that started them reaches both; they agree on a step, and one writes the checkpoint."""
    forks = Forks()
    with forks.training("cae", tmp_path, devices=2, steps=10**5) as training:
        training.step()
        os.kill(training.pid, signal.SIGTERM)
    forks.close()
    assert training.code == 128 + signal.SIGTERM
    assert len(list((tmp_path / "checkpoints").glob("*.json"))) in (1, 2)


# ---- micro-batches, precision, compilation


def test_micro_batches_give_the_same_weights_up_to_rounding(trained, images, tmp_path):
    weights = {}
    for parts in (1, 2, 4):
        model = build("cae", SIZE, seed=2)
        train(model, images, folder=tmp_path / str(parts), **PLAN | {"accumulate": parts, "steps": 8})
        weights[parts] = model.state_dict()
    for parts in (2, 4):
        for key, value in weights[1].items():
            torch.testing.assert_close(weights[parts][key], value, atol=1e-4, rtol=1e-4)
        assert tensors_hash(weights[parts]) != tensors_hash(weights[1])  # it was computed otherwise
    other = build("cae", SIZE, seed=2)
    train(other, images, folder=tmp_path / "other", **PLAN | {"batch_size": 4, "steps": 8})
    assert max(float((other.state_dict()[k] - v).abs().max()) for k, v in weights[1].items()) > 1e-3  # the control
    with pytest.raises(ValueError, match="8 cannot be shared by 1 devices with 3"):
        train(model, images, folder=tmp_path / "x", **PLAN | {"accumulate": 3})


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_on_a_cpu_is_said_not_to_be_used(precision, trained, images, tmp_path, caplog):
    train(build("cae", SIZE, seed=2), images, folder=tmp_path, **PLAN | {"precision": precision})
    assert f"{precision} was asked for and is not used" in caplog.text
    assert (tmp_path / "model.safetensors").read_bytes() == (trained["cae"] / "model.safetensors").read_bytes()


def test_mixed_precision_on_a_cpu_that_knows_it(trained, images, tmp_path):
    if not torch.cpu._is_avx512_bf16_supported():
        pytest.skip("this CPU has no instructions for bf16")
    mixed = {"precision": "bf16-mixed", "mixed_on_cpu": True}
    train(build("cae", SIZE, seed=2), images, folder=tmp_path, **PLAN | mixed)
    assert json.loads((tmp_path / "model.json").read_text())["training"]["precision"] == "bf16-mixed"
    one, other = (load_model(folder).state_dict() for folder in (tmp_path, trained["cae"]))
    assert all(value.dtype == torch.float32 for value in one.values())
    assert 0 < max(float((one[key] - value).abs().max()) for key, value in other.items()) < 0.1


def test_a_compiled_model_is_the_same_model(tmp_path, caplog, monkeypatch):
    """Of a loss with few kernels, each of which costs the compiler seconds."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to compile with")

    def squared_error(self, update, x, random, y=None):
        return {"loss": torch.nn.functional.mse_loss(self.decoder(self.encoder(x)), x)}

    monkeypatch.setattr(Autoencoder, "forward", squared_error)
    images, weights = Images(normal(16, 8, seed=1)), []
    for compiled in (False, True):
        model = build("cae", 8, seed=2, width=4, latent=2)
        train(model, images, folder=tmp_path / str(compiled), compile=compiled, **PLAN | {"steps": 6})
        told = json.loads((tmp_path / str(compiled) / "model.json").read_text())["training"]
        assert told["compile"] == compiled, caplog.text
        weights.append(model.state_dict())
    assert list(weights[0]) == list(weights[1])
    start = build("cae", 8, seed=2, width=4, latent=2).state_dict()
    assert max(float((weights[0][key] - value).abs().max()) for key, value in start.items()) > 1e-3
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_compiled_is_trained_without(trained, tmp_path, caplog, monkeypatch):
    def no_compiler(model):
        model._compiled_call_impl = lambda *_: (_ for _ in ()).throw(RuntimeError("no C++ compiler"))

    monkeypatch.setattr(torch.nn.Module, "compile", no_compiler)
    with caplog.at_level(logging.WARNING):
        train(build("cae", SIZE, seed=2), source("cae"), folder=tmp_path, compile=True, **PLAN)
    assert "cae is trained without torch.compile: RuntimeError: no C++ compiler" in caplog.text
    assert same_result(tmp_path, trained["cae"])
