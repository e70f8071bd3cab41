"""How well the map of a term agrees with what an expert has drawn, and two experts with each other.

The figures of A. Saporta et al., "Benchmarking saliency methods for chest X-ray interpretation", Nature Machine
Intelligence 2022 (overlap at a threshold tuned on other patients, pointing game), with pixel AUROC, contrast to noise
(B. Boecking et al., "Making the most of text semantics to improve biomedical vision-language processing", ECCV 2022),
Cohen's kappa of the calls, and Bland and Altman's limits of agreement of the extent (Lancet 1986).

Intervals are bootstrapped over patients.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from phenotype.linking import figures
from phenotype.linking.expert import Drawn
from phenotype.linking.maps import peak, pixel_boxes, pixel_map

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

GRID = (128, 128)  # of a slice on which a map and what was drawn are compared
TRIED = 60  # thresholds that the best is chosen of
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Case:
    """An image on which a reader was asked for a term.

    `map` (slices, rows, columns) is higher where more of the term is seen, NaN where nothing is known; `drawn` of the
    same shape is what the reader drew. `call` is whether the map's side calls the term present, None where it does not
    say. `group` is the part of the patients that shares one threshold, which was tuned on the other parts.
    """

    patient: str
    group: int
    map: NDArray[np.float32]
    drawn: Mask
    call: bool | None


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its interval over patients, and on how many cases it rests. None where there are too few."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    count: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What is kept of a case: the overlap and the extent under each threshold, and what needs none of them."""

    patient: str
    group: int
    overlaps: Floats | None  # (thresholds,) intersection over union; None where nothing was drawn
    extents: Floats  # (thresholds,) share of the image
    hit: float
    auroc: float
    contrast: float
    extent: float  # drawn
    call: bool | None


# ------------------------------------------------------------------------------------------------ onto a grid


def map_on(
    scores: NDArray[np.floating],
    slices: NDArray[np.integer],
    boxes: NDArray[np.floating],
    labels: NDArray[np.integer] | None = None,
) -> NDArray[np.float32]:
    """The map (slices, rows, columns) of the scores (n,) of regions: of those slices that have any, ascending.

    Boxes (n, 4) are fractions; `labels` (slices, rows, columns) numbers supervoxels from 1, and 0 is no region.
    """
    shown = np.unique(slices)
    if labels is not None:
        known = np.concatenate([[np.nan], scores]).astype(np.float32)
        rows, columns = (
            np.minimum((np.arange(n) + 0.5) * size / n, size - 1).astype(np.intp)
            for n, size in zip(GRID, labels.shape[1:], strict=True)
        )
        return np.asarray(known[labels[shown][:, rows[:, None], columns]], np.float32)
    own = pixel_boxes(boxes, GRID)
    return np.stack([pixel_map(scores[slices == one], own[slices == one], GRID) for one in shown])


def drawn_on(regions: Sequence[Drawn], shown: Sequence[int] | NDArray[np.integer]) -> Mask:
    """What was drawn on these slices (slices, rows, columns): a mask where there is one, else the box.

    What is smaller than a pixel of the grid still has one.
    """
    found = np.zeros((len(shown), *GRID), np.bool_)
    place = {int(one): number for number, one in enumerate(shown)}
    for region in regions:
        if region.slice not in place or region.nothing:
            continue
        plane = found[place[region.slice]]
        if region.mask is None:
            top, left, bottom, right = pixel_boxes(np.array([region.box]), GRID)[0].tolist()
            plane[top:bottom, left:right] = True
        else:
            plane |= _smaller(region.mask)
    return found


def _smaller(mask: Mask) -> Mask:
    """A mask on the grid: pixels that are at least half covered, or the one that is covered most."""
    from skimage.transform import resize

    cover = np.asarray(resize(mask.astype(np.float32), GRID, order=1, anti_aliasing=True))
    return np.asarray(cover >= min(0.5, float(cover.max())), np.bool_) & (cover > 0)


# ------------------------------------------------------------------------------------------------ figures


def thresholds_for(scores: Iterable[NDArray[np.floating]]) -> Floats:
    """Thresholds to be tried on a map, from the scores of regions of many images: more of them the higher they are."""
    found = np.concatenate([np.zeros(0), *[np.ravel(some) for some in scores]])
    found = found[np.isfinite(found)]
    if found.size == 0:
        return np.zeros(1)
    shares = 1 - np.geomspace(0.5, 5e-4, TRIED)  # of regions below: half of them to nearly all
    return np.unique(np.quantile(found.astype(np.float64), shares))


