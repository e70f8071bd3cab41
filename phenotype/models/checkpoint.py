"""Checkpoints of a training: everything that the next step depends on, the last two kept.

Where a figure is watched, the best weights so far lie beside them; a checkpoint names those it was written with.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from phenotype.models.files import (
    FORMAT,
    ModelFileError,
    read_manifest,
    read_tensors,
    write_manifest,
    write_tensors,
)

KEPT = 2
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a training is: steps done, the length of its log, and what else the loop wants to know again.

    `best` is the step whose weights are the best so far, where that is watched.
    """

    step: int = 0
    log_size: int = 0
    best: int | None = None
    state: dict[str, Any] = field(default_factory=dict)


def save(
    folder: Path, place: Place, *, plan: Mapping[str, Any], model: nn.Module, optimizers: Mapping[str, Optimizer]
) -> None:
    """Write the state of a training that is at `place` to folder/checkpoints."""
    stem = _stem(folder, f"{place.step:08d}")
    tensors = write_tensors(stem.with_suffix(".safetensors"), _state(model, optimizers))
    manifest = {
        "format": FORMAT,
        "step": place.step,
        "plan": dict(plan),
        "log_size": place.log_size,
        "best": place.best,
        "state": place.state,
        "tensors": tensors,
    }
    write_manifest(stem.with_suffix(".json"), manifest)  # last: it is the mark that the checkpoint is whole
    for old in _manifests(folder)[KEPT:]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    _forget(folder)


def restore(folder: Path, plan: Mapping[str, Any], model: nn.Module, optimizers: Mapping[str, Optimizer]) -> Place:
    """Load the newest whole checkpoint into `model` and `optimizers`; where there is none, the beginning.

    A damaged one, or one whose best weights are, is passed over for the one before, and logged. ValueError if it
    belongs to another plan.
    """
    for path in _manifests(folder):
        try:
            manifest = read_manifest(path)
            tensors = read_tensors(path.parent, manifest["tensors"])
            if manifest["best"] is not None:
                best_weights(folder, manifest["best"])
        except ModelFileError as error:
            log.warning("passed over a checkpoint: %s", error)
            continue
        same_plan(manifest["plan"], plan)
        _set_state(model, optimizers, tensors)
        return Place(manifest["step"], manifest["log_size"], manifest["best"], manifest["state"])
    return Place()


def keep_best(folder: Path, step: int, model: nn.Module) -> None:
    """Write the weights after `step` steps as the best so far. Those before stay while a checkpoint names them."""
    stem = _stem(folder, f"best-{step:08d}")
    tensors = write_tensors(stem.with_suffix(".safetensors"), model.state_dict())
    write_manifest(stem.with_suffix(".json"), {"format": FORMAT, "tensors": tensors})


def best_weights(folder: Path, step: int) -> dict[str, Tensor]:
    """What `keep_best` wrote at `step`; else ModelFileError."""
    stem = _stem(folder, f"best-{step:08d}")
    return read_tensors(stem.parent, read_manifest(stem.with_suffix(".json"))["tensors"])


def remove(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def same_plan(found: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """ValueError, naming what differs, unless `found` says the same as `plan`."""
    same = json.loads(json.dumps({key: [found.get(key), value] for key, value in plan.items()}))  # tuples as lists
    differing = sorted(key for key, (one, other) in same.items() if one != other)
    if differing:
        raise ValueError(f"this folder holds another training; different are: {', '.join(differing)}")


def _stem(folder: Path, name: str) -> Path:
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    return checkpoints / name


def _manifests(folder: Path) -> list[Path]:
    """The checkpoints' manifests, newest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*.json"), reverse=True)


def _forget(folder: Path) -> None:
    """Remove best weights that no checkpoint names: of a damaged one nobody knows, so then they stay."""
    try:
        named = {f"best-{best:08d}" for path in _manifests(folder) if (best := read_manifest(path)["best"]) is not None}
    except ModelFileError:
        return
    for path in (folder / "checkpoints").glob("best-*"):
        if path.stem not in named:
            path.unlink()


def _state(model: nn.Module, optimizers: Mapping[str, Optimizer]) -> dict[str, Tensor]:
    """Model and optimizers as flat tensors: "model/KEY", "optimizer/NAME/PARAMETER/KEY".

    What else an optimizer holds (learning rate, betas) follows from the plan.
    """
    tensors = {f"model/{key}": value for key, value in model.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if not isinstance(value, Tensor):
                    raise TypeError(f"the state {key!r} of optimizer {name!r} is no tensor and would be lost")
                tensors[f"optimizer/{name}/{index}/{key}"] = value
    return tensors


def _set_state(model: nn.Module, optimizers: Mapping[str, Optimizer], tensors: Mapping[str, Tensor]) -> None:
    states: dict[str, dict[int, dict[str, Tensor]]] = {name: {} for name in optimizers}
    weights: dict[str, Tensor] = {}
    for path, value in tensors.items():
        kind, _, rest = path.partition("/")
        if kind == "model":
            weights[rest] = value
        else:
            name, index, key = rest.split("/")
            states[name].setdefault(int(index), {})[key] = value
    model.load_state_dict(weights)
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict({"state": states[name], "param_groups": optimizer.state_dict()["param_groups"]})
