"""The one training loop.

Data order and every random draw are functions of (seed, step, process), so that a training killed at any moment and
started again continues from its last checkpoint to the same weights, bit for bit (same machine settings, on the CPU).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch.optim import Optimizer

from phenotype.models import checkpoint
from phenotype.models.base import ImageModel, Source, ToldSource
from phenotype.models.calibrate import data_hash
from phenotype.models.files import ModelFileError, load_model, read_training, save_model, tensors_hash

Progress = Callable[[int, int, str], None]


class TrainingDiverged(ValueError):
    """A loss is no longer a finite number."""


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
    seed: int
    learning_rate: float
    devices: int


def quiet(step: int, steps: int, text: str) -> None:
    """A progress callback that shows nothing."""


def train(
    model: ImageModel,
    source: Source,
    *,
    folder: Path,
    steps: int,
    batch_size: int,
    seed: int,
    learning_rate: float,
    checkpoint_every: int,
    accelerator: str = "cpu",
    devices: int = 1,
    precision: str = "32-true",
    threads: int = 1,
    progress: Progress = quiet,
) -> Path:
    """Train `model` in place on the images of `source`; returns `folder`, which `load_model` reads.

    `folder` gets model.json and model.safetensors at the end, log.jsonl (the losses of every step) and, on the way,
    checkpoints/. Called again after an interruption, with a model built alike, it continues; called again after the
    end it reads the result. With other data or settings it raises ValueError: a mixture of two trainings is neither.

    `accelerator`, `devices` and `precision` are Lightning Fabric's ("cuda", 2, "bf16-mixed"); on a CPU precision is
    always 32 bits, since mixed precision is slower there. With several devices `batch_size` is shared among them, and
    `source` and `progress` must be picklable. `threads` are torch's while training: sums of floats depend on them.
    Raises TrainingDiverged (a ValueError) when a loss is not finite.
    """
    if min(batch_size, checkpoint_every, devices, threads) < 1 or not len(source):
        raise ValueError("training needs images, and at least 1 image a batch, device and thread")
    optimized = bool(model.optimizers(learning_rate))
    if optimized != (steps > 0):
        raise ValueError(
            f"{model.name} learns in steps: at least 1 is needed"
            if optimized
            else f"{model.name} is computed from all images at once: it takes 0 steps, not {steps}"
        )
    if model.told != "nothing" and not hasattr(source, "targets"):
        raise ValueError(f"{model.name} must be told {model.told} beside the images, and this source tells nothing")
    if batch_size % devices:
        raise ValueError(f"a batch of {batch_size} cannot be shared by {devices} devices")
    plan = Plan(
        model=model.name,
        recipe=asdict(model.recipe),
        initial_weights=tensors_hash(model.state_dict()),
        images=len(source),
        data=data_hash(source, told=model.told != "nothing"),
        steps=steps,
        batch_size=batch_size,
        seed=seed,
        learning_rate=learning_rate,
        devices=devices,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not _finished(folder, plan):
        # Fabric would count "auto" as it likes; the precision below depends on what it is.
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        machine = {
            "accelerator": accelerator,
            "precision": "32-true" if accelerator == "cpu" else precision,
            "threads": threads,
        }
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            precision=machine["precision"],
            # Only the parameters of the optimizer that moves are part of a loss.
            strategy="auto" if devices == 1 else DDPStrategy(start_method="spawn", find_unused_parameters=True),
        )
        loop = partial(
            _loop,
            source=source,
            plan=plan,
            machine=machine,
            folder=folder,
            checkpoint_every=checkpoint_every,
            progress=progress,
        )
        fabric.launch(loop, model)  # the model apart: in other processes Fabric gives each its own weights
    checkpoint.remove(folder)
    # With several devices the weights were learnt in other processes: what counts is what is on disk.
    model.load_state_dict(load_model(folder).state_dict())
    model.to("cpu").eval()
    return folder


def _finished(folder: Path, plan: Plan) -> bool:
    """Whether the trained model of this plan is there; ValueError if it is another plan's."""
    try:
        trained = read_training(folder)
        load_model(folder)
    except ModelFileError:  # none yet, or damaged: trained again from the last checkpoint
        return False
    checkpoint.same_plan(trained, asdict(plan))
    return True


