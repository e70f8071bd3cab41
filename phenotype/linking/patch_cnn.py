"""A network on patches that learns what is where from semantic descriptions of whole images.

After T. Schlegl, S. Waldstein, W. Vogl, U. Schmidt-Erfurth and G. Langs, "Predicting semantic descriptions from medical
images with convolutional neural networks", IPMI 2015: two scales of patches about the same centre, the place of the
patch joined to the last layer but one, and for target not the bare finding but each finding in each zone of the body,
as the report describes it. Every patch inherits the description of its image; the place lets the network learn which
part of it can be its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from phenotype.linking.evidence import image_score
from phenotype.linking.mapper import Bag, CannotLearn, Floats, Stack, finite, silent, stack
from phenotype.linking.training import one_thread

_CHUNK = 8192  # patches scored at once
_BATCH = 128  # patches a step


class PatchCnn:
    """Takes regions as two patches and a place: (n, 2 * side**2 + place), the small patch, then the larger, drawn to
    the same number of pixels, then the place from 0 to 1, row and column last.

    side       pixels along an edge of both patches, at least 8
    zones      zones of the body, rows and columns
    patches    learned from in a pass, drawn anew
    epochs     passes
    """

    name: ClassVar[str] = "patch-cnn"

    def __init__(
        self,
        *,
        side: int = 16,
        place: int = 2,
        zones: tuple[int, int] = (3, 2),
        hidden: int = 64,
        patches: int = 12_000,
        epochs: int = 5,
        rate: float = 2e-3,
        top: int = 5,
        seed: int = 0,
    ) -> None:
        if side < 8 or place < 2:
            raise CannotLearn("the network needs patches of 8 pixels at least, and the place: row and column")
        self.side, self.place, self.zones, self.hidden = side, place, zones, hidden
        self.patches, self.epochs, self.rate, self.top, self.seed = patches, epochs, rate, top, seed
        self.weights_: dict[str, Floats] = {}
        self.usual_: Floats = np.zeros((2, 2), np.float32)  # mean and spread of the pixels of either patch
        self.silent_: NDArray[np.bool_] = np.zeros(0, bool)

    @property
    def width(self) -> int:
        """Features of a region."""
        return 2 * self.side**2 + self.place

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Train on patches that inherit the semantic description of their image."""
        told = stack(bags)
        finite(told.regions, self.width)
        self.silent_ = silent(told.probabilities)
        pixels = told.regions[:, : 2 * self.side**2].reshape(len(told.regions), 2, -1)
        spread = np.maximum(pixels.std(axis=(0, 2)), 1e-6)
        self.usual_ = np.stack([pixels.mean(axis=(0, 2)), spread], axis=1).astype(np.float32)
        targets = torch.from_numpy(self._descriptions(told))
        image = np.repeat(np.arange(len(told.sizes)), told.sizes)
        rng = np.random.default_rng(self.seed)
        with one_thread(self.seed):
            network = _TwoScales(self.side, self.place, self.hidden, targets.shape[1])
            optimiser = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=1e-3, fused=True)
            for _ in range(self.epochs):
                drawn = rng.permutation(len(image))[: self.patches]
                for start in range(0, len(drawn), _BATCH):
                    chosen = drawn[start : start + _BATCH]
                    logits = network(*self._inputs(told.regions[chosen]))
                    loss = functional.binary_cross_entropy_with_logits(logits, targets[image[chosen]])
                    optimiser.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
        self.weights_ = {name: value.numpy() for name, value in network.state_dict().items()}
        return self

    def _descriptions(self, told: Stack) -> Floats:
        """The semantic description (bags, n_terms * zones) of each image: how probable each term is in each zone.

        A term is described for the zones that its location words allow; for all, where there are none.
        """
        zones = self.zones[0] * self.zones[1]
        described = np.repeat(told.probabilities[:, :, None], zones, axis=2)
        if told.where is not None:
            zone = self._zone(told.regions)
            ends = np.cumsum(told.sizes)
            for bag, (end, size) in enumerate(zip(ends.tolist(), told.sizes.tolist(), strict=True)):
                own = slice(end - size, end)
                possible = np.zeros((zones, told.probabilities.shape[1]), bool)
                np.logical_or.at(possible, zone[own], told.where[own])
                shown = np.isin(np.arange(zones), zone[own])
                described[bag] = np.where((possible | ~shown[:, None]).T, described[bag], 0.0)
        return described.reshape(len(told.sizes), -1).astype(np.float32)

    def _zone(self, regions: Floats) -> NDArray[np.int64]:
        """The zone (n,) that each region lies in, by its row and column."""
        steps = [
            np.clip((regions[:, axis - 2] * count).astype(np.int64), 0, count - 1)
            for axis, count in enumerate(self.zones)
        ]
        return np.asarray(steps[0] * self.zones[1] + steps[1], np.int64)

    def _inputs(self, regions: Floats) -> tuple[Tensor, Tensor]:
        pixels = regions[:, : 2 * self.side**2].reshape(len(regions), 2, self.side, self.side)
        mean, spread = self.usual_.T[:, :, None, None]
        return torch.from_numpy((pixels - mean) / spread), torch.from_numpy(regions[:, -self.place :].copy())

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Log-odds (n, n_terms) that the image is described to have the term in the zone that the region lies in."""
        if not self.weights_:
            raise CannotLearn("nothing learned yet: call fit()")
        matrix = finite(regions, self.width)
        terms, zones = self.silent_.size, self.zones[0] * self.zones[1]
        if not len(matrix):
            return np.zeros((0, terms))
        network = self._network()
        with one_thread(), torch.inference_mode():
            parts = [network(*self._inputs(matrix[i : i + _CHUNK])) for i in range(0, len(matrix), _CHUNK)]
        logits = torch.cat(parts).double().numpy().reshape(-1, terms, zones)
        own = np.take_along_axis(logits, self._zone(matrix)[:, None, None], axis=2)[:, :, 0]
        return np.where(self.silent_, 0.0, own)

    def image_score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Mean of the highest regions."""
        return image_score(self.score(regions), top=self.top)

    def _network(self) -> "_TwoScales":
        network = _TwoScales(self.side, self.place, self.hidden, self.silent_.size * self.zones[0] * self.zones[1])
        network.load_state_dict({name: torch.from_numpy(value) for name, value in self.weights_.items()})
        return network.eval()

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Weights and parameters."""
        if not self.weights_:
            raise CannotLearn("nothing learned yet: call fit()")
        own = np.array([self.side, self.place, *self.zones, self.hidden, self.top], np.int64)
        weights = {f"network/{name}": value for name, value in self.weights_.items()}
        return {**weights, "own": own, "usual": self.usual_, "silent": self.silent_}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            side, place, rows, columns, hidden, top = (int(value) for value in arrays["own"])
            found = cls(side=side, place=place, zones=(rows, columns), hidden=hidden, top=top)
            found.usual_, found.silent_ = np.asarray(arrays["usual"]), np.asarray(arrays["silent"], bool)
            start = "network/"
            found.weights_ = {k.removeprefix(start): np.asarray(v) for k, v in arrays.items() if k.startswith(start)}
            found._network()
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        except RuntimeError as error:
            raise CannotLearn(f"the arrays of this {cls.__name__} do not fit each other: {error}") from None
        return found


class _TwoScales(nn.Module):
    """Three pairs of convolution and pooling on the small patch, two on the large one, the place joined late."""

    def __init__(self, side: int, place: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.small, self.large = _pairs(8, 16, 16), _pairs(8, 16)
        joined = 16 * (side // 8) ** 2 + 16 * (side // 4) ** 2
        self.first = nn.Linear(joined, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.out = nn.Sequential(nn.Linear(hidden + place, hidden), nn.ReLU(), nn.Linear(hidden, outputs))

    def forward(self, patches: Tensor, place: Tensor) -> Tensor:
        seen = torch.cat([self.small(patches[:, :1]).flatten(1), self.large(patches[:, 1:]).flatten(1)], dim=1)
        seen = functional.relu(self.second(functional.relu(self.first(seen))))
        out: Tensor = self.out(torch.cat([seen, place], dim=1))
        return out


def _pairs(*channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip((1, *channels), channels, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers)
