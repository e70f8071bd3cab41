"""Checkpoints of a training: everything that the next step depends on, the last two kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
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


def save(
    folder: Path,
    *,
    step: int,
    plan: Mapping[str, Any],
    model: nn.Module,
    optimizers: Mapping[str, Optimizer],
    log_size: int,
) -> None:
    """Write the state after `step` steps to folder/checkpoints; `log_size` is the length of the log at that moment."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    stem = checkpoints / f"{step:08d}"
    tensors = write_tensors(stem.with_suffix(".safetensors"), _state(model, optimizers))
    manifest = {"format": FORMAT, "step": step, "plan": dict(plan), "log_size": log_size, "tensors": tensors}
    write_manifest(stem.with_suffix(".json"), manifest)  # last: it is the mark that the checkpoint is whole
    for old in _manifests(folder)[KEPT:]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)


def restore(
    folder: Path, plan: Mapping[str, Any], model: nn.Module, optimizers: Mapping[str, Optimizer]
) -> tuple[int, int]:
    """Load the newest whole checkpoint into `model` and `optimizers`: (steps done, length of the log), or (0, 0).

    A damaged one is passed over for the one before, and logged. ValueError if it belongs to another plan.
    """
    for path in _manifests(folder):
        try:
            manifest = read_manifest(path)
            tensors = read_tensors(path.parent, manifest["tensors"])
        except ModelFileError as error:
            log.warning("passed over a checkpoint: %s", error)
            continue
        same_plan(manifest["plan"], plan)
        _set_state(model, optimizers, tensors)
        return int(manifest["step"]), int(manifest["log_size"])
    return 0, 0


def remove(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def same_plan(found: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """ValueError, naming what differs, unless `found` says the same as `plan`."""
    differing = sorted(key for key, value in plan.items() if found.get(key) != value)
    if differing:
        raise ValueError(f"this folder holds another training; different are: {', '.join(differing)}")


def _manifests(folder: Path) -> list[Path]:
    """The checkpoints' manifests, newest first."""
    return sorted((folder / "checkpoints").glob("[0-9]*.json"), reverse=True)


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
