"""Random-fern semantic profiles: terms of reports mapped onto regions of images by counting.

After J. Hofmanninger and G. Langs, "Mapping visual features to semantic profiles for retrieval in medical imaging",
CVPR 2015; ferns after M. Ozuysal et al., "Fast keypoint recognition using random ferns", PAMI 2010.

A fern asks a handful of fixed questions of a region's feature vector; the answers are the number of a cell. Every
region inherits the labels of its image, which is wrong for most regions of a diseased image, and each cell counts how
often each term came with the regions that fell into it. Cells that hold the diseased regions see the term more often
than it is seen at large; the rest sees it as often as chance. Since training is counting, a table can grow image by
image, tables of several sites add up to the table of all, and every score goes back to the cells it came from, and so
to their regions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Bag = tuple[NDArray[Any], NDArray[Any]]
"""An image: its regions (n_regions, d) and what its reports say of each term (n_terms,).

A label is the probability that the term is there: 1 present, 0 denied, in between where the report is uncertain, NaN
where it does not mention the term.
"""

# Weights are counted in units of 2**-16, as integers: unlike floats, integers add up to the same sum in any order.
_UNIT = 1 << 16
# Regions worked on at once: bounds the memory for the answers of all ferns.
_CHUNK = 4096
# Thresholds lie between these quantiles of what is asked about: further out, nearly all regions would answer alike and
# the question be wasted.
_QUANTILES = (0.05, 0.95)


class NotPrepared(ValueError):
    """The ferns have no questions or no counts yet."""


class Incompatible(ValueError):
    """Tables that were not counted with the same questions, or arrays of the wrong shape."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What one fern gives to the score of a term in a region: the score is the sum of `contribution` over the ferns."""

    fern: int
    cell: int
    n: float  # training regions in the cell whose image's label of the term is known (by weight)
    n_positive: float  # of these, inherited from images with the term (by weight)
    contribution: float


