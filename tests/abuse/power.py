"""Power cuts, simulated: what a run writes is recorded, and the files are rebuilt as they may be after a cut.

The recorder is strace. After a cut, what was synced is there; every later write is there, lost, or torn between its
sectors, whatever the others are; a file whose making or removal was not synced may or may not exist. The database must
then open with exactly the transactions that were acknowledged before the cut, or with the one under way as well.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from support import differences

from abuse.outcome import Outcome
from abuse.world import Rows, folder, forking_sandbox, in_fork, keyed, nasty, put, rows, take_in
from db.session import Database, DatabaseError, open_database

SECTOR = 512
CALLS = "openat,write,pwrite64,fsync,fdatasync,ftruncate,unlink,rename"
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (\d+)")
_WORDS = re.compile(r'"((?:\\x[0-9a-f]{2})*)"|(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2})*)>|([\w|]+)')


@dataclass(frozen=True, slots=True)
class Step:
    """A recorded system call on a file, by its name; `data` at `offset`, or the size to cut to. "ack": the program has
    said that what it did until here is done."""

    call: str
    name: str
    data: bytes = b""
    offset: int = 0


@dataclass(slots=True)
class File:
    """A file in the memory of the system: what the disk surely holds, what programs see, and what lies between."""

    durable: bytearray = field(default_factory=bytearray)
    seen: bytearray = field(default_factory=bytearray)
    pending: list[Step] = field(default_factory=list)
    made: bool = False  # its name is on the disk

    def change(self, step: Step) -> None:
        """Programs see it at once."""
        _apply(self.seen, step)
        self.pending.append(step)

    def sync(self) -> None:
        """All of it is on the disk."""
        self.durable[:], self.made = self.seen, True
        self.pending.clear()

    def after_cut(self, draw: random.Random, kept: float) -> bytes:
        """What may be on the disk: of the pending writes each is there with probability `kept`, some of them torn."""
        left = bytearray(self.durable)
        steps = [step for step in self.pending if draw.random() < kept]
        draw.shuffle(steps)
        for step in steps:
            if step.call == "pwrite64" and draw.random() < 0.3:
                for start in range(0, len(step.data), SECTOR):
                    if draw.random() < 0.5:
                        _apply(left, Step("pwrite64", "", step.data[start : start + SECTOR], step.offset + start))
            else:
                _apply(left, step)
        return bytes(left)


def _apply(content: bytearray, step: Step) -> None:
    end = step.offset + len(step.data)
    if step.call == "ftruncate":
        del content[step.offset :]
    if len(content) < end or step.call == "ftruncate":
        content.extend(bytes(max(0, end - len(content))))
    content[step.offset : end] = step.data


class Disk:
    """The files of one folder, from the first call to any later one."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps, self.at, self.acknowledged = steps, 0, -1
        self.files: dict[str, File] = {}
        self.gone: dict[str, File] = {}  # removed, but the folder was not synced since

    def advance(self, to: int) -> None:
        """Do the calls before number `to`."""
        for step in self.steps[self.at : to]:
            if step.call == "ack":
                self.acknowledged += 1
            elif step.call in ("openat", "pwrite64", "ftruncate"):
                self.files.setdefault(step.name, File()).change(step)
            elif step.call == "unlink":
                if (file := self.files.pop(step.name, None)) and file.made:
                    self.gone[step.name] = file
            elif step.name == "":  # the folder
                self.gone.clear()
                for file in self.files.values():
                    file.made = True
            elif step.name in self.files:
                self.files[step.name].sync()
        self.at = max(self.at, to)

    def cut(self, where: Path, draw: random.Random | None) -> None:
        """Write the files as they are seen, or (with `draw`) as they may be after the power was cut."""
        kept = draw.choice((0.0, 0.25, 0.5, 0.75, 1.0)) if draw else 1.0
        where.mkdir()
        for name in self.files.keys() | self.gone.keys():
            file = self.files.get(name)
            if draw and (file is None or not file.made) and name in self.gone and draw.random() < 0.5:
                file = self.gone[name]
            if file is not None and (draw is None or file.made or draw.random() < kept):
                (where / name).write_bytes(file.after_cut(draw, kept) if draw else file.seen)


def record(path: str, source: str, synchronous: str) -> None:
    """Ingest, saying on the file "acks" whenever a transaction is committed. Runs under strace."""
    from db import session

    if synchronous == "NORMAL":
        session._SETTINGS["synchronous"] = ("NORMAL", 1)
    acks = os.open(Path(path).with_name("acks"), os.O_WRONLY | os.O_CREAT)
    with keyed():
        open_database(f"sqlite:///{path}").close()
    os.write(acks, b"ack")
    real = Database.writing

    @contextmanager
    def writing(self: Database) -> Iterator[object]:
        with real(self) as opened:
            yield opened
        os.write(acks, b"ack")

    Database.writing = writing  # type: ignore[method-assign, assignment]
    forking_sandbox()
    take_in(Path(path), Path(source))


