"""Model cards and ONNX: what leaves with a trained model."""

from __future__ import annotations

import json
import re

import pytest
import torch
from model_images import Images, normal
from model_trainings import PLAN, SIZE

from phenotype.models import MODELS, build
from phenotype.models.calibrate import calibrate
from phenotype.models.card import CARD, model_card
from phenotype.models.files import read_manifest, read_training, save_model
from phenotype.models.train import train
from phenotype.models.watching import watch_loss


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A calibrated model with all that can be told of it."""
    folder = tmp_path_factory.mktemp("person-SECRET-0815")
    images, held_out = Images(normal(30, SIZE, seed=1)), Images(normal(9, SIZE, seed=2))
    model = build("cae", SIZE, latent=7)
    about = {"cohort": "0123abcd", "modality": ["CR"], "framing": "body"}
    watch = watch_loss(held_out, every=6, patience=9)
    train(model, images, folder=folder, about=about, watch=watch, **PLAN)
    return save_model(model, folder, read_training(folder), calibrate(model, held_out, images))


def test_the_card_names_what_the_manifest_holds(saved):
    manifest, card = read_manifest(saved / "model.json"), (saved / CARD).read_text()
    training, calibration = manifest["training"], manifest["calibration"]
    assert card == model_card(manifest)
    assert "Bergmann et al. 2018" in card and MODELS["cae"].what[1:] in card
    for heading in ("Data", "Recipe", "Training", "Figures", "Limits", "Use"):
        assert f"\n## {heading}\n" in card
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", card, re.MULTILINE))
    assert rows["images"] == "30" and rows["SHA-256 of the images"] == training["data"]
    assert (rows["cohort"], rows["modality"], rows["framing"]) == ("0123abcd", "CR", "body")
    assert (rows["latent"], rows["size"], rows["term"]) == ("7", str(SIZE), "ssim")
    assert (rows["steps"], rows["accelerator"], rows["precision"], rows["seed"]) == ("24", "cpu", "32-true", "5")
    assert rows["version of torch"] == torch.__version__ and float(rows["seconds"]) > 0
    assert float(rows["autoencoder/loss, at the last step"]) == pytest.approx(
        training["figures"]["autoencoder/loss"], rel=1e-5
    )
    assert float(rows["held-out loss, of the weights kept"]) == pytest.approx(training["kept"]["value"], rel=1e-5)
    assert training["kept"]["why"] in card
    assert rows["held-out scores"] == "9"
    for alarm in calibration["alarms"]:
        assert alarm["text"] in rows[f"{alarm['name']} alarm"]
        assert f"fired {'yes' if alarm['fired'] else 'no'}" in rows[f"{alarm['name']} alarm"]


def test_nothing_from_outside_is_on_the_card(saved):
    """Each cell stands in the manifest, and the rest is the same for every model of the family: no path, no id."""
    manifest, card = read_manifest(saved / "model.json"), (saved / CARD).read_text()
    assert "SECRET" not in card and str(saved.parent) not in card
    told = json.dumps(manifest, ensure_ascii=False)
    for value in re.findall(r"^\| .+? \| ([^|]+?) \|$", card, re.MULTILINE):
        written = value in ("---", "yes", "no", "none", "16 x 16", "CR") or re.search(r"\d\.\d|e-\d|value ", value)
        assert written or value in told, value
    other = model_card({**manifest, "training": {}} | {"calibration": None})
    assert "Not calibrated" in other and "not recorded" in other


def test_the_use_on_the_card_works(saved, monkeypatch):
    code = re.search(r"```python\n(.+?)```", (saved / CARD).read_text(), re.DOTALL)[1]
    monkeypatch.chdir(saved)
    names: dict = {}
    exec(code, names)
    assert names["scores"].shape == (4,) and names["maps"].shape == (4, SIZE, SIZE) and len(names["vectors"]) == 4
    assert names["calibration"].p_values(names["scores"]).shape == (4,)
