"""The model card: what a trained model is, for people, from its manifest alone.

After Mitchell et al. 2019, "Model cards for model reporting". The manifest holds no personal data, so neither does it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from phenotype.models import MODELS, model_class

CARD = "model-card.md"
# What of a training is said elsewhere on the card, or is of no use to a reader.
_TOLD = {"model", "recipe", "figures", "about", "kept", "images", "data", "software", "watch"}

LIMITS = """\
- Not a medical device. A score says how unusual an image is beside those that the model has learned from, not whether
  somebody is ill.
- It holds for images like those under "Data": another scanner, view, framing or population is another distribution,
  and p-values hold for none but the one it was calibrated on.
- The weights are computed from images of patients, and models can remember what they learned from: hand them on as you
  would images that were pseudonymised."""

USE = """\
```python
from pathlib import Path

import torch

from phenotype.models.files import load_calibration, load_model

folder = Path(".")  # where model.json lies
model, calibration = load_model(folder), load_calibration(folder)
x = torch.rand({shape})  # images with values in [{low:g}, {high:g}]
vectors = model.embed(x)  # one a row
scores, maps = model.score(x)  # higher is less normal
```"""


def model_card(manifest: Mapping[str, Any]) -> str:
    """The card of the model with this manifest (model.json), as Markdown."""
    training, given = dict(manifest["training"]), manifest["input"]
    parts = [f"# {manifest['name']}", _what(manifest["name"]), "## Data", *_data(training, given)]
    parts += ["## Recipe", _table(manifest["recipe"].items())]
    rest = {key: value for key, value in training.items() if key not in _TOLD}
    software = training.get("software", {})
    versions = {f"version of {name}": version for name, version in software.items()}
    parts += ["## Training", _table((rest | versions).items())]
    if "kept" in training:
        parts.append(f"Of the weights on the way these were kept: {training['kept']['why']}.")
    parts += ["## Figures", *_figures(manifest, training)]
    low, high = given["range"]
    shape = ", ".join(map(str, (4, given["channels"], *given["shape"])))
    parts += ["## Limits", LIMITS, "## Use", USE.format(shape=shape, low=low, high=high)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(name: str) -> str:
    """The family's row in the table, and the first lines of its own words, which name the paper."""
    kind = model_class(name)
    own = inspect.getdoc(kind) or ""
    module = inspect.getdoc(sys.modules[kind.__module__]) or ""
    first = [text.split("\n\n")[0] for text in (own, module) if text]
    return "\n\n".join([f"{MODELS[name].what[:1].upper()}{MODELS[name].what[1:]}.", *dict.fromkeys(first), _paper(own)])


def _paper(text: str) -> str:
    """The second paragraph of a docstring, where that names a paper: an author and a year."""
    paragraphs = text.split("\n\n")
    return paragraphs[1] if len(paragraphs) > 1 and " et al. " in paragraphs[1] else ""


def _data(training: Mapping[str, Any], given: Mapping[str, Any]) -> Iterable[str]:
    about = {
        "images": training.get("images", "not recorded"),
        "SHA-256 of the images": training.get("data", "not recorded"),
        "shape of an image": " x ".join(map(str, given["shape"])),
    }
    return [_table([*about.items(), *training.get("about", {}).items()])]


def _figures(manifest: Mapping[str, Any], training: Mapping[str, Any]) -> Iterable[str]:
    figures = [(f"{name}, at the last step", value) for name, value in training.get("figures", {}).items()]
    if "kept" in training:
        figures.append((f"{training['kept']['figure']}, of the weights kept", training["kept"]["value"]))
    yield _table(figures) if figures else "None while training: the model is computed from all images at once."
    calibration = manifest.get("calibration")
    if calibration is None:
        yield "Not calibrated: scores are raw, and there are no p-values."
        return
    held_out = calibration["tensors"]["shapes"]["scores"][0]
    yield "Calibration:"
    rest = {key: value for key, value in calibration.items() if key not in ("tensors", "alarms", "format")}
    alarms = [(f"{alarm['name']} alarm", _alarm(alarm)) for alarm in calibration.get("alarms", ())]
    yield _table([("held-out scores", held_out), *rest.items(), *alarms])


def _alarm(alarm: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_cell(value)}" for key, value in alarm.items() if key != "name")


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(
        ["| | |", "| --- | --- |", *(f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in rows)]
    )


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_cell(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return str(value).replace("|", "\\|").replace("\n", " ")
