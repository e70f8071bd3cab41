"""Similar regions and cases: those that look alike, those that mean alike, or both.

A region has a look, its feature vector, and a meaning, its semantic profile: how strongly each term of the reports is
seen in it. After J. Hofmanninger and G. Langs, "Mapping visual features to semantic profiles for retrieval in medical
imaging", CVPR 2015, who compare profiles instead of features; a profile of a few terms alone retrieves worse than
features do, and both together better than either, so one weight turns from the one to the other.

Thousands are compared with each other exactly, block by block; for millions there is an inverted file (J. Sivic and A.
Zisserman, "Video Google", ICCV 2003; as in faiss, M. Douze et al. 2024), which looks only into the nearest cells.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Block = tuple[Floats, Integers]  # vectors (n, d), and the group (n,) of each: the patient

WEIGHT = 0.5  # of the meaning, chosen on validation images of phantoms: benchmarks/linking_retrieval.py
_ROWS, _QUERIES = 1 << 15, 256  # compared at once: bounds the memory to some ten megabytes


class NoIndex(RuntimeError):
    """The library of the inverted file is not installed."""


# ------------------------------------------------------------------------------------------------ the space


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and standard deviation (d,) of each column of what is searched."""

    mean: Floats
    deviation: Floats

    @classmethod
    def of(cls, blocks: Iterable[ArrayLike]) -> Self:
        """From blocks (n, d), in one pass. ValueError where there is nothing."""
        count, origin = 0, np.zeros(0)
        total, squares = np.zeros(0), np.zeros(0)
        for block in blocks:
            values = np.asarray(block, np.float64)
            if len(values) == 0:
                continue
            if count == 0:  # sums around a typical value: squares of far values would cancel each other out
                origin = values.mean(axis=0)
                total, squares = np.zeros_like(origin), np.zeros_like(origin)
            count += len(values)
            total += (values - origin).sum(axis=0)
            squares += ((values - origin) ** 2).sum(axis=0)
        if count == 0:
            raise ValueError("there is nothing to be searched")
        shift = total / count
        deviation = np.sqrt(np.maximum(squares / count - shift**2, 0.0))
        return cls((origin + shift).astype(np.float32), np.where(deviation > 1e-9, deviation, 1.0).astype(np.float32))

    def __call__(self, values: ArrayLike) -> Floats:
        """Values (n, d) in standard deviations from the mean; a column that never varies is 0."""
        return np.asarray((np.asarray(values, np.float32) - self.mean) / self.deviation, np.float32)


@dataclass(frozen=True, slots=True)
class Space:
    """Where near is alike. `weight` turns from 0, looks alike, to 1, means alike.

    The squared distance of two vectors is (1 - weight) times the mean squared difference of their features, plus weight
    times that of their profiles, both in standard deviations: the weight means the same for any number of features and
    of terms.
    """

    looks: Standard
    means: Standard
    weight: float = WEIGHT

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ValueError(f"the weight is {self.weight}; it lies between 0 (looks alike) and 1 (means alike)")
        if self.weight > 0 and self.means.mean.size == 0:
            raise ValueError("there is no profile to compare: no term was mapped; use the weight 0")

    def vectors(self, features: ArrayLike, profiles: ArrayLike) -> Floats:
        """Features (n, d) and profiles (n, terms) as vectors (n, d + terms) of this space."""
        looks, means = self.looks(features), self.means(profiles)
        looks *= np.sqrt((1 - self.weight) / max(1, looks.shape[1]))
        means *= np.sqrt(self.weight / max(1, means.shape[1]))
        return np.hstack([looks, means])


# ------------------------------------------------------------------------------------------------ the search


@dataclass(frozen=True, slots=True)
class Found:
    """The nearest of each query, best first: rows (queries, top) in the order they were given, and squared distances.

    Where there are fewer than `top`, the row is -1 and the distance infinite.
    """

    rows: Integers
    distances: Floats


