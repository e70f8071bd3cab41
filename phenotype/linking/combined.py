"""Ferns and a multiple-instance network together: the default.

Ferns count, so that wrong reports wash out, and cover extended findings that are bound to a place; the network finds
small, focal ones that counting drowns. The sum of both in standard deviations bears wrong reports better than either.

Where regions are described by their difference from the mirrored place, these two do not see it, since to both the
healthy side is as strange as the sick one; a linear mapper (`linking.linear`), which tells them apart, joins the sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phenotype.linking.attention import GatedAttention
from phenotype.linking.linear import Linear
from phenotype.linking.mapper import Bag, CannotLearn, Floats, Stack, finite, stack
from phenotype.linking.mil import InstanceMil, NoisyOr
from phenotype.linking.profiles import Ferns

Doubles = NDArray[np.float64]

PARTNERS: dict[str, type[InstanceMil]] = {"attention": GatedAttention, "noisy-or": NoisyOr}

_SAMPLE = 50_000  # regions whose scores tell mean and spread


class Combined:
    """Sum of the scores of ferns and of a network, each in standard deviations over the regions learned from.

    partner    the network: "attention", gated, with the likelihood of the report's words as loss, or "noisy-or"
    share      weight of the ferns, 0 to 1; the rest is the network's
    late       how many of the features are differences from the mirrored place
    after      how many come after those
    linear     weight of the linear mapper, 0 to 1, where there are such features; the others share the rest
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
        late: int = 0,
        after: int = 0,
        linear: float = 1 / 3,
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
        if not (0 <= share <= 1 and 0 <= linear <= 1):
            raise CannotLearn("share and linear lie between 0 and 1")
        if partner not in PARTNERS:
            raise CannotLearn(f"the partner of the ferns is {' or '.join(PARTNERS)}, not {partner}")
        self.partner, self.informed = partner, informed
        self.ferns_ = Ferns(ferns=ferns, depth=depth, smoothing=smoothing, place=place, repeat=repeat, seed=seed)
        self.network_: InstanceMil = PARTNERS[partner](
            loss="assertion", hidden=hidden, epochs=epochs, anchor=anchor, seed=seed
        )
        self.linear_ = Linear(late=late, after=after, seed=seed) if late else None
        self.weights = np.array([share, 1 - share]) * (1 - linear if late else 1)
        if late:
            self.weights = np.append(self.weights, linear)
        self.regions_: Doubles = np.zeros((0, 0))  # (mappers, mean and spread, n_terms) of regions' scores
        self.images_: Doubles = np.zeros((0, 0))  # the same of images' scores

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Train the network, then count."""
        told = stack(bags)
        plain = replace(told, regions=self._plain(told.regions))
        self.network_.train(plain)
        self.ferns_.count(plain, self.network_.posterior_ if self.informed else None)
        if self.linear_ is not None:
            self.linear_.train(told)
        self.regions_, self.images_ = self._usual(told)
        return self

    def _plain(self, regions: Floats) -> Floats:
        """Regions without their late features."""
        return regions if self.linear_ is None else regions[:, self.linear_.known(regions.shape[1])]

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
        regions = [self._each("score", own) for own in chosen]
        images = [self._each("image_score", own) for own in chosen]
        return (
            np.stack([_mean_and_spread(np.concatenate(scores)) for scores in zip(*regions, strict=True)]),
            np.stack([_mean_and_spread(np.stack(scores)) for scores in zip(*images, strict=True)]),
        )

    def _each(self, what: str, regions: ArrayLike) -> list[Doubles]:
        """What each mapper scores, by the name of its method."""
        whole = finite(regions)
        plain = self._plain(whole)
        scores = [getattr(self.ferns_, what)(plain), getattr(self.network_, what)(plain)]
        return scores if self.linear_ is None else [*scores, getattr(self.linear_, what)(whole)]

    def score(self, regions: ArrayLike) -> Doubles:
        """Standard deviations above the mean region, those of each mapper by its share."""
        self._learned()
        return self._sum(self._each("score", regions), self.regions_)

    def image_score(self, regions: ArrayLike) -> Doubles:
        """Standard deviations above the mean image."""
        self._learned()
        return self._sum(self._each("image_score", regions), self.images_)

    def _sum(self, scores: Sequence[Doubles], usual: Doubles) -> Doubles:
        return np.asarray(
            sum(w * (s - mean) / spread for w, s, (mean, spread) in zip(self.weights, scores, usual, strict=True))
        )

    def _learned(self) -> None:
        if not self.regions_.size:
            raise CannotLearn("nothing learned yet: call fit()")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The mappers, and how their scores add up."""
        self._learned()
        arrays = {f"ferns/{name}": value for name, value in self.ferns_.to_arrays().items()}
        partner = np.array([list(PARTNERS).index(self.partner)], np.int64)
        arrays |= {f"network/{name}": value for name, value in self.network_.to_arrays().items()}
        if self.linear_ is not None:
            arrays |= {f"linear/{name}": value for name, value in self.linear_.to_arrays().items()}
        return arrays | {
            "regions": self.regions_,
            "images": self.images_,
            "weights": self.weights,
            "partner": partner,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            partner = list(PARTNERS)[int(arrays["partner"][0])]
            found = cls(partner=partner)
            found.weights = np.asarray(arrays["weights"])
            found.regions_, found.images_ = np.asarray(arrays["regions"]), np.asarray(arrays["images"])
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        found.ferns_ = Ferns.from_arrays(_below(arrays, "ferns/"))
        found.network_ = PARTNERS[partner].from_arrays(_below(arrays, "network/"))
        if linear := _below(arrays, "linear/"):
            found.linear_ = Linear.from_arrays(linear)
        return found


def _below(arrays: Mapping[str, NDArray[Any]], start: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}


def _mean_and_spread(scores: Doubles) -> Doubles:
    spread = scores.std(axis=0)
    return np.stack([scores.mean(axis=0), np.where(spread > 1e-12, spread, 1.0)])