class FernMapper:
    """Scores regions for the terms of reports. Constructor arguments are the parameters; learned values end in `_`.

    ferns, depth   number of ferns, and of questions in each: 2**depth cells a fern
    smoothing      regions of average kind added to each cell, so that a rare cell speaks softly
    unmentioned_weight, unmentioned_probability
                   what an image counts for a term that its reports do not mention, and as how probable. The default, a
                   weight of 0, leaves it out: no mention is no denial. Where reports hardly ever deny, as in routine
                   readings, a weight of up to 1 with a small probability is the contrast that there is.
    seed           of the questions: half compare a feature with a threshold, half the difference of two features

    Features should be of comparable kind within a column only: each is standardised. Position in the body can be a
    feature; the caller appends it.
    """

    def __init__(
        self,
        *,
        ferns: int = 128,
        depth: int = 8,
        smoothing: float = 20.0,
        unmentioned_weight: float = 0.0,
        unmentioned_probability: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not (ferns >= 1 and 1 <= depth <= 16 and smoothing > 0):
            raise ValueError("needs ferns >= 1, depth between 1 and 16, and smoothing > 0")
        if not (0 <= unmentioned_weight <= 1 and 0 <= unmentioned_probability <= 1):
            raise ValueError("unmentioned_weight and unmentioned_probability lie between 0 and 1")
        self.ferns = ferns
        self.depth = depth
        self.smoothing = smoothing
        self.unmentioned_weight = unmentioned_weight
        self.unmentioned_probability = unmentioned_probability
        self.seed = seed
        self.center_: NDArray[np.float32] | None = None  # (d,)
        self.scale_: NDArray[np.float32] | None = None  # (d,)
        self.features_: NDArray[np.int32] | None = None  # (ferns * depth, 2)
        self.thresholds_: NDArray[np.float32] | None = None  # (ferns * depth,): asks z[first] - z[second] > threshold
        self.counts_: NDArray[np.int64] | None = None  # (ferns * cells, n_terms), in units of 2**-16
        self.positives_: NDArray[np.int64] | None = None  # the same, of regions with the term
        self._table: NDArray[np.float64] | None = None  # what each cell gives, made from the counts when asked

    @property
    def cells_(self) -> int:
        """Cells of one fern."""
        return 1 << self.depth

    @property
    def n_terms_(self) -> int:
        """Number of terms counted."""
        return int(self._counts()[0].shape[1])

    # ---------------------------------------------------------------- questions

    def prepare(self, regions: ArrayLike) -> Self:
        """Draw the questions, balanced by the quantiles of these regions (n, d); labels play no part.

        A few thousand regions of all kinds of images suffice. Ferns that are to be merged must share this step: copy
        them with `empty()`.
        """
        sample = _finite(regions)
        rng = np.random.default_rng(self.seed)
        dimensions = sample.shape[1]
        questions = self.ferns * self.depth
        center = sample.mean(axis=0, dtype=np.float64)
        spread = sample.std(axis=0, dtype=np.float64)
        varies = np.flatnonzero(spread > 1e-6 * np.maximum(1.0, np.abs(center)))
        if varies.size == 0:
            raise Incompatible("no feature varies in the regions given: there is nothing to ask")
        self.center_ = center.astype(np.float32)
        scale = np.ones(dimensions, np.float32)
        scale[varies] = spread[varies]
        self.scale_ = scale
        # Column d of the standardised features is zero: a question of one feature is a difference from it.
        features = np.full((questions, 2), dimensions, np.int32)
        features[:, 0] = rng.choice(varies, questions)
        if varies.size > 1:
            pair = rng.random(questions) < 0.5
            shift = rng.integers(1, varies.size, questions)
            first = np.searchsorted(varies, features[:, 0])
            features[pair, 1] = varies[(first + shift) % varies.size][pair]
        self.features_ = features
        quantiles = rng.uniform(*_QUANTILES, questions)
        z = self._standardise(sample)
        thresholds = [
            np.quantile(z[a] - z[b], q) for (a, b), q in zip(features.tolist(), quantiles.tolist(), strict=True)
        ]
        self.thresholds_ = np.asarray(thresholds, np.float32)
        self.counts_ = self.positives_ = self._table = None
        return self

    def empty(self) -> "FernMapper":
        """The same ferns with the same questions, and nothing counted."""
        other = FernMapper(
            ferns=self.ferns,
            depth=self.depth,
            smoothing=self.smoothing,
            unmentioned_weight=self.unmentioned_weight,
            unmentioned_probability=self.unmentioned_probability,
            seed=self.seed,
        )
        other.center_, other.scale_ = self.center_, self.scale_
        other.features_, other.thresholds_ = self.features_, self.thresholds_
        return other

    def cells(self, regions: ArrayLike) -> NDArray[np.int32]:
        """The cell that each region (n, d) falls into, in each fern: (n, ferns)."""
        matrix = _finite(regions)
        blocks = [self._cells(matrix[i : i + _CHUNK]) for i in range(0, max(1, len(matrix)), _CHUNK)]
        return np.concatenate(blocks)

    def _standardise(self, regions: NDArray[np.float32]) -> NDArray[np.float32]:
        """(d + 1, n): features in rows, so that the loops run over regions; the last row is zero."""
        if self.center_ is None or self.scale_ is None:
            raise NotPrepared("no questions drawn yet: call prepare() or fit()")
        if regions.shape[1] != self.center_.size:
            raise Incompatible(f"regions have {regions.shape[1]} features, the ferns ask about {self.center_.size}")
        z = np.zeros((regions.shape[1] + 1, regions.shape[0]), np.float32)
        z[:-1] = ((regions - self.center_) / self.scale_).T
        return z

    def _cells(self, regions: NDArray[np.float32]) -> NDArray[np.int32]:
        # Elementwise arithmetic only: a matrix product may round differently for a batch of another size, and a region
        # at a threshold would then change cells.
        z = self._standardise(regions)
        features, thresholds = self._questions()
        cells = np.zeros((self.ferns, regions.shape[0]), np.int32)
        for level in range(self.depth):
            ask = slice(level, None, self.depth)
            answers = (z[features[ask, 0]] - z[features[ask, 1]]) > thresholds[ask, None]
            cells |= answers.astype(np.int32) << level
        return np.ascontiguousarray(cells.T)

    def _addresses(self, regions: NDArray[np.float32]) -> NDArray[np.int32]:
        """Rows of the tables that regions fall into, region by region: (n * ferns,)."""
        offsets = np.arange(self.ferns, dtype=np.int32) * self.cells_
        return (self._cells(regions) + offsets).ravel()

    # ---------------------------------------------------------------- counting

    def fit(self, bags: Iterable[Bag], *, sample: int = 20_000) -> Self:
        """Forget everything, draw the questions from the first `sample` regions, then count all bags, in one pass."""
        stream = iter(bags)
        first: list[Bag] = []
        seen = 0
        for bag in stream:
            first.append(bag)
            seen += len(bag[0])
            if seen >= sample:
                break
        if not seen:
            raise NotPrepared("no regions to learn from")
        self.prepare(np.concatenate([np.asarray(regions, np.float32) for regions, _ in first if len(regions)]))
        return self.partial_fit(first).partial_fit(stream)

    def partial_fit(self, bags: Iterable[Bag]) -> Self:
        """Count more bags. The result depends neither on their order nor on how they are split over calls."""
        self._questions()
        for regions, labels, sizes in _blocks(bags):
            self._count(regions, labels, sizes)
        return self

    def _count(self, regions: NDArray[np.float32], labels: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
        """Add a block: regions of all its images in one matrix, labels (images, n_terms), regions of each image."""
        mentioned = ~np.isnan(labels)
        probability = np.where(mentioned, labels, self.unmentioned_probability)
        if np.any((probability < 0) | (probability > 1)):
            raise Incompatible("labels are probabilities between 0 and 1, or NaN where a term is not mentioned")
        weight = np.where(mentioned, 1.0, self.unmentioned_weight)
        units = np.rint(np.hstack([weight, weight * probability]) * _UNIT).astype(np.int64)
        rows = self.ferns * self.cells_
        terms = labels.shape[1]
        if self.counts_ is None or self.positives_ is None:
            self.counts_, self.positives_ = (np.zeros((rows, terms), np.int64) for _ in range(2))
        elif self.counts_.shape[1] != terms:
            raise Incompatible(f"{terms} labels, but {self.counts_.shape[1]} terms were counted before")
        addresses = self._addresses(regions)
        starts = np.concatenate([[0], np.cumsum(sizes)]) * self.ferns
        # Image x cell, an entry a region: repeated entries add up. Its transpose times the labels is the count.
        falls = csr_array((np.ones(addresses.size, np.int64), addresses, starts), shape=(sizes.size, rows))
        added = falls.T @ units
        self.counts_ += added[:, :terms]
        self.positives_ += added[:, terms:]
        self._table = None

    def merge(self, other: "FernMapper") -> "FernMapper":
        """The ferns that would have come of counting both: exact, and the same in any order or grouping."""
        if not self._asks_as(other):
            raise Incompatible("only ferns with the same questions and the same reading of labels can be merged")
        merged = self.empty()
        if self.counts_ is None or self.positives_ is None or other.counts_ is None or other.positives_ is None:
            source = other if self.counts_ is None else self
            if source.counts_ is not None and source.positives_ is not None:
                merged.counts_, merged.positives_ = source.counts_.copy(), source.positives_.copy()
            return merged
        if self.counts_.shape != other.counts_.shape:
            raise Incompatible("only ferns over the same terms can be merged")
        merged.counts_ = self.counts_ + other.counts_
        merged.positives_ = self.positives_ + other.positives_
        return merged

    def _asks_as(self, other: "FernMapper") -> bool:
        mine, others = self._state(), other._state()
        return mine.keys() == others.keys() and all(np.array_equal(mine[key], others[key]) for key in mine)

    # ---------------------------------------------------------------- scoring

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """The semantic profile of each region (n, d): (n, n_terms).

        A coordinate is the mean over ferns of log(rate of the term in the region's cell / rate of the term at large),
        the rates smoothed: 0 says nothing either way, log 2 that the term is twice as frequent among regions of this
        look. A term without a known or a positive label scores 0 everywhere.
        """
        matrix = _finite(regions)
        table = self._contributions()
        profile = np.empty((matrix.shape[0], table.shape[1]))
        for start in range(0, matrix.shape[0], _CHUNK):
            block = matrix[start : start + _CHUNK]
            addresses = self._addresses(block)
            starts = np.arange(block.shape[0] + 1) * self.ferns
            falls = csr_array((np.ones(addresses.size), addresses, starts), shape=(block.shape[0], table.shape[0]))
            profile[start : start + _CHUNK] = falls @ table
        return profile

    def traces(self, region: ArrayLike, term: int) -> list[Trace]:
        """Where the score of one region (d,) for a term comes from: a trace for each fern, summing to the score."""
        counts, positives = self._counts()
        addresses = self._addresses(_finite(np.atleast_2d(np.asarray(region))))
        gives = self._contributions()[addresses, term]
        known, positive = counts[addresses, term] / _UNIT, positives[addresses, term] / _UNIT
        return [
            Trace(fern, int(address) % self.cells_, float(n), float(k), float(gift))
            for fern, (address, n, k, gift) in enumerate(zip(addresses, known, positive, gives, strict=True))
        ]

    def prior(self) -> NDArray[np.float64]:
        """Rate of each term at large, over all regions whose label is known; NaN where none is."""
        counts, positives = self._counts()
        # Every region falls into one cell of each fern: the first fern's cells hold them all.
        known, positive = counts[: self.cells_].sum(axis=0), positives[: self.cells_].sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray(positive / known, np.float64)

    def _contributions(self) -> NDArray[np.float64]:
        if self._table is None:
            counts, positives = self._counts()
            prior = self.prior()
            silent = ~(prior > 0)
            safe = np.where(silent, 1.0, prior)
            rate = (positives / _UNIT + self.smoothing * safe) / (counts / _UNIT + self.smoothing)
            self._table = np.where(silent, 0.0, np.log(rate / safe) / self.ferns)
        return self._table

    # ---------------------------------------------------------------- keeping

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything learned, as plain arrays (to be kept as safetensors, never as a pickle)."""
        counts, positives = self._counts()
        return {**self._state(), "counts": counts, "positives": positives}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "FernMapper":
        """The ferns that `to_arrays` described; raises Incompatible where the arrays do not fit each other."""
        try:
            ferns, depth, seed = (int(value) for value in arrays["shape"])
            smoothing, weight, probability = (float(value) for value in arrays["parameters"])
            mapper = cls(
                ferns=ferns,
                depth=depth,
                smoothing=smoothing,
                unmentioned_weight=weight,
                unmentioned_probability=probability,
                seed=seed,
            )
            mapper.center_ = np.asarray(arrays["center"], np.float32)
            mapper.scale_ = np.asarray(arrays["scale"], np.float32)
            mapper.features_ = np.asarray(arrays["features"], np.int32)
            mapper.thresholds_ = np.asarray(arrays["thresholds"], np.float32)
            mapper.counts_ = np.asarray(arrays["counts"], np.int64)
            mapper.positives_ = np.asarray(arrays["positives"], np.int64)
        except KeyError as missing:
            raise Incompatible(f"not an array set of ferns: {missing} is missing") from None
        fits = (
            mapper.features_.shape == (ferns * depth, 2)
            and mapper.thresholds_.shape == (ferns * depth,)
            and mapper.counts_.shape == mapper.positives_.shape
            and mapper.counts_.shape[0] == ferns * mapper.cells_
            and mapper.scale_.shape == mapper.center_.shape
            and mapper.features_.min() >= 0
            and mapper.features_.max() <= mapper.center_.size
        )
        if not fits:
            raise Incompatible("the arrays of these ferns do not fit each other")
        return mapper

    def _state(self) -> dict[str, NDArray[Any]]:
        features, thresholds = self._questions()
        assert self.center_ is not None and self.scale_ is not None  # noqa: S101  set together with the questions
        return {
            "shape": np.array([self.ferns, self.depth, self.seed], np.int64),
            "parameters": np.array([self.smoothing, self.unmentioned_weight, self.unmentioned_probability]),
            "center": self.center_,
            "scale": self.scale_,
            "features": features,
            "thresholds": thresholds,
        }

    def _questions(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        if self.features_ is None or self.thresholds_ is None:
            raise NotPrepared("no questions drawn yet: call prepare() or fit()")
        return self.features_, self.thresholds_

    def _counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if self.counts_ is None or self.positives_ is None:
            raise NotPrepared("nothing counted yet: call fit() or partial_fit()")
        return self.counts_, self.positives_


def _finite(regions: ArrayLike) -> NDArray[np.float32]:
    matrix = np.asarray(regions, np.float32)
    if matrix.ndim != 2:
        raise Incompatible(f"regions are a matrix (n, d), not an array of {matrix.ndim} dimensions")
    if not np.all(np.isfinite(matrix)):
        raise Incompatible("regions hold values that are not finite")
    return matrix


def _blocks(bags: Iterable[Bag]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]]:
    """Bags put together into blocks of some thousand regions (a larger bag is cut): regions, labels, sizes of bags."""
    waiting: list[tuple[NDArray[np.float32], NDArray[np.float64]]] = []
    held = 0
    for regions, labels in bags:
        matrix, vector = _finite(regions), np.asarray(labels, np.float64)
        if vector.ndim != 1 or (waiting and vector.size != waiting[0][1].size):
            raise Incompatible("the labels of a bag are one vector, of the same length in every bag")
        for start in range(0, matrix.shape[0], _CHUNK):
            waiting.append((matrix[start : start + _CHUNK], vector))
            held += waiting[-1][0].shape[0]
            if held >= _CHUNK:
                yield _block(waiting)
                waiting, held = [], 0
    if waiting:
        yield _block(waiting)


def _block(
    waiting: Sequence[tuple[NDArray[np.float32], NDArray[np.float64]]],
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    sizes = np.array([regions.shape[0] for regions, _ in waiting], np.int64)
    return np.concatenate([regions for regions, _ in waiting]), np.stack([labels for _, labels in waiting]), sizes
