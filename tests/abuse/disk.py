"""The disk is full: ingestion stops with a message, the database is sound, and with space again it ends the same.

As root a small file system in memory is mounted where only this process sees it, and filled up to some free space;
elsewhere the size of any file that is written is limited.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import resource
import signal
import sqlite3
import subprocess
from collections import Counter
from pathlib import Path

from abuse.outcome import Outcome
from abuse.world import (
    command_line,
    copy_database,
    folder,
    forking_sandbox,
    in_fork,
    keyed,
    nasty,
    new_database,
    put,
    rows,
    small_batches,
)

SIZE = 24 << 20  # of the file system
CLONE_NEWNS = 0x00020000


def mount_small(where: Path) -> bool:
    """Mount a small file system that only this process and its children see; whether that is allowed here."""
    where.mkdir(exist_ok=True)
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        return False
    private = subprocess.run(["mount", "--make-rprivate", "/"], check=False, capture_output=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(where)], check=False, capture_output=True
    )
    return not private.returncode and not mounted.returncode


class Full:
    """Runs of `phenotype ingest` with too little space."""

    def __init__(self, where: Path, small: bool) -> None:
        self.where, self.small = where, small
        self.source = put(where / "export", nasty())
        self.template = new_database(where / "template.db")
        self.place = where / ("small" if small else "large")
        self.place.mkdir(exist_ok=True)
        path = copy_database(self.template, self.place / "x.db")
        before = self._used()
        assert in_fork(lambda: self._ingest(path))[0] == 3, "the delivery has bad files, of which the exit code tells"
        self.need = self._used() - before
        self.expected = rows(path)
        self.told: Counter[str] = Counter()

    def _used(self) -> int:
        return sum(p.stat().st_size for p in self.place.rglob("*") if p.is_file())

    def _ingest(self, path: Path, most: int = 0) -> tuple[int, str]:
        forking_sandbox()
        small_batches()
        if most:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # Python does so too
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        with keyed():
            return command_line("--quiet", "--db", f"sqlite:///{path}", "ingest", str(self.source))

    def once(self, draw: random.Random) -> list[str]:
        """One run with too little space and one with enough; what went wrong."""
        for path in self.place.iterdir():
            subprocess.run(["rm", "-rf", path], check=True)
        path = copy_database(self.template, self.place / "x.db")
        free = int(4096 * (self.peak / 4096) ** draw.random())  # many have little, since transactions are small
        if self.small:
            ballast = self.place / "ballast"
            with ballast.open("wb") as stream:
                left = os.statvfs(self.place)
                os.posix_fallocate(stream.fileno(), 0, max(4096, left.f_bavail * left.f_frsize - free))
        code, said = in_fork(lambda: self._ingest(path, 0 if self.small else path.stat().st_size + free))
        problems = []
        if code == 3:
            self.told["enough space"] += 1
        else:
            self.told[said.strip().splitlines()[-1][:90] if said.strip() else "nothing"] += 1
            if code != 1 or "Traceback" in said or not re.search(r"space|full|disk", said):
                problems.append(f"exit code {code}, it said: {said[-300:]!r}")
        if self.small:
            ballast.unlink()
        try:
            rows(path)
        except (AssertionError, sqlite3.Error) as error:
            problems.append(f"the database: {error}")
        code, said = in_fork(lambda: self._ingest(path))
        if code != 3 or rows(path) != self.expected:
            problems.append(f"with space again it ends otherwise, with exit code {code}")
        return problems

    @property
    def peak(self) -> int:
        """Bytes beyond which there is space enough, about: what is written stands in the log before it is moved."""
        return self.need * 3


def _all(where: Path, small: bool, count: int, seed: int) -> tuple[list[str], dict[str, int], bool]:
    if small and not mount_small(where / "small"):
        return [], {}, False
    full, draw = Full(where, small), random.Random(seed)
    problems = []
    for number in range(count):
        problems += [f"case {number} of seed {seed}: {what}" for what in full.once(draw)]
    return problems, dict(full.told), True


def naive(where: Path) -> bool:
    """The negative control: a program that writes its results to a plain file has half of one after a full disk."""
    path = where / "results.csv"

    def work() -> bool:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            with path.open("w") as stream:
                for i in range(5000):
                    stream.write(f"patient {i}, a finding\n")
        except OSError:
            return True
        return False

    return in_fork(work) and not path.read_text().endswith("\n")


def run(count: int, seed: int) -> Outcome:
    """Half of `count` on a small file system where that is allowed, the others with files limited in size."""
    told: Counter[str] = Counter()
    with folder() as where:
        (where / "a").mkdir()
        (where / "b").mkdir()
        problems, some, able = in_fork(lambda: _all(where / "a", True, count // 2, seed), 600)
        more, others, _ = in_fork(lambda: _all(where / "b", False, count - (count // 2 if able else 0), seed + 1), 600)
        told.update(some)
        told.update(others)
        torn = naive(where)
    problems += more
    how = f"{count // 2} on a small file system" if able else "mounting is not allowed here: all by RLIMIT_FSIZE"
    notes = [how, *(f"{n} x {said!r}" for said, n in told.items()), *(f"PROBLEM {p}" for p in problems)]
    return Outcome(count, count - len({p.split(":")[0] for p in problems}), f"{int(torn)} of 1 torn", tuple(notes))
