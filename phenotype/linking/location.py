"""Where in the body findings are, whatever an image shows: the baseline beside every figure."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import csr_array

from phenotype.linking.evidence import image_score
from phenotype.linking.mapper import Bag, CannotLearn, Floats, finite, silent, stack

_CELLS = 1000  # at most, over all dimensions of place: 31 x 31, or 10 x 10 x 10


class Location:
    """The map of a term is the same over every image: how much images with the term differ, at each place of the body,
    from images without it (the classical map of group differences), and how often location words allow it there.

    It looks at features to learn, and at nothing but the place to score. What a mapper gains over it, it has seen in
    the image. Where all images show the same places, all image scores are equal.

    place    the last `place` features are where a region is, from 0 to 1
    cells    along each dimension of the place; fewer where there are three
    top      regions whose mean is the score of an image
    """

    name: ClassVar[str] = "location"

    def __init__(self, *, place: int = 2, cells: int = 16, top: int = 5) -> None:
        if not (place >= 1 and cells >= 2 and top >= 1):
            raise CannotLearn("a mapper of locations needs place >= 1, cells >= 2 and top >= 1")
        self.place, self.top = place, top
        self.cells = min(cells, int(_CELLS ** (1 / place) + 1e-9))
        self.map_: NDArray[np.float64] | None = None  # (cells ** place, n_terms)
        self.d_ = 0

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Differences at each place, smoothed over neighbouring ones."""
        told = stack(bags)
        self.d_ = told.regions.shape[1]
        if self.d_ < self.place:
            raise CannotLearn(f"regions have {self.d_} features, fewer than the {self.place} of the place")
        n = len(told.regions)
        cell = self._cell(told.regions)
        falls = csr_array((np.ones(n), cell, np.arange(n + 1)), shape=(n, self.cells**self.place)).T
        z = told.regions.astype(np.float64) - told.regions.mean(axis=0, dtype=np.float64)
        probable = np.repeat(told.probabilities, told.sizes, axis=0)
        count, total, squares = falls @ np.ones(n), falls @ z, falls @ z**2
        with_term = falls @ probable
        allowed = np.ones_like(with_term)
        if told.where is not None:
            allowed = (falls @ (probable * told.where)) / np.maximum(with_term, 1e-9)
        found = np.zeros_like(with_term)
        for term in range(probable.shape[1]):
            n1 = np.maximum(with_term[:, term], 1e-9)[:, None]
            n0 = np.maximum(count - with_term[:, term], 1e-9)[:, None]
            own = falls @ (z * probable[:, term : term + 1])
            apart = own / n1 - (total - own) / n0
            within = squares - own**2 / n1 - (total - own) ** 2 / n0
            within = np.maximum(within, 1e-9) / np.maximum(count, 1)[:, None]
            # of features that do not differ the expectation of the square is the sum of the two means' variances
            effect = (apart**2 / within - (1 / n1 + 1 / n0)).mean(axis=1)
            found[:, term] = np.where((n1[:, 0] >= 1) & (n0[:, 0] >= 1), effect, 0.0)
        grid = (self.cells,) * self.place
        seen = gaussian_filter((count > 0).astype(float).reshape(grid), 1.0).ravel()
        for term in range(found.shape[1]):
            smooth = gaussian_filter(found[:, term].reshape(grid), 1.0).ravel() / np.maximum(seen, 1e-9)
            found[:, term] = np.maximum(smooth, 0.0) * allowed[:, term]
        self.map_ = np.where(silent(told.probabilities), 0.0, found)
        return self

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """What the place alone tells (n, n_terms), 0 or more."""
        if self.map_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        return self.map_[self._cell(finite(regions, self.d_))]

    def image_score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Mean of the highest regions."""
        return image_score(self.score(regions), top=self.top)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The map, and how it is laid out."""
        if self.map_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        return {"map": self.map_, "own": np.array([self.d_, self.place, self.cells, self.top], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            d, place, cells, top = (int(value) for value in arrays["own"])
            found = cls(place=place, cells=cells, top=top)
            found.d_, found.map_ = d, np.asarray(arrays["map"], np.float64)
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        return found

    def _cell(self, regions: Floats) -> NDArray[np.int64]:
        steps = np.clip((regions[:, -self.place :] * self.cells).astype(np.int64), 0, self.cells - 1)
        return np.asarray(np.ravel_multi_index(tuple(steps.T), (self.cells,) * self.place), np.int64)
