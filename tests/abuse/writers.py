"""Eight at once: transactions wait for each other, and of eight ingestions one works and the others say so."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from abuse.outcome import Outcome
from abuse.world import (
    answer,
    command_line,
    copy_database,
    folder,
    forked,
    in_fork,
    keyed,
    nasty,
    new_database,
    put,
    rows,
    small_batches,
    take_in,
)
from db.session import Database
from db.tables import Export

WRITERS = 8


def _write(path: Path, writer: int, count: int, *, says_so: bool) -> int:
    """`count` transactions that look before they write; how many the database refused. Without `says_so` they begin as
    readers, as transactions do by default."""
    database, refused = Database(f"sqlite:///{path}"), 0
    try:
        for number in range(count):
            try:
                with Session(database.engine.execution_options(writes=says_so)) as session, session.begin():
                    before = session.scalar(select(func.count()).select_from(Export))
                    name = f"{writer}-{number}"
                    session.add(Export(id=name, kind=str(before), registered_at=datetime.now(UTC)))
            except OperationalError:
                refused += 1
    finally:
        database.close()
    return refused


def _all_write(template: Path, path: Path, count: int, *, says_so: bool) -> tuple[int, int]:
    """How many of `count` transactions of eight writers were refused, and how many rows are there; each of which has
    counted those before it."""
    copy_database(template, path)
    share = count // WRITERS
    work = [forked(lambda w=w: _write(path, w, share, says_so=says_so)) for w in range(WRITERS)]
    refused = sum(answer(*child) for child in work)
    database = Database(f"sqlite:///{path}")
    with database.reading() as session:
        seen = sorted(int(n) for n in session.scalars(select(Export.kind)))
    database.close()
    return refused, len(seen) if seen == list(range(len(seen))) else -1


def run(count: int, seed: int) -> Outcome:
    """`count` transactions of eight processes; the control begins them as readers."""
    count -= count % WRITERS
    with folder() as where:
        template = new_database(where / "template.db")
        refused, there = _all_write(template, where / "ours.db", count, says_so=True)
        control, _ = _all_write(template, where / "control.db", count, says_so=False)
    notes = (f"{there} rows, each having seen all before it",)
    return Outcome(count, there - refused, f"{control} of {count} refused", notes)


def ingests(count: int, seed: int) -> Outcome:
    """`count` times eight `phenotype ingest` at once on one database."""
    good, told = 0, Counter[str]()
    problems = []
    with folder() as where:
        source = put(where / "export", nasty())
        template = new_database(where / "template.db")
        in_fork(lambda: take_in(copy_database(template, where / "whole.db"), source))
        expected = rows(where / "whole.db")

        def one(path: Path) -> tuple[int, str]:
            small_batches()
            with keyed():
                return command_line("--quiet", "--db", f"sqlite:///{path}", "ingest", str(source))

        for number in range(count):
            path = copy_database(template, where / str(number) / "x.db")
            ended = [answer(*child) for child in [forked(lambda path=path: one(path)) for _ in range(WRITERS)]]
            kinds = [
                "worked" if c == 3 else "busy" if c == 1 and "busy: another" in said else said for c, said in ended
            ]
            told.update(kinds)
            sound = "worked" in kinds and set(kinds) <= {"worked", "busy"} and rows(path) == expected
            good += sound
            if not sound:
                problems.append(f"PROBLEM time {number}: {Counter(kinds)}")
    return Outcome(count, good, "", (", ".join(f"{n} {kind}" for kind, n in told.items())[:200], *problems))