def nearest(queries: ArrayLike, blocks: Iterable[Block], top: int, own: ArrayLike | None = None) -> Found:
    """Compare queries (q, d) with all vectors of a stream, a block at a time; no more than a block is held.

    `own` (q,) names the group that each query is not to find: its own patient. Of equals the first is the nearer.
    """
    sought = np.atleast_2d(np.asarray(queries, np.float32))
    groups = None if own is None else np.atleast_1d(np.asarray(own, np.int64))
    rows = np.full((len(sought), top), -1, np.int64)
    distances = np.full((len(sought), top), np.inf, np.float32)
    start = 0
    for vectors, of in _cut(blocks):
        squares = np.einsum("nd,nd->n", vectors, vectors)
        for q in range(0, len(sought), _QUERIES):
            part = slice(q, q + _QUERIES)
            # the square of the query is the same for all, so it does not decide who is nearest
            far = squares - 2 * (sought[part] @ vectors.T)
            if groups is not None:
                far[groups[part, None] == of[None, :]] = np.inf
            count = min(top, far.shape[1])
            best = np.argpartition(far, count - 1, axis=1)[:, :count]
            gone = np.isinf(np.take_along_axis(far, best, axis=1))
            # again without the cancellation of large squares, so that blocks of another size give the same
            exact = ((vectors[best] - sought[part, None, :]) ** 2).sum(axis=2)
            here = np.where(gone, -1, best + start)
            _merge(rows[part], distances[part], here, np.where(gone, np.inf, exact))
        start += len(vectors)
    return Found(rows, distances)


def _merge(rows: Integers, distances: Floats, new_rows: NDArray[Any], new_distances: NDArray[Any]) -> None:
    """Keep the nearest of those found before and now, in place."""
    both = np.hstack([rows, new_rows])
    far = np.hstack([distances, new_distances]).astype(np.float32)
    last = np.where(both < 0, np.iinfo(np.int64).max, both)
    order = np.lexsort((last, far), axis=1)[:, : rows.shape[1]]
    rows[:] = np.take_along_axis(both, order, axis=1)
    distances[:] = np.take_along_axis(far, order, axis=1)


def _cut(blocks: Iterable[Block]) -> Iterator[Block]:
    """Small blocks put together and large ones cut, into blocks of some ten thousand rows."""
    waiting: list[Block] = []
    held = 0
    for vectors, groups in blocks:
        for start in range(0, len(vectors), _ROWS):
            piece = vectors[start : start + _ROWS], groups[start : start + _ROWS]
            waiting.append(piece)
            held += len(piece[0])
            if held >= _ROWS:
                yield _joined(waiting)
                waiting, held = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(blocks: list[Block]) -> Block:
    if len(blocks) == 1:
        return np.asarray(blocks[0][0], np.float32), blocks[0][1]
    vectors, groups = zip(*blocks, strict=True)
    return np.concatenate(vectors).astype(np.float32, copy=False), np.concatenate(groups)


def highest(blocks: Iterable[tuple[Floats, Integers]], top: int, own: int | None = None) -> tuple[Integers, Floats]:
    """The rows (top or fewer,) with the highest scores of a stream of scores (n,) and groups (n,), and their scores.

    A query by words: which regions show a term most. `own` is a group to be left out.
    """
    rows, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
    start = 0
    for values, groups in blocks:
        there = np.arange(len(values)) if own is None else np.flatnonzero(groups != own)
        if len(there) > top:
            there = there[np.argpartition(-values[there], top - 1)[:top]]
        rows, scores = np.concatenate([rows, there + start]), np.concatenate([scores, values[there]])
        best = np.lexsort((rows, -scores))[:top]
        rows, scores = rows[best], scores[best]
        start += len(values)
    return rows, scores


def shown_and_alike(query: Floats, looks: Floats, shown: Floats, weight: float) -> Floats:
    """Scores (n,) of regions that are to look like a query (1, d) and to show a term.

    `weight` times how strongly each shows the term (n,), less the rest of the weight times the mean squared difference
    of its features (n, d) from the query's; all in standard deviations (`Standard`).
    """
    far = ((looks - query) ** 2).mean(axis=1)
    return np.asarray(weight * shown - (1 - weight) * far, np.float32)


# ------------------------------------------------------------------------------------------------ an index


class Index(Protocol):
    """What can be searched again and again. Rows are numbered in the order that they were added."""

    def add(self, vectors: Floats, groups: Integers) -> None:
        """More vectors (n, d) with the group (n,) of each."""

    def search(self, queries: ArrayLike, top: int, own: ArrayLike | None = None) -> Found:
        """The nearest of each query (q, d), leaving out the group (q,) that it names as its own."""


@dataclass(slots=True)
class Exact:
    """All vectors in memory, each compared with each query."""

    blocks: list[Block] = field(default_factory=list)

    def add(self, vectors: Floats, groups: Integers) -> None:
        """Keep them."""
        self.blocks.append((np.asarray(vectors, np.float32), np.asarray(groups, np.int64)))

    def search(self, queries: ArrayLike, top: int, own: ArrayLike | None = None) -> Found:
        """The nearest, without fail."""
        return nearest(queries, self.blocks, top, own)


