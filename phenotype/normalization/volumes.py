"""Volumes registered to each other: an affine map by mutual information, then a smooth warp.

Affine: Mattes et al. 2003 ("PET-CT image registration in the chest using free-form deformations"), begun at several
places along the body, since a fragment may show any part of it. Warp: the symmetric forces of Thirion's demons
(Thirion 1998; Vercauteren et al. 2009), from coarse to fine; where the two are of different modalities, one is first
translated into the contrast of the other, anew at each level (Guimond et al. 2001). One thread and no chance: the same
volumes give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from phenotype.imaging import grids
from phenotype.imaging.geometry import directions
from phenotype.imaging.grids import Grid
from phenotype.imaging.window import resample

Floats = NDArray[np.float32]

# Hounsfield units to values: lung, soft tissue and bone have a part of the range each, so that organs of nearly the
# same density still pull at the warp.
HU = ((-1000.0, -150.0, 250.0, 1000.0), (0.0, 0.35, 0.8, 1.0))
BODY = 0.15  # a value that tells the body from the air around it
POINTS = 32  # nodes of a grid along the longest axis
STEP_MM = 30.0  # between the places along the body where a registration begins
STARTS = 3  # of them that are followed up
_LEVELS = ((3, 2), (2, 2), (1, 1))  # of the warp: how much coarser, and how many times the steps at full resolution


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume made ready: values (slices, rows, columns) from 0 to 1, its extent (mm) and the patient's directions
    (x, y, z) of its slices, rows and columns."""

    values: Floats
    extent: tuple[float, float, float]
    axes: NDArray[np.float64]
    contrast: str

    def to_mm(self, places: NDArray[Any]) -> NDArray[np.float64]:
        """Places (..., 3) as mm (x, y, z) along the patient's axes, from the middle of the volume."""
        return np.asarray((np.asarray(places, np.float64) - 0.5) * np.asarray(self.extent) @ self.axes)

    def to_places(self, mm: NDArray[Any]) -> NDArray[np.float64]:
        """The way back."""
        return np.asarray(np.asarray(mm, np.float64) @ self.axes.T / np.asarray(self.extent) + 0.5)


@dataclass(frozen=True, slots=True)
class Registration:
    """How an image lies in another.

    forward  the grid over the image of places in the other
    quality  0 to 1: how alike both are where the image shows a body, times the share of it that the other shows too
    folded   the share of the grid's cells that are turned inside out
    """

    forward: Grid
    quality: float
    folded: float


