"""The newest migration failing at each of its statements, up and down, with data: everything stays as it was."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.script import ScriptDirectory
from sample import fill
from sqlalchemy import create_engine, event

from abuse.outcome import Outcome
from abuse.world import folder
from db import session as module
from db.session import HEAD, open_database, upgrade

WRITES = ("CREATE", "INSERT", "UPDATE", "DELETE", "DROP", "ALTER")


class Stopped(Exception):
    """Raised in the middle of a migration."""


def everything(path: Path) -> dict[str, Any]:
    """All rows and all definitions, read without any code of ours."""
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
        master = raw.execute("SELECT type, name, sql FROM sqlite_master ORDER BY type, name").fetchall()
        tables = [name for kind, name, _ in master if kind == "table"]
        return {"": master} | {t: sorted(map(repr, raw.execute(f'SELECT * FROM "{t}"'))) for t in tables}


def counts(path: Path) -> dict[str, int]:
    """How many rows there are in each table."""
    return {name: len(rows) for name, rows in everything(path).items() if name}


def migrate(engine: Any, work: Any, stop: int) -> int:
    """Do `work`, failing before the writing statement of this number (0: never); how many there were."""
    done = 0

    def before(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        nonlocal done
        done += statement.lstrip().upper().startswith(WRITES)
        if stop and done == stop:
            raise Stopped

    event.listen(engine, "before_cursor_execute", before)
    try:
        work()
    finally:
        event.remove(engine, "before_cursor_execute", before)
    return done


def run(count: int, seed: int) -> Outcome:
    """Up to `count` statements of the newest migration fail, half of them on the way up, half on the way down."""
    script = ScriptDirectory.from_config(module._alembic()).get_revision(HEAD)
    before = str(script.down_revision)
    draw, problems, tried = random.Random(seed), [], 0
    with folder() as where:
        path = where / "x.db"
        database = open_database(f"sqlite:///{path}")
        with database.writing() as session:
            fill(session)
        full = counts(path)
        steps, older = {}, full
        for target, number in ((before, "down"), ("head", "up"), (before, "down"), ("head", "up")):
            steps[number] = migrate(database.engine, lambda target=target: upgrade(database, target), 0)
            older = counts(path) if number == "down" else older
        kept = {table: number for table, number in full.items() if table in older}  # what the older version knows
        if {table: number for table, number in counts(path).items() if table in older} != kept:
            problems.append("PROBLEM down and up again: other numbers of rows")
        for way, target in (("down", before), ("up", "head")):
            whole = everything(path)
            some = range(1, steps[way] + 1)
            chosen = some if count // 2 >= len(some) else sorted({1, len(some), *draw.sample(some, count // 2)})
            for stop in chosen:
                tried += 1
                try:
                    migrate(database.engine, lambda target=target: upgrade(database, target), stop)
                    problems.append(f"PROBLEM {way}, statement {stop}: it did not fail")
                except Stopped:
                    if everything(path) != whole:
                        problems.append(f"PROBLEM {way}, statement {stop} of {len(some)}: something is left")
            upgrade(database, target)
        database.close()
        control = sum(_plainly(where / f"{n}.db", before, n) for n in (30, 60, 90))
    notes = (f"to {before} and back to {HEAD}: {steps['down']} and {steps['up']} statements", *problems)
    return Outcome(tried, tried - len(problems), f"{control} of 3 left half a migration", notes)


def _plainly(path: Path, before: str, stop: int) -> bool:
    """The negative control: whether something is left of it where transactions begin as Python begins them."""
    ours = open_database(f"sqlite:///{path}")
    upgrade(ours, before)
    ours.close()
    whole, plain, config = everything(path), create_engine(f"sqlite:///{path}"), module._alembic()

    def work() -> None:
        with plain.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    try:
        migrate(plain, work, stop)
    except Stopped:
        return everything(path) != whole
    finally:
        plain.dispose()
    return False
