"""What is looked at while a model learns: early stopping, collapse, sheets of pictures, tables and event files."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import shutil

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot
from model_trainings import PLAN, SIZE, Crash, same_result, source, stop_at
from PIL import Image

from phenotype.models import build
from phenotype.models.autoencoder import Autoencoder
from phenotype.models.choice import aucp
from phenotype.models.files import load_model, read_training, tensors_hash
from phenotype.models.metrics import read_log
from phenotype.models.sheets import Sheets, sheet
from phenotype.models.train import train
from phenotype.models.watching import (
    CollapseCheck,
    Collapsed,
    HeldOutLoss,
    Watch,
    first_look,
    watch_aucp,
    watch_loss,
    watch_reconstruction,
)


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(normal(30, SIZE, seed=1))


@pytest.fixture(scope="module")
def held_out() -> Images:
    return Images(normal(9, SIZE, seed=2))


def distance_learnt(model) -> float:
    """How far the weights are from where they began: it only grows at first, so nothing gets better by its fall."""
    start = build("cae", SIZE, seed=2).state_dict()
    return float(sum((value - start[key]).pow(2).sum() for key, value in model.state_dict().items()))


def watch_distance(higher: bool) -> Watch:
    return Watch(figure=distance_learnt, name="distance", every=2, patience=3, higher_is_better=higher)


class Weights:
    """An observer that remembers the weights."""

    every = 2

    def __init__(self) -> None:
        self.after: dict[int, str] = {}

    def look(self, model, step):
        assert not model.training and not torch.is_grad_enabled()
        self.after[step] = tensors_hash(model.state_dict())
        return {"seen": float(step)}


def test_training_ends_when_nothing_gets_better_and_keeps_the_best(images, tmp_path, monkeypatch):
    fitted, seen = [], Weights()
    monkeypatch.setattr(Autoencoder, "fit", lambda self, *_: fitted.append(tensors_hash(self.state_dict())))
    model = build("cae", SIZE, seed=2)
    train(model, images, folder=tmp_path, watch=watch_distance(higher=False), observers=[seen], **PLAN)
    kept = read_training(tmp_path)["kept"]
    assert (kept["step"], kept["stopped_at"]) == (2, 8)  # looks after 2, 4, 6 and 8 steps, three of them without better
    assert list(seen.after) == [2, 4, 6, 8] and len(list(read_log(tmp_path))) == 8
    assert tensors_hash(model.state_dict()) == seen.after[2] == fitted[-1] != seen.after[8]
    assert "lowest after step 2" in kept["why"] and "no better in 3 looks" in kept["why"]
    values = [line["watch/distance"] for line in read_log(tmp_path) if "watch/distance" in line]
    assert values == sorted(values) and kept["value"] == values[0]


def test_what_gets_better_is_trained_to_the_end(images, tmp_path):
    """The control: the same figure, wanted the other way round."""
    model, seen = build("cae", SIZE, seed=2), Weights()
    train(model, images, folder=tmp_path, watch=watch_distance(higher=True), observers=[seen], **PLAN)
    kept = read_training(tmp_path)["kept"]
    assert kept["step"] == kept["stopped_at"] == PLAN["steps"]
    assert tensors_hash(model.state_dict()) == seen.after[PLAN["steps"]]


@pytest.mark.parametrize("damage", ["nothing", "the best weights"])
def test_the_best_weights_outlive_a_crash(damage, images, tmp_path, caplog):
    folders = [tmp_path / "whole", tmp_path / "crashed"]
    train(build("cae", SIZE, seed=2), images, folder=folders[0], watch=watch_distance(higher=False), **PLAN)
    with pytest.raises(Crash):
        train(
            build("cae", SIZE, seed=2),
            images,
            folder=folders[1],
            watch=watch_distance(higher=False),
            progress=stop_at(7),
            **PLAN,
        )
    best = folders[1] / "checkpoints" / "best-00000002.safetensors"
    if damage != "nothing":
        best.write_bytes(best.read_bytes()[:-1])
    train(build("cae", SIZE, seed=2), images, folder=folders[1], watch=watch_distance(higher=False), **PLAN)
    assert same_result(*folders)
    one, other = (read_training(folder) for folder in folders)
    assert one["kept"] == other["kept"]
    assert ("passed over a checkpoint" in caplog.text) == (damage != "nothing")


def test_another_watch_is_another_training(images, held_out, tmp_path):
    with pytest.raises(Crash):
        train(
            build("cae", SIZE, seed=2),
            images,
            folder=tmp_path,
            watch=watch_loss(held_out, every=2, patience=2),
            progress=stop_at(7),
            **PLAN,
        )
    for watch in (None, watch_loss(held_out, every=3, patience=2), watch_loss(images, every=2, patience=2)):
        with pytest.raises(ValueError, match="different are: watch"):
            train(build("cae", SIZE, seed=2), images, folder=tmp_path, watch=watch, **PLAN)
    with pytest.raises(ValueError, match="at least 1"):
        watch_loss(held_out, every=0, patience=2)
    with pytest.raises(ValueError, match="nothing to watch"):
        watch = watch_loss(held_out, every=2, patience=2)
        train(build("pca", SIZE), images, folder=tmp_path / "pca", watch=watch, **PLAN | {"steps": 0})


def test_figures_are_what_they_say(held_out):
    model = build("cae", SIZE, seed=2)
    x = torch.from_numpy(held_out.array)
    with torch.no_grad():
        again = model.decoder(model.encoder(x))
        loss = model("autoencoder", x, torch.Generator())["loss"]
    assert watch_loss(held_out, every=1, patience=1).figure(model) == pytest.approx(float(loss), rel=1e-5)
    assert HeldOutLoss(held_out, batch_size=4)(model) == pytest.approx(float(loss), rel=1e-2)  # 4 + 4 + 1 images
    error = float(((x - again) ** 2).mean())
    assert watch_reconstruction(held_out, every=1, patience=1).figure(model) == pytest.approx(error, rel=1e-5)
    with pytest.raises(ValueError, match="wgan reconstructs nothing"):
        watch_reconstruction(held_out, every=1, patience=1).figure(build("wgan", SIZE))
    pool = Images(np.concatenate([normal(10, SIZE, seed=3), with_spot(normal(10, SIZE, seed=4), seed=5)[0]]))
    assert watch_aucp(held_out, pool, every=1, patience=1).figure(model) == aucp(model, held_out, pool) > 0.5
    critic = HeldOutLoss(held_out, "critic")  # its penalty needs gradients, which nobody else has here
    gan = build("f-anogan", SIZE)
    with torch.no_grad():
        assert critic(gan) == critic(gan)


def test_a_watch_waits_for_the_last_part_of_a_model():
    assert first_look(build("f-anogan", SIZE), 50) == 30  # the encoder learns in the last 40 %
    assert first_look(build("cae", SIZE), 50) == 0


def test_a_figure_that_is_no_number_is_refused(images, tmp_path):
    watch = Watch(figure=lambda _: float("nan"), name="nothing", every=2, patience=3, higher_is_better=True)
    with pytest.raises(ValueError, match="nothing, the figure that is watched, is nan"):
        train(build("cae", SIZE), images, folder=tmp_path, watch=watch, **PLAN)


# ---- generative adversarial networks


def test_a_collapse_is_noticed(images, tmp_path, caplog, monkeypatch):
    model = build("cae", SIZE)
    healthy = CollapseCheck(images, every=1, count=20).look(_Real(images), 1)
    assert not caplog.text and healthy["samples/diversity"] > 0.5  # the control: what is real has not collapsed
    one = torch.from_numpy(images.array[:1])
    with pytest.raises(ValueError, match="cae makes no images"):
        CollapseCheck(images, every=1).look(model, 1)
    monkeypatch.setattr(type(model), "sample", lambda self, n, _: one.expand(n, 1, SIZE, SIZE), raising=False)
    train(model, images, folder=tmp_path / "warned", observers=[CollapseCheck(images, every=3)], **PLAN | {"steps": 4})
    assert "cae has collapsed at step 3" in caplog.text
    lines = list(read_log(tmp_path / "warned"))
    assert [("samples/diversity" in line) for line in lines] == [False, False, True, True]
    with pytest.raises(Collapsed, match="samples vary"):
        stopping = CollapseCheck(images, every=3, stop=True)
        train(build("cae", SIZE), images, folder=tmp_path / "stopped", observers=[stopping], **PLAN)


class _Real:
    """A generator that is perfect."""

    name = "real"
    device = torch.device("cpu")

    def __init__(self, images: Images) -> None:
        self.images = images

    def sample(self, n, random):
        return torch.from_numpy(normal(n, SIZE, seed=9))


# ---- pictures, tables, event files


def test_sheets_are_pictures_of_the_models_rows(images, tmp_path):
    train(build("cae", SIZE), images, folder=tmp_path, observers=[Sheets(tmp_path, images, 10, count=4)], **PLAN)
    found = sorted((tmp_path / "sheets").iterdir())
    assert [path.name for path in found] == ["00000010.png", "00000020.png", "00000024.png"]
    pixels = np.asarray(Image.open(found[-1]), np.float32) / 255
    shown = pixels[14 : 14 + 64, :64].reshape(SIZE, 4, SIZE, 4).mean((1, 3))  # the first picture, four times enlarged
    np.testing.assert_allclose(shown, images.array[0, 0], atol=1 / 255)
    assert pixels.shape == (2 * (14 + 64), 4 * (64 + 2))
    model = load_model(tmp_path)
    again = Sheets(tmp_path / "again", images, 10, count=4)
    again.folder.mkdir()
    with torch.no_grad():
        again.look(model, 24)
    assert (again.folder / "sheets" / found[-1].name).read_bytes() == found[-1].read_bytes()
    volume = sheet({"slice": torch.rand(2, 8, 8, 8)})
    assert Image.open(io.BytesIO(volume)).size == (200, 14 + 64)


def test_tables_and_event_files_have_no_step_twice(images, tmp_path):
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for progress in (stop_at(8), stop_at(17), lambda *_: None):
        try:
            train(build("cae", SIZE), images, folder=tmp_path, progress=progress, tensorboard=True, **PLAN)
        except Crash:
            continue
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(24))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert rows == lines
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("autoencoder/loss")
    assert [event.step for event in events] == list(range(24))
    np.testing.assert_allclose([event.value for event in events], [row["autoencoder/loss"] for row in rows], rtol=1e-6)


def test_event_files_need_their_package(images, tmp_path, monkeypatch):
    monkeypatch.setattr("phenotype.models.metrics.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"phenotype\[tensorboard\]"):
        train(build("cae", SIZE), images, folder=tmp_path, tensorboard=True, **PLAN)
    shutil.rmtree(tmp_path)


def test_the_source_is_what_the_family_learns_from():
    """Held-out images of a family that is told something are told too."""
    held_out = source("classifier", 9)
    model = build("classifier", SIZE)
    watch = watch_loss(held_out, every=1, patience=1, told=True)
    x, y = torch.from_numpy(held_out.array), torch.from_numpy(held_out.targets(np.arange(9)))
    update = list(model.optimizers(1.0))[-1]
    with torch.no_grad():
        loss = model(update, x, torch.Generator().manual_seed(0), y)["loss"]
    assert watch.figure(model) == pytest.approx(float(loss), rel=1e-5)
