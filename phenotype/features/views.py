"""What a model sees of an image: standardized views, patches of them, and the way back to the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenotype.features import places
from phenotype.imaging import regions, thorax, window
from phenotype.imaging.cache import read_cached
from phenotype.imaging.files import FileRef, Unreadable

Floats = NDArray[np.float32]

DESCRIPTORS = {
    "plain": "nothing more",
    "texture": "what filters see in it and around it",
    "paired": "that, and its difference from the mirrored place of the body",
}


@dataclass(frozen=True, slots=True)
class Source:
    """An image to be read: its kind, its modality and its files in order.

    cache   the folder of decoded pixels
    window  where a radiograph shows the window of the thorax: see `imaging.thorax`; None where that is not known
    """

    kind: str
    modality: str
    files: tuple[tuple[str, str], ...]
    cache: Path | None = None
    window: thorax.Box | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How a model has learned to look at images; it is shown no others. Fields as of `Train`'s recipe."""

    framing: str = "body"
    window: str = ""
    within: str = "image"
    patch: int = 0
    resolution: int = 128
    dims: int = 2
    spacing: float = 0.0
    reduction: str = "top10"


@dataclass(frozen=True, slots=True)
class View:
    """A square view of one slice (0 for a radiograph) of an image of `shape` (rows, columns)."""

    slice: int
    pixels: Floats
    frame: window.Frame
    shape: tuple[int, int]
    inside: NDArray[np.bool_]  # of the view's shape: the body, or what a model is to look at
    missing: bool = False  # it was to look at the lungs, and they were not found
    aligned: bool = False  # a place of the view is the same place of the body in all of them

    @property
    def body(self) -> tuple[int, int, int, int]:
        """The box that places are measured in: that around what is inside, or all of a view that is aligned."""
        return (0, 0, *self.pixels.shape) if self.aligned else regions.box_of(self.inside)

    def to_fractions(self, points: NDArray[np.generic]) -> NDArray[np.float64]:
        """Points (..., 2) of the view as fractions of the image's rows and columns, inside it."""
        return np.asarray(np.clip(self.frame.to_original(points) / np.asarray(self.shape), 0.0, 1.0), np.float64)

    def over_image(self, seen: Floats) -> Floats:
        """A map over the view as a map over the image, of the same pixel size: 0 where the view does not reach."""
        rows, columns = (max(1, round(n * s)) for n, s in zip(self.shape, self.frame.scale, strict=True))
        whole = np.zeros((rows, columns), np.float32)
        down, right = (round(offset) for offset in self.frame.offset)  # of the image's corner in the view
        height, width = seen.shape
        r0, r1, c0, c1 = max(0, -down), min(rows, height - down), max(0, -right), min(columns, width - right)
        whole[r0:r1, c0:c1] = seen[r0 + down : r1 + down, c0 + right : c1 + right]
        return whole


