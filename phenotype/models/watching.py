"""What is looked at while a model learns: a figure that says when to stop, and which weights were best.

Early stopping as in Prechelt 1998, "Early stopping - but when?": training ends when `patience` looks in a row brought
nothing better, and the best weights are kept. A figure is a function of the weights alone, so that a training that was
killed and continued sees the same ones and keeps the same weights.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from phenotype.models.base import ImageModel, Source, ToldSource
from phenotype.models.calibrate import batches, data_hash

log = logging.getLogger(__name__)
Figure = Callable[[ImageModel], float]


class Observer(Protocol):
    """Looks at a model every so many steps of its training."""

    @property
    def every(self) -> int:
        """Steps between two looks; the last step is looked at too."""
        ...

    def look(self, model: ImageModel, step: int) -> Mapping[str, float]:
        """Figures for the log of this step. The model is in evaluation mode, without gradients, and is not changed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """A validation figure: training stops when it no longer gets better, and its best weights are the result."""

    figure: Figure
    name: str  # in the log and the manifest
    every: int  # steps between two looks
    patience: int  # looks in a row without a better figure, after which training ends
    higher_is_better: bool
    data: str = ""  # SHA-256 of what the figure is made from: another one is another training
    fits: bool = False  # the figure needs what `fit` computes: it is taken of a copy of the model that was fitted

    def __post_init__(self) -> None:
        if min(self.every, self.patience) < 1:
            raise ValueError(f"a watch needs every and patience of at least 1, not {self.every} and {self.patience}")

    def described(self) -> dict[str, Any]:
        """What of it decides the result."""
        names = ("name", "every", "patience", "higher_is_better", "data", "fits")
        return {name: getattr(self, name) for name in names}

    def value(self, model: ImageModel, source: Source, seed: int) -> float:
        """The figure of `model`, which learns from `source`; ValueError if it is not finite."""
        if self.fits and type(model).fit is not ImageModel.fit:
            model = copy.deepcopy(model)
            torch.manual_seed(seed)
            model.fit(source, seed)
        value = float(self.figure(model))
        if not math.isfinite(value):
            raise ValueError(f"{self.name}, the figure that is watched, is {value}: choose another or a lower rate")
        return value


def first_look(model: ImageModel, steps: int) -> int:
    """The step from which on a figure says something: where every optimizer of the model has moved.

    Families that learn one part after the other have nothing to judge before the last part has begun.
    """
    missing = set(model.optimizers(1.0))
    for step in range(steps):
        missing -= set(model.updates(step, steps))
        if not missing:
            return step
    return 0


@dataclass(slots=True)
class Course:
    """How a watched figure went so far: the best value, the step it was reached at, and the looks since."""

    best: int | None = None
    value: float | None = None
    waited: int = 0

    def add(self, step: int, value: float, watch: Watch) -> bool:
        """Take in the value after `step` steps; whether it is the best so far."""
        ahead = math.inf if self.value is None else (value - self.value) * (1 if watch.higher_is_better else -1)
        self.waited = 0 if ahead > 0 else self.waited + 1
        if ahead > 0:
            self.best, self.value = step, value
        return ahead > 0

    def state(self) -> dict[str, Any]:
        """For the checkpoint: the arguments that make it again."""
        return asdict(self)

    def kept(self, watch: Watch, stopped: int) -> dict[str, Any]:
        """For the manifest: which step was kept, and why."""
        best = "highest" if watch.higher_is_better else "lowest"
        ended = f"no better in {self.waited} looks" if self.waited >= watch.patience else "the last step was reached"
        return {
            "step": self.best,
            "figure": watch.name,
            "value": self.value,
            "stopped_at": stopped,
            "why": f"{watch.name} was {best} after step {self.best}; training ended after step {stopped}: {ended}",
        }


# ---- figures


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """Mean loss of images that are not learned from, for the optimizer `update` (the family's last, if empty).

    Chance in the loss is drawn from `seed`, alike at every look. For adversaries, whose losses rise as the other
    learns, it says little: take `reconstruction_error` or `aucp`.
    """

    source: Source
    update: str = ""
    batch_size: int = 64
    seed: int = 0

    def __call__(self, model: ImageModel) -> float:
        update = self.update or list(model.optimizers(1.0))[-1]
        random = torch.Generator().manual_seed(self.seed)
        total = 0.0
        for start in range(0, len(self.source), self.batch_size):
            indices = np.arange(start, min(start + self.batch_size, len(self.source)))
            x = _tensor(self.source.take(indices).astype(np.float32), model)
            told = None if model.told == "nothing" else cast(ToldSource, self.source).targets(indices)
            with torch.enable_grad():  # a gradient penalty asks for some
                loss = model(update, x, random, None if told is None else _tensor(told, model))["loss"]
            total += float(loss.detach()) * len(indices)
        return total / len(self.source)


