"""Trained models at work on one image at a time.

One thread and one image a call: sums of floats depend on both, and a result must not depend on who computed it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from phenotype.features.views import Source, View, body_patches, read_views
from phenotype.imaging import masks
from phenotype.models.base import ImageModel
from phenotype.models.calibrate import Calibration
from phenotype.models.files import load_calibration, load_model

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """The vector of an image (d,) and of its n regions (n, e), their slices (n,) and boxes (n, 4) as fractions."""

    whole: Floats
    slices: NDArray[np.int32]
    boxes: Floats
    regions: Floats


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """How far an image is from normal, and where it is furthest: the slice, the place as fractions, the map there."""

    score: float
    p_value: float | None
    slice: int
    row: float
    column: float
    map: NDArray[np.float16]


@lru_cache(maxsize=4)
def trained(folder: Path) -> tuple[ImageModel, Calibration | None]:
    """The model in a folder and its calibration; loaded once in each process."""
    return load_model(folder), load_calibration(folder)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def embed_image(
    source: Source, whole: ImageModel, patches: ImageModel, *, resolution: int, stride: int, slices: int, framing: str
) -> EmbeddedImage:
    """Embed an image and its regions. A region's vector is the patch model's code, its texture and its place."""
    codes, boxes, places, vectors = [], [], [], []
    for seen, fine in read_views(source, [whole.recipe.size, resolution], slices, framing):
        codes.append(whole.embed(_tensor(seen.pixels[None])).numpy()[0])
        found = body_patches(fine, patches.recipe.size, stride)
        vectors.append(np.hstack([patches.embed(_tensor(found.pixels)).numpy(), found.features]))
        corners = fine.to_fractions(found.boxes.reshape(-1, 2, 2).astype(np.float64))
        boxes.append(corners.reshape(-1, 4).astype(np.float32))
        places.append(np.full(len(found.boxes), fine.slice, np.int32))
    return EmbeddedImage(
        np.asarray(np.mean(codes, axis=0, dtype=np.float64), np.float32),
        np.concatenate(places),
        np.concatenate(boxes),
        np.concatenate(vectors).astype(np.float32),
    )


def score_image(
    source: Source, model: ImageModel, calibration: Calibration | None, *, slices: int, framing: str
) -> ScoredImage:
    """Score an image: a volume by the slice that is furthest from normal.

    The map is in standard deviations from what is usual at each pixel where the model was calibrated, else raw.
    """
    best: tuple[float, View, Floats] | None = None
    for (view,) in read_views(source, [model.recipe.size], slices, framing):
        scores, maps = model.score(_tensor(view.pixels[None]))
        score = float(scores[0])
        if best is None or score > best[0]:
            best = score, view, maps.numpy()[0]
    if best is None:
        raise ValueError("an image without a slice")
    score, view, seen = best
    if calibration is not None:
        seen = calibration.z_maps(seen[None])[0]
    smooth = np.where(masks.body_mask(view.pixels), ndimage.gaussian_filter(seen, 1.0), -np.inf)
    peak = np.asarray(np.unravel_index(int(smooth.argmax()), smooth.shape), np.float64)
    row, column = view.to_fractions(peak + 0.5)
    p_value = None if calibration is None else float(calibration.p_values([score])[0])
    return ScoredImage(score, p_value, view.slice, float(row), float(column), view.over_image(seen).astype(np.float16))


def _tensor(images: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