def _loop(
    fabric: Any,
    model: ImageModel,
    *,
    source: Source,
    plan: Plan,
    machine: dict[str, Any],
    folder: Path,
    checkpoint_every: int,
    progress: Progress,
) -> None:
    rank, world = fabric.global_rank, fabric.world_size
    optimizers = model.optimizers(plan.learning_rate)
    learning_rates = {name: [group["lr"] for group in one.param_groups] for name, one in optimizers.items()}
    wrapped, *prepared = fabric.setup(model, *optimizers.values()) if optimizers else (model,)
    movers = dict(zip(optimizers, prepared, strict=True))
    order = Order(len(source), plan.batch_size, plan.seed)
    start, log_size = checkpoint.restore(folder, asdict(plan), model, optimizers)

    with _torch_settings(machine["threads"]), Log(folder / "log.jsonl" if rank == 0 else None, log_size) as log:
        model.train()
        for step in range(start, plan.steps):
            indices = order.indices(step)[rank::world]
            x = fabric.to_device(torch.from_numpy(np.ascontiguousarray(source.take(indices), dtype=np.float32)))
            y = _told(fabric, model, source, indices)
            random = _randomness(plan.seed, step, rank)
            losses: dict[str, float] = {}

            for update in model.updates(step, plan.steps):
                _let_only_move(update, optimizers)
                rate = model.rate(step, plan.steps)
                for group, learning_rate in zip(movers[update].param_groups, learning_rates[update], strict=True):
                    group["lr"] = learning_rate * rate
                movers[update].zero_grad(set_to_none=True)
                figures = wrapped(update, x, random, y)
                fabric.backward(figures["loss"])
                movers[update].step()
                losses |= {f"{update}/{key}": value.item() for key, value in figures.items()}

            if not all(math.isfinite(value) for value in losses.values()):
                raise TrainingDiverged(f"{model.name}: a loss is not finite at step {step}; try a lower learning rate")
            log.write({"step": step, **losses})
            if rank == 0:
                progress(step + 1, plan.steps, "  ".join(f"{key} {value:.4f}" for key, value in losses.items()))
            if rank == 0 and (step + 1) % checkpoint_every == 0 and step + 1 < plan.steps:
                checkpoint.save(
                    folder,
                    step=step + 1,
                    plan=asdict(plan),
                    model=model,
                    optimizers=optimizers,
                    log_size=log.sync(),
                )
        log.sync()
        torch.manual_seed(plan.seed)
        with torch.no_grad():
            model.eval().fit(source, plan.seed)

    model.requires_grad_(True)
    _agree(fabric, model)
    if rank == 0:
        save_model(model, folder, {**asdict(plan), **machine})
    fabric.barrier()


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


class Log:
    """Losses by step, a JSON object a line; opened at the length that its checkpoint knows: no step is twice."""

    def __init__(self, path: Path | None, size: int) -> None:
        self._file = None
        if path is not None:
            path.touch()
            self._file = path.open("r+b")
            self._file.truncate(min(size, path.stat().st_size))
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: Mapping[str, float]) -> None:
        if self._file is not None:
            self._file.write((json.dumps(line) + "\n").encode())

    def sync(self) -> int:
        """Bring what was written to the disk; returns the length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()


def _randomness(seed: int, step: int, rank: int) -> torch.Generator:
    """The chance of one step in one process; torch's own is seeded too, for layers that ask nobody (dropout)."""
    mixed = int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(mixed)
    return torch.Generator().manual_seed(mixed)


def _told(fabric: Any, model: ImageModel, source: Source, indices: npt.NDArray[np.int64]) -> torch.Tensor | None:
    """What the source tells of these images, for a model that asks."""
    if model.told == "nothing":
        return None
    targets = np.ascontiguousarray(cast(ToldSource, source).targets(indices))
    moved: torch.Tensor = fabric.to_device(torch.from_numpy(targets))
    return moved


def _let_only_move(update: str, optimizers: Mapping[str, Optimizer]) -> None:
    """Gradients only for the parameters of `update`: cheaper, and the others cannot change."""
    for moving in (False, True):  # in this order: a parameter may belong to several
        for name, optimizer in optimizers.items():
            if (name == update) == moving:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.requires_grad_(moving)


def _agree(fabric: Any, model: ImageModel) -> None:
    """RuntimeError unless all processes ended with the same weights: a gradient that was not shared shows here."""
    total = torch.stack([value.detach().double().sum() for value in model.state_dict().values()])
    if not bool((fabric.all_gather(total) == total).all()):
        raise RuntimeError(f"{model.name}: the processes of one training ended with different weights")


@contextmanager
def _torch_settings(threads: int) -> Iterator[None]:
    """Torch's number of threads for the time of training; its random state is the caller's again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)
