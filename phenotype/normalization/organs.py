"""Organs drawn into the reference, and how they travel onto images."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from phenotype.imaging import grids
from phenotype.imaging.grids import Corner

FINEST_MM = 2.0  # voxels in which organs are laid onto an image


@dataclass(frozen=True, slots=True)
class OrganThere:
    """An organ as it lies in an image.

    volume_ml  of the part in view; None where the image has no size in mm
    share      of the organ in the reference that is in view, 0 to 1
    low, high  the corners of its box in the image, as fractions; None where nothing of it is in view
    """

    organ: str
    volume_ml: float | None
    share: float
    low: Corner | None
    high: Corner | None


def read_labels(
    path: Path,
    shape: Sequence[int],
    spacing: Sequence[float],
    axes: NDArray[Any],
    origin: Sequence[float],
) -> NDArray[np.uint16]:
    """A label map (NIfTI, or what else SimpleITK reads) over the voxels of the reference: (slices, rows, columns).

    shape, spacing  of the reference along slices, rows and columns; mm
    axes            the patient's directions along them, as of `geometry.directions`
    origin          the middle of its first voxel, mm, as of DICOM

    Both lie in the patient, whatever the order in which the file has its voxels. Raises ValueError where the map is no
    volume of whole numbers, or shows no organ where the reference is.
    """
    try:
        drawn = sitk.ReadImage(str(path))
    except RuntimeError:
        raise ValueError(f"{path.name} cannot be read as a label map") from None
    if drawn.GetDimension() != 3 or drawn.GetNumberOfComponentsPerPixel() != 1:
        raise ValueError(f"{path.name} is no label map: it has {drawn.GetDimension()} dimensions")
    place = sitk.Image([int(n) for n in reversed(shape)], sitk.sitkUInt16)
    place.SetSpacing([float(mm) for mm in reversed(spacing)])
    place.SetDirection(np.asarray(axes)[::-1].T.ravel().tolist())
    place.SetOrigin([float(mm) for mm in origin])
    labels = sitk.GetArrayFromImage(sitk.Resample(sitk.Cast(drawn, sitk.sitkUInt16), place, sitk.Transform(), 1))
    if not labels.any():
        raise ValueError(f"{path.name} shows no organ where the reference is")
    return np.asarray(labels, np.uint16)


def read_names(path: Path | None, labels: NDArray[Any]) -> dict[int, str]:
    """The name of each label: of a CSV with a number and a name in each line, or "label 7" where it has none."""
    names: dict[int, str] = {}
    if path is not None:
        with path.open(newline="", encoding="utf-8-sig") as file:
            for line in csv.reader(file):
                if len(line) >= 2 and line[0].strip().isdigit():
                    names[int(line[0])] = line[1].strip()
    return {int(k): names.get(int(k), f"label {k}") for k in np.unique(labels) if k}


def on_image(
    labels: NDArray[Any],
    names: Mapping[int, str],
    forward: NDArray[Any],
    backward: NDArray[Any],
    extent: Sequence[float] | None,
    shape: Sequence[int],
) -> list[OrganThere]:
    """The organs of the reference as they lie in an image.

    forward, backward  the grids over the image and over the reference
    extent             of the image, mm; None where that is not known
    """
    counts = list(shape)
    if extent is not None:
        counts = [int(np.clip(round(mm / FINEST_MM), 1, n)) for mm, n in zip(extent, shape, strict=True)]
    there = grids.warp_labels(labels, forward, counts)
    voxel = float(np.prod(np.asarray(extent) / counts)) / 1000 if extent is not None else None
    own = np.argwhere(labels > 0)
    places = grids.apply(backward, (own + 0.5) / np.array(labels.shape))
    seen = np.all((places >= 0) & (places <= 1), axis=-1)
    kinds = labels[tuple(own.T)]
    found = []
    for label, name in names.items():
        inside = np.argwhere(there == label)
        low = tuple((inside.min(0) / counts).tolist()) if len(inside) else None
        high = tuple(((inside.max(0) + 1) / counts).tolist()) if len(inside) else None
        volume = None if voxel is None else len(inside) * voxel
        found.append(OrganThere(name, volume, float(seen[kinds == label].mean()), low, high))
    return found
