"""SIGKILL at random points of ingestion: stopped any number of times, it ends with the rows of a run never stopped.

A kill is drawn over the statements that a run sends to the database, so that each phase is hit, and then either comes
exactly before that statement or some time after it. Ingestion reads files in processes of its own: all are killed.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from sqlalchemy import Engine, event
from support import differences

from abuse.outcome import Outcome
from abuse.world import (
    Rows,
    answer,
    folder,
    forked,
    forking_sandbox,
    in_fork,
    nasty,
    new_database,
    put,
    rows,
    take_in,
    wait_for,
)

PHASES = ("before", "setting up", "registering", "reading", "matching", "checking", "assembling", "done")
STOPS = 4  # kills of one database before it is let finish, at most
Work = Callable[[Path, Path], None]


class Tracker:
    """What the process under test is doing, in memory that outlives it."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 16)  # anonymous and shared with children

    def reset(self) -> None:
        """Nothing has been done."""
        self.memory[:] = bytes(16)

    @property
    def phase(self) -> int:
        """Where in PHASES it is."""
        return self.memory[0]

    @phase.setter
    def phase(self, value: int) -> None:
        self.memory[0] = value

    @property
    def statements(self) -> int:
        """How many statements it has sent to the database."""
        return int.from_bytes(self.memory[8:16], "little")

    @statements.setter
    def statements(self, value: int) -> None:
        self.memory[8:16] = value.to_bytes(8, "little")

    def watch(self, deadly: int) -> None:
        """Called in the process under test: note its phases, and die before statement number `deadly` (0: never)."""
        from phenotype.ingest import delivery

        def before(*_: object) -> None:
            self.statements += 1
            if self.statements == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        event.listen(Engine, "before_cursor_execute", before)
        event.listen(Engine, "commit", before)
        self._mark(delivery, "register", 2, 3)
        self._mark(delivery, "match_reports", 4, 5)
        self._mark(delivery, "conservation", 5, 6)

    def _mark(self, module: object, name: str, during: int, after: int) -> None:
        real = getattr(module, name)

        def marked(*args: object, **named: object) -> object:
            self.phase = during
            result = real(*args, **named)
            self.phase = after
            return result

        setattr(module, name, marked)


def ingestion(path: Path, source: Path) -> None:
    """What is tested."""
    take_in(path, source)


def naive(path: Path, source: Path) -> None:
    """The negative control: a commit for each row, plain inserts, and the file written down when all is done."""
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE IF NOT EXISTS patient (number TEXT)")
        raw.execute("CREATE TABLE IF NOT EXISTS instance (name TEXT, patient TEXT)")
        raw.execute("CREATE TABLE IF NOT EXISTS file (path TEXT)")
        done = {name for (name,) in raw.execute("SELECT path FROM file")}
        for file in sorted(p for p in source.rglob("*") if p.is_file()):
            name = file.relative_to(source).as_posix()
            if name in done:
                continue
            raw.execute("INSERT INTO patient VALUES (?)", [str(file.stat().st_size)])
            raw.execute("INSERT INTO instance VALUES (?, ?)", [name, str(file.stat().st_size)])
            raw.execute("INSERT INTO file VALUES (?)", [name])


def naive_rows(path: Path) -> Rows:
    """All that the naive program has written."""
    with closing(sqlite3.connect(path)) as raw:
        return {t: sorted(map(repr, raw.execute(f"SELECT * FROM {t}"))) for t in ("patient", "instance", "file")}


