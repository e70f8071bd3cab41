"""The figures of a training by step: log.jsonl on the way, metrics.csv at the end, TensorBoard where asked for."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from phenotype.models.files import write_whole

LOG, TABLE, EVENTS = "log.jsonl", "metrics.csv", "tensorboard"


class Log:
    """Figures by step, a JSON object a line; opened at the length that its checkpoint knows: no step is twice.

    With `events` a folder of TensorBoard event files is written beside it, made anew from the log whenever a training
    continues. Without a folder nothing is written.
    """

    def __init__(self, folder: Path | None, size: int, events: bool = False) -> None:
        self._file = self._events = None
        if folder is None:
            return
        path = folder / LOG
        path.touch()
        self._file = path.open("r+b")
        self._file.truncate(min(size, path.stat().st_size))
        self._file.seek(0, os.SEEK_END)
        if events:
            self._events = _event_writer(folder / EVENTS)
            for line in read_log(folder):
                self._show(line)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()

    def write(self, line: Mapping[str, float]) -> None:
        """Add the figures of a step; `line` has them by name, and its number as "step"."""
        if self._file is not None:
            self._file.write((json.dumps(line) + "\n").encode())
        self._show(line)

    def sync(self) -> int:
        """Bring what was written to the disk; returns the length in bytes."""
        if self._file is None:
            return 0
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def _show(self, line: Mapping[str, float]) -> None:
        if self._events is not None:
            for key, value in line.items():
                if key != "step":
                    self._events.add_scalar(key, value, int(line["step"]))


def need_tensorboard() -> None:
    """ValueError, saying what to install, where event files cannot be written."""
    if find_spec("tensorboard") is None:
        raise ValueError("event files need the package tensorboard: pip install 'phenotype[tensorboard]', or leave it")


def _event_writer(folder: Path) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))


def read_log(folder: Path) -> Iterator[dict[str, float]]:
    """The lines of a training's log, in order."""
    with (folder / LOG).open("rb") as file:
        for line in file:
            yield json.loads(line)


def write_table(folder: Path) -> dict[str, float]:
    """Write the log as metrics.csv, a row a step and a column a figure; returns the last value of each figure."""
    last: dict[str, float] = {}
    for line in read_log(folder):
        last |= line
    text = io.StringIO()
    table = csv.DictWriter(text, ["step", *sorted(last.keys() - {"step"})], restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(read_log(folder))
    write_whole(folder / TABLE, text.getvalue().encode())
    last.pop("step", None)
    return last
