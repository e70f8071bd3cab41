"""Training of the networks that score regions (`phenotype.linking.mil` says what and why)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from phenotype.linking.emission import Emission, anchored, estimate
from phenotype.linking.mapper import DENIED, POSSIBLE, CannotLearn, Floats, Stack

Doubles = NDArray[np.float64]
Loss = Literal["assertion", "bce"]

PARTS = 3  # networks; each is trained without one part of the patients
_JUDGED = 3  # passes between two judgements, which look at all regions and take longer than a pass
_ALL = slice(None)  # regions of an image
_FEW = 16  # regions of an image that are looked at in a pass, at least


class Kind(Protocol):
    """What the training needs to know of a mapper: see InstanceMil."""

    loss: Loss
    epochs: int
    patience: int
    batch: int
    share: float
    rate: float
    decay: float
    anchor: float
    doubt: float
    outside: float
    seed: int

    def network(self, d: int, terms: int) -> nn.Module: ...
    def start(self, network: nn.Module, prevalence: Tensor, size: float) -> None: ...
    def pool(self, scores: Tensor, share: Tensor | float = 1.0) -> Tensor: ...
    def confine(self, outputs: Tensor, allowed: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Trained:
    """What comes of it."""

    networks: list[dict[str, Floats]]  # weights of the networks that are kept
    emission: Emission
    image: Doubles  # (bags, n_terms) how probable the image makes each term, by the network that has not seen it
    gains: Doubles  # (networks,) log-likelihood of an image held out, above that by the prevalence of its terms


@dataclass(slots=True)
class _Member:
    """One network, and how it does."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    learned: NDArray[np.int64]  # bags
    held: NDArray[np.int64]
    best: float = -np.inf
    weights: dict[str, Tensor] = field(default_factory=dict)
    logits: Tensor | None = None  # (held, n_terms) of the best weights


