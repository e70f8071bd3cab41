"""What a model sees of an image: standardized views, patches of them, and the way back to the image's own pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import regions, window
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Source:
    """An image to be read: its kind, its modality and its files in order."""

    kind: str
    modality: str
    files: tuple[tuple[str, str], ...]


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

    def without_border(self, seen: Floats) -> Floats:
        """What lies over the image of a map over the view: the black border beside it left out."""
        scale = seen.shape[0] / self.pixels.shape[0]
        top, left = (round(offset * scale) for offset in self.frame.offset)
        height, width = (max(1, round(n * s * scale)) for n, s in zip(self.shape, self.frame.scale, strict=True))
        return seen[top : top + height, left : left + width]


def read_views(source: Source, sizes: Sequence[int], slices: int) -> list[tuple[View, ...]]:
    """The views of an image: one for a radiograph, `slices` evenly spaced ones for a volume; each in all `sizes`.

    Raises `imaging.files.Unreadable` where the files cannot be read.
    """
    pixels = read_pixels([FileRef(*file) for file in source.files]).pixels
    stack = pixels[None] if pixels.ndim == 2 else pixels
    views = []
    for index in window.slices(stack, slices):
        standardized = [window.standardize(stack[index], source.modality, size) for size in sizes]
        shape = (int(stack.shape[1]), int(stack.shape[2]))
        views.append(tuple(View(int(index), seen, frame, shape) for seen, frame in standardized))
    return views


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches (n, side, side) of a view that lie on the body, at boxes (n, 4) of the view, with their features."""

    boxes: NDArray[np.int32]
    pixels: Floats
    features: Floats


def body_patches(view: View, side: int, stride: int) -> Patches:
    """Patches on a regular grid whose centre is on the body; all of them where no body was found."""
    body = regions.foreground(view.pixels)
    boxes = regions.grid(view.pixels.shape, side, stride)
    centre = (boxes[:, :2] + boxes[:, 2:]) // 2
    inside = body[centre[:, 0], centre[:, 1]]
    boxes = boxes[inside] if inside.any() else boxes
    pixels = regions.cut(view.pixels, boxes)
    return Patches(boxes, pixels, regions.features(pixels, boxes, regions.box_of(body)))


def random_patches(view: View, side: int, count: int, rng: np.random.Generator) -> Floats:
    """`count` patches (count, side, side) at random places of the body."""
    body = regions.foreground(view.pixels)
    half, size = side // 2, view.pixels.shape[0]
    places = np.argwhere(body[half : size - half + 1, half : size - half + 1])
    if len(places) == 0:
        places = np.argwhere(np.ones((size - side + 1, size - side + 1), dtype=np.bool_))
    corners = places[rng.integers(0, len(places), count)].astype(np.int32)
    return regions.cut(view.pixels, np.hstack([corners, corners + side]).astype(np.int32))
