"""How good anomaly scores and maps are where the truth is known, with intervals: for benchmarks, never for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

Float64 = npt.NDArray[np.float64]
PIXEL_FIGURES = ("auroc", "ap", "dice", "aupro")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float


def auroc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> Figure:
    """Area under the ROC curve of scores (n,) for a truth (n,) of 0 and 1.

    Interval by DeLong et al. 1988, from placements (Sun and Xu 2014), on the logit scale so that it stays in [0, 1].
    Where the two kinds are parted without error, the interval ends at the exact binomial bound for the smaller kind.
    """
    sick, healthy = _parted(truth, scores)
    m, n = len(sick), len(healthy)
    ranks = rankdata(np.concatenate([sick, healthy]))
    above = (ranks[:m] - rankdata(sick)) / n  # of each sick one: the share of healthy ones below
    below = 1.0 - (ranks[m:] - rankdata(healthy)) / m
    value = float(above.mean())
    variance = float(above.var(ddof=1) / m + below.var(ddof=1) / n)
    if value in (0.0, 1.0) or variance == 0.0:
        slack = 1.0 - 0.025 ** (1.0 / min(m, n))
        return Figure(value, max(0.0, value - slack), min(1.0, value + slack))
    centre = np.log(value / (1 - value))
    reach = float(norm.ppf(0.975)) * np.sqrt(variance) / (value * (1 - value))
    return Figure(value, float(expit(centre - reach)), float(expit(centre + reach)))


def average_precision(truth: npt.ArrayLike, scores: npt.ArrayLike, repeats: int = 1000, seed: int = 0) -> Figure:
    """Average precision of scores (n,), ties counted together.

    Interval on the logit scale (Boyd et al. 2013) from a bootstrap within sick and within healthy ones, its bias taken
    off: a sample's average precision is too high, and percentiles of the bootstrap would be so once more.
    """
    sick, healthy = _parted(truth, scores)
    values = np.concatenate([sick, healthy])
    positive = np.arange(len(values)) < len(sick)
    order = np.argsort(-values, kind="stable")
    ends = _ends(values[order])

    def precision(weight: Float64) -> float:
        hits, all_ = np.cumsum((weight * positive)[order])[ends], np.cumsum(weight[order])[ends]
        return _average_precision(hits, all_)

    rng = np.random.default_rng(seed)
    drawn = [precision(np.concatenate([_drawn(rng, len(sick)), _drawn(rng, len(healthy))])) for _ in range(repeats)]
    value = precision(np.ones(len(values)))
    if value == 1.0:
        return Figure(1.0, 0.025 ** (1.0 / min(len(sick), len(healthy))), 1.0)
    highest = 1 - 0.25 / len(values)  # not infinite where all is parted
    on_logits, centre = logit(np.minimum(drawn, highest)), logit(min(value, highest))
    centre -= max(0.0, on_logits.mean() - centre)
    reach = float(norm.ppf(0.975)) * on_logits.std()
    return Figure(value, float(expit(centre - reach)), max(value, float(expit(centre + reach))))


class PixelFigures:
    """Pixel AUROC, average precision, best Dice and AUPRO of maps (n, *spatial) against masks (n, *spatial).

    `aupro` is the area under the curve of the per-region overlap (each connected region of a mask counts the same,
    however large) over the false-positive rate up to `limit`, divided by it (Bergmann et al. 2021, "The MVTec anomaly
    detection dataset"). All are exact, ties included, from one sort: per-region overlap is the ROC curve of pixels
    weighted by one over the size of their region.
    """

    def __init__(self, maps: npt.ArrayLike, masks: npt.ArrayLike, limit: float = 0.3) -> None:
        values, truth = np.asarray(maps, np.float32), np.asarray(masks, np.bool_)
        if values.shape != truth.shape or not truth.any() or truth.all() or not np.isfinite(values).all():
            raise ValueError(
                f"pixel figures need finite maps and masks of one shape with both kinds of pixel, not "
                f"{values.shape} and {truth.shape} with {int(truth.sum())} pixels marked"
            )
        self.images, self.limit = len(values), limit
        order = np.argsort(-values.ravel(), kind="stable")
        self._ends = _ends(values.ravel()[order])
        self._image = (order // values[0].size).astype(np.int32)
        self._truth = truth.ravel()[order]
        weights, self._regions = _region_weights(truth)
        self._weights = weights.ravel()[order]

    def __call__(self, weight: Float64 | None = None) -> dict[str, float]:
        """The figures by name; `weight` (n,) counts images more than once, or not."""
        each = (np.ones(self.images) if weight is None else weight)[self._image]
        hits, all_ = np.cumsum(each * self._truth)[self._ends], np.cumsum(each)[self._ends]
        regions = np.cumsum(each * self._weights)[self._ends]
        marked, unmarked = hits[-1], all_[-1] - hits[-1]
        false_rate = np.append(0.0, (all_ - hits) / unmarked)
        overlap = np.append(0.0, regions / (self._regions @ (np.ones(self.images) if weight is None else weight)))
        return {
            "auroc": float(np.trapezoid(np.append(0.0, hits / marked), false_rate)),
            "ap": _average_precision(hits, all_),
            "dice": float(np.max(2 * hits / (all_ + marked))),
            "aupro": _area_up_to(false_rate, overlap, self.limit),
        }

    def intervals(self, repeats: int = 200, seed: int = 0) -> dict[str, Figure]:
        """The figures with intervals by bootstrap over images."""
        rng = np.random.default_rng(seed)
        drawn = [self(_drawn(rng, self.images)) for _ in range(repeats)]
        value = self()
        bounds = {k: np.quantile([one[k] for one in drawn], [0.025, 0.975]) for k in PIXEL_FIGURES}
        return {k: Figure(value[k], float(bounds[k][0]), float(bounds[k][1])) for k in PIXEL_FIGURES}


def _parted(truth: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Float64, Float64]:
    sick, values = np.asarray(truth).astype(np.bool_), np.asarray(scores, np.float64)
    if sick.shape != values.shape or not np.isfinite(values).all() or min(sick.sum(), (~sick).sum()) < 2:
        raise ValueError(
            f"at least two finite scores of each kind are needed, not {int(sick.sum())} of {len(values)} sick"
        )
    return values[sick], values[~sick]


def _ends(ranked: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """The last place of every run of equals: between equals there is no threshold."""
    return np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)


def _drawn(rng: np.random.Generator, count: int) -> Float64:
    """How often each of `count` is drawn, with replacement."""
    return np.bincount(rng.integers(count, size=count), minlength=count).astype(np.float64)


def _average_precision(hits: Float64, all_: Float64) -> float:
    seen = all_ > 0
    return float(np.sum(np.diff(hits[seen], prepend=0.0) * hits[seen] / all_[seen]) / hits[-1])


def _area_up_to(x: Float64, y: Float64, limit: float) -> float:
    """Area under a curve from x = 0 to `limit`, divided by it."""
    inside = int(np.searchsorted(x, limit, side="right"))
    last = np.interp(limit, x[inside - 1 : inside + 1], y[inside - 1 : inside + 1])
    return float(np.trapezoid(np.append(y[:inside], last), np.append(x[:inside], limit)) / limit)


def _region_weights(masks: npt.NDArray[np.bool_]) -> tuple[Float64, Float64]:
    """One over the size of the region that each pixel belongs to, 0 outside; and how many regions each image has."""
    weights, counts = np.zeros(masks.shape), np.zeros(len(masks))
    touching = np.ones((3,) * (masks.ndim - 1))
    for n, mask in enumerate(masks):
        labels, count = ndimage.label(mask, touching)
        sizes = np.bincount(labels.ravel(), minlength=count + 1)
        sizes[0] = 1
        weights[n] = mask / sizes[labels]
        counts[n] = count
    return weights, counts
