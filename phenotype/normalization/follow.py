"""The images of a patient registered to the one before, and places followed between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from phenotype.imaging import grids
from phenotype.imaging.grids import Grid
from phenotype.normalization import images, radiographs
from phenotype.normalization.images import Source
from phenotype.normalization.spots import Places, Spot, TermSeen, score_at, spots
from phenotype.normalization.volumes import likeness, register

Floats = NDArray[np.float32]

NEAR = 0.08  # spots nearer than this, as a fraction of the image, are one, or nearer than half of their mean size
SMALL = 0.15  # an affine refinement that moves a corner by more than this is a mistake


@dataclass(frozen=True, slots=True)
class Link:
    """How a later image lies in the earlier one, and back; `quality` 0 to 1 is that of `volumes.quality`."""

    route: str
    quality: float
    forward: Grid
    backward: Grid


@dataclass(frozen=True, slots=True)
class Viewed:
    """An image with what is seen on it: terms by concept, its regions, the size of a slice in mm if known."""

    source: Source
    terms: Mapping[str, TermSeen]
    places: Places | None


@dataclass(frozen=True, slots=True)
class Tracked:
    """A place of a concept in both images; fields as of `db.tables.Track`."""

    concept: str
    number: int
    later: Spot
    earlier: Spot
    score: float | None
    earlier_score: float | None
    size_mm: float | None
    earlier_size_mm: float | None


def link(later: Source, earlier: Source, *, spacing: float, fine: int) -> Link:
    """Register a later image to an earlier one of the same kind. Raises `Unreadable` where one cannot be read, and
    ValueError where volumes have nothing in common."""
    if later.kind == "volume":
        one, other = (images.volume_of(source, spacing) for source in (later, earlier))
        found = register(one, other, fine=fine)
        back = grids.invert(found.forward, grids.grid_shape(other.extent, max(found.forward.shape)))
        return Link("direct", found.quality, found.forward, back)
    return link_radiographs(images.read(later)[0], images.read(earlier)[0])


def link_radiographs(later: Floats, earlier: Floats) -> Link:
    """By the lungs of both, or as the pictures lie, and then by what they show as long as that moves little; of these
    ways the one on which they look most alike: lungs may be found in one and not, or elsewhere, in the other."""
    one, other = radiographs.place(later), radiographs.place(earlier)
    back = grids.invert(other.forward, (radiographs.POINTS,) * 2)
    by_lungs = grids.compose(one.forward, back)
    as_they_lie = np.asarray(grids.nodes(by_lungs.shape[:-1]), np.float32)
    seen, before = radiographs.view_of(later), radiographs.view_of(earlier)
    ways = {"lungs": by_lungs, "lungs and picture": _refined(seen, before, by_lungs)}
    ways["picture"] = _refined(seen, before, as_they_lie)
    judged = {route: _alike(seen, before, grid) for route, grid in ways.items()}
    route = max(judged, key=judged.__getitem__)  # of equals the first
    best = ways[route]
    return Link(route, judged[route], best, grids.invert(best, grids.grid_shape(earlier.shape, radiographs.POINTS)))


def _taken(view: Floats, other: Floats, forward: Grid) -> tuple[Floats, NDArray[np.bool_]]:
    """What the other picture shows at each pixel of a view, and where it shows anything."""
    from scipy.ndimage import map_coordinates

    places = grids.apply(forward, grids.centres(view.shape))
    at = np.moveaxis(places * np.array(other.shape) - 0.5, -1, 0)
    inside = np.all((places > 0) & (places < 1), axis=-1)
    return map_coordinates(other, at, order=1, mode="nearest").astype(np.float32), inside


def _alike(view: Floats, other: Floats, forward: Grid) -> float:
    found, inside = _taken(view, other, forward)
    return likeness(view, found, inside, inside) * float(inside.mean())


def _refined(view: Floats, other: Floats, forward: Grid) -> Grid:
    """With an affine map before it that makes both pictures look most alike, by mutual information: exposures differ.

    The grid as it was, where that would move a corner far.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    found, _ = _taken(view, other, forward)
    fixed, moving = (sitk.GetImageFromArray(_detail(v)) for v in (view, found))
    transform = sitk.AffineTransform(2)
    transform.SetCenter([(n - 1) / 2 for n in fixed.GetSize()])
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 0.005, 60, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.SetInitialTransform(transform, inPlace=True)
    try:
        method.Execute(fixed, moving)
    except RuntimeError:  # nothing of the one lies in the other
        return forward
    matrix = np.array(transform.GetMatrix()).reshape(2, 2)
    centre, shift = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    nodes = grids.nodes(forward.shape[:-1])
    size = np.array(view.shape)
    xy = (nodes * size - 0.5)[..., ::-1]
    moved = ((xy - centre) @ matrix.T + centre + shift)[..., ::-1]
    places = (moved + 0.5) / size
    if np.abs(places - nodes).max() > SMALL:
        return forward
    return np.asarray(grids.apply(forward, places), np.float32)


