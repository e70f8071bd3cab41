"""Small trainings of every family, and processes of their own to train in that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from model_images import Images, images_for, normal

from phenotype.models import MODELS, build, model_class
from phenotype.models.interrupts import Stopped
from phenotype.models.train import train
from phenotype.models.watching import watch_loss

SIZE, STEPS = 16, 24
PLAN = {"steps": STEPS, "batch_size": 8, "seed": 5, "learning_rate": 1e-3, "checkpoint_every": 3}
every_model = pytest.mark.parametrize("name", sorted(MODELS))
stepwise = [name for name in sorted(MODELS) if MODELS[name].steps]  # the others are computed from all images at once
every_stepwise_model = pytest.mark.parametrize("name", stepwise)


def source(name: str, count: int = 30) -> Images:
    """What the family learns from."""
    return images_for(model_class(name).told, normal(count, SIZE, seed=1))


def plan(name: str, **changed) -> dict:
    """PLAN, for a family that learns in steps or not."""
    return PLAN | ({} if MODELS[name].steps else {"steps": 0}) | changed


def watched(name: str, every: int, patience: int):
    """A watch of the loss of held-out images."""
    told = model_class(name).told
    held_out = images_for(told, normal(9, SIZE, seed=2))
    return watch_loss(held_out, every=every, patience=patience, told=told != "nothing")


class Trained(dict):
    """A folder for each family, trained without interruption when it is first asked for."""

    def __init__(self, factory) -> None:
        super().__init__()
        self.factory = factory

    def __missing__(self, name: str) -> Path:
        self[name] = train(build(name, SIZE, seed=2), source(name), folder=self.factory.mktemp(name), **plan(name))
        return self[name]


class Crash(BaseException):
    """Stands for the process's end."""


def stop_at(step: int):
    """A progress callback that ends the training at `step`."""

    def progress(done: int, steps: int, text: str) -> None:
        if done == step:
            raise Crash

    return progress


def same_result(folder: Path, other: Path) -> bool:
    """Whether two trainings ended in the same weights and the same figures of every step, byte by byte."""
    return all((folder / n).read_bytes() == (other / n).read_bytes() for n in ("model.safetensors", "log.jsonl"))


class Forks:
    """Trains in processes that cost no import of torch: forked off one that has imported it and done nothing else."""

    def __init__(self) -> None:
        here = Path(__file__).resolve().parent
        code = f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parents[1])!r}]; import model_trainings as m; "
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + "m.serve()"], stdin=pipe, stdout=pipe, text=True, env=environment
        )

    @contextmanager
    def training(self, name: str, folder: Path, watch: tuple[int, int] | None = None, **changed) -> Iterator[Forked]:
        """A process that trains the family `name` as `plan` says; it has ended when this does."""
        asked = {"name": name, "folder": str(folder), "watch": watch, "plan": plan(name, **changed)}
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        forked = Forked(int(self.process.stdout.readline()), self.process.stdout)
        yield forked
        forked.finish()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Forked:
    """A training in another process: its pid, and afterwards the steps that it did and its exit code as of `wait`."""

    def __init__(self, pid: int, lines) -> None:
        self.pid, self.lines, self.steps, self.code = pid, lines, [], None

    def step(self) -> int | None:
        """The next step that it has done; None when it has ended."""
        if self.code is None:
            kind, _, value = self.lines.readline().partition(" ")
            if kind == "step":
                self.steps.append(int(value))
                return self.steps[-1]
            self.code = os.waitstatus_to_exitcode(int(value))
        return None

    def finish(self) -> None:
        """Wait for its end."""
        while self.step() is not None:
            pass


def serve() -> None:
    """In a process of its own: fork a training for each line of stdin, tell its pid, its steps and how it ended."""
    import torch._dynamo  # noqa: F401  (every optimizer imports it at its first use: two seconds)

    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _say(str(os.getpid()))
            os._exit(_train(asked))
        _say(f"ended {os.waitpid(pid, 0)[1]}")


def _say(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write: a process that is killed leaves no half line


def _say_step(step: int, *_: object) -> None:
    _say(f"step {step}")


def _train(asked: dict) -> int:
    name = asked["name"]
    watch = watched(name, *asked["watch"]) if asked["watch"] else None
    try:
        model, folder = build(name, SIZE, seed=2), Path(asked["folder"])
        train(model, source(name), folder=folder, watch=watch, progress=_say_step, **asked["plan"])
    except Stopped as stopped:
        return 128 + stopped.signal
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