def compare(
    measured: Sequence[Measured], thresholds: Floats, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[Figure]:
    """Figures of agreement over cases that were measured with these thresholds.

    iou          intersection over union with what was drawn, at the threshold that is best for the other groups
    pointing     share of cases whose highest place lies in what was drawn
    pixel_auroc  mean area under the ROC curve of the pixels of a case
    cnr          mean of (mean inside - mean outside) / root of the sum of the two variances
    kappa        Cohen's, of the calls, over all cases
    extent_bias, extent_low, extent_high
                 mean difference of the extents, map less reader, and its limits of agreement, as shares of the image
    threshold    the tuned one, in the middle of the groups

    The first four are over cases into which something was drawn. With a single threshold nothing is tuned.
    """
    drawn = [one for one in measured if one.overlaps is not None]
    best = _tuned(drawn, len(thresholds))
    tuned = [one for one in measured if one.group in best]
    overlaps = [o.overlaps[best[o.group]] if o.overlaps is not None else np.nan for o in tuned]
    off = np.array([o.extents[best[o.group]] - o.extent for o in tuned])
    calls = [one for one in measured if one.call is not None]
    called, there = [bool(o.call) for o in calls], [o.overlaps is not None for o in calls]

    def made(name: str, some: Sequence[Measured], figure: Callable[[Floats], Floats], count: int) -> Figure:
        return _figure(name, [one.patient for one in some], figure, count, resamples, seed)

    def mean(name: str, some: Sequence[Measured], values: Sequence[float]) -> Figure:
        known = int(np.isfinite(values).sum())
        return made(name, some, lambda times: figures.mean(values, times), known)

    def limit(times: Floats, spreads: float) -> Floats:
        middle, square = figures.mean(off, times), figures.mean(off**2, times)
        return np.asarray(middle + spreads * np.sqrt(np.maximum(square - middle**2, 0.0)), np.float64)

    middle = float(np.median([thresholds[k] for k in best.values()])) if best else None
    return [
        mean("iou", tuned, overlaps),
        mean("pointing", drawn, [one.hit for one in drawn]),
        mean("pixel_auroc", drawn, [one.auroc for one in drawn]),
        mean("cnr", drawn, [one.contrast for one in drawn]),
        made("kappa", calls, lambda times: figures.kappa(called, there, times), len(calls)),
        mean("extent_bias", tuned, off.tolist()),
        made("extent_low", tuned, lambda times: limit(times, -1.96), len(tuned)),
        made("extent_high", tuned, lambda times: limit(times, 1.96), len(tuned)),
        Figure("threshold", middle, None, None, len(tuned)),
    ]


def measure(case: Case, thresholds: Floats) -> Measured:
    """The overlap, extent and other numbers of a case, under each of the thresholds; ascending."""
    known = np.isfinite(case.map)
    values, inside = case.map[known].astype(np.float64), case.drawn[known]
    # how many pixels reach each threshold: of a histogram, added up from the top
    bins = np.searchsorted(thresholds, values, side="right")
    reach = np.cumsum(np.bincount(bins, minlength=len(thresholds) + 1)[::-1])[::-1][1:]
    common = np.cumsum(np.bincount(bins[inside], minlength=len(thresholds) + 1)[::-1])[::-1][1:]
    size, all_pixels = int(case.drawn.sum()), case.drawn.size
    overlaps, hit, auroc, contrast = None, np.nan, np.nan, np.nan
    if size:
        overlaps = common / np.maximum(reach + size - common, 1)
        hit, auroc, contrast = _hit(case), _auroc(values, inside), _contrast(values, inside)
    return Measured(
        case.patient,
        case.group,
        overlaps,
        reach / all_pixels,
        hit,
        auroc,
        contrast,
        size / all_pixels,
        case.call,
    )


def _hit(case: Case) -> float:
    if not np.isfinite(case.map).any():
        return np.nan
    highest = [float(np.nanmax(plane)) if np.isfinite(plane).any() else -np.inf for plane in case.map]
    top = int(np.argmax(highest))
    found = peak(case.map[top])
    return float(case.drawn[top, found.row, found.column])


def _auroc(values: Floats, inside: Mask) -> float:
    """Area under the ROC curve; ties count half; NaN where all or none of the pixels are inside."""
    from scipy.stats import rankdata

    positive = int(inside.sum())
    negative = inside.size - positive
    if not positive or not negative:
        return np.nan
    return float((rankdata(values)[inside].sum() - positive * (positive + 1) / 2) / (positive * negative))


def _contrast(values: Floats, inside: Mask) -> float:
    if inside.all() or not inside.any():
        return np.nan
    noise = np.sqrt(values[inside].var() + values[~inside].var())
    return float((values[inside].mean() - values[~inside].mean()) / noise) if noise > 0 else np.nan


def _tuned(drawn: Sequence[Measured], count: int) -> dict[int, int]:
    """The best threshold of each group: the one with the highest mean overlap in the other groups."""
    groups = sorted({one.group for one in drawn})
    if count == 1:
        return dict.fromkeys(groups, 0)
    best = {}
    for group in groups:
        others = [one.overlaps for one in drawn if one.group != group and one.overlaps is not None]
        if others:
            best[group] = int(np.mean(others, axis=0).argmax())
    return best


_draws = lru_cache(maxsize=1)(figures.draws)  # the same for all figures of one comparison


def _figure(
    name: str, patients: Sequence[str], value: Callable[[Floats], Floats], count: int, resamples: int, seed: int
) -> Figure:
    """A figure of cases with its 95 % interval; `value` takes how often each case is drawn (draws, cases)."""
    if count == 0:
        return Figure(name, None, None, None, 0)
    people, whose = np.unique(patients, return_inverse=True)
    found = figures.figure(value(_draws(len(people), resamples, seed)[:, whose]))
    point, low, high = (None if np.isnan(v) else v for v in (found.value, found.low, found.high))
    if len(people) < 2:  # one patient says nothing of how others differ
        low = high = None
    return Figure(name, point, low, high, count)
