"""Samples to train on: views or patches of many images, on disk while a model learns from them, then gone."""

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenotype.features.views import Look, Source, random_corners, read_views
from phenotype.features.volumes import read_volume
from phenotype.imaging.files import Unreadable


@dataclass(frozen=True, slots=True)
class Unit:
    """What one sample is: a whole view of `size`, or a patch of side `patch` from a view of `resolution`; with `dims` 3
    a cube of side `patch` from a whole study, as of `read_volume`."""

    size: int
    patch: int
    resolution: int
    slices: int  # views of a volume
    framing: str  # what of the image is seen, as of `read_views`
    patches: int  # patches of a view, cubes of a study
    seed: int
    window: str = ""  # as of `window.window_of`
    within: str = "image"  # what is not blanked: image, body or lung
    dims: int = 2
    spacing: float = 0.0  # mm, of the voxels of cubes; 0 for what `resolution` says

    masked: bool = False  # keep what is inside even where nothing is blanked: the body

    @property
    def look(self) -> Look:
        """How the image is looked at."""
        return Look(self.framing, self.window, self.within, self.patch, self.resolution, self.dims, self.spacing)

    @property
    def side(self) -> int:
        """Height and width of a sample, and depth of a cube."""
        return self.patch or self.size


class Samples:
    """Samples on disk, read by index: the `Source` of phenotype.models.

    owners   (n,) of which image each is
    missing  images whose lungs were to be looked at, and were not found: what is inside is then their body
    inside   None where all of a sample counts; else a function of indices, to what counts: (n, *spatial) bool
    """

    def __init__(
        self, path: Path, side: int, owners: NDArray[np.int64], dims: int = 2, *, masked: bool = False, missing: int = 0
    ) -> None:
        self.owners, self.missing = owners, missing
        shape = (path.stat().st_size // (2 * side**dims), *[side] * dims)
        self._pixels = np.memmap(path, np.float16, "r", shape=shape) if shape[0] else np.empty(shape, np.float16)
        self.inside: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None
        if masked:
            kept = np.memmap(_beside(path), np.bool_, "r", shape=shape) if shape[0] else np.empty(shape, np.bool_)
            self.inside = lambda indices: np.asarray(kept[indices])

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples (n, 1, *spatial) in [0, 1]."""
        return np.asarray(self._pixels[indices], dtype=np.float32)[:, None]


def prepare(
    path: Path, images: Sequence[tuple[str, Source]], unit: Unit, progress: Callable[[int, int, str], None]
) -> tuple[Samples, int]:
    """Write the samples of these images (id, source) to `path`; returns them and how many images could not be read.

    Which patches are cut depends on the seed and on the image alone. One image at a time is in memory. The file is
    whole or not there; what of the samples counts is in a file of its own, unless all does.
    """
    masked = unit.masked or unit.within != "image"
    unreadable = missing = 0
    owners: list[int] = []
    with ExitStack() as stack:
        file = stack.enter_context(path.with_suffix(".part").open("wb"))
        masks = stack.enter_context(_beside(path).open("wb")) if masked else None
        for number, (image, source) in enumerate(images):
            progress(number, len(images), "reading images")
            try:
                samples, inside, lacking = _samples(image, source, unit)
            except Unreadable:
                unreadable += 1
                continue
            owners += [number] * len(samples)
            missing += lacking
            file.write(np.ascontiguousarray(samples, np.float16).tobytes())
            if masks is not None:
                masks.write(np.ascontiguousarray(inside).tobytes())
        for one in (file, masks):
            if one is not None:
                one.flush()
                os.fsync(one.fileno())
    path.with_suffix(".part").replace(path)
    counted = np.asarray(owners, np.int64)
    return Samples(path, unit.side, counted, unit.dims, masked=masked, missing=missing), unreadable


def _beside(path: Path) -> Path:
    return path.with_name(f"inside-{path.name}")


def _samples(image: str, source: Source, unit: Unit) -> tuple[NDArray[np.float32], NDArray[np.bool_], bool]:
    """Samples of one image, what of them is inside, and whether its lungs are missing."""
    own = int.from_bytes(hashlib.sha256(image.encode()).digest()[:8], "big")
    rng = np.random.default_rng([unit.seed, own])
    if unit.dims == 3:
        volume = read_volume(source, unit.look)
        seen = [(volume.pixels, volume.inside)]
        lacking = volume.missing
    else:
        side = unit.resolution if unit.patch else unit.size
        views = read_views(source, [side], unit.slices, unit.framing, unit.window, unit.within)
        seen = [(view.pixels, view.inside) for (view,) in views]
        lacking = views[0][0].missing
    if unit.patch:
        corners = [(one, at) for one in seen for at in random_corners(one[1], unit.patch, unit.patches, rng)]
        seen = [(pixels[at], inside[at]) for (pixels, inside), at in corners]
    return np.stack([pixels for pixels, _ in seen]), np.stack([inside for _, inside in seen]), lacking
