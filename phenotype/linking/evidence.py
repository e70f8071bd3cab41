"""Does the map of a term carry anything? Judged by its scores of images that it was not learned from."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from phenotype.linking.ferns import Bag, FernMapper

Verdict = Literal["evidence", "no evidence", "too few"]

# Images drawn at once: bounds the memory of the bootstrap to resamples of some million numbers.
_BLOCK = 4_000_000


def fit_parts(mapper: FernMapper, bags: Iterable[Bag], folds: Iterable[int]) -> dict[int, FernMapper]:
    """For each fold, ferns that counted its bags alone; `without` adds them up.

    `mapper` has its questions (`prepare`, which sees no label) and no counts; `folds` gives the fold of each bag: all
    images of a patient in one.
    """
    parts: dict[int, FernMapper] = {}
    stream = zip(bags, folds, strict=True)
    while batch := list(islice(stream, 256)):
        for fold in sorted({fold for _, fold in batch}):
            part = parts.setdefault(fold, mapper.empty())
            part.partial_fit(bag for bag, its_fold in batch if its_fold == fold)
    return dict(sorted(parts.items()))


def without(parts: dict[int, FernMapper], *folds: int) -> FernMapper:
    """Ferns that counted all bags but those of these folds; ValueError where nothing is left to learn from."""
    rest = [part for fold, part in parts.items() if fold not in folds]
    if not rest:
        raise ValueError(
            "nothing is left to learn from: cross-fitting needs bags of at least two folds, nested of three"
        )
    fitted = rest[0].empty()
    for part in rest:
        fitted = fitted.merge(part)
    return fitted


def cross_fit(mapper: FernMapper, bags: Iterable[Bag], folds: Iterable[int]) -> dict[int, FernMapper]:
    """For each fold, ferns that counted all bags but those of the fold: for scores of images never learned from.

    One pass, since tables add up. With a single fold nothing is left to learn from, a ValueError.
    """
    parts = fit_parts(mapper, bags, folds)
    return {fold: without(parts, fold) for fold in parts}


def image_score(profile: NDArray[Any], *, top: int = 5) -> NDArray[np.float64]:
    """Score of an image for each term (n_terms,): the mean of its `top` highest regions in profile (n, n_terms).

    The single highest (top=1) rests on one region and is the noisier. An image without regions is a ValueError.
    """
    if profile.shape[0] == 0 or top < 1:
        raise ValueError("an image score needs at least one region, and top >= 1")
    k = min(top, profile.shape[0])
    highest = np.partition(profile, profile.shape[0] - k, axis=0)[profile.shape[0] - k :]
    return np.asarray(np.sort(highest, axis=0).mean(axis=0), np.float64)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Area under the ROC curve of a term's image scores, with its bootstrap interval over patients."""

    positives: int  # images whose label is "present"
    images: int  # images whose label is known
    auroc: float | None  # None where the verdict is "too few"
    low: float | None
    high: float | None
    verdict: Verdict


def evidence(
    scores: NDArray[Any],
    labels: NDArray[Any],
    patients: NDArray[Any] | None = None,
    *,
    above: float = 0.5,
    least: int = 10,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Evidence:
    """Judge a term by out-of-fold scores of images (n,) and their labels (n,): probabilities, NaN where not mentioned.

    The scores must come of a mapper that has seen no image of the same patient (`cross_fit`): scores of images learned
    from look good for any term. A label counts as present from 0.5 on; images whose label is NaN are left out.
    `patients` (n,) marks images of the same patient, which are drawn together, since they are not independent.

    The verdict is "too few" below `least` present or `least` other images, "evidence" where the whole interval lies
    above `above`, else "no evidence". It is necessary for a map to mean something, not sufficient: an enlarged heart
    shifts the whole image and may be recognised well from regions that do not show the heart.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    known = ~np.isnan(labels)
    people = np.arange(scores.size) if patients is None else np.asarray(patients)
    if not (scores.ndim == 1 and scores.shape == labels.shape == people.shape):
        raise ValueError("scores, labels and patients are vectors of the same length")
    if not np.all(np.isfinite(scores[known])):
        raise ValueError("an image with a known label has no finite score")
    scores, present, people = scores[known], labels[known] >= 0.5, people[known]
    positives, images = int(present.sum()), int(present.size)
    if min(positives, images - positives) < least:
        return Evidence(positives, images, None, None, None, "too few")
    auroc = float(_auroc(scores, present, np.ones((1, images)))[0])
    _, person = np.unique(people, return_inverse=True)
    persons = int(person.max()) + 1
    rng = np.random.default_rng(seed)
    draws: list[NDArray[np.float64]] = []
    step = max(1, _BLOCK // max(images, persons))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        times = rng.multinomial(persons, np.full(persons, 1 / persons), size=size)
        draws.append(_auroc(scores, present, times[:, person].astype(np.float64)))
    values = np.concatenate(draws)
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Evidence(positives, images, auroc, float(low), float(high), "evidence" if low > above else "no evidence")


def _auroc(scores: NDArray[np.float64], present: NDArray[np.bool_], times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the curve with each image taken `times` (resamples, n); ties count half; NaN without either class."""
    order = np.argsort(scores, kind="stable")
    times, positive = times[:, order], present[order]
    groups = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) > 0]))  # where a new score begins
    up = np.add.reduceat(times * positive, groups, axis=1)
    down = np.add.reduceat(times * ~positive, groups, axis=1)
    below = np.cumsum(down, axis=1) - down
    pairs = up.sum(axis=1) * down.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.asarray((up * (below + down / 2)).sum(axis=1) / pairs, np.float64)