def _tensor(array: Any, model: ImageModel) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(model.device)


@dataclass(frozen=True, slots=True)
class ReconstructionError:
    """Mean squared error of what the family's `pictures` calls "reconstructed"; ValueError if it shows none."""

    source: Source
    seed: int = 0

    def __call__(self, model: ImageModel) -> float:
        random = torch.Generator().manual_seed(self.seed)
        total = 0.0
        for batch in batches(self.source, 64):
            x = _tensor(batch, model)
            with torch.no_grad():
                shown = model.pictures(x, random)
            if "reconstructed" not in shown:
                raise ValueError(f"{model.name} reconstructs nothing; watch its loss or aucp")
            total += float((shown["reconstructed"] - x.squeeze(1)).double().pow(2).mean()) * len(batch)
        return total / len(self.source)


@dataclass(frozen=True, slots=True)
class SeparationFromPool:
    """AUCp: how well the scores tell held-out normal images from an unlabelled pool that holds anomalies too.

    See `phenotype.models.choice`.
    """

    held_out: Source
    pool: Source

    def __call__(self, model: ImageModel) -> float:
        from phenotype.models.choice import aucp

        return float(aucp(model, self.held_out, self.pool))


def watch_loss(held_out: Source, *, every: int, patience: int, update: str = "", told: bool = False) -> Watch:
    """Watch the loss of images that are not learned from; `told` where the source tells something beside them."""
    figure = HeldOutLoss(held_out, update)
    return _watch(figure, "held-out loss", data_hash(held_out, told), every, patience, higher=False)


def watch_reconstruction(held_out: Source, *, every: int, patience: int) -> Watch:
    """Watch the squared reconstruction error of images that are not learned from."""
    figure = ReconstructionError(held_out)
    return _watch(figure, "reconstruction error", data_hash(held_out), every, patience, higher=False)


def watch_aucp(held_out: Source, pool: Source, *, every: int, patience: int) -> Watch:
    """Watch how well normal images that are not learned from are told from an unlabelled pool."""
    data = data_hash(held_out) + data_hash(pool)
    return _watch(SeparationFromPool(held_out, pool), "aucp", data, every, patience, higher=True, fits=True)


def _watch(
    figure: Figure, name: str, data: str, every: int, patience: int, *, higher: bool, fits: bool = False
) -> Watch:
    return Watch(
        figure=figure, name=name, every=every, patience=patience, higher_is_better=higher, data=data, fits=fits
    )


# ---- generative adversarial networks


class Collapsed(ValueError):
    """A generator makes the same few images, or none like the real ones."""


@dataclass(frozen=True, slots=True)
class CollapseCheck:
    """An observer of families that make images: compares them with real ones, as `phenotype.models.diagnostics` does.

    Its figures go into the log. A collapse is logged as a warning, or raises Collapsed where `stop` is set: in the
    first half of a training a generator may look collapsed that is none yet.
    """

    real: Source
    every: int
    count: int = 128  # images made, and real ones, evenly spaced in `real`
    stop: bool = False
    seed: int = 0

    def look(self, model: ImageModel, step: int) -> Mapping[str, float]:
        """Diversity, coverage, ... by "samples/name"; in the space of pixels, which does not change while learning."""
        from phenotype.models.diagnostics import report

        if not hasattr(model, "sample"):
            raise ValueError(f"{model.name} makes no images: there is nothing to collapse")
        indices = np.unique(np.linspace(0, len(self.real) - 1, self.count).astype(np.int64))
        real = _tensor(self.real.take(indices).astype(np.float32), model)
        found = report(cast(Any, model), real, None, torch.Generator().manual_seed(self.seed), len(real))
        if found.collapsed:
            told = f"{model.name} has collapsed at step {step}: {'; '.join(found.reasons)}"
            if self.stop:
                raise Collapsed(told)
            log.warning("%s", told)
        return {f"samples/{name}": value for name, value in found.as_dict().items()}
