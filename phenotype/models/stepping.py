"""Single steps of a training: which images make a batch, what chance there is, and how the weights move."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.optim import Optimizer

from phenotype.models.base import ImageModel, Source, ToldSource

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What determines the weights: two trainings with the same plan end in the same ones."""

    model: str
    recipe: dict[str, Any]
    initial_weights: str  # SHA-256
    images: int
    data: str  # SHA-256 of the training images
    steps: int
    batch_size: int
    accumulate: int
    seed: int
    learning_rate: float
    devices: int
    watch: dict[str, Any] | None


class Stepper:
    """Takes single steps of a plan, in one process of perhaps several."""

    def __init__(self, fabric: Any, model: ImageModel, source: Source, plan: Plan) -> None:
        self.fabric, self.model, self.source, self.plan = fabric, model, source, plan
        self.optimizers = model.optimizers(plan.learning_rate)
        self.rates = {name: [group["lr"] for group in one.param_groups] for name, one in self.optimizers.items()}
        wrapped, *prepared = fabric.setup(model, *self.optimizers.values()) if self.optimizers else (model,)
        self.wrapped: Any = wrapped
        self.movers = dict(zip(self.optimizers, prepared, strict=True))
        self.order = Order(len(source), plan.batch_size, plan.seed)
        model.train()

    def take(self, step: int) -> dict[str, float]:
        """Take a step; the losses of each update, by "update/name"."""
        parts = self._micro_batches(step)
        random = _randomness(self.plan.seed, step, self.fabric.global_rank)
        losses: dict[str, float] = {}
        for update in self.model.updates(step, self.plan.steps):
            _let_only_move(update, self.optimizers)
            rate, mover = self.model.rate(step, self.plan.steps), self.movers[update]
            for group, learning_rate in zip(mover.param_groups, self.rates[update], strict=True):
                group["lr"] = learning_rate * rate
            mover.zero_grad(set_to_none=True)
            for number, (x, y) in enumerate(parts, start=1):
                with self.fabric.no_backward_sync(self.wrapped, enabled=number < len(parts)):
                    figures = self.wrapped(update, x, random, y)
                    self.fabric.backward(figures["loss"] / len(parts))
                for key, value in figures.items():
                    name = f"{update}/{key}"
                    losses[name] = losses.get(name, 0.0) + value.item() / len(parts)
            if self.model.clip is not None:
                # What is not finite is for the loop to tell.
                self.fabric.clip_gradients(self.wrapped, mover, max_norm=self.model.clip, error_if_nonfinite=False)
            mover.step()
        return losses

    def _micro_batches(self, step: int) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        mine = self.order.indices(step)[self.fabric.global_rank :: self.fabric.world_size]
        return [
            (self._moved(self.source.take(some).astype(np.float32, copy=False)), self._told(some))
            for some in np.split(mine, self.plan.accumulate)
        ]

    def _told(self, indices: npt.NDArray[np.int64]) -> torch.Tensor | None:
        """What the source tells of these images, for a model that asks."""
        return None if self.model.told == "nothing" else self._moved(cast(ToldSource, self.source).targets(indices))

    def _moved(self, array: npt.NDArray[Any]) -> torch.Tensor:
        moved: torch.Tensor = self.fabric.to_device(torch.from_numpy(np.ascontiguousarray(array)))
        return moved

    def compile(self, step: int) -> bool:
        """Compile the forward pass, and try every loss and its gradient once; if one cannot be, say so and go without.

        The names of the weights stay as they are, and so do their values.
        """
        (x, y), *_ = self._micro_batches(step)
        state = {key: value.clone() for key, value in self.model.state_dict().items()}
        self.model.compile()
        try:
            for update, optimizer in self.optimizers.items():
                _let_only_move(update, self.optimizers)
                with self.fabric.autocast():
                    loss = self.model(update, x, _randomness(self.plan.seed, step, 0), y)["loss"]
                loss.backward()
                optimizer.zero_grad(set_to_none=True)
        except Exception as error:  # whatever a compiler may say of a family's code, it can be trained without
            self.model._compiled_call_impl = None
            torch._dynamo.reset()
            told = next(iter(str(error).strip().splitlines()), "")
            log.warning("%s is trained without torch.compile: %s: %s", self.model.name, type(error).__name__, told)
            return False
        finally:
            self.model.load_state_dict(state)
            self.model.zero_grad(set_to_none=True)
        return True

    def scaler(self) -> dict[str, Any]:
        """The state of the loss scale of 16-mixed precision, which the next step depends on."""
        state: dict[str, Any] = self.fabric.strategy.precision.state_dict()
        return state

    def load_scaler(self, state: dict[str, Any]) -> None:
        """Continue with a state of `scaler`."""
        if state:
            self.fabric.strategy.precision.load_state_dict(state)


class Order:
    """Which images make the batch of a step: all of them once, shuffled, then all of them again, shuffled anew."""

    def __init__(self, images: int, batch_size: int, seed: int) -> None:
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self._epochs: dict[int, npt.NDArray[np.int64]] = {}

    def indices(self, step: int) -> npt.NDArray[np.int64]:
        """Indices (batch_size,) of the images at `step`; depends on nothing that happened before."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, within = np.divmod(places, self.images)
        needed = sorted({int(epoch) for epoch in epochs})
        self._epochs = {
            epoch: self._epochs[epoch] if epoch in self._epochs else self._shuffle(epoch) for epoch in needed
        }
        return np.array(
            [self._epochs[int(epoch)][at] for epoch, at in zip(epochs, within, strict=True)], dtype=np.int64
        )

    def _shuffle(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(self.images)


def _randomness(seed: int, step: int, rank: int) -> torch.Generator:
    """The chance of one step in one process; torch's own is seeded too, for layers that ask nobody (dropout)."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def _let_only_move(update: str, optimizers: Mapping[str, Optimizer]) -> None:
    """Gradients only for the parameters of `update`: cheaper, and the others cannot change."""
    for moving in (False, True):  # in this order: a parameter may belong to several
        for name, optimizer in optimizers.items():
            if (name == update) == moving:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.requires_grad_(moving)
