"""The corresponding place in other images, by way of the common space."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import grids

KEPT = "organs.safetensors"  # in the folder of a run: what is drawn into its reference


class Lying(Protocol):
    """An image in the common space: fields as of `db.queries.positions.Lying`."""

    @property
    def image_id(self) -> str: ...
    @property
    def patient_id(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def route(self) -> str: ...
    @property
    def quality(self) -> float: ...
    @property
    def accepted(self) -> bool: ...
    @property
    def forward(self) -> NDArray[Any]: ...
    @property
    def backward(self) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Place:
    """A place in one image, in its own voxels counted from 0 (slice: 0 for a radiograph), and in the common space.

    in_view  whether the image reaches there; if not, the place is where it would be
    at       the place in the reference, as fractions along (slices,) rows and columns
    """

    image: str
    patient: str
    slice: int
    row: float
    column: float
    in_view: bool
    at: tuple[float, ...]
    organ: str
    route: str
    quality: float
    accepted: bool


def to_reference(image: Lying, slice_: int, row: float, column: float) -> NDArray[np.float64]:
    """Where a voxel of an image lies in the reference, as fractions. ValueError where the image has no such voxel."""
    shape = np.array(image.shape)
    voxel = np.array([slice_, row, column] if len(shape) == 3 else [row, column], np.float64)
    if np.any(voxel < -0.5) or np.any(voxel > shape - 0.5):
        raise ValueError(f"the image has {' x '.join(map(str, image.shape))} voxels, and none there")
    return grids.apply(image.forward, (voxel + 0.5) / shape)


def in_image(image: Lying, at: NDArray[Any], organ: str = "") -> Place:
    """Where a place of the reference (fractions) lies in an image."""
    found = grids.apply(image.backward, np.asarray(at, np.float64))
    voxel = found * np.array(image.shape) - 0.5
    inside = bool(np.all((found >= 0) & (found <= 1)))
    slice_ = round(float(voxel[0])) if len(image.shape) == 3 else 0
    return Place(
        image=image.image_id,
        patient=image.patient_id,
        slice=slice_,
        row=round(float(voxel[-2]), 1),
        column=round(float(voxel[-1]), 1),
        in_view=inside,
        at=tuple(round(float(v), 4) for v in at),
        organ=organ,
        route=image.route,
        quality=round(image.quality, 4),
        accepted=image.accepted,
    )


def elsewhere(start: Lying, others: Iterable[Lying], voxel: tuple[int, float, float], organ: str = "") -> list[Place]:
    """The place of a voxel (slice, row, column) of one image in others that show as many dimensions, best first."""
    at = to_reference(start, *voxel)
    found = [in_image(other, at, organ) for other in others if len(other.shape) == len(start.shape)]
    return sorted(found, key=lambda place: (not place.in_view, -place.quality, place.image))


def organ_at(labels: NDArray[Any], names: dict[int, str], at: Sequence[float] | NDArray[Any]) -> str:
    """The organ of the reference at a place (fractions); empty where there is none."""
    index = np.floor(np.asarray(at) * labels.shape).astype(int)
    if np.any(index < 0) or np.any(index >= labels.shape):
        return ""
    return names.get(int(labels[tuple(index)]), "")


def kept_organs(folder: Path) -> tuple[NDArray[Any], dict[int, str]] | None:
    """The organs drawn into the reference, by the folder of the run: labels over it and their names; None without."""
    from safetensors import safe_open

    if not (folder / KEPT).is_file():
        return None
    with safe_open(folder / KEPT, framework="np") as file:
        return file.get_tensor("labels"), dict(json.loads(file.metadata()["names"]))
