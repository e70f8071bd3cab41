"""Phenotypes: groups of cases that nobody defined beforehand, and how far they can be trusted to be there at all.

Cases are clustered by a Gaussian mixture, the number of groups chosen by BIC (C. Fraley and A. Raftery, JASA 2002) or
by stability, or by density (HDBSCAN: R. Campello et al., PAKDD 2013). Each group carries its stability after C. Hennig,
"Cluster-wise assessment of cluster stability", CSDA 2007: the mean, over bootstraps, of its Jaccard similarity with the
most similar group found anew; 0.75 and more is called stable. Stable is not yet meaningful: anatomy clusters stably.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree
from sklearn.cluster import HDBSCAN
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from phenotype.clustering.models import Density, Floats, Labels, Mixture, Space, finite

Method = Literal["mixture", "density"]
Choice = Literal["bic", "stability"]

STABLE = 0.75

# Shape of the components, both tried: along the axes (few parameters, for few cases) or free.
_SHAPES = ("diag", "full")
# Added to variances, in units of the whitened space: a component cannot shrink onto a few like cases.
_LEAST_VARIANCE = 1e-3
_STARTS = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """A mixture that was tried: the lower its BIC, the better it pays for its parameters."""

    k: int
    shape: str
    bic: float
    smallest: int  # cases in its smallest group
    stability: float | None  # mean over groups, where k was chosen by stability


@dataclass(frozen=True, slots=True)
class Phenotypes:
    """What was found. Groups are numbered by size, the largest 0, equals by their mean descriptor."""

    model: Mixture | Density
    labels: Labels  # (n,), -1 for cases of no group
    responsibilities: Floats  # (n, k)
    sizes: Labels  # (k,)
    stability: Floats  # (k,) mean bootstrap Jaccard; 0 for a single group, which is nothing found
    split_half_ari: float | None  # adjusted Rand index of what two halves of the patients find; None below 2 groups
    candidates: tuple[Candidate, ...]  # mixtures tried

    @property
    def stable(self) -> NDArray[np.bool_]:
        """Which groups are stable, (k,)."""
        return self.stability >= STABLE


_Fit = Callable[[Floats], Mixture] | Callable[[Floats], Density]


def find_phenotypes(
    descriptors: ArrayLike,
    patients: NDArray[Any] | None = None,
    *,
    method: Method = "mixture",
    k_range: tuple[int, int] = (1, 10),
    choose: Choice = "bic",
    dimensions: int = 10,
    variance: float = 0.95,
    min_cases: int = 10,
    resamples: int = 50,
    halves: int = 10,
    seed: int = 0,
) -> Phenotypes:
    """Find phenotypes in cases by their descriptors (n, d).

    patients    (n,) marks cases of the same patient: bootstraps and halves draw patients, since cases of one are alike
    method      "mixture" (Gaussian) or "density" (HDBSCAN, which leaves cases out and chooses their number itself)
    k_range     numbers of groups tried, both ends included, as far as there are min_cases patients for each; a range
                from 1 lets BIC find that there are no groups
    choose      the number by lowest "bic", or by highest "stability" (mean over groups; tried from 2 on; BIC between
                equals)
    dimensions, variance   principal axes kept: as many as hold this share of the variance, at most `dimensions`
    min_cases   mixtures with a smaller group are passed over where another is left; smallest group by density
    resamples, halves      how often to bootstrap, and to split in two

    The same seed gives the same result. ValueError where there are too few patients for the smallest number of groups.
    """
    matrix = finite(descriptors)
    people = _people(patients, len(matrix))
    most = (int(people.max(initial=-1)) + 1) // max(2, min_cases)  # groups that the patients can fill
    if min_cases < 2 or most < 2 or not 1 <= k_range[0] <= min(k_range[1], most):
        raise ValueError(
            "needs min_cases >= 2, a range of k from 1 up, and min_cases patients for each of at least 2 groups"
        )

    def by_density(cases: Floats) -> Density:
        return _density(cases, Space.of(cases, dimensions=dimensions, variance=variance), min_cases)

    def by_mixture(k: int, shape: str) -> Callable[[Floats], Mixture]:
        return lambda cases: _mixture(cases, Space.of(cases, dimensions=dimensions, variance=variance), k, shape, seed)

    def stability_of(fit: _Fit, model: Mixture | Density) -> Floats:
        labels = model.assign(matrix).labels
        rng = np.random.default_rng(seed)  # the same bootstraps for every number of groups
        return _bootstrap_jaccard(fit, matrix, labels, model.k, people=people, resamples=resamples, rng=rng)

    fit: _Fit = by_density
    candidates: list[Candidate] = []
    if method == "mixture":
        for k in range(k_range[0], min(k_range[1], most) + 1):
            for shape in _SHAPES:
                tried = by_mixture(k, shape)(matrix)
                smallest = int(np.bincount(tried.assign(matrix).labels, minlength=k).min())
                candidates.append(Candidate(k, shape, _bic(tried, matrix, shape), smallest, None))
        if choose == "stability":
            candidates = [
                replace(c, stability=float(stability_of(fit := by_mixture(c.k, c.shape), fit(matrix)).mean()))
                for c in _best_shapes(candidates)
            ]
        chosen = _best(candidates, min_cases)
        fit = by_mixture(chosen.k, chosen.shape)
    model = fit(matrix)
    model = model.pick(_order(model, matrix))
    found = model.assign(matrix)
    return Phenotypes(
        model=model,
        labels=found.labels,
        responsibilities=found.responsibilities,
        sizes=np.bincount(found.labels[found.labels >= 0], minlength=model.k).astype(np.int64),
        stability=stability_of(fit, model),
        split_half_ari=_split_half(fit, matrix, people, halves, np.random.default_rng(seed)) if model.k > 1 else None,
        candidates=tuple(candidates),
    )


# ---------------------------------------------------------------- finding


def _mixture(cases: Floats, space: Space, k: int, shape: str, seed: int) -> Mixture:
    points = space.place(cases)
    mixture = GaussianMixture(
        k, covariance_type=shape, n_init=_STARTS, reg_covar=_LEAST_VARIANCE, max_iter=200, random_state=seed
    )
    with warnings.catch_warnings():
        # A mixture of too many components creeps on for ever; it is judged by where it got to.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(points)
    roots = mixture.precisions_cholesky_
    if shape == "diag":
        roots = np.stack([np.diag(root) for root in roots])
    return Mixture(space, mixture.weights_, mixture.means_, roots)


def _bic(model: Mixture, cases: Floats, shape: str) -> float:
    """Bayesian information criterion: parameters * log(n) - 2 * log-likelihood."""
    k, p = model.means.shape
    parameters = k - 1 + k * p + k * (p if shape == "diag" else p * (p + 1) // 2)
    return float(parameters * np.log(len(cases)) - 2 * model.log_density(cases).sum())


def _best(candidates: Sequence[Candidate], min_cases: int) -> Candidate:
    large = [c for c in candidates if c.smallest >= min_cases] or candidates
    return min(large, key=lambda c: (-(c.stability or 0.0), c.bic))


def _best_shapes(candidates: Sequence[Candidate]) -> list[Candidate]:
    """For each number of groups above one, the shape of lowest BIC."""
    several = [c for c in candidates if c.k > 1] or candidates
    return [min((c for c in several if c.k == k), key=lambda c: c.bic) for k in sorted({c.k for c in several})]


def _density(cases: Floats, space: Space, min_cases: int) -> Density:
    points = space.place(cases)
    found = HDBSCAN(min_cluster_size=min_cases, copy=True).fit(points)
    labels = found.labels_.astype(np.int64)
    reach = np.zeros(int(labels.max(initial=-1)) + 1)
    for group in range(reach.size):
        fellows = points[labels == group]
        reach[group] = KDTree(fellows).query(fellows, k=2)[0][:, 1].max()
    return Density(space, points, labels, np.asarray(found.probabilities_, np.float64), reach)


def _order(model: Mixture | Density, cases: Floats) -> list[int]:
    """The groups that have cases, by size and then by mean descriptor."""
    labels = model.assign(cases).labels
    groups = [group for group in range(model.k) if np.any(labels == group)]
    return sorted(groups, key=lambda g: (-int(np.sum(labels == g)), *cases[labels == g].mean(axis=0).tolist()))


# ---------------------------------------------------------------- stability


def _bootstrap_jaccard(
    fit: _Fit, cases: Floats, labels: Labels, k: int, *, people: Labels, resamples: int, rng: np.random.Generator
) -> Floats:
    """Mean Jaccard similarity (k,) of each group, among the cases drawn, with the most similar group found in these.

    Cases drawn more than once are used once, as in Hennig's clusterboot: doubles would make dense groups of their own.
    """
    if k < 2:
        return np.zeros(k)
    persons = int(people.max()) + 1
    total, times = np.zeros(k), np.zeros(k)
    for _ in range(resamples):
        drawn = np.zeros(persons, bool)
        drawn[rng.integers(0, persons, persons)] = True
        rows = np.flatnonzero(drawn[people])
        again = fit(cases[rows])
        similar = _jaccard(labels[rows], again.assign(cases[rows]).labels, k, again.k)
        seen = np.bincount(labels[rows][labels[rows] >= 0], minlength=k) > 0
        total[seen] += similar[seen]
        times += seen
    return np.asarray(total / np.maximum(times, 1))


def _jaccard(one: Labels, other: Labels, k: int, others: int) -> Floats:
    """For each of k groups of `one`, its largest Jaccard similarity with a group of `other`; 0 if `other` has none."""
    if others == 0:
        return np.zeros(k)
    members = (one[:, None] == np.arange(k)).astype(np.int64)
    fellows = (other[:, None] == np.arange(others)).astype(np.int64)
    both = members.T @ fellows
    either = members.sum(axis=0)[:, None] + fellows.sum(axis=0) - both
    return np.asarray((both / np.maximum(either, 1)).max(axis=1), np.float64)


def _split_half(fit: _Fit, cases: Floats, people: Labels, halves: int, rng: np.random.Generator) -> float:
    """Mean adjusted Rand index, over all cases, of the phenotypes found in either half of the patients."""
    persons = int(people.max()) + 1
    values = []
    for _ in range(halves):
        first = np.isin(people, rng.permutation(persons)[: persons // 2])
        one, other = fit(cases[first]), fit(cases[~first])
        # Two that both find nothing would agree perfectly.
        found = min(one.k, other.k) > 0
        values.append(
            float(adjusted_rand_score(one.assign(cases).labels, other.assign(cases).labels)) if found else 0.0
        )
    return float(np.mean(values))


def _people(patients: NDArray[Any] | None, n: int) -> Labels:
    people = np.unique(np.arange(n) if patients is None else patients, return_inverse=True)[1]
    if people.shape != (n,):
        raise ValueError("patients are a vector with one entry for each case")
    return people.astype(np.int64)
