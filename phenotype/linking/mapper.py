"""What a term mapper is: learned from images as bags of regions and what their reports say, it scores regions.

A report speaks of the whole image, so nobody says which regions show a finding: learning this from bags is multiple-
instance learning. The mappers themselves are listed in `phenotype.linking.mappers`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

STATES = ("present", "possible", "denied", "unmentioned")
"""What a report may say of a term; a `Bag` holds the index. Not to mention a term is not to deny it."""

PRESENT, POSSIBLE, DENIED, UNMENTIONED = range(len(STATES))


class CannotLearn(ValueError):
    """The bags, regions or arrays given do not fit the mapper; the message says in what."""


@dataclass(frozen=True, slots=True)
class Bag:
    """An image, and what its reports say of each term."""

    regions: Floats  # (n, d)
    states: NDArray[np.int8]  # (n_terms,) what the report says: index into STATES
    probabilities: Floats  # (n_terms,) how probable the term is, given all that the labellers say (0..1)
    where: NDArray[np.bool_] | None = None  # (n_terms, n) regions that the report's location words allow; None: no word
    patient: int = -1  # images of one patient share it and are held out together; -1: of a patient of its own


class TermMapper(Protocol):
    """Learns from bags, scores regions. Constructor arguments are the parameters; learned values end in `_`.

    All mappers refuse with CannotLearn what they cannot use: no bags, bags of different width, values that are not
    finite, scores asked before `fit`. A term that no bag has, or that every bag has, scores 0 everywhere. The same bags
    in the same order give the same mapper to the last bit.
    """

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Forget everything and learn from these bags."""
        ...

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Scores (n, n_terms) of the regions (n, d) of one image: higher where more of the term is seen. No unit.

        Attention is shared out among the regions given: those of several images together score otherwise.
        """
        ...

    def image_score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Scores (n_terms,) of the image that has these regions (n, d), n >= 1."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything learned and every parameter, as plain arrays (kept as safetensors, never pickled)."""
        ...

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described, scoring the same to the last bit; CannotLearn if it is none."""
        ...


@dataclass(frozen=True, slots=True)
class Stack:
    """Bags put together: all their regions in one matrix, and what is said of each."""

    regions: Floats  # (sum of sizes, d)
    sizes: NDArray[np.int64]  # (bags,)
    states: NDArray[np.int8]  # (bags, n_terms)
    probabilities: NDArray[np.float64]  # (bags, n_terms)
    where: NDArray[np.bool_] | None  # (sum of sizes, n_terms), None where no bag says a word of it
    patients: NDArray[np.int64]  # (bags,) of those that are known; the others have numbers of their own


def stack(bags: Sequence[Bag]) -> Stack:
    """Check bags and put them together; CannotLearn says what does not fit. Bags without regions are left out."""
    kept = [bag for bag in bags if len(bag.regions)]
    if not kept:
        raise CannotLearn("there are no bags with regions to learn from")
    regions = finite(np.concatenate(_same([np.asarray(bag.regions, np.float32) for bag in kept], "features")))
    states = np.stack(_same([np.asarray(bag.states, np.int8)[None] for bag in kept], "terms"))[:, 0]
    probabilities = np.stack(_same([np.asarray(bag.probabilities, np.float64)[None] for bag in kept], "terms"))[:, 0]
    if states.shape != probabilities.shape:
        raise CannotLearn(f"states are of {states.shape[1]} terms, probabilities of {probabilities.shape[1]}")
    if states.size and not (states.min() >= 0 and states.max() < len(STATES)):
        raise CannotLearn(f"a state is an index into {', '.join(STATES)}")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):  # NaN is refused as well
        raise CannotLearn("probabilities of terms lie between 0 and 1")
    sizes = np.array([len(bag.regions) for bag in kept], np.int64)
    own = np.array([bag.patient for bag in kept], np.int64)
    patients = np.where(own < 0, own.max() + 1 + np.arange(own.size), own)
    return Stack(regions, sizes, states, probabilities, _where(kept, states.shape[1]), patients)


def finite(regions: ArrayLike, d: int | None = None) -> Floats:
    """Regions as a float32 matrix (n, d); CannotLearn where they are not finite or not of d features."""
    matrix = np.asarray(regions, np.float32)
    if matrix.ndim != 2:
        raise CannotLearn(f"regions are a matrix (n, d), not an array of {matrix.ndim} dimensions")
    if d is not None and matrix.shape[1] != d:
        raise CannotLearn(f"regions have {matrix.shape[1]} features, the mapper learned from {d}")
    if not np.all(np.isfinite(matrix)):
        raise CannotLearn("regions hold values that are not finite")
    return matrix


def silent(probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Terms (n_terms,) of which nothing can be learned: of bags (n, n_terms) none has the term, or none lacks it."""
    has = probabilities >= 0.5
    return np.asarray(~has.any(axis=0) | has.all(axis=0))


def _same(arrays: list[NDArray[Any]], what: str) -> list[NDArray[Any]]:
    widths = {array.shape[1:] for array in arrays}
    if len(widths) > 1 or any(array.ndim != 2 for array in arrays):
        raise CannotLearn(f"bags differ in their number of {what}: {sorted(widths)}")
    return arrays


def _where(bags: Sequence[Bag], terms: int) -> NDArray[np.bool_] | None:
    if all(bag.where is None for bag in bags):
        return None
    masks = []
    for bag in bags:
        n = len(bag.regions)
        mask = np.ones((terms, n), bool) if bag.where is None else np.asarray(bag.where, bool)
        if mask.shape != (terms, n):
            raise CannotLearn(f"where is {mask.shape}, not terms x regions {(terms, n)}")
        # words that no region fits (a side that is not in view) say nothing of where
        masks.append((mask | ~mask.any(axis=1, keepdims=True)).T)
    return np.concatenate(masks)
