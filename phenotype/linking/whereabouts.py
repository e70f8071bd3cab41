"""Words for places in a report as supervision of where: a "left effusion" is not sought on the right.

After T. Schlegl et al., "Predicting semantic descriptions from medical images with convolutional neural networks", IPMI
2015, where location in the report guides what is learned from the image.
"""

import csv
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenotype.linking.mapper import Floats

Side = str  # "left", "right", "bilateral", "midline" or "" where none is named

_OVERLAP = 0.05  # of the body's width: the midline is not drawn to the millimetre


@dataclass(frozen=True, slots=True)
class Zone:
    """Where a site can lie, as fractions of the body's box."""

    top: float
    bottom: float
    inner: float  # distance from the midline
    outer: float


@cache
def zones() -> dict[str, Zone]:
    """The sites whose place is known (zones.tsv)."""
    lines = (Path(__file__).parent / "zones.tsv").read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="\t")
    return {row["site"]: Zone(*(float(row[name]) for name in ("top", "bottom", "inner", "outer"))) for row in rows}


def allowed(
    side: Side,
    sites: Collection[str],
    positions: Floats,
    *,
    organs: Sequence[str] | None = None,
    frontal: bool = True,
) -> NDArray[np.bool_]:
    """Which regions (n,) the words for a side and sites leave for a finding.

    `positions` (n, 2) are rows and columns of the regions as fractions of the body's box, or of a reference, the
    patient's right at the low columns (`frontal`; of other views a side says nothing). `organs` (n,) names the organ
    that each region lies in, "" where unknown: a site that is the name of an organ is sought there. Several sites allow
    what any of them allows; words without a known place allow everything, and so does a place that is not in view.
    """
    n = len(positions)
    row, column = positions[:, 0], positions[:, 1]
    found = np.ones(n, bool)
    if frontal and side in ("left", "right"):
        found &= column < 0.5 + _OVERLAP if side == "right" else column > 0.5 - _OVERLAP
    if frontal and side == "midline":
        found &= np.abs(column - 0.5) < 0.25
    masks = [mask for site in sorted(sites) if (mask := _within(site, row, column, organs, frontal)) is not None]
    if masks:
        found &= np.any(masks, axis=0)
    return found if found.any() else np.ones(n, bool)


def where_of(
    words: Iterable[tuple[int, Side, Collection[str]]],
    terms: int,
    positions: Floats,
    *,
    organs: Sequence[str] | None = None,
    frontal: bool = True,
) -> NDArray[np.bool_] | None:
    """Regions that all location words of an image's reports allow (terms, n), or None where they say nothing.

    `words` are mentions: number of the term, side, sites. A term that is mentioned several times may be wherever any of
    the mentions allows.
    """
    masks: dict[int, NDArray[np.bool_]] = {}
    for term, side, sites in words:
        mask = allowed(side, sites, positions, organs=organs, frontal=frontal)
        masks[term] = masks[term] | mask if term in masks else mask
    if all(mask.all() for mask in masks.values()):
        return None
    found = np.ones((terms, len(positions)), bool)
    for term, mask in masks.items():
        found[term] = mask
    return found


def _within(
    site: str, row: Floats, column: Floats, organs: Sequence[str] | None, frontal: bool
) -> NDArray[np.bool_] | None:
    """Regions that a site allows; None where its place is not known."""
    if organs is not None and any(_same(site, organ) for organ in organs):
        return np.array([_same(site, organ) for organ in organs])
    zone = zones().get(site)
    if zone is None:
        return None
    inside = (row >= zone.top) & (row <= zone.bottom)
    if frontal:
        away = np.abs(column - 0.5)
        inside &= (away >= zone.inner) & (away <= zone.outer + _OVERLAP)
    return np.asarray(inside)


def _same(site: str, organ: str) -> bool:
    """Whether an organ's name means the site: "lung" is also "left_lung"."""
    return organ == site or organ.removeprefix("left_").removeprefix("right_") == site
