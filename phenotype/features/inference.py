"""Trained models at work on one image at a time.

One thread and one image a call: sums of floats depend on both, and a result must not depend on who computed it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from phenotype.features.supervoxels import divide_views, divide_volume
from phenotype.features.views import Look, Patches, Source, View, body_patches, read_views
from phenotype.features.volumes import Volume, read_volume
from phenotype.imaging.descriptors import contralateral, texture
from phenotype.imaging.files import Unreadable
from phenotype.models.base import ImageModel, Reduction, reduce_map
from phenotype.models.calibrate import Calibration
from phenotype.models.ensemble import Ensemble
from phenotype.models.files import load_calibration, load_model
from phenotype.models.sliding import Sliding, slide

Floats = NDArray[np.float32]
HALF = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class EmbeddedImage:
    """The vector of an image (d,) and of its n regions (n, e), their slices (n,) and boxes (n, 4) as fractions; of
    supervoxels their label map (slices, rows, columns) too."""

    whole: Floats
    slices: NDArray[np.int32]
    boxes: Floats
    regions: Floats
    labels: NDArray[np.int32] | None = None


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


@lru_cache(maxsize=4)
def together(folders: tuple[Path, ...]) -> tuple[ImageModel, Calibration | None]:
    """The model in one folder, or those in several as one, and the calibration; ValueError where one has none."""
    if len(folders) == 1:
        return trained(folders[0])
    members = []
    for folder in folders:
        model, calibration = trained(folder)
        if calibration is None:
            raise ValueError(f"the model in {folder.name} is not calibrated: it cannot score together with others")
        members.append((model, calibration))
    ensemble = Ensemble(members)
    return ensemble, ensemble.paired_calibration()


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
    source: Source,
    whole: ImageModel,
    patches: ImageModel,
    *,
    look: Look,
    resolution: int,
    stride: int,
    slices: int,
    descriptors: str = "plain",
    regions: str = "patches",
) -> EmbeddedImage:
    """Embed an image and its regions. A region's vector is the patch model's code, what `descriptors` (see DESCRIPTORS)
    tell of it, its texture and its place.

    Regions of a model of cubes are cubes of the whole study; their texture is that of their middle plane. `look` is
    that of the patch model. Of `regions` "supervoxels", `stride` is the side, and they are described in a way of their
    own (`features.supervoxels`).
    """
    sizes = [whole.recipe.size] + [resolution] * (look.dims == 2)
    views = read_views(source, sizes, slices, look.framing, look.window, look.within)
    codes = [whole.embed(_tensor(view.pixels[None])).numpy()[0] for view, *_ in views]
    code = np.asarray(np.mean(codes, axis=0, dtype=np.float64), np.float32)
    if regions == "supervoxels":
        if look.dims == 3:
            found = divide_volume(read_volume(source, look), patches, stride)
        else:
            found = divide_views([fine for _, fine in views], patches, stride)
        return EmbeddedImage(code, found.slices, found.boxes, found.vectors, found.labels)
    if look.dims == 3:
        regions_of = _cubes(read_volume(source, look), patches, stride, descriptors)
    else:
        regions_of = (
            _regions(fine, body_patches(fine, patches.recipe.size, stride), patches, descriptors) for _, fine in views
        )
    places, boxes, vectors = zip(*regions_of, strict=True)
    return EmbeddedImage(
        code,
        np.concatenate(places),
        np.concatenate(boxes),
        np.concatenate(vectors).astype(np.float32),
    )


def _regions(
    view: View, found: Patches, model: ImageModel, descriptors: str, cubes: Floats | None = None
) -> tuple[NDArray[np.int32], Floats, Floats]:
    """Slices (n,), boxes (n, 4) as fractions and vectors (n, e) of patches, or of the cubes whose middle they are."""
    codes = model.embed(_tensor(found.pixels if cubes is None else cubes)).numpy()
    corners = view.to_fractions(found.boxes.reshape(-1, 2, 2).astype(np.float64)).reshape(-1, 4)
    slices = np.full(len(found.boxes), view.slice, np.int32)
    return slices, corners.astype(np.float32), np.hstack([codes, _described(view, found, descriptors), found.features])


def _described(view: View, found: Patches, descriptors: str) -> Floats:
    """What `descriptors` tell of each patch (n, d)."""
    if descriptors == "plain":
        return np.empty((len(found.boxes), 0), np.float32)
    seen = texture(view.pixels, found.boxes)
    if descriptors == "texture":
        return seen
    return np.hstack([seen, contralateral(seen, found.features[:, -2:])])


def _cubes(
    volume: Volume, model: ImageModel, stride: int, descriptors: str
) -> Iterator[tuple[NDArray[np.int32], Floats, Floats]]:
    """Regions of a volume, layer by layer; all cubes of the layers where nothing is inside of any."""
    side, half = model.recipe.size, model.recipe.size // 2
    layers = range((len(volume.pixels) - side) % stride // 2, len(volume.pixels) - side + 1, stride)
    nowhere = True
    for start in layers:
        view = volume.plane(start + half)
        if not view.inside.any() and not (nowhere and start == layers[-1]):
            continue
        nowhere = False
        found = body_patches(view, side, stride)
        corners = found.boxes[:, :2]
        cubes = np.stack([volume.pixels[start : start + side, r : r + side, c : c + side] for r, c in corners])
        yield _regions(view, found, model, descriptors, cubes)


def score_image(
    source: Source, model: ImageModel, calibration: Calibration | None, *, look: Look, slices: int
) -> ScoredImage:
    """Score an image: a volume by the slice that is furthest from normal, or, by a model of cubes, as a whole.

    The map is in standard deviations from what is usual at each pixel where the model was calibrated on whole views,
    else raw; 0 where `look` leaves nothing to see. A model of patches slides over the view or volume (`Sliding`), its
    map is of the slice where the mean of the map is highest.
    """
    if look.dims == 3:
        return _score_volume(read_volume(source, look), model, calibration, look)
    if look.patch and not isinstance(model, Sliding):
        model = Sliding(model, look.resolution, cast(Reduction, look.reduction))
    best: tuple[float, View, Floats] | None = None
    for (view,) in read_views(source, [model.recipe.size], slices, look.framing, look.window, look.within):
        counts = torch.from_numpy(view.inside[None]) if look.patch or look.within != "image" else None
        scores, maps = model.score(_tensor(view.pixels[None]), counts)
        score = float(scores[0])
        if best is None or score > best[0]:
            best = score, view, maps.numpy()[0]
    if best is None:
        raise ValueError("an image without a slice")
    score, view, seen = best
    if calibration is not None:
        seen = calibration.z_maps(seen[None])[0]
        if look.patch or look.within != "image":
            seen = np.where(view.inside, seen, np.float32(0))
    return _scored(score, view, seen, calibration)


def score_volume(volume: Volume, model: ImageModel, reduction: str) -> tuple[float, Floats]:
    """Score and map (z, y, x) of a volume by a model of cubes."""
    with torch.no_grad():
        scores, seen = slide(model, torch.from_numpy(volume.pixels), torch.from_numpy(volume.inside))
        return float(reduce_map(scores[None], cast(Reduction, reduction))[0]), seen.numpy()


def _score_volume(volume: Volume, model: ImageModel, calibration: Calibration | None, look: Look) -> ScoredImage:
    score, seen = score_volume(volume, model, look.reduction)
    planes = seen.sum(axis=(1, 2)) / np.maximum(volume.inside.sum(axis=(1, 2)), volume.inside[0].size / 20)
    z = int(planes.argmax())  # a plane with hardly anything inside is no place to look at
    return _scored(score, volume.plane(z), seen[z], calibration)


def calibrate_volumes(sources: Sequence[Source], model: ImageModel, look: Look) -> Calibration | None:
    """A calibration of the scores of whole volumes, of a patient each; it knows nothing of pixels. None where fewer
    than two can be read."""
    scores = []
    for source in sources:
        try:
            scores.append(score_volume(read_volume(source, look), model, look.reduction)[0])
        except Unreadable:
            continue
    if len(scores) < 2:
        return None
    shape = model.recipe.shape
    return Calibration(
        scores=np.asarray(scores, np.float64),
        patients=np.arange(len(scores)),
        pixel_mean=np.zeros(shape, np.float32),
        pixel_std=np.ones(shape, np.float32),
        pixel_grid=np.zeros((0, *shape), np.float32),
        pixel_shares=np.zeros(0),
        pixel_count=np.zeros(shape, np.int32),
    )


def _scored(score: float, view: View, seen: Floats, calibration: Calibration | None) -> ScoredImage:
    smooth = np.where(view.inside, ndimage.gaussian_filter(seen, 1.0), -np.inf)
    peak = np.asarray(np.unravel_index(int(smooth.argmax()), smooth.shape), np.float64)
    row, column = view.to_fractions(peak + 0.5)
    p_value = None if calibration is None else float(calibration.p_values([score])[0])
    kept = np.clip(view.over_image(seen), -HALF, HALF).astype(np.float16)
    return ScoredImage(score, p_value, view.slice, float(row), float(column), kept)


def _tensor(images: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))[:, None]
