"""From scores of images to probabilities, and to the calls "here", "not here" and "undecided".

All that is learned here is learned from scores out of fold: of images that the mapper has not learned from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenotype.linking.emission import Emission
from phenotype.linking.mapper import DENIED, POSSIBLE

Doubles = NDArray[np.float64]
Call = Literal["here", "not here", "undecided"]

FEW = 50  # images of either kind below which a curve of two parameters is fitted instead of one of any shape
_KNOTS = 41  # points that a curve is kept by
_LEAST_SPREAD = 0.2  # reports that assert a term hardly more often where it is there cannot be seen through


@dataclass(frozen=True, slots=True)
class Curve:
    """A curve from score to probability that never falls, linear between its knots and level outside of them."""

    scores: Doubles  # (knots,) rising
    probabilities: Doubles  # (knots,)

    def __call__(self, scores: ArrayLike) -> Doubles:
        """Probabilities of scores of any shape."""
        return np.asarray(np.interp(np.asarray(scores, np.float64), self.scores, self.probabilities))


def curve(scores: ArrayLike, positive: ArrayLike) -> Curve:
    """How probable a positive image is at each score; of scores (n,) and what is so (n,).

    Isotonic regression (B. Zadrozny and C. Elkan 2002) drawn through the middles of its steps, so that images keep
    their order; with fewer than FEW images of either kind the logistic curve of J. Platt 1999, whose targets are drawn
    in from 0 and 1. Where all images are of one kind the curve is level.
    """
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression

    x, y = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if x.ndim != 1 or x.shape != y.shape or not x.size or not np.all(np.isfinite(x)):
        raise ValueError("a curve needs finite scores (n,) and as many marks, n >= 1")
    yes, no = int(y.sum()), int((~y).sum())
    if not yes or not no or np.ptp(x) == 0:
        level = (yes + 1) / (yes + no + 2)
        return Curve(np.array([x.min()]), np.array([level]))
    if min(yes, no) >= FEW:
        order = np.argsort(x, kind="stable")
        steps = IsotonicRegression(y_min=1 / (len(x) + 2), y_max=1 - 1 / (len(x) + 2)).fit_transform(x, y)[order]
        starts = np.flatnonzero(np.concatenate([[True], np.diff(steps) > 0]))
        sizes = np.diff(np.append(starts, len(x)))
        return Curve(np.add.reduceat(x[order], starts) / sizes, steps[starts])
    spread = x.std()
    targets = np.where(y, (yes + 1) / (yes + 2), 1 / (no + 2))
    z = ((x - x.mean()) / spread)[:, None]
    model = LogisticRegression(C=1e3)
    model.fit(np.vstack([z, z]), np.repeat([1, 0], len(x)), sample_weight=np.concatenate([targets, 1 - targets]))
    at = np.linspace(x.min() - spread, x.max() + spread, _KNOTS)
    slope = max(0.0, float(model.coef_[0, 0]))  # a mapper whose scores fall with the term has learned nothing
    return Curve(at, 1 / (1 + np.exp(-(slope * (at - x.mean()) / spread + float(model.intercept_[0])))))


def through_reports(asserted: Curve, if_present: float, if_absent: float) -> Curve:
    """From how probably a report asserts the term to how probably it is there.

    The first is p * if_present + (1 - p) * if_absent, with how often reports assert the term where it is there and
    where it is not. Where the two hardly differ the curve stays as it is.
    """
    if if_present - if_absent < _LEAST_SPREAD:
        return asserted
    there = (asserted.probabilities - if_absent) / (if_present - if_absent)
    return Curve(asserted.scores, np.clip(there, 0.005, 0.995))


@dataclass(frozen=True, slots=True)
class Calibration:
    """Of one term: the curve to its probability, and the scores below and above which it is called."""

    curve: Curve
    not_here: float  # called "not here" below this score
    here: float  # called "here" above this score

    def call(self, score: float) -> Call:
        """What is said of an image with this score."""
        if score > self.here:
            return "here"
        return "not here" if score < self.not_here else "undecided"

    def to_arrays(self) -> dict[str, Doubles]:
        """Plain arrays, to be kept."""
        thresholds = np.array([self.not_here, self.here])
        return {"scores": self.curve.scores, "probabilities": self.curve.probabilities, "thresholds": thresholds}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `to_arrays` gave."""
        low, high = arrays["thresholds"].tolist()
        return cls(Curve(np.asarray(arrays["scores"]), np.asarray(arrays["probabilities"])), low, high)


def thresholds(asserted: ArrayLike, denied: ArrayLike, *, error: float = 0.1) -> tuple[float, float]:
    """Scores (not_here, here) such that at most `error` of further images are called against their report.

    As in conformal prediction (V. Vovk et al. 2005, one class at a time): of exchangeable images that deny the term at
    most `error` score above `here`, of those that assert it at most `error` below `not_here`. With too few images to
    promise that, a threshold is infinite and nothing is called. Where the classes lie so far apart that nothing is
    left to be undecided, both thresholds are the middle between.
    """
    yes, no = (np.sort(np.asarray(s, np.float64)) for s in (asserted, denied))
    here = _quantile(no, error)
    not_here = -_quantile(-yes[::-1], error)
    if not_here > here:
        here = not_here = (here + not_here) / 2
    return float(not_here), float(here)


def _quantile(scores: Doubles, error: float) -> float:
    """The score that at most `error` of further ones exceed; of scores that rise."""
    rank = int(np.ceil((len(scores) + 1) * (1 - error)))
    return float(scores[rank - 1]) if 1 <= rank <= len(scores) else np.inf


def calibrate(
    scores: Doubles, states: NDArray[np.int8], emission: Emission | None, term: int, *, error: float = 0.1
) -> Calibration:
    """Calibration of a term by scores out of fold (n,) and what reports say of it (n,).

    The curve is fitted to which reports assert the term, and corrected by the emission table for how often they err.
    """
    asserts = states <= POSSIBLE
    found = curve(scores, asserts)
    if emission is not None:
        there = float(emission.if_present[term, : POSSIBLE + 1].sum())
        not_there = float(emission.if_absent[term, : POSSIBLE + 1].sum())
        found = through_reports(found, there, not_there)
    denies = states == DENIED
    if denies.sum() < asserts.sum() / 4:  # reports that hardly ever deny: silence is the contrast that there is
        denies = ~asserts
    return Calibration(found, *thresholds(scores[asserts], scores[denies], error=error))


def calibration_error(probabilities: ArrayLike, truth: ArrayLike, *, bins: int = 10) -> float:
    """Expected calibration error: mean distance of probability and frequency, over bins of equally many images."""
    p, y = np.asarray(probabilities, np.float64), np.asarray(truth, np.float64)
    parts = np.array_split(np.argsort(p, kind="stable"), min(bins, len(p)))
    return float(sum(len(part) * abs(p[part].mean() - y[part].mean()) for part in parts) / len(p))
