"""Signs that an anomaly score says something else than "anomalous", seen without a single label.

A score may follow how bright or how smooth an image is; it may be upside down, lowest for the sick; and the images it
is asked about may come from another population than those it was calibrated on. None of these shows in an image alone,
and none in the loss of a training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import ks_2samp, mannwhitneyu, rankdata

Float64 = npt.NDArray[np.float64]
RHO = 0.5  # absolute rank correlation on normal images from which a score is little else
SHIFT = 0.1  # Kolmogorov-Smirnov distance below which a shift is too small to matter, however certain
CERTAIN = 0.01  # level of the tests


@dataclass(frozen=True, slots=True)
class Alarm:
    """One thing looked at: its name, the figure, whether it is out of bounds, and what that means for a reader."""

    name: str
    value: float
    fired: bool
    text: str


def shortcut_alarms(
    scores: npt.ArrayLike, images: npt.NDArray[np.float32] | None = None, **traits: Float64
) -> list[Alarm]:
    """Whether scores (n,) of normal images follow a plain trait of the images.

    The traits are `brightness` and `smoothness`, of `images` (n, ...) or given as arrays (n,). An error that grows with
    the detail in an image is lowest for smooth ones: where disease blurs what it covers, such a score is upside down.
    """
    if images is not None:
        traits = {"brightness": brightness(images), "smoothness": smoothness(images)}
    found = []
    for name, trait in traits.items():
        rho = spearman(scores, trait)
        fired = abs(rho) > RHO
        more, less = ("brighter", "darker") if name == "brightness" else ("smoother", "rougher")
        higher, lower = (more, less) if rho > 0 else (less, more)
        text = (
            f"the score follows {name} on normal images: {higher} ones score higher (rank correlation {rho:.2f}), "
            f"and a disease that makes images {lower} would score as less than normal"
            if fired
            else f"rank correlation of the score with {name} on normal images"
        )
        found.append(Alarm(name, rho, fired, text))
    return found


def inversion_alarm(held_out: npt.ArrayLike, pool: npt.ArrayLike) -> Alarm:
    """Whether unlabelled images (n,), some of them sick, score *lower* than held-out normal ones: AUCp below 0.5.

    Fires where that is certain at 1 % (Mann and Whitney 1947), so that a pool without disease does not set it off.
    """
    value = aucp(held_out, pool)
    certain = float(mannwhitneyu(pool, held_out, alternative="less").pvalue) < CERTAIN
    fired = value < 0.5 and certain
    text = (
        f"unlabelled images score lower than held-out normal ones (AUCp {value:.2f}): the score may be upside down"
        if fired
        else "AUCp: how far unlabelled images score above held-out normal ones; 0.5 where they do not differ"
    )
    return Alarm("inversion", value, fired, text)


def drift_alarm(held_out: npt.ArrayLike, new: npt.ArrayLike) -> Alarm:
    """Whether scores (n,) of new images are distributed otherwise than those of the calibration set.

    Two-sample Kolmogorov-Smirnov test at 1 %, for a distance of more than 0.1. On images known to be normal it says
    that p-values do not hold for them; on unlabelled ones it may also be disease.
    """
    found = ks_2samp(held_out, new)
    distance = float(found.statistic)
    fired = distance > SHIFT and float(found.pvalue) < CERTAIN
    text = (
        f"new images are not distributed as those of the calibration (Kolmogorov-Smirnov distance {distance:.2f}): "
        "where they should be normal, their p-values do not hold; calibrate on normal images of the same origin"
        if fired
        else "Kolmogorov-Smirnov distance between the scores of new images and those of the calibration"
    )
    return Alarm("drift", distance, fired, text)


def aucp(held_out: npt.ArrayLike, pool: npt.ArrayLike) -> float:
    """AUC of held-out normal images against *all* images of an unlabelled pool, from their scores (n,) and (m,).

    The pool's sick images raise it, its normal ones leave it as it is: it ranks scores as the true AUROC would, as long
    as pool and held-out images differ in nothing but disease ("AUCp", TMI 2026). Where they do differ, as
    `drift_alarm` tells of images known to be normal, it rewards a score that sees that difference.
    """
    low, high = np.asarray(held_out, np.float64), np.asarray(pool, np.float64)
    if not len(low) or not len(high) or not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"AUCp needs finite scores of both kinds, not {len(low)} held out and {len(high)} in the pool")
    ranks = rankdata(np.concatenate([low, high]))[len(low) :]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(low) * len(high)))


def brightness(images: npt.NDArray[np.float32]) -> Float64:
    """Mean grey value of each image (n, ...)."""
    return np.asarray(images.reshape(len(images), -1).mean(1, dtype=np.float64))


def smoothness(images: npt.NDArray[np.float32]) -> Float64:
    """Minus the logarithm of the mean squared difference of neighbouring pixels of each image (n, 1, *spatial)."""
    axes = range(2, images.ndim)
    squares = [np.square(np.diff(images, axis=a)).reshape(len(images), -1).mean(1, dtype=np.float64) for a in axes]
    return np.asarray(-np.log(np.mean(squares, axis=0) + 1e-12), dtype=np.float64)


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Rank correlation; 0 where one of the two does not vary."""
    ranks_a, ranks_b = rankdata(a), rankdata(b)
    if np.ptp(ranks_a) == 0 or np.ptp(ranks_b) == 0:
        return 0.0
    return float(np.corrcoef(ranks_a, ranks_b)[0, 1])
