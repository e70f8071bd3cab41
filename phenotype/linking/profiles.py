"""Random-fern semantic profiles as a term mapper (`phenotype.linking.ferns` counts)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenotype.linking.evidence import image_score
from phenotype.linking.ferns import FernMapper
from phenotype.linking.mapper import UNMENTIONED, Bag, CannotLearn, Floats, Stack, finite, silent, stack

_SAMPLE = 20_000  # regions that the questions are balanced on


class Ferns:
    """Semantic profiles: regions inherit the probabilities of their image's terms, and cells of look-alikes count them.

    ferns, depth, smoothing, seed    see FernMapper
    place, repeat                    the last `place` features are where a region is; the ferns ask about them as if
                                     they were there `repeat` times
    unmentioned_weight, unmentioned_probability
                                     what an image counts for a term that its reports do not mention, and as how
                                     probable
    top                              regions whose mean is the score of an image

    The order of the bags plays no part as long as they hold no more than 20,000 regions; of more, a sample drawn by
    their order balances the questions.
    """

    def __init__(
        self,
        *,
        ferns: int = 128,
        depth: int = 8,
        smoothing: float = 20.0,
        place: int = 2,
        repeat: int = 2,
        unmentioned_weight: float = 0.5,
        unmentioned_probability: float = 0.05,
        top: int = 5,
        seed: int = 0,
    ) -> None:
        if not (place >= 0 and repeat >= 1 and top >= 1):
            raise CannotLearn("ferns need place >= 0, repeat >= 1 and top >= 1")
        self.place, self.repeat, self.top = place, repeat, top
        self.ferns_ = FernMapper(
            ferns=ferns,
            depth=depth,
            smoothing=smoothing,
            unmentioned_weight=unmentioned_weight,
            unmentioned_probability=unmentioned_probability,
            seed=seed,
        )
        self.silent_: NDArray[np.bool_] | None = None  # (n_terms,)
        self.d_ = 0

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Draw the questions, then count all bags."""
        return self.count(stack(bags))

    def count(self, told: Stack, probabilities: NDArray[np.float64] | None = None) -> Self:
        """Learn from stacked bags; `probabilities` (bags, n_terms) stand in for what the bags hold, all known."""
        labels = probabilities
        if labels is None:
            unsaid = (told.states == UNMENTIONED) & (told.probabilities < 0.5)
            labels = np.where(unsaid, np.nan, told.probabilities)
        self.d_ = told.regions.shape[1]
        described = self._describe(told.regions)
        rng = np.random.default_rng(self.ferns_.seed)
        chosen = described
        if len(described) > _SAMPLE:
            chosen = described[np.sort(rng.choice(len(described), _SAMPLE, replace=False))]
        # sorted by their features, so that sums of floats do not depend on the order of the bags
        self.ferns_ = self.ferns_.empty().prepare(chosen[np.lexsort(chosen.T)])
        self.ferns_.partial_fit(_inherited(told, described, labels))
        self.silent_ = silent(told.probabilities)
        return self

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Mean log-ratio over the ferns: 0 says nothing either way."""
        if self.silent_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        return np.where(self.silent_, 0.0, self.ferns_.score(self._describe(finite(regions, self.d_))))

    def image_score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Mean of the highest regions."""
        return image_score(self.score(regions), top=self.top)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The ferns, and how regions are described to them."""
        if self.silent_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        own = np.array([self.d_, self.place, self.repeat, self.top], np.int64)
        return {f"ferns/{name}": array for name, array in self.ferns_.to_arrays().items()} | {
            "own": own,
            "silent": self.silent_,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            d, place, repeat, top = (int(value) for value in arrays["own"])
            found = cls(place=place, repeat=repeat, top=top)
            found.d_, found.silent_ = d, np.asarray(arrays["silent"], bool)
            found.ferns_ = FernMapper.from_arrays(
                {name.removeprefix("ferns/"): array for name, array in arrays.items() if name.startswith("ferns/")}
            )
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no ferns: {missing} is missing") from None
        return found

    def _describe(self, regions: Floats) -> Floats:
        if self.place == 0 or self.repeat == 1:
            return regions
        return np.hstack([regions, *[regions[:, -self.place :]] * (self.repeat - 1)])


def _inherited(
    told: Stack, described: Floats, labels: NDArray[np.float64]
) -> Iterator[tuple[Floats, NDArray[np.float64]]]:
    """Bags for the ferns. One whose location words allow a term in a part of its regions is split: the rest of the
    image has the term denied."""
    ends = np.cumsum(told.sizes)
    for end, size, label in zip(ends.tolist(), told.sizes.tolist(), labels, strict=True):
        regions = described[end - size : end]
        if told.where is None or told.where[end - size : end].all():
            yield regions, label
            continue
        patterns, which = np.unique(told.where[end - size : end], axis=0, return_inverse=True)
        for number, allowed in enumerate(patterns):
            yield regions[which == number], np.where(allowed, label, 0.0)
