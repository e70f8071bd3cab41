"""The one training loop.

Data order and every random draw are functions of (seed, step, process), so that a training killed at any moment and
started again continues from its last checkpoint to the same weights, bit for bit (same machine settings, on the CPU),
whenever its checkpoints were written.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from phenotype.models import checkpoint
from phenotype.models.base import ImageModel, Source
from phenotype.models.calibrate import data_hash
from phenotype.models.checkpoint import Place
from phenotype.models.files import ModelFileError, load_model, read_training, save_model, tensors_hash
from phenotype.models.interrupts import Stopped, stop_requests
from phenotype.models.metrics import Log, need_tensorboard, write_table
from phenotype.models.stepping import Plan, Stepper
from phenotype.models.watching import Course, Observer, Watch, first_look

Progress = Callable[[int, int, str], None]
SOFTWARE = ("phenotype", "torch", "lightning-fabric", "numpy")
log = logging.getLogger(__name__)


class TrainingDiverged(ValueError):
    """A loss is no longer a finite number."""


def quiet(step: int, steps: int, text: str) -> None:
    """A progress callback that shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Manner:
    """How a training goes on, and what is looked at; only `watch`, which is part of the plan, decides the weights."""

    checkpoint_every: int
    checkpoint_minutes: float
    compile: bool
    watch: Watch | None
    observers: tuple[Observer, ...]
    tensorboard: bool
    about: dict[str, Any]
    progress: Progress


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
    checkpoint_minutes: float = 5.0,
    accumulate: int = 1,
    accelerator: str = "cpu",
    devices: int = 1,
    precision: str = "32-true",
    mixed_on_cpu: bool = False,
    compile: bool = False,
    threads: int = 1,
    watch: Watch | None = None,
    observers: Sequence[Observer] = (),
    tensorboard: bool = False,
    about: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
) -> Path:
    """Train `model` in place on the images of `source`; returns `folder`, which `load_model` reads.

    `folder` gets model.json, model.safetensors and model-card.md at the end, metrics.csv, log.jsonl (the figures of
    every step) and, on the way, checkpoints/: after every `checkpoint_every` steps and every `checkpoint_minutes`, and
    when SIGINT or SIGTERM asks to stop, which ends in Stopped (a KeyboardInterrupt). Called again after an
    interruption, with a model built alike, it continues; called again after the end it reads the result. With other
    data or settings it raises ValueError: a mixture of two trainings is neither.

    accumulate     micro-batches that a batch is computed in, for less memory: the same gradient up to rounding, where
                   the loss is a mean over images; where it draws by chance, other draws
    accelerator, devices, precision
                   Lightning Fabric's ("cuda", 2, "bf16-mixed"). With several devices `batch_size` is shared among them,
                   and `source`, `watch`, `observers` and `progress` must be picklable. On a CPU precision is 32 bits,
                   since mixed precision is slower there, unless `mixed_on_cpu` and the CPU knows bf16
    compile        torch.compile for the passes of training, where there is a compiler that can; else it says so
    threads        torch's while training: sums of floats depend on them
    watch          a figure that ends training early; `fit` then runs on the best weights, which are the result
    observers      look at the model on the way; what they find goes into the log
    tensorboard    event files in folder/tensorboard, beside the log
    about          where the images come from, for manifest and card; no personal data

    Raises TrainingDiverged (a ValueError) when a loss is not finite.
    """
    if min(batch_size, checkpoint_every, devices, threads, accumulate) < 1 or not len(source):
        raise ValueError("training needs images, and at least 1 image a batch, device, thread and micro-batch")
    optimized = bool(model.optimizers(learning_rate))
    if optimized != (steps > 0):
        raise ValueError(
            f"{model.name} learns in steps: at least 1 is needed"
            if optimized
            else f"{model.name} is computed from all images at once: it takes 0 steps, not {steps}"
        )
    if model.told != "nothing" and not hasattr(source, "targets"):
        raise ValueError(f"{model.name} must be told {model.told} beside the images, and this source tells nothing")
    if batch_size % (devices * accumulate):
        parts = f"{devices} devices" + (f" with {accumulate} micro-batches each" if accumulate > 1 else "")
        raise ValueError(f"a batch of {batch_size} cannot be shared by {parts}")
    if watch is not None and not optimized:
        raise ValueError(f"{model.name} is computed from all images at once: there is nothing to watch")
    if tensorboard:
        need_tensorboard()
    plan = Plan(
        model=model.name,
        recipe=asdict(model.recipe),
        initial_weights=tensors_hash(model.state_dict()),
        images=len(source),
        data=data_hash(source, told=model.told != "nothing"),
        steps=steps,
        batch_size=batch_size,
        accumulate=accumulate,
        seed=seed,
        learning_rate=learning_rate,
        devices=devices,
        watch=None if watch is None else watch.described(),
    )
    manner = _Manner(
        checkpoint_every=checkpoint_every,
        checkpoint_minutes=checkpoint_minutes,
        compile=compile,
        watch=watch,
        observers=tuple(observers),
        tensorboard=tensorboard,
        about=dict(about or {}),
        progress=progress,
    )
    folder.mkdir(parents=True, exist_ok=True)
    if not _finished(folder, plan):
        # Fabric would count "auto" as it likes; the precision below depends on what it is.
        if accelerator == "auto":
            accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        machine = {
            "accelerator": accelerator,
            "precision": _precision(precision, accelerator, mixed_on_cpu),
            "threads": threads,
        }
        fabric = Fabric(
            accelerator=accelerator,
            devices=devices,
            precision=machine["precision"],
            # Only the parameters of the optimizer that moves are part of a loss.
            strategy="auto" if devices == 1 else DDPStrategy(start_method="spawn", find_unused_parameters=True),
        )
        loop = partial(_loop, source=source, plan=plan, machine=machine, folder=folder, manner=manner)
        with stop_requests() if devices > 1 else nullcontext():
            stopped = fabric.launch(loop, model)  # the model apart: in other processes Fabric gives each its own
        if stopped:
            raise Stopped(stopped)
    checkpoint.remove(folder)
    # With several devices the weights were learnt in other processes: what counts is what is on disk.
    model.load_state_dict(load_model(folder).state_dict())
    model.to("cpu").eval()
    return folder


