"""Multiple-instance learning that scores instances: a small network scores each region for every term at once, and the
scores of an image's regions are pooled into the score of the image, which is all that a report speaks of.

What makes it bear wrong reports is the loss: by default the likelihood of the report's words given the image (see
`emission`), whose table is learned along with the network. Three networks are trained, each without a third of the
patients. What a network makes of its held-out third decides when it has learned enough and whether it is kept, and is
what the emission table is re-estimated from: probabilities of images learned from would agree with any report.

Scores of instances and not weights of attention alone are the map: attention says what the network looked at, and is no
measure of the finding (see `attention`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from phenotype.linking.emission import Emission
from phenotype.linking.mapper import Bag, CannotLearn, Floats, Stack, finite, silent, stack
from phenotype.linking.training import Loss, one_thread, train

_CHUNK = 65_536  # regions scored at once


class InstanceMil(ABC):
    """Base of the mappers that pool scores of regions; a kind says how (`pool`).

    hidden        units of the network's one hidden layer
    loss          "assertion": likelihood of the report's state, with the table learned from the data; "bce": cross
                  entropy with the probabilities of the bags taken for true
    epochs        passes over the images at most; training ends once the held-out images are explained no better
    share         of an image's regions, drawn anew in each pass: a finding must be seen wherever it shows
    anchor        weight of the labellers' emission table: see emission.estimate
    doubt         how far the labellers' assertions are doubted in it, 0 to 1: see emission.anchored
    outside       weight of keeping a term out of regions that the report's location words exclude
    seed          of weights, parts and order
    """

    name: ClassVar[str]
    default_loss: ClassVar[Loss] = "assertion"
    default_share: ClassVar[float] = 0.1

    def __init__(
        self,
        *,
        hidden: int = 64,
        loss: Loss | None = None,
        epochs: int = 30,
        patience: int = 3,
        batch: int = 64,
        share: float | None = None,
        rate: float = 5e-3,
        decay: float = 1e-3,
        anchor: float = 1.0,
        doubt: float = 0.25,
        outside: float = 0.5,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.loss: Loss = loss or self.default_loss
        if self.loss not in ("assertion", "bce"):
            raise CannotLearn(f"the loss is assertion or bce, not {self.loss}")
        self.epochs, self.patience, self.batch = epochs, patience, batch
        self.share = self.default_share if share is None else share
        self.rate, self.decay = rate, decay
        self.anchor, self.doubt, self.outside, self.seed = anchor, doubt, outside, seed
        self.center_: Floats | None = None  # (d,)
        self.scale_: Floats | None = None  # (d,)
        self.networks_: list[dict[str, Floats]] = []  # weights of those that are kept
        self.silent_: NDArray[np.bool_] = np.zeros(0, bool)
        self.emission_: Emission | None = None
        self.posterior_: NDArray[np.float64] = np.zeros((0, 0))  # (bags, n_terms) given image, out of fold, and report
        self.gains_: NDArray[np.float64] = np.zeros(0)  # (networks,) log-likelihood of images held out, above chance

    # ---------------------------------------------------------------- what a kind says

    @abstractmethod
    def pool(self, scores: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """Logits of images (bags, n_terms) from scores of their regions (bags, regions, n_terms), padded with -inf.

        `share` tells how much of each image these regions are.
        """

    def network(self, d: int, terms: int) -> nn.Module:
        """From standardised regions (n, d) to their outputs, the scores (n, n_terms) for most kinds."""
        return nn.Sequential(nn.Linear(d, self.hidden), nn.ReLU(), nn.Linear(self.hidden, terms))

    def seen(self, outputs: Tensor) -> Tensor:
        """The map (n, n_terms) of one image, of the outputs for its regions."""
        return outputs

    def confine(self, outputs: Tensor, allowed: Tensor) -> Tensor:
        """Outputs (bags, regions, outputs) as if the image had only the regions where its terms are allowed."""
        return outputs.masked_fill(~allowed, -torch.inf)

    def start(self, network: nn.Module, prevalence: Tensor, size: float) -> None:
        """Set the last layer's bias so that an image of `size` regions has each term with its prevalence."""
        set_bias(network, torch.logit(prevalence))

    # ---------------------------------------------------------------- learning

    def fit(self, bags: Sequence[Bag]) -> Self:
        """Train the networks, and the emission table along with them."""
        return self.train(stack(bags))

    def train(self, told: Stack) -> Self:
        """Learn from stacked bags."""
        center, scale = told.regions.mean(axis=0, dtype=np.float64), told.regions.std(axis=0, dtype=np.float64)
        self.center_ = center.astype(np.float32)
        self.scale_ = np.where(scale > 1e-6 * np.maximum(1, np.abs(center)), scale, 1.0).astype(np.float32)
        self.silent_ = silent(told.probabilities)
        with one_thread(self.seed):
            found = train(self, told, self.standardise(torch.from_numpy(told.regions)), ~self.silent_)
        self.networks_, self.emission_, self.gains_ = found.networks, found.emission, found.gains
        self.posterior_ = found.emission.posterior(told.states, found.image)
        return self

    # ---------------------------------------------------------------- scoring

    def score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """What each region shows of each term, as the kind says (`seen`): the mean of the networks'."""
        matrix = finite(regions, self._width())
        if not len(matrix):
            return np.zeros((0, self.silent_.size))
        with one_thread(), torch.inference_mode():
            seen = [self.seen(out).double().numpy() for out in self._outputs(matrix)]
        return np.where(self.silent_, 0.0, np.mean(seen, axis=0))

    def image_score(self, regions: ArrayLike) -> NDArray[np.float64]:
        """Log-odds that the image has the term."""
        matrix = finite(regions, self._width())
        if not len(matrix):
            raise CannotLearn("an image without regions has no score")
        with one_thread(), torch.inference_mode():
            pooled = [self.pool(out[None])[0].double().numpy() for out in self._outputs(matrix)]
        return np.where(self.silent_, 0.0, np.mean(pooled, axis=0))

    def _outputs(self, matrix: Floats) -> Iterator[Tensor]:
        for weights in self.networks_:
            network = self._build(weights)
            yield torch.cat([network(self.standardise(part)) for part in torch.split(torch.from_numpy(matrix), _CHUNK)])

    def standardise(self, regions: Tensor) -> Tensor:
        """Regions in standard deviations from the mean of those learned from."""
        assert self.center_ is not None and self.scale_ is not None  # noqa: S101  set together by train()
        return (regions - torch.from_numpy(self.center_)) / torch.from_numpy(self.scale_)

    def _build(self, weights: Mapping[str, Floats]) -> nn.Module:
        network = self.network(self._width(), self.silent_.size)
        network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
        return network.eval()

    def _width(self) -> int:
        if self.center_ is None:
            raise CannotLearn("nothing learned yet: call fit()")
        return int(self.center_.size)

    # ---------------------------------------------------------------- keeping

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Weights, emission table and parameters."""
        self._width()
        assert self.center_ is not None and self.scale_ is not None and self.emission_ is not None  # noqa: S101
        arrays = {"center": self.center_, "scale": self.scale_, "silent": self.silent_}
        arrays |= {f"emission/{name}": value for name, value in self.emission_.to_arrays().items()}
        for number, weights in enumerate(self.networks_):
            arrays |= {f"network/{number}/{name}": value for name, value in weights.items()}
        return arrays | self.parameters()

    def parameters(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` needs to build the networks again."""
        return {"hidden": np.array([self.hidden], np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The mapper that `to_arrays` described."""
        try:
            found = cls._of_parameters(arrays)
            found.center_ = np.asarray(arrays["center"], np.float32)
            found.scale_ = np.asarray(arrays["scale"], np.float32)
            found.silent_ = np.asarray(arrays["silent"], bool)
            found.emission_ = Emission.from_arrays(
                {k.removeprefix("emission/"): v for k, v in arrays.items() if k.startswith("emission/")}
            )
            numbers = sorted({int(name.split("/")[1]) for name in arrays if name.startswith("network/")})
            for number in numbers:
                start = f"network/{number}/"
                own = {k.removeprefix(start): np.asarray(v) for k, v in arrays.items() if k.startswith(start)}
                found.networks_.append(own)
                found._build(own)
        except KeyError as missing:
            raise CannotLearn(f"these arrays are no {cls.__name__}: {missing} is missing") from None
        except RuntimeError as error:
            raise CannotLearn(f"the arrays of this {cls.__name__} do not fit each other: {error}") from None
        return found

    @classmethod
    def _of_parameters(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        return cls(hidden=int(arrays["hidden"][0]))


def set_bias(network: nn.Module, bias: Tensor) -> None:
    """Set the bias of the last layer."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias[: bias.numel()].copy_(bias)


class NoisyOr(InstanceMil):
    """An image has the term unless every region fails to show it: P = 1 - prod(1 - p_i) (O. Maron and T. Lozano-Perez
    1998), with the likelihood of the report's words as loss. From pixels to wording it is one generative sentence."""

    name: ClassVar[str] = "noisy-or"

    def pool(self, scores: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """log(P / (1 - P)) with log(1 - P) the sum of log(1 - p_i)."""
        total = (functional.softplus(scores).sum(dim=1) / share).clamp_min(1e-6)
        return total + torch.log(-torch.expm1(-total))

    def seen(self, outputs: Tensor) -> Tensor:
        """The evidence -log(1 - p_i) of each region, which adds up to that of the image.

        Where regions are averaged or compared with others, evidence says more than log-odds: of these, what a region
        without the term happens to score far below zero would count as much as what one with it scores above.
        """
        return functional.softplus(outputs)

    def start(self, network: nn.Module, prevalence: Tensor, size: float) -> None:
        """Each region shows the term so seldom that the whole image does with the prevalence."""
        set_bias(network, torch.logit(-torch.expm1(torch.log1p(-prevalence) / size)))


class LogSumExp(InstanceMil):
    """The score of an image is a smooth maximum of those of its regions: log(mean(exp(r s))) / r (P. O. Pinheiro and
    R. Collobert 2015)."""

    name: ClassVar[str] = "log-sum-exp"
    sharpness: ClassVar[float] = 1.0  # r: towards 0 the mean of the scores, towards infinity their maximum

    def pool(self, scores: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """Smooth maximum over the regions."""
        count = torch.isfinite(scores).sum(dim=1).clamp_min(1)
        return (torch.logsumexp(self.sharpness * scores, dim=1) - torch.log(count)) / self.sharpness


class TopK(InstanceMil):
    """The score of an image is the mean of its highest regions' (W. Li and N. Vasconcelos, "Multiple instance learning
    for soft bags via top instances", CVPR 2015), with cross entropy: a baseline, which learns false reports by heart.

    How many are the highest is a share and no number, for images of any size; and then the highest of some regions
    stand for the highest of all, so that a pass need not look at all. Regions that are never among the highest learn
    nothing: with a handful the image is recognised as well, but little of the finding is marked.
    """

    name: ClassVar[str] = "top-k"
    default_loss: ClassVar[Loss] = "bce"
    top: ClassVar[float] = 0.2  # of an image's regions

    def pool(self, scores: Tensor, share: Tensor | float = 1.0) -> Tensor:
        """Mean of the highest `top` of the regions, at least of one."""
        counted = (self.top * torch.isfinite(scores).sum(dim=1)).round().clamp_min(1)
        highest = scores.topk(int(counted.max()), dim=1).values
        place = torch.arange(highest.shape[1])[:, None]
        return torch.where(place < counted[:, None], highest, 0.0).sum(dim=1) / counted
