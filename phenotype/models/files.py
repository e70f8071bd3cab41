"""Tensors on disk: safetensors beside a JSON manifest with hashes, written so that a crash never leaves half a file.

A manifest is written last and names its tensor file by SHA-256: it is the mark that the pair is whole. Nothing is
pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from phenotype.models import build
from phenotype.models.base import ImageModel
from phenotype.models.calibrate import Calibration

FORMAT = 1


class ModelFileError(ValueError):
    """A file of a model or checkpoint is missing, damaged or of an unknown kind; the message says which and why."""


# ---- one file


def write_whole(path: Path, content: bytes) -> None:
    """Replace the file `path` by `content` at once: written beside, fsynced, renamed, the folder fsynced."""
    beside = path.with_name(f".{path.name}.part")  # always the same name: what a crash leaves is written over
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def canonical(manifest: Mapping[str, Any]) -> bytes:
    """A manifest as bytes, always the same for the same content."""
    return (json.dumps(manifest, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest` with a hash of itself."""
    write_whole(path, canonical({**manifest, "sha256": hashlib.sha256(canonical(manifest)).hexdigest()}))


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest whose bytes are those that were written; else ModelFileError."""
    content = _read(path)
    try:
        manifest = json.loads(content)
        claimed = manifest.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelFileError(f"{path.name} is damaged: it is not a manifest") from None
    own = hashlib.sha256(canonical(manifest)).hexdigest()
    if claimed != own or content != canonical({**manifest, "sha256": own}):
        raise ModelFileError(f"{path.name} is damaged: its content is not what was written")
    if manifest.get("format") != FORMAT:
        raise ModelFileError(f"{path.name} has format {manifest.get('format')}, this version reads {FORMAT}")
    return dict(manifest)


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors as they would be written."""
    return hashlib.sha256(_to_bytes(tensors)).hexdigest()


def _to_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # Cloned, since safetensors refuses tensors that share memory.
    return bytes(tensors_to_bytes({key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}))


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write tensors as safetensors; returns the entry for the manifest: file, sha256, shapes."""
    content = _to_bytes(tensors)
    digest = hashlib.sha256(content).hexdigest()
    # The same content again (a model saved once more with its calibration) leaves the file alone.
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        write_whole(path, content)
    return {"file": path.name, "sha256": digest, "shapes": {key: list(tensors[key].shape) for key in sorted(tensors)}}


def read_tensors(folder: Path, entry: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that an entry of a manifest names, verified against its hash; else ModelFileError."""
    name = str(entry["file"])
    content = _read(folder / Path(name).name)
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ModelFileError(f"{name} is damaged: its SHA-256 is not the one in its manifest")
    tensors: dict[str, Tensor] = tensors_from_bytes(content)
    return tensors


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ModelFileError(f"{path.name} is missing") from None


# ---- a trained model


def save_model(
    model: ImageModel, folder: Path, extra: Mapping[str, Any], calibration: Calibration | None = None
) -> Path:
    """Write `model` to `folder` as model.safetensors and model.json (and calibration.safetensors); returns the folder.

    `extra` is kept under "training" as it is: the recipe of the training, the hash of its images. It must hold no
    personal data. Saving a model again with its calibration leaves every earlier file valid until the last rename.
    """
    folder.mkdir(parents=True, exist_ok=True)
    low, high = model.input_range
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": model.name,
        "recipe": asdict(model.recipe),
        "input": {"channels": 1, "shape": list(model.recipe.shape), "range": [low, high]},
        "training": dict(extra),
        "weights": write_tensors(folder / "model.safetensors", model.state_dict()),
    }
    if calibration is not None:
        tensors = {key: torch.from_numpy(value) for key, value in calibration.arrays().items()}
        entry = write_tensors(folder / "calibration.safetensors", tensors)
        manifest["calibration"] = {**calibration.told(), "tensors": entry}
    from phenotype.models.card import CARD, model_card

    write_whole(folder / CARD, model_card(json.loads(canonical(manifest))).encode())
    write_manifest(folder / "model.json", manifest)
    return folder


def load_model(folder: Path) -> ImageModel:
    """The model that `save_model` wrote, in evaluation mode on the CPU; ModelFileError if it is not as written."""
    manifest = read_manifest(folder / "model.json")
    try:
        model = build(manifest["name"], **manifest["recipe"])
        model.load_state_dict(read_tensors(folder, manifest["weights"]))
    except ModelFileError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"model.json does not fit this version of the model: {error}") from None
    return model.eval()


def load_calibration(folder: Path) -> Calibration | None:
    """The calibration saved with the model in `folder`, None if it has none."""
    manifest = read_manifest(folder / "model.json")
    if "calibration" not in manifest:
        return None
    entry = manifest["calibration"]
    arrays = {key: np.asarray(value.numpy()) for key, value in read_tensors(folder, entry["tensors"]).items()}
    try:
        return Calibration.restored(arrays, entry)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"model.json does not fit this version of the calibration: {error}") from None


def read_training(folder: Path) -> dict[str, Any]:
    """How the model in `folder` was trained: the `extra` given to `save_model`."""
    return dict(read_manifest(folder / "model.json")["training"])