def prepare(
    pixels: Floats, spacing_mm: Sequence[float], orientation: Sequence[float] | None, contrast: str, spacing: float
) -> Volume:
    """A volume made ready to be registered, with cubic voxels of about `spacing` mm.

    orientation  the directions of a row and of a column, as DICOM has them; None for those of an axial volume
    contrast     the modality: volumes of the same one are taken to show the same tissue in the same way
    """
    counts = [max(4, round(n * mm / spacing)) for n, mm in zip(pixels.shape, spacing_mm, strict=True)]
    small = resample(pixels, (counts[0], counts[1], counts[2]))
    if contrast == "CT":
        values = np.interp(small, *HU)
    else:
        low, high = np.percentile(small, (1.0, 99.0))
        values = np.clip((small - low) / max(high - low, 1e-6), 0.0, 1.0)
    extent = tuple(float(n * mm) for n, mm in zip(pixels.shape, spacing_mm, strict=True))
    x1, y1, z1, x2, y2, z2 = orientation or (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    axes = directions((x1, y1, z1, x2, y2, z2))
    return Volume(values.astype(np.float32), (extent[0], extent[1], extent[2]), axes, contrast)


def register(image: Volume, other: Volume, *, fine: int = 30) -> Registration:
    """Register `image` to `other`; `fine` steps of the warp at full resolution (0: an affine map alone).

    Either may be a fragment of what the other shows. Raises ValueError where they share nothing at any start.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    fixed, moving = _as_itk(image), _as_itk(other)
    transform = _affine(image, other, fixed, moving)
    nodes = grids.nodes(grids.grid_shape(image.extent, POINTS))
    places = image.to_mm(nodes)
    if fine:
        alike = image.contrast == other.contrast  # else noise and what was translated badly pull at it before long
        field = _warp(fixed, moving, transform, alike, fine if alike else max(1, fine // 3))
        places = places + _at(field, image, nodes)
    mapped = np.array([transform.TransformPoint(p) for p in places.reshape(-1, 3).tolist()]).reshape(places.shape)
    forward = np.asarray(other.to_places(mapped), np.float32)
    return Registration(forward, quality(image, other, forward), grids.folded(forward))


def quality(image: Volume, other: Volume, forward: NDArray[Any]) -> float:
    """How alike an image and what `forward` finds for it in the other are, 0 to 1.

    The mean of the squared local correlation (Avants et al. 2008), which does not mind another contrast, over the
    structures of the image's body, times the share of that body which the other shows too.
    """
    from scipy.ndimage import map_coordinates

    places = grids.apply(forward, grids.centres(image.values.shape))
    seen = np.all((places > 0) & (places < 1), axis=-1)
    at = np.moveaxis(places * np.array(other.values.shape) - 0.5, -1, 0)
    found = map_coordinates(other.values.astype(np.float64), at, order=1, mode="nearest")
    body = image.values > BODY
    covered = float((body & seen).sum() / max(1, int(body.sum())))
    return likeness(image.values, found, body & seen, seen) * covered


def likeness(one: NDArray[Any], other: NDArray[Any], where: NDArray[np.bool_], seen: NDArray[np.bool_]) -> float:
    """The mean squared correlation of two arrays in windows of five, weighted by the contrast of the first; 0 to 1.

    where  the windows that count; seen: the elements that do
    """
    from scipy.ndimage import uniform_filter

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(uniform_filter(values.astype(np.float64), 5, mode="nearest"))

    share = np.maximum(mean(seen), 1e-6)
    a, b = one.astype(np.float64) * seen, other.astype(np.float64) * seen
    mean_a, mean_b = mean(a) / share, mean(b) / share
    var_a = np.maximum(mean(a * a) / share - mean_a**2, 0)
    var_b = np.maximum(mean(b * b) / share - mean_b**2, 0)
    both = mean(a * b) / share - mean_a * mean_b
    alike = np.minimum(both**2 / np.maximum(var_a * var_b, 1e-8), 1.0)
    weight = np.sqrt(var_a) * where
    return float((weight * alike).sum() / max(float(weight.sum()), 1e-9))


# ------------------------------------------------------------------------------------------------ affine


def _as_itk(volume: Volume) -> sitk.Image:
    """The volume as SimpleITK has it: its middle at (0, 0, 0)."""
    image = sitk.GetImageFromArray(volume.values)
    size = np.array(volume.values.shape)
    spacing = np.asarray(volume.extent) / size
    image.SetSpacing(spacing[::-1].tolist())
    image.SetDirection(volume.axes[::-1].T.ravel().tolist())  # columns: of columns, rows, slices
    image.SetOrigin((-(size - 1) / 2 * spacing @ volume.axes).tolist())
    return image


def _affine(image: Volume, other: Volume, fixed: sitk.Image, moving: sitk.Image) -> sitk.AffineTransform:
    """The best of several starts along the body, improved at coarse resolution, then the winner at a finer one."""
    small, large = sitk.Shrink(fixed, _shrink(fixed, 3)), sitk.Shrink(moving, _shrink(moving, 3))
    tried: list[tuple[float, tuple[float, float, float]]] = []
    for shift in _starts(image, other):
        start = sitk.AffineTransform(3)
        start.SetTranslation(shift)
        method = _metric(0.5)
        method.SetInitialTransform(start, inPlace=True)
        try:
            tried.append((float(method.MetricEvaluate(small, large)), shift))
        except RuntimeError:  # too little of the one lies in the other
            continue
    if not tried:
        raise ValueError("the volumes have nothing in common")
    best: tuple[float, sitk.AffineTransform] | None = None
    for _, shift in sorted(tried)[:STARTS]:
        start = sitk.AffineTransform(3)
        start.SetTranslation(shift)
        value = _improve(small, large, start, 0.5, 60)
        if value is not None and (best is None or value < best[0]):
            best = value, start
    if best is None:
        raise ValueError("the volumes have nothing in common")
    _improve(sitk.Shrink(fixed, _shrink(fixed, 2)), sitk.Shrink(moving, _shrink(moving, 2)), best[1], 0.5, 60)
    return best[1]


def _improve(
    fixed: sitk.Image, moving: sitk.Image, transform: sitk.Transform, share: float, steps: int
) -> float | None:
    """Improve a transform in place; the metric reached, or None where the volumes came apart on the way."""
    method = _metric(share)
    method.SetOptimizerAsRegularStepGradientDescent(4.0, 0.01, steps, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:
        return None
    return float(method.GetMetricValue())


def _metric(share: float) -> sitk.ImageRegistrationMethod:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(share, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _shrink(image: sitk.Image, factor: int) -> list[int]:
    return [max(1, min(factor, n // 8)) for n in image.GetSize()]


def _starts(image: Volume, other: Volume) -> list[tuple[float, float, float]]:
    """Shifts (mm) to begin with: along the body as far as either volume reaches beyond the other, and a little more;
    across it so that both bodies have their middle at one place."""
    lengths = [float(np.abs(v.axes[:, 2]) @ np.asarray(v.extent)) for v in (image, other)]
    reach = abs(lengths[1] - lengths[0]) / 2 + STEP_MM
    middle = [_middle(v) for v in (image, other)]
    across = middle[1] - middle[0]
    along = np.unique(np.append(np.linspace(-reach, reach, 1 + 2 * int(np.ceil(reach / STEP_MM))), across[2]))
    return [(float(across[0]), float(across[1]), float(z)) for z in along]


def _middle(volume: Volume) -> NDArray[np.float64]:
    """The middle of the body, mm (x, y, z)."""
    body = np.argwhere(volume.values > BODY)
    at = (body.mean(0) + 0.5) / volume.values.shape if len(body) else np.full(3, 0.5)
    return volume.to_mm(at)


# ------------------------------------------------------------------------------------------------ warp


def _warp(fixed: sitk.Image, moving: sitk.Image, transform: sitk.AffineTransform, alike: bool, fine: int) -> Floats:
    """The displacement (z, y, x, 3), mm along the patient's axes, to take before `transform`, over `fixed`."""
    own = sitk.GetArrayFromImage(fixed)
    ones = sitk.Image(moving.GetSize(), sitk.sitkFloat32) + 1
    ones.CopyInformation(moving)
    shown = sitk.GetArrayFromImage(sitk.Resample(ones, fixed, transform, sitk.sitkLinear, 0.0)) > 0.5
    found = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    field: sitk.Image | None = None
    for levels in [_LEVELS] if alike else [_LEVELS[:1], _LEVELS[:2], _LEVELS]:
        one, other = own, found
        if not alike:
            there = found if field is None else sitk.GetArrayFromImage(_moved(_like(found, fixed), field))
            one, other = _one_contrast(own, found, there, shown)
        other = np.where(shown, other, one)  # what is not there must not pull
        field = _demons(_like(one, fixed), _like(other, fixed), [(f, fine * n) for f, n in levels])
    return np.asarray(sitk.GetArrayFromImage(field), np.float32)


def _demons(fixed: sitk.Image, moving: sitk.Image, levels: Sequence[tuple[int, int]]) -> sitk.Image:
    """The displacement over `fixed`, from coarse to fine: of how much coarser, and how many steps."""
    field: sitk.Image | None = None
    for factor, steps in levels:
        shrink = _shrink(fixed, factor)
        one, other = fixed, moving
        if factor > 1:
            sigma = [0.4 * s * k for s, k in zip(shrink, fixed.GetSpacing(), strict=True)]
            one, other = (sitk.Shrink(sitk.SmoothingRecursiveGaussian(v, sigma), shrink) for v in (fixed, moving))
        demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        demons.SetNumberOfIterations(steps)
        demons.SetStandardDeviations(1.5)
        demons.SetSmoothDisplacementField(True)
        field = demons.Execute(one, other) if field is None else demons.Execute(one, other, _over(field, one))
    return _over(field, fixed)


def _over(field: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A displacement field at the voxels of an image; beyond its border voxels it stays as it is there."""
    return sitk.Resample(field, image, sitk.Transform(), sitk.sitkLinear, 0.0, field.GetPixelID(), True)


def _moved(image: sitk.Image, field: sitk.Image) -> sitk.Image:
    warp = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    return sitk.Resample(image, image, warp, sitk.sitkLinear, 0.0)


def _like(values: NDArray[Any], image: sitk.Image) -> sitk.Image:
    made = sitk.GetImageFromArray(np.asarray(values, np.float32))
    made.CopyInformation(image)
    return made


def _one_contrast(own: Floats, found: Floats, there: Floats, shown: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Both with the contrast of one of them: each value of the other becomes the mean of what lies there.

    After Guimond et al. 2001, with a table of means for their polynomials. Bone and air are both dark in MR, and far
    apart in CT: so that one is translated whose values tell more of the other's (Roche et al. 1998).

    there: `found` as far as it is aligned by now
    """
    a, b = own[shown].astype(np.float64), there[shown].astype(np.float64)
    to_own, sure = _means(b, a)
    to_found, surer = _means(a, b)
    at = np.linspace(0.0, 1.0, len(to_own))
    if sure >= surer:
        return own, np.interp(found, at, to_own).astype(np.float32)
    return np.interp(own, at, to_found).astype(np.float32), found


def _means(given: NDArray[np.float64], wanted: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """The mean of `wanted` for each of 33 values of `given` from 0 to 1, and the share of its variance explained."""
    index = np.rint(given * 32).astype(np.intp)
    count = np.bincount(index, minlength=33)
    mean = np.bincount(index, wanted, 33) / np.maximum(count, 1)
    known = np.flatnonzero(count)
    filled = np.interp(np.arange(33), known, mean[known])
    rest = float(np.mean((wanted - mean[index]) ** 2))
    return filled, 1.0 - rest / max(float(wanted.var()), 1e-9)


def _at(field: Floats, image: Volume, nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """A field over the voxels of an image at the nodes of a grid over it."""
    from scipy.ndimage import map_coordinates

    at = np.moveaxis(nodes * np.array(image.values.shape) - 0.5, -1, 0)
    return np.stack([map_coordinates(field[..., k], at, order=1, mode="nearest") for k in range(3)], axis=-1)
