"""A linear score of regions, pooled: for some hundred images, of which a network with a hidden layer learns too much.

Where features are differences from the mirrored place, being linear is more than being simple. One lung differs from
the other by as much as the other from it, so that a network that bends finds both strange. A linear score cannot, yet
which of the two is the strange one no image can tell by them: both signs explain all reports alike. `late` features
therefore join only after the others have been learned, whose map then says on which side to look.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from phenotype.linking.mapper import CannotLearn, Floats, Stack
from phenotype.linking.mil import LogSumExp
from phenotype.linking.training import Loss


class Linear(LogSumExp):
    """Log-sum-exp of linear scores.

    Weights begin at 0, so that a feature which says nothing gets none; steps are larger than those of a network, to get
    away from there. `late` is the number of features that join afterwards, those of `descriptors.contralateral`, and
    `after` that of the features which come after them. The other arguments are those of `InstanceMil`.
    """

    name: ClassVar[str] = "linear"
    sharpness: ClassVar[float] = 2.0

    def __init__(
        self,
        *,
        late: int = 0,
        after: int = 0,
        loss: Loss | None = None,
        epochs: int = 20,
        patience: int = 5,
        batch: int = 32,
        share: float = 1.0,
        rate: float = 0.02,
        decay: float = 0.1,
        anchor: float = 30.0,
        outside: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__(
            loss=loss,
            epochs=epochs,
            patience=patience,
            batch=batch,
            share=share,
            rate=rate,
            decay=decay,
            anchor=anchor,
            outside=outside,
            seed=seed,
        )
        if late < 0 or after < 0:
            raise CannotLearn("late and after are numbers of features")
        self.late, self.after = late, after
        self._early: list[dict[str, Floats] | None] = []  # weights that networks to be trained begin with

    def train(self, told: Stack) -> Self:
        """Learn from stacked bags, in two turns where there are late features."""
        if self.late:
            known = self.known(told.regions.shape[1])
            if not known.any() or self.late + self.after > known.size:
                raise CannotLearn(
                    f"of {known.size} features {self.late} are late and {self.after} come after: none to begin with"
                )
            first = type(self)(**{name: getattr(self, name) for name in _SETTINGS})
            first.train(Stack(told.regions[:, known], *(getattr(told, name) for name in Stack.__slots__[1:])))
            kept = np.flatnonzero(first.gains_ > 0).tolist() or [int(first.gains_.argmax())]
            # The same parts are held out in both turns: no network begins with what was learned from those it is judged
            # by. One that had learned nothing begins anew.
            known_to = dict(zip(kept, first.networks_, strict=True))
            self._early = [known_to.get(part) for part in range(len(first.gains_))]
        return super().train(told)

    def network(self, d: int, terms: int) -> nn.Module:
        """One layer."""
        layer = nn.Linear(d, terms)
        nn.init.zeros_(layer.weight)
        return layer

    def start(self, network: nn.Module, prevalence: Tensor, size: float) -> None:
        """Begin with what is known without the late features, or with the prevalence of the terms."""
        super().start(network, prevalence, size)
        early = self._early.pop(0) if self._early else None
        if early is not None:
            assert isinstance(network, nn.Linear)  # noqa: S101  made above
            with torch.no_grad():
                known = torch.from_numpy(self.known(network.weight.shape[1]))
                network.weight[:, known] = torch.from_numpy(early["weight"])
                network.bias.copy_(torch.from_numpy(early["bias"]))

    def known(self, count: int) -> NDArray[np.bool_]:
        """Which of `count` features are not late."""
        return ~((np.arange(count) >= count - self.after - self.late) & (np.arange(count) < count - self.after))

    def parameters(self) -> dict[str, NDArray[Any]]:
        """How many features are late, and come after those; the weights say how wide they are."""
        return {"late": np.array([self.late, self.after], np.int64)}

    @classmethod
    def _of_parameters(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        late, after = np.asarray(arrays["late"]).tolist()
        return cls(late=late, after=after)


_SETTINGS = ("loss", "epochs", "patience", "batch", "share", "rate", "decay", "anchor", "outside", "seed")
