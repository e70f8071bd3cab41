"""Samples to train on: views or patches of many images, on disk while a model learns from them, then gone."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenotype.features.views import Source, random_patches, read_views
from phenotype.imaging.files import Unreadable


@dataclass(frozen=True, slots=True)
class Unit:
    """What one sample is: a whole view of `size`, or a patch of side `patch` from a view of `resolution`."""

    size: int
    patch: int
    resolution: int
    slices: int  # views of a volume
    framing: str  # what of the image is seen, as of `read_views`
    patches: int  # patches of a view
    seed: int

    @property
    def side(self) -> int:
        """Height and width of a sample."""
        return self.patch or self.size


class Samples:
    """Samples on disk, read by index: the `Source` of phenotype.models. `owners` (n,) says of which image each is."""

    def __init__(self, path: Path, side: int, owners: NDArray[np.int64]) -> None:
        self.owners = owners
        count = path.stat().st_size // (2 * side * side)
        shape = (count, side, side)
        self._pixels = np.memmap(path, np.float16, "r", shape=shape) if count else np.empty(shape, np.float16)

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples (n, 1, side, side) in [0, 1]."""
        return np.asarray(self._pixels[indices], dtype=np.float32)[:, None]


def prepare(
    path: Path, images: Sequence[tuple[str, Source]], unit: Unit, progress: Callable[[int, int, str], None]
) -> tuple[Samples, int]:
    """Write the samples of these images (id, source) to `path`; returns them and how many images could not be read.

    Which patches are cut depends on the seed and on the image alone. The file is whole or not there.
    """
    beside = path.with_suffix(".part")
    unreadable = 0
    owners: list[int] = []
    with beside.open("wb") as file:
        for number, (image, source) in enumerate(images):
            progress(number, len(images), "reading images")
            try:
                samples = _samples(image, source, unit)
            except Unreadable:
                unreadable += 1
                continue
            owners += [number] * len(samples)
            file.write(np.ascontiguousarray(samples, np.float16).tobytes())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return Samples(path, unit.side, np.asarray(owners, np.int64)), unreadable


def _samples(image: str, source: Source, unit: Unit) -> NDArray[np.float32]:
    views = read_views(source, [unit.resolution if unit.patch else unit.size], unit.slices, unit.framing)
    if not unit.patch:
        return np.stack([view.pixels for (view,) in views])
    own = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")
    rng = np.random.default_rng([unit.seed, own])
    return np.concatenate([random_patches(view, unit.patch, unit.patches, rng) for (view,) in views])