def recorded(where: Path, source: Path, synchronous: str) -> list[Step]:
    """The calls of a whole run on its database."""
    where.mkdir()
    log = where.with_suffix(".strace")
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\nfrom abuse.power import record\n"
    code += f"record({str(where / 'x.db')!r}, {str(source)!r}, {synchronous!r})"
    trace = ["strace", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={CALLS}"]
    subprocess.run([*trace, sys.executable, "-c", code], check=True, timeout=150, capture_output=True)
    return list(_steps(log, where))


def _steps(log: Path, where: Path) -> Iterator[Step]:
    for line in log.open(encoding="ascii"):
        call = _CALL.match(line)
        if call is None:
            continue
        name, *words = call[1], *_WORDS.findall(call[2])
        values = [_plain(text or described) if text or described else word.encode() for text, described, word in words]
        path = Path(os.fsdecode(values[1 if name == "openat" else 0]))
        if not path.is_relative_to(where) or path.name.endswith("-shm"):
            continue
        inner = "" if path == where else path.relative_to(where).as_posix()
        if inner == "acks":
            if name == "write":
                yield Step("ack", "")
        elif not inner.startswith("x.db") and inner:
            continue  # the files beside it
        elif name == "openat":
            if b"O_CREAT" in values[2]:
                yield Step("openat", inner)
        elif name == "pwrite64":
            yield Step(name, inner, values[1], int(values[3]))
        elif name == "ftruncate":
            yield Step(name, inner, b"", int(values[1]))
        elif name in ("fsync", "fdatasync", "unlink"):
            yield Step("unlink" if name == "unlink" else "fsync", inner)
        else:
            raise AssertionError(f"{name} on the database: nobody thought of that")


def _plain(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


class Cuts:
    """A recorded run, and what becomes of its database when the power is cut."""

    def __init__(self, where: Path, synchronous: str) -> None:
        self.where, self.made = where / synchronous, 0
        self.source = where / "export"
        self.steps = recorded(self.where, self.source, synchronous)
        self.states: list[Rows] = []  # after each acknowledged transaction
        disk = Disk(self.steps)
        for number, step in enumerate(self.steps, 1):
            if step.call == "ack":
                disk.advance(number)
                self.states.append(self._opened(disk, None))

    def _opened(self, disk: Disk, draw: random.Random | None) -> Rows:
        self.made += 1
        place = self.where / str(self.made)
        disk.cut(place, draw)
        with keyed():
            open_database(f"sqlite:///{place / 'x.db'}").close()
        try:
            return rows(place / "x.db")
        finally:
            if draw is None:
                shutil.rmtree(place)

    def try_some(self, count: int, seed: int) -> tuple[Counter[str], dict[int, Path]]:
        """Cut the power `count` times: what was seen, and for each state that was left an example of it."""
        draw, disk = random.Random(seed), Disk(self.steps)
        seen: Counter[str] = Counter()
        examples: dict[int, Path] = {}
        for at in sorted(draw.randrange(1, len(self.steps)) for _ in range(count)):
            disk.advance(at)
            last = max(0, disk.acknowledged)
            try:
                found = self._opened(disk, draw)
            except (AssertionError, SQLAlchemyError, DatabaseError, sqlite3.Error) as error:
                seen[f"cannot be opened: {error}"] += 1
                continue
            if found in self.states[last : last + 2]:
                seen["sound"] += 1
                examples.setdefault(last, self.where / str(self.made) / "x.db")
            elif found in self.states[:last]:
                seen["lost"] += 1
            else:
                seen["mixed"] += 1
            if examples.get(last) != self.where / str(self.made) / "x.db":
                shutil.rmtree(self.where / str(self.made))
        return seen, examples


def able() -> str:
    """Why there can be no recording here; empty where there can be."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True)
    return "strace may not trace here" if tried.returncode else ""


def run(count: int, seed: int) -> Outcome:
    """`count` power cuts with our settings, a quarter as many with synchronous = NORMAL."""
    if why := able():
        return Outcome(0, 0, "", (f"PROBLEM {why}",))
    with folder() as where:
        put(where / "export", nasty())
        cuts, control = Cuts(where, "FULL"), Cuts(where, "NORMAL")
        seen, examples = cuts.try_some(count, seed)
        lost, _ = control.try_some(max(20, count // 4), seed)
        ends = 0
        for number in random.Random(seed).sample(sorted(examples), min(len(examples), max(5, count // 20))):
            path = examples[number]

            def finish(path: Path = path) -> Rows:
                forking_sandbox()
                take_in(path, cuts.source)
                return rows(path)

            ends += 1
            if other := differences(cuts.states[-1], in_fork(finish)):
                seen[f"ended otherwise in {other}"] += 1
    wrong = {what: n for what, n in seen.items() if what != "sound"}
    notes = [f"{len(cuts.steps)} calls, {len(cuts.states)} transactions; {ends} different states run on to the end"]
    notes += [f"PROBLEM {n} {what}, seed {seed}" for what, n in wrong.items()]
    return Outcome(count, count - sum(wrong.values()), f"{lost['lost']} of {lost.total()} lost work", tuple(notes))
