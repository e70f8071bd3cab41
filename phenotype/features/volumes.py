"""What a model of volumes sees of a study: all of it, with voxels as long as they are wide and high."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phenotype.features import places
from phenotype.features.views import Floats, Look, Source, View
from phenotype.imaging import window
from phenotype.imaging.cache import read_cached
from phenotype.imaging.files import FileRef, Unreadable

MAX_VOXELS = 1 << 28  # of one study as a model sees it: 1 GiB as float32


@dataclass(frozen=True, slots=True)
class Volume:
    """Cubic voxels (z, y, x) of an image of `shape` (slices, rows, columns): volume = original * scale + offset."""

    pixels: Floats
    inside: NDArray[np.bool_]  # the body, or what a model is to look at
    scale: tuple[float, float, float]
    offset: tuple[float, float, float]
    shape: tuple[int, int, int]
    missing: bool

    def slice_of(self, z: float) -> int:
        """The slice of the image in which the middle of plane `z` lies."""
        return int(np.clip((z + 0.5 - self.offset[0]) / self.scale[0], 0, self.shape[0] - 1))

    def plane(self, z: int) -> View:
        """Plane `z` as a view of the image's slice there."""
        frame = window.Frame(self.scale[1:], self.offset[1:])
        return View(self.slice_of(z), self.pixels[z], frame, self.shape[1:], self.inside[z], self.missing)


def read_volume(source: Source, look: Look) -> Volume:
    """A study with cubic voxels of `spacing` mm, or, where that is 0, so that its longer side in the slice has
    `resolution` of them; with `framing` "body" only the box around the body, which is then what `resolution` is of.

    No side is shorter than `patch` voxels: what is not there is 0. `window` and `within` as of `read_views`.
    Raises `Unreadable`: the reasons of `read_cached`; "no_spacing" where the slices are no stack of known spacing;
    "too_large" where `spacing` asks for more than MAX_VOXELS.
    """
    picture = read_cached([FileRef(*file) for file in source.files], source.cache)
    if picture.pixels.ndim != 3 or len(picture.spacing_mm) != 3:
        raise Unreadable("no_spacing", "this is no volume whose slices have a known distance and pixel spacing")
    pixels = picture.pixels
    found = places.find(pixels, source.modality, look.within)
    shape = (len(pixels), *found.shape)
    body = found.over(found.body, window.Frame((1.0, 1.0), (0.0, 0.0)), found.shape)
    low, high = window.window_of(look.window, source.modality, [pixels[body] if body.any() else pixels])
    box = np.array([[0, 0, 0], shape])
    if look.framing != "image":
        row0, col0, row1, col1 = found.box()
        ends = np.flatnonzero(found.body.any(axis=(1, 2)))
        box = np.array([[ends[0], row0, col0], [ends[-1] + 1, row1, col1]])
    part = pixels[tuple(slice(int(a), int(b)) for a, b in box.T)]
    length = np.asarray(part.shape) * picture.spacing_mm  # mm
    counts = np.maximum(1, np.rint(length / (look.spacing or max(length[1:]) / look.resolution))).astype(int)
    if np.prod(np.maximum(counts, look.patch), dtype=np.int64) > MAX_VOXELS:
        raise Unreadable("too_large", f"{' x '.join(map(str, counts))} voxels of {look.spacing:g} mm")
    seen = np.subtract(part, np.float32(low), dtype=np.float32)
    seen /= np.float32(max(high - low, 1e-6))
    np.clip(seen, 0.0, 1.0, out=seen)
    seen = window.resample(seen, (int(counts[0]), int(counts[1]), int(counts[2])))
    scale = counts / np.asarray(part.shape)
    frame = window.Frame((scale[1], scale[2]), (-box[0, 1] * scale[1], -box[0, 2] * scale[2]))
    planes = found.over(found.inside, frame, (int(counts[1]), int(counts[2])))
    nearest = ((np.arange(counts[0]) + 0.5) / scale[0] + box[0, 0]).astype(int)
    inside = planes[np.minimum(nearest, shape[0] - 1)]
    if look.within != "image":
        seen *= inside
    lack = np.maximum(look.patch - counts, 0)
    around = [(int(n) // 2, int(n) - int(n) // 2) for n in lack]
    offset = -box[0] * scale + lack // 2
    return Volume(
        pixels=np.pad(seen, around),
        inside=np.pad(inside, around),
        scale=(float(scale[0]), float(scale[1]), float(scale[2])),
        offset=(float(offset[0]), float(offset[1]), float(offset[2])),
        shape=shape,
        missing=found.missing,
    )
