"""How answers look: a table on a terminal, CSV for spreadsheets, JSON for programs; and progress on stderr."""

import csv
import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from phenotype import stage

Json = Annotated[bool, typer.Option("--json", help="write JSON")]
Csv = Annotated[bool, typer.Option("--csv", help="write CSV")]

messages = Console(stderr=True, highlight=False, soft_wrap=True)

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run a cell that begins so


def answer(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool, as_csv: bool) -> None:
    """Write rows to stdout."""
    if as_json:
        named = [dict(zip(columns, row, strict=True)) for row in rows]
        sys.stdout.write(json.dumps(named, default=_plain, indent=1) + "\n")
    elif as_csv:
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([_cell(column) for column in columns])
        writer.writerows([_cell(value) for value in row] for row in rows)
        sys.stdout.write(stream.getvalue())
    else:
        table = Table(*columns, box=None, header_style="bold")
        for row in rows:
            table.add_row(*(_text(value) for value in row))
        Console(highlight=False, markup=False).print(table)


def document(content: Any) -> None:
    """Write JSON to stdout."""
    sys.stdout.write(json.dumps(content, default=_plain, ensure_ascii=False, indent=1) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return _plain(value) if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value.strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else str(_plain(value))


@contextmanager
def progress(name: str, *, quiet: bool) -> Iterator[stage.Progress]:
    """A bar on a terminal; elsewhere a line now and then, so that a log of a long night stays readable."""
    if quiet:
        yield lambda *_: None
    elif messages.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=messages) as bars:
            bar = bars.add_task(name, total=None, note="")
            yield lambda done, total, note: bars.update(bar, completed=done, total=total, note=note[:40])
    else:
        last = time.monotonic()

        def line(done: int, total: int, note: str) -> None:
            nonlocal last
            if time.monotonic() - last >= 30:
                last = time.monotonic()
                messages.print(f"{name}: {done} of {total}{', ' + note if note else ''}", markup=False)

        yield line


def records(rows: Sequence[Any], kind: Any, as_json: bool, as_csv: bool) -> None:
    """Answer with dataclasses of one `kind`, a row each."""
    columns = [field.name for field in fields(kind)]
    answer(columns, [list(asdict(row).values()) for row in rows], as_json=as_json, as_csv=as_csv)
