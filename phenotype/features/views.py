"""What a model sees of an image: standardized views, patches of them, and the way back to the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import masks, regions, window
from phenotype.imaging.cache import read_cached
from phenotype.imaging.files import FileRef, Unreadable

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Source:
    """An image to be read: its kind, its modality and its files in order; `cache` is the folder of decoded pixels."""

    kind: str
    modality: str
    files: tuple[tuple[str, str], ...]
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class View:
    """A square view of one slice (0 for a radiograph) of an image of `shape` (rows, columns)."""

    slice: int
    pixels: Floats
    frame: window.Frame
    shape: tuple[int, int]

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


COARSE = 128  # side of the view in which the body is looked for


def read_views(source: Source, sizes: Sequence[int], slices: int, framing: str) -> list[tuple[View, ...]]:
    """The views of an image: one for a radiograph, `slices` evenly spaced ones for a volume; each in all `sizes`.

    framing  "body": the box around the body, stretched to the square, so that place and size of the body, and the
             borders that collimation leaves, differ less between images; "image": all of it, on black

    Raises `imaging.files.Unreadable` where the files cannot be read.
    """
    chosen, images = _slices(source, slices)
    shape = (int(images[0].shape[0]), int(images[0].shape[1]))
    box = body_box(images, source.modality) if framing == "body" else None
    views = []
    for index, image in zip(chosen, images, strict=True):
        standardized = [window.standardize(image, source.modality, size, box=box) for size in sizes]
        views.append(tuple(View(int(index), seen, frame, shape) for seen, frame in standardized))
    return views


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


def body_box(images: Sequence[Floats], modality: str) -> tuple[int, int, int, int]:
    """The box (row0, col0, row1, col1) around the body in any of these images of one shape."""
    corners = []
    for image in images:
        view, frame = window.standardize(image, modality, COARSE)
        row0, col0, row1, col1 = regions.box_of(masks.body_mask(view))
        corners.append(frame.to_original([[row0, col0], [row1, col1]]))
    shape = np.asarray(images[0].shape)
    low = np.floor(np.clip(np.min([c[0] for c in corners], axis=0), 0, shape - 1)).astype(int)
    high = np.ceil(np.clip(np.max([c[1] for c in corners], axis=0), low + 1, shape)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches (n, side, side) of a view that lie on the body, at boxes (n, 4) of the view, with their features."""

    boxes: NDArray[np.int32]
    pixels: Floats
    features: Floats


def body_patches(view: View, side: int, stride: int) -> Patches:
    """Patches on a regular grid whose centre is on the body; all of them where no body was found."""
    body = masks.body_mask(view.pixels)
    boxes = regions.grid(view.pixels.shape, side, stride)
    centre = (boxes[:, :2] + boxes[:, 2:]) // 2
    inside = body[centre[:, 0], centre[:, 1]]
    boxes = boxes[inside] if inside.any() else boxes
    pixels = regions.cut(view.pixels, boxes)
    return Patches(boxes, pixels, regions.features(pixels, boxes, regions.box_of(body)))


def random_patches(view: View, side: int, count: int, rng: np.random.Generator) -> Floats:
    """`count` patches (count, side, side) at random places of the body."""
    body = masks.body_mask(view.pixels)
    half, size = side // 2, view.pixels.shape[0]
    places = np.argwhere(body[half : size - half + 1, half : size - half + 1])
    if len(places) == 0:
        places = np.argwhere(np.ones((size - side + 1, size - side + 1), dtype=np.bool_))
    corners = places[rng.integers(0, len(places), count)].astype(np.int32)
    return regions.cut(view.pixels, np.hstack([corners, corners + side]).astype(np.int32))
