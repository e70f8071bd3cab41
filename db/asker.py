"""The process that answers one SELECT for db.console, and may be killed at any moment.

Run as a script, with nothing but the standard library: a question as JSON comes in, an answer as JSON goes out. One
call within SQLite (a `replace` over megabytes, say) cannot be interrupted from inside; a process can be.
"""

import base64
import json
import sqlite3
import sys
import time
from typing import Any

ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}
CATALOG = frozenset({"sqlite_master"})  # which tables and views there are; always at page 1
JSON_TABLES = frozenset({"json_each", "json_tree"})
OPENING = frozenset({"OpenRead", "OpenWrite", "ReopenIdx"})  # instructions that begin to read a table or index


class Refusal(Exception):
    """The query cannot be answered; the message says why."""


class Authorizer:
    """Lets through SELECT from the tables and functions named, and keeps the reason for which it first said no."""

    def __init__(self, question: dict[str, Any], existing: frozenset[str]) -> None:
        self.tables = frozenset(question["tables"]) | CATALOG | JSON_TABLES
        self.functions = frozenset(question["functions"]) | JSON_TABLES
        self.existing = existing
        self.reason = ""

    def __call__(self, action: int, first: str | None, second: str | None, _db: str | None, _view: str | None) -> int:
        table, name = (first or "").lower(), (second or "").lower()
        if action == sqlite3.SQLITE_READ:
            if table in self.tables or (not name and self._is_local(table)):
                return sqlite3.SQLITE_OK
            secret = table.startswith("vault")
            why = "holds personal data and cannot be read here" if secret else "is not among what can be read here"
            self.reason = self.reason or f"{first} {why}"
        elif action == sqlite3.SQLITE_FUNCTION:
            if name in self.functions:
                return sqlite3.SQLITE_OK
            self.reason = self.reason or f"the function {second} is not among those allowed here"
        elif action in ALLOWED:
            return sqlite3.SQLITE_OK
        else:
            self.reason = self.reason or "only SELECT is allowed here"
        return sqlite3.SQLITE_DENY

    def _is_local(self, table: str) -> bool:
        """Whether this is the name of a WITH: SQLite asks for those too, but for no column of them."""
        return table not in self.existing and not table.startswith(("vault", "sqlite_", "pragma_"))


def connect(question: dict[str, Any]) -> tuple[sqlite3.Connection, Authorizer, set[int]]:
    """A connection that can only read, and little; what is allowed; and the pages where what is allowed begins.

    From here on it sees one state of the database, so that those pages stay what they are.
    """
    seconds = question["seconds"]
    connection = sqlite3.connect(question["database"], uri=True, timeout=seconds, isolation_level=None)
    for setting in (
        "query_only = ON",
        "trusted_schema = OFF",
        "temp_store = MEMORY",  # sorting in files could fill the disk
        f"hard_heap_limit = {question['memory']}",
    ):
        connection.execute(f"PRAGMA {setting}")
    connection.execute("SELECT 1 FROM json_each('[]'), json_tree('[]')")  # a first use would look like writing
    connection.execute("BEGIN")
    names = connection.execute("SELECT name FROM sqlite_master UNION SELECT name FROM pragma_module_list")
    existing = frozenset(name.lower() for (name,) in names)
    begins = connection.execute("SELECT lower(tbl_name), rootpage FROM sqlite_master").fetchall()
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 100_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 50_000_000)
    end = time.monotonic() + seconds
    connection.set_progress_handler(lambda: int(time.monotonic() > end), 10_000)
    authorizer = Authorizer(question, existing)
    connection.set_authorizer(authorizer)
    return connection, authorizer, {1} | {page for table, page in begins if table in authorizer.tables}


def check(connection: sqlite3.Connection, sql: str, pages: set[int]) -> None:
    """Refuse a query whose program would open anything else.

    SQLite does not ask the authorizer for the columns of NATURAL JOIN and USING: joined with guesses, a table that
    cannot be read would confirm them.
    """
    for _address, instruction, _p1, page, *_rest in connection.execute("EXPLAIN\n" + sql):
        if instruction in OPENING and page not in pages:
            raise Refusal("the query joins a table that cannot be read here; it may hold personal data")


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """Columns, rows and whether there were more; bytes stand as {"b64": ...}."""
    connection, authorizer, pages = connect(question)
    try:
        check(connection, question["sql"], pages)
        cursor = connection.execute(question["sql"])
        rows: list[list[Any]] = []
        size, cut = 0, False
        for row in cursor:
            cut = len(rows) == question["limit"]
            if cut:
                break
            size += sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
            if size > question["bytes"]:
                raise Refusal(f"the answer is larger than {question['bytes'] // 1_000_000} MB; ask for less")
            rows.append([{"b64": base64.b64encode(v).decode()} if isinstance(v, bytes) else v for v in row])
        return {"columns": [column[0] for column in cursor.description], "rows": rows, "cut": cut}
    except MemoryError:
        raise Refusal("the query needs too much memory; ask for less at a time") from None
    except UnicodeError:
        raise Refusal("the query is not valid text") from None
    except (sqlite3.Error, sqlite3.Warning) as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_INTERRUPT":
            raise Refusal(f"the query took longer than {question['seconds']:g} seconds and was stopped") from None
        raise Refusal(authorizer.reason or str(error)) from None
    finally:
        connection.close()


def main() -> None:
    """One question on stdin, one answer on stdout."""
    try:
        found = answer(json.load(sys.stdin))
    except Refusal as error:
        found = {"error": str(error)}
    except sqlite3.Error as error:  # the database itself could not be opened
        found = {"error": str(error)}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