def read_views(
    source: Source, sizes: Sequence[int], slices: int, framing: str, window_name: str = "", within: str = "image"
) -> list[tuple[View, ...]]:
    """The views of an image: one for a radiograph, `slices` evenly spaced ones for a volume; each in all `sizes`.

    framing      "body": the box around the body, stretched to the square, so that place and size of the body, and the
                 borders that collimation leaves, differ less between images; "thorax": of a radiograph the window of
                 the thorax in it, of anything else the body; "image": all of it, on black
    window_name  as of `window.window_of`; percentiles are those of the body in all these slices together
    within       "image", or what is not blanked to 0: the "body", or the "lung" (the body where no lungs were found).
                 Slices of a CT that do not reach the lungs are then left out

    Raises `imaging.files.Unreadable` where the files cannot be read, and for "thorax" where its window is not known.
    """
    aligned = framing == "thorax" and source.kind == "radiograph"
    if aligned and source.window is None:
        raise Unreadable("no_place", "this radiograph was not accepted in the common space, so its thorax is not known")
    chosen, images = _slices(source, slices)
    found = places.find(images, source.modality, within)
    bodies = found.over(found.body, window.Frame((1.0, 1.0), (0.0, 0.0)), found.shape)
    values = [image[body] if body.any() else image for image, body in zip(images, bodies, strict=True)]
    seen_through = window.window_of(window_name, source.modality, values)
    box = None if framing == "image" else found.box()
    if aligned and source.window is not None:
        box = _pixels(source.window, found.shape)
    views = []
    for n, (index, image) in enumerate(zip(chosen, images, strict=True)):
        if not found.inside[n].any() and found.inside.any():
            continue
        sized = []
        for size in sizes:
            seen, frame = window.standardize(image, source.modality, size, seen_through, box)
            inside = found.over(found.inside[n : n + 1], frame, seen.shape)[0]
            if within != "image":
                seen = np.where(inside, seen, np.float32(0))
            sized.append(View(int(index), seen, frame, found.shape, inside, found.missing, aligned))
        views.append(tuple(sized))
    if within == "image":
        return views
    # A rim of lung may be less than half of any pixel of a small view: nothing would be left to look at.
    return [sized for sized in views if all(view.inside.any() for view in sized)] or views


def _pixels(box: thorax.Box, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of fractions in whole pixels, at least one of them inside the image."""
    (row0, col0), (row1, col1) = (np.rint(np.reshape(box, (2, 2)) * shape)).astype(int)
    row0, col0 = min(row0, shape[0] - 1), min(col0, shape[1] - 1)
    return int(row0), int(col0), int(max(row1, row0 + 1, 1)), int(max(col1, col0 + 1, 1))


def _slices(source: Source, count: int) -> tuple[NDArray[np.intp], list[Floats]]:
    """Evenly spaced slices of an image and their pixels. Where slices are files, no others are read."""
    refs = [FileRef(*file) for file in source.files]
    if len(refs) == 1:
        pixels = read_cached(refs, source.cache).pixels
        stack = pixels[None] if pixels.ndim == 2 else pixels
        chosen = window.slices(len(stack), count)
        return chosen, [stack[index] for index in chosen]
    chosen = window.slices(len(refs), count)
    images = [read_cached([refs[index]], source.cache).pixels for index in chosen]
    if any(image.ndim != 2 for image in images) or len({image.shape for image in images}) != 1:
        raise Unreadable("mixed_size", "slices of different sizes in one volume")
    return chosen, images


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches (n, side, side) of a view that lie on the body, at boxes (n, 4) of the view, with their features."""

    boxes: NDArray[np.int32]
    pixels: Floats
    features: Floats


def body_patches(view: View, side: int, stride: int) -> Patches:
    """Patches on a regular grid whose centre is inside; all of them where nothing is."""
    boxes = regions.grid(view.pixels.shape, side, stride)
    centre = (boxes[:, :2] + boxes[:, 2:]) // 2
    inside = view.inside[centre[:, 0], centre[:, 1]]
    boxes = boxes[inside] if inside.any() else boxes
    pixels = regions.cut(view.pixels, boxes)
    return Patches(boxes, pixels, regions.features(pixels, boxes, view.body))


def random_corners(
    inside: NDArray[np.bool_], side: int, count: int, rng: np.random.Generator
) -> list[tuple[slice, ...]]:
    """Where `count` patches of a view, or cubes of a volume, lie: at random places whose centre is inside."""
    half = side // 2
    free = inside[tuple(slice(half, n - side + half + 1) for n in inside.shape)]
    centres = np.flatnonzero(free)
    if not len(centres):
        centres = np.arange(free.size)
    drawn = centres[rng.integers(0, len(centres), count)]
    corners = np.stack(np.unravel_index(drawn, free.shape), axis=1)
    return [tuple(slice(int(at), int(at) + side) for at in corner) for corner in corners]