def _detail(view: Floats) -> Floats:
    """A picture of even contrast: what stands out from its surroundings."""
    from scipy.ndimage import gaussian_filter

    rest = view - gaussian_filter(view, 12.0)
    return np.asarray(rest / (np.sqrt(gaussian_filter(rest * rest, 12.0)) + 0.02), np.float32)


# ------------------------------------------------------------------------------------------------ places


def follow(later: Viewed, earlier: Viewed, found: Link) -> list[Tracked]:
    """The spots of each concept that is called on either image, in both: spots that come to lie on each other are one;
    the others are carried over, and what the map says there is read off."""
    tracked: list[Tracked] = []
    for concept in sorted(later.terms.keys() & earlier.terms.keys()):
        new, old = later.terms[concept], earlier.terms[concept]
        if later.places is None or earlier.places is None or not (new.called or old.called):
            continue
        theirs = spots(old, earlier.places, slice_mm(earlier.source))
        number = 0
        for spot in spots(new, later.places, slice_mm(later.source)):
            number += 1
            there = _carried(spot, found.forward, later.source, earlier.source)
            match = min(theirs, key=lambda s: _apart(s, there, earlier.source), default=None)
            if match is not None and _apart(match, there, earlier.source) <= _reach(match, spot, earlier.source):
                theirs.remove(match)
                tracked.append(
                    Tracked(concept, number, spot, match, spot.score, match.score, spot.size_mm, match.size_mm)
                )
            else:
                value = score_at(old.scores, earlier.places, there.slice, there.row, there.column)
                tracked.append(Tracked(concept, number, spot, there, spot.score, value, spot.size_mm, None))
        for spot in theirs:
            number += 1
            here = _carried(spot, found.backward, earlier.source, later.source)
            value = score_at(new.scores, later.places, here.slice, here.row, here.column)
            tracked.append(Tracked(concept, number, here, spot, value, spot.score, None, spot.size_mm))
    return tracked


def slice_mm(source: Source) -> tuple[float, float] | None:
    """The size of a slice, (rows, columns); None where that is not known."""
    if not source.spacing:
        return None
    rows, columns = (n * mm for n, mm in zip(source.shape[-2:], source.spacing[-2:], strict=True))
    return float(rows), float(columns)


def point(spot: Spot, source: Source) -> NDArray[np.float64]:
    """The place of a spot as fractions along all axes of its image."""
    at = [spot.row, spot.column]
    return np.array([(spot.slice + 0.5) / source.shape[0], *at] if source.kind == "volume" else at)


def _carried(spot: Spot, grid: NDArray[Any], start: Source, end: Source) -> Spot:
    to = np.clip(grids.apply(grid, point(spot, start)), 0.0, 1.0).tolist()
    slice_ = min(int(to[0] * end.shape[0]), end.shape[0] - 1) if end.kind == "volume" else 0
    return Spot(slice_, to[-2], to[-1], None, spot.score)


def _apart(one: Spot, other: Spot, source: Source) -> float:
    return float(np.linalg.norm(point(one, source) - point(other, source)))


def _reach(one: Spot, other: Spot, source: Source) -> float:
    """How far apart two spots may be and be the same."""
    size = slice_mm(source)
    if size is None or one.size_mm is None or other.size_mm is None:
        return NEAR
    return max(NEAR, 0.25 * (one.size_mm + other.size_mm) / max(size))