class Killer:
    """Runs `work` in forked processes, and kills them."""

    def __init__(self, where: Path, work: Work, read: Callable[[Path], Rows], template: Path | None, seed: int) -> None:
        self.where, self.work, self.read, self.template = where, work, read, template
        self.source = put(where / "export", nasty()) if not (where / "export").exists() else where / "export"
        self.random, self.tracker, self.made, self.starts = random.Random(seed), Tracker(), 0, 0
        self.hit: Counter[str] = Counter()
        self.expected: Rows = {}
        self.totals: dict[Path | None, int] = {}  # statements of a whole run, with and without tables to begin with
        times = []
        for begin in (None, template, template):
            path, began = self._place(begin), time.monotonic()
            answer(*self._start(path, 0))
            times.append(time.monotonic() - began)
            self.totals[begin] = self.tracker.statements
            found = read(path)
            self.expected = self.expected or found
            assert found == self.expected, "two runs that nobody stopped differ"
        self.seconds = median(times)

    def _place(self, template: Path | None) -> Path:
        self.made += 1
        path = self.where / f"{self.work.__name__}{self.made}" / "x.db"
        path.parent.mkdir()
        if template is not None:
            path.write_bytes(template.read_bytes())
        return path

    def _start(self, path: Path, deadly: int) -> tuple[int, int]:
        self.tracker.reset()
        self.starts += 1
        real = self.starts % 10 == 0  # one in ten starts its workers as it does in earnest; that takes a second

        def work() -> None:
            self.tracker.watch(deadly)
            if not real:
                forking_sandbox()
            self.tracker.phase = 1
            self.work(path, self.source)
            self.tracker.phase = 7

        return forked(work, group=True)

    def kill_once(self, path: Path, left: int) -> tuple[bool, int]:
        """Start the work, which has some `left` statements to do, and kill it with all its children; whether it was
        still at work, and how many statements it has done."""
        at = self.random.randint(1, max(left, 2))
        exactly = left > 0 and self.random.random() < 0.5
        pid, pipe = self._start(path, at if exactly else 0)
        if not exactly:
            # the naive program counts no statements: then only the time decides
            wait_for(lambda: left == 0 or self.tracker.statements >= at or not alive(pid), pause=0.0005)
            time.sleep(self.random.uniform(0, self.seconds * (0.05 if left else 0.9)))
            _kill_group(pid)
        ended = os.waitpid(pid, 0)[1]
        _kill_group(pid)  # what it has started goes too
        os.close(pipe)
        died = os.WIFSIGNALED(ended)
        self.hit[PHASES[self.tracker.phase] if died else "too late"] += 1
        return died, self.tracker.statements

    def survive(self) -> tuple[int, str]:
        """One database killed some times and then let finish: how many kills hit, and what is wrong with it then."""
        # one in eight begins without tables: these are made in one transaction too
        begin = self.template if self.random.random() > 1 / 8 else None
        path, left, hits = self._place(begin), self.totals[begin], 0
        for _ in range(self.random.randint(1, STOPS)):
            hit, statements = self.kill_once(path, left)
            # what was done before is not done again, but for asking what there is
            hits, left = hits + hit, left and max(self.totals[self.template] // 4, left - statements)
        try:
            answer(*self._start(path, 0))
            other = differences(self.expected, self.read(path))
        except (AssertionError, sqlite3.Error) as error:
            return hits, f"{type(error).__name__}: {error}"
        return hits, f"differs in {other}" if other else ""


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def run(count: int, seed: int) -> Outcome:
    """`count` kills of ingestion that hit it at work; a fifth as many of the naive one."""
    with folder() as where:
        template = new_database(where / "template.db")
        killer = Killer(where, ingestion, rows, template, seed)
        hits = databases = 0
        problems = []
        while hits < count and databases < count * 2:
            more, wrong = killer.survive()
            hits, databases = hits + more, databases + 1
            if wrong:
                problems.append(f"PROBLEM database {databases} of seed {seed}: {wrong}")
        control = Killer(where, naive, naive_rows, None, seed)
        tried = differ = 0
        while tried < max(3, databases // 5):
            more, wrong = control.survive()
            tried, differ = tried + bool(more), differ + bool(more and wrong)
    spread = ", ".join(f"{killer.hit[p]} {p}" for p in (*PHASES, "too late") if killer.hit[p])
    notes = (f"{databases} databases, killed up to {STOPS} times each; hits: {spread}", *problems)
    return Outcome(hits, hits - len(problems), f"{differ} of {tried} differ", notes)


def orphans(count: int, seed: int) -> Outcome:
    """Only the parent is killed: the processes that it started must end by themselves."""
    draw, good, seen = random.Random(seed), 0, 0
    with folder() as where:
        source = put(where / "export", nasty())
        template = new_database(where / "template.db")
        for i in range(count):
            path = where / str(i) / "x.db"
            path.parent.mkdir()
            path.write_bytes(template.read_bytes())
            pid, pipe = forked(lambda path=path: take_in(path, source, executor="processes:2"), group=True)
            wait_for(lambda pid=pid: len(descendants(pid)) >= 2)
            time.sleep(draw.uniform(0, 0.5))
            children = descendants(pid)
            seen += len(children)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(pipe)
            gone = wait_for(lambda children=children: not any(map(alive, children)), 20)
            _kill_group(pid)
            in_fork(lambda path=path: take_in(path, source))
            good += gone and bool(children)
    return Outcome(count, good, "", (f"{seen} workers were left alone",))


def descendants(pid: int) -> list[int]:
    """The processes below this one that are at work."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                found += [child, *descendants(child)]
    except OSError:
        return found
    return [p for p in found if alive(p)]


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
