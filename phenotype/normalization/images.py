"""Images read for registration, and the reference and its templates made ready once in each process."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging.cache import read_cached
from phenotype.imaging.files import FileRef, Unreadable
from phenotype.imaging.geometry import directions
from phenotype.normalization import organs
from phenotype.normalization.places import KEPT
from phenotype.normalization.templates import Template
from phenotype.normalization.volumes import Registration, Volume, prepare, register

if TYPE_CHECKING:
    from phenotype.models.alignment import Alignment

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Source:
    """An image to be read: what it is, its files in order, and the folder of decoded pixels.

    orientation  directions of a row and of a column, as of DICOM
    origin       the middle of the first voxel of the first slice, mm
    """

    image_id: str
    kind: str
    modality: str
    view: str
    files: tuple[tuple[str, str], ...]
    shape: tuple[int, ...] = ()  # (slices,) rows, columns
    spacing: tuple[float, ...] = ()  # mm, along them; empty where it is not known
    orientation: tuple[float, ...] | None = None
    origin: tuple[float, ...] | None = None
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Space:
    """What a run lays images onto: the reference, the templates, the organs drawn into the reference.

    folder       where what is made ready once is kept: grids, labels and the mean of many radiographs, nobody's pixels
    radiographs  those that the mean is made of; none where the drawn thorax is all there is
    """

    reference: Source | None
    templates: tuple[Source, ...]
    spacing: float
    fine: int
    folder: Path
    labels: Path | None = None
    names: Path | None = None
    radiographs: tuple[Source, ...] = ()


def read(source: Source) -> tuple[Floats, tuple[float, ...]]:
    """The pixels of an image and their spacing, mm. Raises `Unreadable`, also where a volume has no known spacing."""
    picture = read_cached([FileRef(*file) for file in source.files], source.cache)
    if source.kind == "volume" and (picture.pixels.ndim != 3 or len(picture.spacing_mm) != 3):
        raise Unreadable("no_spacing", "this is no volume whose slices have a known distance and pixel spacing")
    return picture.pixels, picture.spacing_mm


@lru_cache(maxsize=8)
def volume_of(source: Source, spacing: float) -> Volume:
    """A volume made ready to be registered."""
    pixels, mm = read(source)
    return prepare(pixels, mm, source.orientation, source.modality, spacing)


def templates_of(space: Space, but: str) -> Mapping[str, Template]:
    """The templates of a space, registered to its reference; the image `but` is left out.

    One that cannot be read, or has nothing in common with the reference, is none.
    """
    found = {}
    for source in space.templates:
        if source.image_id != but and (template := _template(space, source)) is not None:
            found[source.image_id] = template
    return found


@lru_cache(maxsize=16)
def _template(space: Space, source: Source) -> Template | None:
    from safetensors.numpy import load_file

    if space.reference is None:
        return None
    place = space.folder / f"template-{source.image_id}.safetensors"
    try:
        volume = volume_of(source, space.spacing)
        if not place.is_file():
            made = register(volume, volume_of(space.reference, space.spacing), fine=2 * space.fine)
            figures = np.array([made.quality, made.folded], np.float64)
            _keep(place, {"forward": made.forward, "figures": figures})
    except (Unreadable, ValueError):
        return None
    kept = load_file(place)
    quality, folded = kept["figures"].tolist()
    return Template(volume, Registration(kept["forward"], quality, folded))


@lru_cache(maxsize=2)
def mean_of(space: Space) -> Alignment | None:
    """The mean of the space's radiographs; None where too few of them can be read, or no lungs are seen in it."""
    from safetensors.numpy import load_file

    from phenotype.normalization import mean

    place = space.folder / "mean.safetensors"
    if place.is_file():
        return mean.from_arrays(load_file(place))
    readable = []
    for source in space.radiographs:
        with suppress(Unreadable):  # told when it is its own turn to be laid
            readable.append(read(source)[0])
    found = mean.learn(readable)
    if found is not None:
        _keep(place, mean.to_arrays(found))
    return found


@lru_cache(maxsize=2)
def organs_of(space: Space) -> tuple[NDArray[np.uint16], dict[int, str]] | None:
    """The labels of the reference's organs over its voxels, thinned to about 2 mm, and their names; None without."""
    reference = space.reference
    if space.labels is None or reference is None:
        return None
    labels = drawn(space.labels, reference)
    names = organs.read_names(space.names, labels)
    counts = [
        min(n, max(1, round(n * mm / organs.FINEST_MM))) for n, mm in zip(labels.shape, reference.spacing, strict=True)
    ]
    index = [((np.arange(c) + 0.5) * n / c).astype(np.intp) for c, n in zip(counts, labels.shape, strict=True)]
    thin = np.ascontiguousarray(labels[np.ix_(*index)])
    if not (space.folder / KEPT).is_file():
        _keep(space.folder / KEPT, {"labels": thin}, {"names": json.dumps(list(names.items()))})
    return thin, names


def drawn(path: Path, reference: Source) -> NDArray[np.uint16]:
    """A label map over the voxels of the reference. Raises ValueError as `organs.read_labels`."""
    x1, y1, z1, x2, y2, z2 = reference.orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    axes = directions((x1, y1, z1, x2, y2, z2))
    return organs.read_labels(path, reference.shape, reference.spacing, axes, reference.origin or (0.0, 0.0, 0.0))


def _keep(place: Path, arrays: dict[str, NDArray[np.generic]], told: dict[str, str] | None = None) -> None:
    """Write arrays so that no other process ever sees half of them."""
    from safetensors.numpy import save

    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = place.with_suffix(f".{secrets.token_hex(4)}.part")
    beside.write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, told))
    beside.replace(place)