def _precision(asked: str, accelerator: str, mixed_on_cpu: bool) -> str:
    """The precision that is used: what was asked for, but on a CPU only if that is meant and possible; it says so."""
    if accelerator != "cpu" or asked in ("32-true", "32"):
        return asked
    able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if asked == "bf16-mixed" and mixed_on_cpu and able:
        return asked
    why = (
        "a CPU computes in 32 bits or bf16-mixed"
        if asked != "bf16-mixed"
        else "this CPU has no instructions for it"
        if mixed_on_cpu
        else "on a CPU it is slower, mixed_on_cpu insists"
    )
    log.warning("%s was asked for and is not used: %s; training in 32 bits", asked, why)
    return "32-true"


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
    manner: _Manner,
) -> int:
    """Train to the end and save the model: 0; or to where a signal asks to stop, and a checkpoint: its number."""
    began, first = time.monotonic(), fabric.global_rank == 0
    stepper = Stepper(fabric, model, source, plan)
    place = checkpoint.restore(folder, asdict(plan), model, stepper.optimizers)
    course = Course(**place.state.get("course", {}))
    stepper.load_scaler(place.state.get("scaler", {}))
    watch, watched_from = manner.watch, first_look(model, plan.steps) if manner.watch else 0
    before, saved_at, done = float(place.state.get("seconds", 0.0)), began, place.step

    def seconds() -> float:
        return before + time.monotonic() - began

    def save() -> None:
        state = {"course": course.state(), "scaler": stepper.scaler(), "seconds": seconds()}
        place = Place(done, metrics.sync(), course.best, state)
        checkpoint.save(folder, place, plan=asdict(plan), model=model, optimizers=stepper.optimizers)

    with _torch_settings(machine["threads"]):
        with stop_requests() as asked, Log(folder if first else None, place.log_size, manner.tensorboard) as metrics:
            _prepare(model, source, plan, place)
            machine["compile"] = manner.compile and bool(plan.steps) and stepper.compile(min(done, plan.steps - 1))
            while done < plan.steps and not (watch and course.waited >= watch.patience):
                losses, step, done = stepper.take(done), done, done + 1
                if not all(math.isfinite(value) for value in losses.values()):
                    raise TrainingDiverged(
                        f"{model.name}: a loss is not finite at step {step}; try a lower learning rate"
                    )
                if first:
                    losses |= _looked(model, source, plan, manner, course, folder, done, watched_from)
                    metrics.write({"step": step, **losses})
                    manner.progress(done, plan.steps, "  ".join(f"{key} {value:.4f}" for key, value in losses.items()))
                stop, course.waited = _agreed(fabric, asked(), course.waited)
                late = time.monotonic() - saved_at > 60 * manner.checkpoint_minutes
                if first and (stop or ((done % manner.checkpoint_every == 0 or late) and done < plan.steps)):
                    save()
                    saved_at = time.monotonic()
                if stop:
                    return stop
            if first and done > place.step and type(model).fit is not ImageModel.fit:
                save()  # what follows may take long, and is not asked whether to stop
            metrics.sync()
        if watch:
            fabric.barrier()  # the first process has written which weights are best
            course = Course(**fabric.broadcast(course.state()))
            model.load_state_dict(checkpoint.best_weights(folder, course.best or 0))
        torch.manual_seed(plan.seed)
        with torch.no_grad():
            model.eval().fit(source, plan.seed)

    model.requires_grad_(True)
    _agree(fabric, model)
    if first:
        told: dict[str, Any] = {
            "figures": write_table(folder),
            "stopped_at": done,
            "about": manner.about,
            "seconds": round(seconds(), 1),
            "software": {name: metadata.version(name) for name in SOFTWARE},
        }
        if watch:
            told["kept"] = course.kept(watch, done)
        save_model(model, folder, {**asdict(plan), **machine, **told})
    fabric.barrier()
    return 0


