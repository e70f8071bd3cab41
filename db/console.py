"""Any SELECT of an analyst, answered without a way to write, to reach personal data, or to run for ever.

Read-only mode alone is not enough: `VACUUM INTO` and `ATTACH` create files under it. An authorizer lets through nothing
but SELECT, the tables and views named here, and harmless functions; rows, lengths and memory are bounded, and time by a
process of its own (db/asker.py) that is killed.
"""

import base64
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from db.session import Database
from db.tables import VAULT, Base
from db.views import VIEWS

FUNCTIONS = frozenset(
    # aggregates, windows, texts, numbers, dates and JSON; nothing that loads, writes or tells of this machine
    """-> ->> abs acos asin atan atan2 avg cast ceil ceiling char coalesce concat concat_ws cos count cume_dist
    current_date current_time current_timestamp date datetime degrees dense_rank exp first_value floor format glob
    group_concat hex if ifnull iif instr json json_array json_array_length json_extract json_group_array
    json_group_object json_object json_quote json_type json_valid julianday lag last_value lead length like likelihood
    likely ln log log10 log2 lower ltrim max median min mod nth_value ntile nullif octet_length percent_rank percentile
    pi pow power printf quote radians random rank replace round row_number rtrim sign sin sqrt strftime string_agg
    substr substring sum tan time timediff total trim trunc typeof unicode unixepoch unlikely upper""".split()  # noqa: SIM905
)
READABLE = (frozenset(Base.metadata.tables) - VAULT) | frozenset(VIEWS)
MEMORY = 1 << 30  # bytes that SQLite may hold while it sorts and groups
ANSWER = 100_000_000  # bytes of an answer
GRACE = 2.0  # seconds beyond those asked for, in which a query may still end by itself


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

    Raises QueryError for anything that is not a SELECT, reads what is not in READABLE, is too long or too large, takes
    longer than `seconds`, or is no SQL; and for a database that is no SQLite file.
    """
    if database.path is None:
        raise QueryError("the SQL console reads SQLite files only; on PostgreSQL use psql with a role of your own")
    if limit < 1 or not 0 < seconds <= 86_400:
        raise QueryError("ask for at least one row, and for more than no seconds and less than a day")
    question = {
        "database": f"{database.path.resolve().as_uri()}?mode=ro",
        "sql": sql,
        "limit": limit,
        "seconds": seconds,
        "tables": sorted(READABLE),
        "functions": sorted(FUNCTIONS),
        "memory": MEMORY,
        "bytes": ANSWER,
    }
    command = [sys.executable, "-I", "-S", str(Path(__file__).with_name("asker.py"))]
    try:
        done = subprocess.run(
            command, input=json.dumps(question).encode(), capture_output=True, timeout=seconds + GRACE, check=False
        )
    except subprocess.TimeoutExpired:
        raise QueryError(f"the query took longer than {seconds:g} seconds and was stopped") from None
    if done.returncode:
        raise QueryError("the process that ran the query died; it may have needed too much memory")
    found = json.loads(done.stdout)
    if "error" in found:
        raise QueryError(found["error"])
    rows = [tuple(_value(value) for value in row) for row in found["rows"]]
    return Answer(tuple(found["columns"]), rows, found["cut"])


def _value(value: Any) -> Any:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
