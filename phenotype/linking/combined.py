"""Ferns and a multiple-instance network together: the default.

Ferns count, so that wrong reports wash out, and cover extended findings that are bound to a place; the network finds
small, focal ones that counting drowns. The sum of both in standard deviations bears wrong reports better than either.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenotype.linking.attention import GatedAttention
from phenotype.linking.mapper import Bag, CannotLearn, Stack, stack
from phenotype.linking.mil import InstanceMil, NoisyOr
from phenotype.linking.profiles import Ferns

Doubles = NDArray[np.float64]

PARTNERS: dict[str, type[InstanceMil]] = {"attention": GatedAttention, "noisy-or": NoisyOr}

_SAMPLE = 50_000  # regions whose scores tell mean and spread


class Combined:
    """Sum of the scores of ferns and of a network, each in standard deviations over the regions learned from.

    partner    the network: "attention", gated, with the likelihood of the report's words as loss, or "noisy-or"
    share      weight of the ferns, 0 to 1; the rest is the network's
    informed   whether the ferns inherit what the network, asked about images that it has not seen, and the report
               together make of each term, instead of the report's probabilities alone. It helps where the network is
               the better of the two, and harms where the ferns are.
    """

    name: ClassVar[str] = "combined"

    def __init__(
        self,
        *,
        partner: str = "attention",
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
        if partner not in PARTNERS:
            raise CannotLearn(f"the partner of the ferns is {' or '.join(PARTNERS)}, not {partner}")
        self.partner, self.share, self.informed = partner, share, informed
        self.ferns_ = Ferns(ferns=ferns, depth=depth, smoothing=smoothing, place=place, repeat=repeat, seed=seed)
        self.network_: InstanceMil = PARTNERS[partner](
            loss="assertion", hidden=hidden, epochs=epochs, anchor=anchor, seed=seed
        )
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
        parts = np.split(told.regions, np.cumsum(told.sizes)[:-1])
        chosen = parts[:: -(-len(told.regions) // _SAMPLE)]
        both = (self.ferns_, self.network_)
        regions = [_mean_and_spread(np.concatenate([mapper.score(own) for own in chosen])) for mapper in both]
        images = [_mean_and_spread(np.stack([mapper.image_score(own) for own in chosen])) for mapper in both]
        return np.stack(regions), np.stack(images)

    def score(self, regions: ArrayLike) -> Doubles:
        """Standard deviations above the mean region, ferns' and network's by their shares."""
        self._learned()
        return self._sum([self.ferns_.score(regions), self.network_.score(regions)], self.regions_)

    def image_score(self, regions: ArrayLike) -> Doubles:
        """Standard deviations above the mean image."""
        self._learned()
        return self._sum([self.ferns_.image_score(regions), self.network_.image_score(regions)], self.images_)

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
        partner = np.array([list(PARTNERS).index(self.partner)], np.int64)
        arrays |= {f"network/{name}": value for name, value in self.network_.to_arrays().items()}
        return arrays | {
            "regions": self.regions_,
            "images": self.images_,
            "share": np.array([self.share]),
            "partner": partner,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            partner = list(PARTNERS)[int(arrays["partner"][0])]
            found = cls(partner=partner, share=float(arrays["share"][0]))
            found.regions_, found.images_ = np.asarray(arrays["regions"]), np.asarray(arrays["images"])
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        found.ferns_ = Ferns.from_arrays(_below(arrays, "ferns/"))
        found.network_ = PARTNERS[partner].from_arrays(_below(arrays, "network/"))
        return found


def _below(arrays: Mapping[str, NDArray[Any]], start: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def _mean_and_spread(scores: Doubles) -> Doubles:
    spread = scores.std(axis=0)
    return np.stack([scores.mean(axis=0), np.where(spread > 1e-12, spread, 1.0)])