def _prepare(model: ImageModel, source: Source, plan: Plan, place: Place) -> None:
    """What a model computes before its first step; later it is in the checkpoints."""
    if place.step == 0:
        with _looking(model):
            model.prepare(source, plan.seed)


def _due(every: int, done: int, steps: int) -> bool:
    return done % every == 0 or done == steps


def _looked(
    model: ImageModel,
    source: Source,
    plan: Plan,
    manner: _Manner,
    course: Course,
    folder: Path,
    done: int,
    watched_from: int,
) -> dict[str, float]:
    """What is seen of the model after `done` steps, in evaluation mode without gradients; the best weights are kept."""
    figures: dict[str, float] = {}
    with _looking(model):
        watch = manner.watch
        if watch and done > watched_from and _due(watch.every, done, plan.steps):
            value = figures[f"watch/{watch.name}"] = watch.value(model, source, plan.seed)
            if course.add(done, value, watch):
                checkpoint.keep_best(folder, done, model)
        for observer in manner.observers:
            if _due(observer.every, done, plan.steps):
                figures |= observer.look(model, done)
    return figures


@contextmanager
def _looking(model: ImageModel) -> Iterator[None]:
    """Evaluation mode without gradients, between two steps."""
    model.eval()
    with torch.no_grad():
        yield
    model.train()


def _agreed(fabric: Any, asked: int, waited: int) -> tuple[int, int]:
    """What the processes agree on: the signal that any of them got, and how long the first has waited for better."""
    if fabric.world_size == 1:
        return asked, waited
    both = torch.tensor([asked, waited if fabric.global_rank == 0 else 0], device=fabric.device)
    both = fabric.all_gather(both).amax(0)
    return int(both[0]), int(both[1])


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
