"""Where body and lungs are in the slices of one image: looked for in small views of them, whatever a model sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import masks, regions, window

COARSE = 128  # side of the view in which body and lungs are looked for
WITHIN = ("image", "body", "lung")

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Places:
    """Masks (slices, COARSE, COARSE) over whole slices of `shape` (rows, columns), laid over them by `frame`.

    inside   the lungs where they were asked for and found, else the body
    missing  the lungs were asked for and not found
    """

    body: Mask
    inside: Mask
    frame: window.Frame
    shape: tuple[int, int]
    missing: bool

    def over(self, mask: Mask, frame: window.Frame, shape: tuple[int, int]) -> Mask:
        """Masks (slices, COARSE, COARSE) as seen in views of `shape` that `frame` lays over the slices."""
        at = np.arange(max(shape)) + 0.5
        points = frame.to_original(np.stack([at, at], axis=1))
        rows, columns = points[: shape[0], 0], points[: shape[1], 1]
        there = (rows >= 0) & (rows < self.shape[0]), (columns >= 0) & (columns < self.shape[1])
        ends = np.zeros((max(shape), 2))
        ends[: shape[0], 0], ends[: shape[1], 1] = rows, columns
        index = np.clip(self.frame.to_view(ends), 0, COARSE - 1).astype(np.intp)
        seen = mask[:, index[: shape[0], 0]][:, :, index[: shape[1], 1]]
        return np.asarray(seen & there[0][:, None] & there[1])

    def box(self) -> tuple[int, int, int, int]:
        """The box (row0, col0, row1, col1) around the body in any of the slices, in their own pixels."""
        row0, col0, row1, col1 = regions.box_of(np.asarray(self.body.any(axis=0)))
        low, high = np.clip(self.frame.to_original([[row0, col0], [row1, col1]]), 0, self.shape)
        low = np.minimum(np.floor(low), np.asarray(self.shape) - 1).astype(int)
        high = np.maximum(np.ceil(high), low + 1).astype(int)
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def find(slices: Sequence[Floats] | Floats, modality: str, within: str) -> Places:
    """Look for the body and, where `within` is "lung", for the lungs in slices of one shape, in order.

    Lungs are known in CT, by Hounsfield units, and in radiographs; not in MR or anything else that has slices.
    """
    range_ = window.window_of("", modality, slices)
    views, frames = zip(*(window.standardize(s, modality, COARSE, range_) for s in slices), strict=True)
    frame, shape = frames[0], (int(slices[0].shape[0]), int(slices[0].shape[1]))
    bodies = np.stack([masks.body_mask(view) for view in views])
    lungs: Mask | None = None
    if within == "lung" and modality == "CT":
        box = _covered(frame, shape)
        small = [window.resize(s, box[2] - box[0], box[3] - box[1]) for s in slices]
        hounsfield = np.full((len(slices), COARSE, COARSE), -1000.0, np.float32)
        hounsfield[:, box[0] : box[2], box[1] : box[3]] = small
        found = masks.ct_lung_mask(hounsfield)
        lungs = found.labels > 0 if found.found else None
    elif within == "lung" and len(slices) == 1 and modality != "MR":
        box = _covered(frame, shape)
        seen = masks.lung_mask(views[0][box[0] : box[2], box[1] : box[3]])
        if seen.found:
            lungs = np.zeros_like(bodies)
            lungs[0, box[0] : box[2], box[1] : box[3]] = seen.labels > 0
    return Places(
        body=bodies,
        inside=bodies if lungs is None else lungs,
        frame=frame,
        shape=shape,
        missing=within == "lung" and lungs is None,
    )


def _covered(frame: window.Frame, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box of a view that an image of `shape` covers."""
    (row0, col0), (row1, col1) = np.rint(frame.to_view([(0, 0), shape])).astype(int)
    return int(row0), int(col0), int(row1), int(col1)
