"""Any SELECT of an analyst, answered without a way to write, to reach personal data, or to run for ever.

Read-only mode alone is not enough: `VACUUM INTO` and `ATTACH` create files under it. An authorizer lets through nothing
but SELECT, reading of tables that are not the vault, and harmless functions; time, rows and lengths are bounded.
"""

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from db.session import Database
from db.tables import VAULT

FUNCTIONS = frozenset(
    # aggregates, windows, texts, numbers, dates and JSON; nothing that loads, writes or tells of this machine
    """abs avg cast ceil char coalesce concat concat_ws count cume_dist date datetime dense_rank exp first_value
    floor format glob group_concat hex ifnull iif instr json json_array_length json_each json_extract json_type
    julianday lag last_value lead length like ln log log10 log2 lower ltrim max min mod nth_value ntile nullif
    percent_rank pow
    power printf quote rank replace round row_number rtrim sign sqrt strftime string_agg substr substring sum time total
    trim trunc typeof unicode unixepoch upper""".split()  # noqa: SIM905
)
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}


class QueryError(Exception):
    """The query was refused or failed; the message says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Column names and rows; `cut` where there were more rows than asked for."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    cut: bool


def ask(database: Database, sql: str, *, limit: int = 10_000, seconds: float = 30.0) -> Answer:
    """The answer to one SELECT.

    Raises QueryError for anything that is not a SELECT, touches the vault, is too long, takes longer than `seconds`, or
    is no SQL; and for a database that is not SQLite.
    """
    if database.path is None:
        raise QueryError("the SQL console reads SQLite only; on PostgreSQL use psql with a role of your own")
    denied: list[str] = []

    def authorize(action: int, first: str | None, second: str | None, _db: str | None, _view: str | None) -> int:
        if action in _ALLOWED:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and (first or "").lower() not in VAULT:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            denied.append(f"{first} holds personal data and cannot be read here")
        elif action == sqlite3.SQLITE_FUNCTION:
            denied.append(f"the function {second} is not among those allowed here")
        else:
            denied.append("only SELECT is allowed here")
        return sqlite3.SQLITE_DENY

    end = time.monotonic() + seconds
    connection = sqlite3.connect(f"{database.path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000_000)
        connection.set_progress_handler(lambda: int(time.monotonic() > end), 10_000)
        connection.set_authorizer(authorize)
        cursor = connection.execute(sql)
        rows = cursor.fetchmany(limit + 1)
        columns = tuple(column[0] for column in cursor.description or ())
    except (sqlite3.Error, sqlite3.Warning) as error:
        if time.monotonic() > end:
            raise QueryError(f"the query took longer than {seconds:g} seconds and was stopped") from None
        raise QueryError(denied[0] if denied else str(error)) from None
    finally:
        connection.close()
    return Answer(columns, rows[:limit], len(rows) > limit)
