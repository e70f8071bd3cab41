"""How well maps of a term lie on the truth: figures of regions (or pixels), with intervals over images.

The protocol is that of CheXlocalize (A. Saporta et al., Nature Machine Intelligence 2022): the pointing game (J. Zhang
et al., ECCV 2016) and the mean intersection over union at a threshold that was tuned on other images, of images that
have the finding; beside them the area under the ROC curve and the average precision of all regions of all images.

Regions of one image are not independent, so intervals are bootstrapped over images, or over patients where an image's
number is that of its patient. Resampling a hundred thousand regions a thousand times is slow; here the regions of each
image are counted once (`rank`), and a resample is a matrix product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]

LEVELS = 2048  # scores of regions with the finding that are told apart; of more, as many quantiles
RESAMPLES = 1000
_CUTS = np.concatenate([np.linspace(0.5, 0.9, 17), np.linspace(0.905, 0.999, 48)])  # quantiles tried as thresholds


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its interval; NaN where there is nothing to measure it on."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Regions of each image (images, levels), counted by their scores, lowest first: those with the finding, the rest.

    A level of odd number holds what scores exactly as a region with the finding, one of even number what lies between.
    """

    there: Doubles
    elsewhere: Doubles


def rank(scores: ArrayLike, truth: ArrayLike, image: ArrayLike, images: int) -> Ranking:
    """Count regions by scores (n,), truth (n,) and the number of their image (n,), which lies below `images`.

    ValueError for scores that are not finite and for vectors of different length.
    """
    values, there, owner = np.asarray(scores, np.float64), np.asarray(truth, bool), np.asarray(image, np.int64)
    if not (values.ndim == 1 and values.shape == there.shape == owner.shape):
        raise ValueError("scores, truth and image are vectors of the same length")
    if not np.all(np.isfinite(values)):
        raise ValueError("scores hold values that are not finite")
    edges = np.unique(values[there])
    if edges.size > LEVELS:
        edges = np.unique(np.quantile(edges, np.linspace(0, 1, LEVELS), method="nearest"))
    levels = 2 * edges.size + 1
    place = np.searchsorted(edges, values, "left") + np.searchsorted(edges, values, "right")
    cell = owner * levels + place

    def counted(chosen: NDArray[np.bool_]) -> Doubles:
        return np.bincount(cell[chosen], minlength=images * levels).reshape(images, levels).astype(np.float64)

    return Ranking(counted(there), counted(~there))


def draws(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Doubles:
    """How often each image is taken (1 + resamples, images). The first row takes each once: the figure itself."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(images, np.full(images, 1 / images), size=resamples)
    return np.vstack([np.ones((1, images)), times.astype(np.float64)])


def auroc(ranking: Ranking, times: Doubles) -> Doubles:
    """Area under the ROC curve (draws,), ties counting half; NaN without regions of either kind."""
    there, elsewhere = times @ ranking.there, times @ ranking.elsewhere
    below = np.cumsum(elsewhere, axis=1) - elsewhere / 2
    return _ratio((there * below).sum(axis=1), there.sum(axis=1) * elsewhere.sum(axis=1))


def average_precision(ranking: Ranking, times: Doubles) -> Doubles:
    """Area under the curve of precision and recall (draws,), as a sum of steps; NaN without the finding."""
    there, elsewhere = times @ ranking.there, times @ ranking.elsewhere
    hits = np.cumsum(there[:, ::-1], axis=1)[:, ::-1]
    alarms = np.cumsum(elsewhere[:, ::-1], axis=1)[:, ::-1]
    precision = hits / np.maximum(hits + alarms, 1e-12)
    return _ratio((there * precision).sum(axis=1), there.sum(axis=1))


def mean(values: ArrayLike, times: Doubles) -> Doubles:
    """Mean (draws,) of a value of each image, of those where it is not NaN."""
    each = np.asarray(values, np.float64)
    known = np.isfinite(each)
    return _ratio(times[:, known] @ each[known], times[:, known].sum(axis=1))


def kappa(first: ArrayLike, second: ArrayLike, times: Doubles) -> Doubles:
    """Cohen's kappa (draws,) of two readers' calls (images,): agreement beyond chance; NaN where neither ever differs
    from itself."""
    a, b = np.asarray(first, bool), np.asarray(second, bool)
    total = times.sum(axis=1)
    agreed = times @ (a == b) / total
    yes_a, yes_b = times @ a / total, times @ b / total
    chance = yes_a * yes_b + (1 - yes_a) * (1 - yes_b)
    return np.where(np.isclose(chance, 1), np.nan, _ratio(agreed - chance, 1 - chance))


def figure(drawn: Doubles, level: float = 0.95) -> Figure:
    """The first of these values, and the interval of the rest: what `draws` begins with is the figure itself."""
    rest = drawn[1:][np.isfinite(drawn[1:])]
    if not np.isfinite(drawn[0]) or rest.size == 0:
        return Figure(float(drawn[0]), float("nan"), float("nan"))
    low, high = np.quantile(rest, [(1 - level) / 2, (1 + level) / 2])
    return Figure(float(drawn[0]), float(low), float(high))


def macro(drawn: Sequence[Doubles]) -> Doubles:
    """Mean over terms of their draws, of those terms that have a value in it."""
    together = np.stack(drawn)
    known = np.isfinite(together)
    return _ratio(np.where(known, together, 0).sum(axis=0), known.sum(axis=0).astype(np.float64))


# ---- one image: scores (n,) of its regions or pixels, truth (n,)


def pointing(scores: ArrayLike, truth: ArrayLike) -> float:
    """The pointing game: 1 where the highest region has the finding, 0 where not; NaN in an image without it.

    Of equally high regions the share that has it: a map that is the same everywhere points nowhere.
    """
    values, there = np.asarray(scores, np.float64), np.asarray(truth, bool)
    if not there.any():
        return float("nan")
    return float(there[values == values.max()].mean())


def overlap(scores: ArrayLike, truth: ArrayLike, threshold: float) -> float:
    """Intersection over union of the regions that score at least `threshold` and those with the finding; NaN without
    it."""
    found, there = np.asarray(scores) >= threshold, np.asarray(truth, bool)
    if not there.any():
        return float("nan")
    return float((found & there).sum() / (found | there).sum())


def tune_threshold(scores: Sequence[NDArray[Any]], truth: Sequence[NDArray[Any]]) -> float:
    """The threshold of the highest mean overlap, of images to tune on; infinite where none has the finding.

    Tried are quantiles of all their scores, from the median up.
    """
    chosen = [(np.asarray(s), np.asarray(t, bool)) for s, t in zip(scores, truth, strict=True) if np.any(t)]
    if not chosen:
        return float("inf")
    cuts = np.unique(np.quantile(np.concatenate([np.asarray(s) for s in scores]), _CUTS))
    total = np.zeros(cuts.size)
    for values, there in chosen:
        found = values[None, :] >= cuts[:, None]
        total += (found & there).sum(axis=1) / (found | there).sum(axis=1)
    return float(cuts[total.argmax()])


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)