@contextmanager
def one_thread(seed: int | None = None) -> Iterator[None]:
    """Torch on one thread, the fastest for networks as small, and sums of floats depend on it; with `seed`, its random
    numbers begin there, and are the caller's again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def parts_of(patients: NDArray[np.int64], seed: int, parts: int = PARTS) -> NDArray[np.int64]:
    """A part for each bag, all of a patient in one; CannotLearn where there is only one patient."""
    names, patient = np.unique(patients, return_inverse=True)
    if names.size < 2:
        raise CannotLearn("needs images of at least two patients, to hold one out")
    part = np.random.default_rng(seed).permutation(names.size) % min(parts, names.size)
    return np.asarray(part[patient], np.int64)


def train(kind: Kind, told: Stack, regions: Tensor, active: NDArray[np.bool_]) -> Trained:
    """Train a network without each part of the patients; `regions` (sum of sizes, d) are those of `told`, standardised.

    `active` (n_terms,) marks the terms that there is something to learn of.
    """
    part = parts_of(told.patients, kind.seed)
    anchor = anchored(told.states, told.probabilities, doubt=kind.doubt)
    bags = _Bags(told, regions)
    prevalence = torch.from_numpy(np.clip(anchor.prevalence, 0.01, 0.99)).float()
    members = []
    for number in range(int(part.max()) + 1):
        network = kind.network(regions.shape[1], active.size)
        kind.start(network, prevalence, float(told.sizes.mean()))
        optimiser = torch.optim.AdamW(network.parameters(), lr=kind.rate, weight_decay=kind.decay, fused=True)
        members.append(_Member(network, optimiser, np.flatnonzero(part != number), np.flatnonzero(part == number)))
    rng = np.random.default_rng(kind.seed)
    emission = anchor
    image = np.tile(np.asarray(prevalence, np.float64), (len(told.sizes), 1))
    waited = 0
    for epoch in range(1, kind.epochs + 1):
        loss = _Loss(kind, told, emission, torch.from_numpy(active))
        for member in members:
            _pass(kind, member, bags, loss, rng)
        if epoch % _JUDGED and epoch < kind.epochs:
            continue
        better = False
        for member in members:
            better |= _judge(kind, member, bags, loss)
            assert member.logits is not None  # noqa: S101  set by the first judgement
            image[member.held] = torch.sigmoid(member.logits.double()).numpy()
        waited = 0 if better else waited + 1
        if waited >= kind.patience:
            break
        emission = estimate(told.states, anchor, image, weight=kind.anchor)
    loss = _Loss(kind, told, emission, torch.from_numpy(active))
    by_chance = torch.logit(prevalence)
    gains = np.array(
        [float(loss(by_chance.expand(len(m.held), -1), m.held).mean()) + m.best for m in members], np.float64
    )
    kept = [m for m, gain in zip(members, gains, strict=True) if gain > 0]
    kept = kept or [members[int(gains.argmax())]]
    networks = [{name: value.numpy() for name, value in m.weights.items()} for m in kept]
    return Trained(networks, emission, image, gains)


class _Bags:
    """Regions of some of the images, padded to the largest."""

    def __init__(self, told: Stack, regions: Tensor) -> None:
        self.sizes = told.sizes.tolist()
        self.regions = torch.split(regions, self.sizes)
        self.where = None if told.where is None else torch.split(torch.from_numpy(told.where), self.sizes)

    def outputs(self, network: nn.Module, chosen: NDArray[np.int64], rows: Sequence[Tensor | slice]) -> Tensor:
        """(chosen, regions of the largest, outputs) of some rows of each image; -inf where it has no further region."""
        parts = [self.regions[i][own] for i, own in zip(chosen, rows, strict=True)]
        flat = torch.split(network(torch.cat(parts)), [len(part) for part in parts])
        return pad_sequence(list(flat), batch_first=True, padding_value=-torch.inf)

    def allowed(self, chosen: NDArray[np.int64], rows: Sequence[Tensor | slice]) -> Tensor | None:
        """(chosen, regions, n_terms) where location words allow a term; None where none says anything."""
        if self.where is None:
            return None
        masks = [self.where[i][own] for i, own in zip(chosen, rows, strict=True)]
        if all(bool(mask.all()) for mask in masks):
            return None
        return pad_sequence(masks, batch_first=True, padding_value=True)


class _Loss:
    """Loss of images under the present emission table."""

    def __init__(self, kind: Kind, told: Stack, emission: Emission, active: Tensor) -> None:
        self.kind, self.active = kind, active
        self.probabilities = torch.from_numpy(told.probabilities).float()
        self.logs = tuple(torch.from_numpy(np.log(p)).float() for p in emission.likelihood(told.states))
        self.denied = tuple(
            torch.from_numpy(np.log(p[:, DENIED])).float() for p in (emission.if_present, emission.if_absent)
        )
        self.asserted = torch.from_numpy(told.states <= POSSIBLE)

    def __call__(self, logits: Tensor, chosen: NDArray[np.int64]) -> Tensor:
        """Loss (chosen,) of images by their logits (chosen, n_terms)."""
        if self.kind.loss == "assertion":
            each = _unlikely(logits, self.logs[0][chosen], self.logs[1][chosen])
        else:
            each = functional.binary_cross_entropy_with_logits(logits, self.probabilities[chosen], reduction="none")
        return torch.where(self.active, each, 0.0).sum(dim=1)

    def outside(self, logits: Tensor, told: Tensor) -> Tensor:
        """Loss (chosen,) of the regions that location words exclude, as if the report denied the term for them."""
        each = _unlikely(logits, *self.denied)
        return torch.where(self.active & told, each, 0.0).sum(dim=1)


def _unlikely(logits: Tensor, there: Tensor, not_there: Tensor) -> Tensor:
    """-log P(state), of the log-probabilities of the state if the term is there and if it is not."""
    return -torch.logaddexp(there + functional.logsigmoid(logits), not_there + functional.logsigmoid(-logits))


def _pass(kind: Kind, member: _Member, bags: _Bags, loss: _Loss, rng: np.random.Generator) -> None:
    """One pass over the images that a network learns from."""
    member.network.train()
    for chosen in _batches(rng.permutation(member.learned), kind.batch):
        rows, share = _some([bags.sizes[i] for i in chosen], kind.share)
        outputs = bags.outputs(member.network, chosen, rows)
        allowed = bags.allowed(chosen, rows)
        if allowed is None:
            total = loss(kind.pool(outputs, share), chosen)
        else:
            # what a report asserts of one side is sought there, and is not on the other
            told = loss.asserted[chosen] & ~allowed.all(dim=1)
            within = kind.pool(kind.confine(outputs, allowed | ~told[:, None]), share)
            # where nothing is excluded the whole image stands in, so that there is something to pool; it counts nothing
            beyond = kind.pool(kind.confine(outputs, ~allowed | ~told[:, None]), share)
            total = loss(within, chosen) + kind.outside * loss.outside(beyond, told)
        member.optimiser.zero_grad()
        total.mean().backward()  # type: ignore[no-untyped-call]
        member.optimiser.step()


@torch.no_grad()
def _judge(kind: Kind, member: _Member, bags: _Bags, loss: _Loss) -> bool:
    """Whether the held-out images are explained better than ever before; then these weights are the ones to keep."""
    member.network.eval()
    batches = _batches(member.held, 4 * kind.batch)
    logits = torch.cat([kind.pool(bags.outputs(member.network, c, [_ALL] * len(c))) for c in batches])
    found = -float(loss(logits, member.held).mean())
    if not np.isfinite(found):
        raise CannotLearn("the training diverged: the loss is no longer finite")
    if found <= member.best:
        return False
    member.best, member.logits = found, logits
    member.weights = {name: value.clone() for name, value in member.network.state_dict().items()}
    return True


def _some(sizes: Sequence[int], share: float) -> tuple[list[Tensor | slice], Tensor | float]:
    """The regions of images that are looked at in a pass, and what share of each image (images, 1) they are."""
    if share >= 1:
        return [_ALL] * len(sizes), 1.0
    some = [min(size, max(_FEW, round(share * size))) for size in sizes]
    rows: list[Tensor | slice] = [torch.randperm(size)[:n] for size, n in zip(sizes, some, strict=True)]
    return rows, (torch.tensor(some) / torch.tensor(sizes))[:, None]


def _batches(bags: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [bags[start : start + size] for start in range(0, len(bags), size)]