class Inverted:
    """Vectors sorted into cells; a query looks into the `probes` nearest cells alone, and may miss what lies elsewhere.

    `cells` is the root of the number of vectors where it is not given. Needs the extra `search` (faiss);
    NoIndex without it. The same vectors in the same order give the same index.
    """

    def __init__(self, sample: Floats, size: int, *, cells: int = 0, probes: int = 16) -> None:
        faiss = _faiss()
        count = cells or max(1, min(int(np.sqrt(size)), len(sample) // 39))  # faiss wants 39 vectors for a cell
        self._index = faiss.IndexIVFFlat(faiss.IndexFlatL2(sample.shape[1]), sample.shape[1], count)
        self._index.train(np.ascontiguousarray(sample, np.float32))
        self.probes = min(probes, count)
        self._groups: list[Integers] = []

    def add(self, vectors: Floats, groups: Integers) -> None:
        """Sort them into the cells."""
        self._index.add(np.ascontiguousarray(vectors, np.float32))
        self._groups.append(np.asarray(groups, np.int64))

    def search(self, queries: ArrayLike, top: int, own: ArrayLike | None = None) -> Found:
        """The nearest that lie in the cells looked into."""
        faiss = _faiss()
        sought = np.ascontiguousarray(np.atleast_2d(np.asarray(queries, np.float32)))
        if own is None:
            return self._search(sought, top, faiss.SearchParametersIVF(nprobe=self.probes))
        self._groups = [np.concatenate(self._groups)] if self._groups else []
        groups = np.atleast_1d(np.asarray(own, np.int64))
        rows = np.full((len(sought), top), -1, np.int64)
        distances = np.full((len(sought), top), np.inf, np.float32)
        for group in np.unique(groups):
            # the rows of a patient are left out while searching: left out afterwards, too few might remain
            same = np.flatnonzero(self._groups[0] == group) if self._groups else np.zeros(0, np.int64)
            others = faiss.IDSelectorNot(faiss.IDSelectorBatch(same))
            part = groups == group
            found = self._search(sought[part], top, faiss.SearchParametersIVF(sel=others, nprobe=self.probes))
            rows[part], distances[part] = found.rows, found.distances
        return Found(rows, distances)

    def _search(self, sought: Floats, top: int, parameters: Any) -> Found:
        distances, rows = self._index.search(sought, top, params=parameters)
        return Found(rows.astype(np.int64), np.where(rows < 0, np.inf, distances).astype(np.float32))

    def write(self, path: Path) -> None:
        """Keep the index in a file of faiss's own format; groups are not in it. Written beside and renamed."""
        beside = path.with_suffix(".part")
        _faiss().write_index(self._index, str(beside))
        beside.rename(path)

    @classmethod
    def read(cls, path: Path, groups: Integers, *, probes: int = 16) -> Self:
        """What `write` kept, with the group of each row. ValueError where the file holds another number of rows."""
        found = cls.__new__(cls)
        found._index = _faiss().read_index(str(path))
        if found._index.ntotal != len(groups):
            raise ValueError("the index was made of other regions; delete it, and it is made anew")
        found.probes, found._groups = min(probes, found._index.nlist), [groups]
        return found


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise NoIndex("an approximate search needs faiss: pip install 'phenotype[search]', or search exactly") from None
    return faiss


# ------------------------------------------------------------------------------------------------ how good it is


def precision_at(relevant: ArrayLike, k: int) -> NDArray[np.float64]:
    """Share of the first k that are relevant, for each query; relevant (q, n) bool, best first."""
    return np.asarray(np.asarray(relevant, bool)[:, :k].sum(axis=1) / k, np.float64)


def average_precision_at(relevant: ArrayLike, k: int, total: ArrayLike) -> NDArray[np.float64]:
    """Mean of the precisions at each relevant place among the first k, for each query.

    `total` (q,) says how many relevant there are to be found: at most k of them count. NaN where there is none.
    """
    hits = np.asarray(relevant, bool)[:, :k]
    precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
    possible = np.minimum(np.asarray(total), k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((precision * hits).sum(axis=1) / possible, np.float64)


def ndcg_at(relevant: ArrayLike, k: int, total: ArrayLike) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of the first k (K. Jarvelin and J. Kekalainen 2002), gains of 0 and 1.

    NaN where there is nothing relevant to be found.
    """
    hits = np.asarray(relevant, bool)[:, :k]
    discount = 1 / np.log2(np.arange(2, k + 2))
    possible = np.minimum(np.asarray(total, np.int64), k)
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[possible]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((hits * discount[: hits.shape[1]]).sum(axis=1) / ideal, np.float64)
