"""Ferns and a multiple-instance network together: the default.

Ferns count, so that wrong reports wash out, and cover extended findings that are bound to a place; the network finds
small, focal ones that counting drowns. The sum of both in standard deviations is better than either.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenotype.linking.evidence import image_score
from phenotype.linking.mapper import Bag, CannotLearn, Stack, stack
from phenotype.linking.mil import InstanceMil, NoisyOr
from phenotype.linking.profiles import Ferns

Doubles = NDArray[np.float64]

_SAMPLE = 50_000  # regions whose scores tell mean and spread


class Combined:
    """Sum of the scores of ferns and of a noisy-or network, each in standard deviations over the regions learned from.

    share      weight of the ferns, 0 to 1; the rest is the network's
    informed   whether the ferns inherit what the network, asked about images that it has not seen, and the report
               together make of each term, instead of the report's probabilities alone. It helps where the network is
               the better of the two, and harms where the ferns are.
    """

    name: ClassVar[str] = "combined"
    partner: ClassVar[type[InstanceMil]] = NoisyOr

    def __init__(
        self,
        *,
        share: float = 0.5,
        ferns: int = 128,
        depth: int = 8,
        smoothing: float = 20.0,
        place: int = 2,
        repeat: int = 2,
        hidden: int = 64,
        epochs: int = 30,
        anchor: float = 1.0,
        informed: bool = False,
        seed: int = 0,
    ) -> None:
        if not 0 <= share <= 1:
            raise CannotLearn("share lies between 0 and 1")
        self.share, self.informed = share, informed
        self.ferns_ = Ferns(ferns=ferns, depth=depth, smoothing=smoothing, place=place, repeat=repeat, seed=seed)
        self.network_: InstanceMil = self.partner(hidden=hidden, epochs=epochs, anchor=anchor, seed=seed)
        self.regions_: Doubles = np.zeros((0, 0))  # (2 mappers, mean and spread, n_terms) of regions' scores
        self.images_: Doubles = np.zeros((0, 0))  # the same of images' scores

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Train the network, then count."""
        told = stack(bags)
        self.network_.train(told)
        self.ferns_.count(told, self.network_.posterior_ if self.informed else None)
        self.regions_, self.images_ = self._usual(told)
        return self

    @property
    def emission_(self) -> Any:
        """The emission table that the network learned along."""
        return self.network_.emission_

    @property
    def posterior_(self) -> Doubles:
        """How probable each term is in the images learned from (bags, n_terms), given image and report."""
        return self.network_.posterior_

    def _usual(self, told: Stack) -> tuple[Doubles, Doubles]:
        starts = np.concatenate([[0], np.cumsum(told.sizes)])
        step = -(-int(starts[-1]) // _SAMPLE)
        chosen = range(0, len(told.sizes), step)
        regions, images = [], []
        for mapper in (self.ferns_, self.network_):
            matrix = np.concatenate([told.regions[starts[i] : starts[i + 1]] for i in chosen])
            scores = np.split(mapper.score(matrix), np.cumsum(told.sizes[::step])[:-1])
            pooled = np.stack([self._of_image(mapper, own) for own in scores])
            regions.append(_mean_and_spread(np.concatenate(scores)))
            images.append(_mean_and_spread(pooled))
        return np.stack(regions), np.stack(images)

    @staticmethod
    def _of_image(mapper: Ferns | InstanceMil, scores: Doubles) -> Doubles:
        return image_score(scores, top=mapper.top) if isinstance(mapper, Ferns) else mapper.pooled(scores)

    def score(self, regions: ArrayLike) -> Doubles:
        """Standard deviations above the mean region, ferns' and network's by their shares."""
        self._learned()
        return self._sum([self.ferns_.score(regions), self.network_.score(regions)], self.regions_)

    def image_score(self, regions: ArrayLike) -> Doubles:
        """Standard deviations above the mean image."""
        self._learned()
        scores = [self._of_image(mapper, mapper.score(regions)) for mapper in (self.ferns_, self.network_)]
        return self._sum(scores, self.images_)

    def _sum(self, scores: Sequence[Doubles], usual: Doubles) -> Doubles:
        weights = (self.share, 1 - self.share)
        return np.asarray(
            sum(w * (s - mean) / spread for w, s, (mean, spread) in zip(weights, scores, usual, strict=True))
        )

    def _learned(self) -> None:
        if not self.regions_.size:
            raise CannotLearn("nothing learned yet: call fit()")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Both mappers, and how their scores add up."""
        self._learned()
        arrays = {f"ferns/{name}": value for name, value in self.ferns_.to_arrays().items()}
        arrays |= {f"network/{name}": value for name, value in self.network_.to_arrays().items()}
        return arrays | {"regions": self.regions_, "images": self.images_, "share": np.array([self.share])}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            found = cls(share=float(arrays["share"][0]))
            found.regions_, found.images_ = np.asarray(arrays["regions"]), np.asarray(arrays["images"])
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        found.ferns_ = Ferns.from_arrays(_below(arrays, "ferns/"))
        found.network_ = cls.partner.from_arrays(_below(arrays, "network/"))
        return found


def _below(arrays: Mapping[str, NDArray[Any]], start: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def _mean_and_spread(scores: Doubles) -> Doubles:
    spread = scores.std(axis=0)
    return np.stack([scores.mean(axis=0), np.where(spread > 1e-12, spread, 1.0)])
