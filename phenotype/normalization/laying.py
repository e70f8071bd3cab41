"""One image laid into the common space: volumes onto the reference, frontal radiographs onto the thorax."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from phenotype.imaging import grids
from phenotype.imaging.grids import Corner, Grid
from phenotype.normalization import images, mean, organs, radiographs
from phenotype.normalization.images import Source, Space
from phenotype.normalization.organs import OrganThere
from phenotype.normalization.templates import normalize
from phenotype.normalization.volumes import POINTS

LATERAL = ("LATERAL", "LL", "RL", "LLD", "RLD")
REFERENCE = "reference"


@dataclass(frozen=True, slots=True)
class Laid:
    """How an image lies in the common space; fields as of `db.tables.Alignment`."""

    route: str
    quality: float
    accepted: bool
    reason: str
    forward: Grid
    backward: Grid
    low: Corner | None
    high: Corner | None
    organs: list[OrganThere] = field(default_factory=list)


def lay(source: Source, space: Space, *, gate: float, threshold: float) -> Laid:
    """Lay an image into the common space. Raises `Unreadable` where its files cannot be read."""
    if source.kind == "radiograph":
        return _radiograph(source, space, threshold)
    return _volume(source, space, gate, threshold)


def _radiograph(source: Source, space: Space, threshold: float) -> Laid:
    pixels, _ = images.read(source)
    frontal = source.view.upper() not in LATERAL
    placed = _frontal(pixels, space, threshold) if frontal else radiographs.place_by_body(pixels, "no frontal view")
    accepted = frontal and placed.quality >= threshold
    reason = placed.reason or ("" if accepted else f"quality below {threshold:g}")
    return _laid(placed.route, placed.quality, accepted, reason, placed.forward, (radiographs.POINTS,) * 2)


def _frontal(pixels: images.Floats, space: Space, threshold: float) -> radiographs.Placed:
    """By the mean; where there is none, or the image does not resemble it, by its own lungs."""
    average = images.mean_of(space)
    if average is None:
        return radiographs.place(pixels)
    by_mean = mean.place(pixels, average)
    if by_mean.quality >= threshold:
        return by_mean
    return max(by_mean, radiographs.place(pixels), key=lambda way: way.quality)


def _volume(source: Source, space: Space, gate: float, threshold: float) -> Laid:
    if space.reference is None:
        raise ValueError("a volume needs a reference")
    image, reference = (images.volume_of(one, space.spacing) for one in (source, space.reference))
    over = grids.grid_shape(reference.extent, POINTS)
    if source.image_id == space.reference.image_id:
        laid = _laid(REFERENCE, 1.0, True, "", np.asarray(grids.nodes(over), np.float32), over)
    else:
        try:
            found = normalize(
                image,
                reference,
                lambda: images.templates_of(space, source.image_id),
                gate=gate,
                threshold=threshold,
                fine=space.fine,
            )
        except ValueError:
            nowhere = np.asarray(grids.nodes((2, 2, 2)), np.float32)
            return Laid("none", 0.0, False, "it has nothing in common with the reference", nowhere, nowhere, None, None)
        laid = _laid(found.route, found.quality, found.accepted, found.reason, found.forward, over)
    drawn = images.organs_of(space)
    if drawn is not None:
        there = organs.on_image(*drawn, laid.forward, laid.backward, image.extent, source.shape)
        laid.organs.extend(there)
    return laid


def _laid(route: str, quality: float, accepted: bool, reason: str, forward: Grid, over: tuple[int, ...]) -> Laid:
    low, high = grids.in_view(forward) or (None, None)
    return Laid(route, quality, accepted, reason, forward, grids.invert(forward, over), low, high)
