"""Tables as Excel workbooks (.xlsx) and Parquet files, as the rows of a CSV would give them."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from io import BytesIO
from typing import Any

from phenotype.executors import Refused
from phenotype.ingest.contents import Record, Records
from phenotype.ingest.reports.text import decode, records
from phenotype.ingest.tables import find_columns, read_rows

MAX_ROWS, MAX_CELLS = 2_000_000, 20_000_000  # of one workbook or table, empty ones of a workbook counted
MAX_MEMBERS, MAX_UNPACKED, MAX_RATIO = 5_000, 1 << 30, 300  # of the zip that a workbook is


def read_workbook(data: bytes, columns: Mapping[str, str]) -> Records:
    """The rows of every sheet that has the columns of a table of reports or pictures, sheet after sheet.

    Formulas count with the value that was stored last. Raises Refused: "bad_sheet", "sheet_bomb" (inflates beyond
    measure, or holds a document type), "too_large", and as a CSV where no sheet has its columns.
    """
    import openpyxl

    check_zip(data)
    rows: list[Record] = []
    reason: Refused | None = None
    names: list[str] = []
    other = cells = 0
    try:
        book = openpyxl.load_workbook(BytesIO(data), read_only=True, data_only=True, keep_links=False)
        for sheet in book.worksheets:
            sheet.reset_dimensions()  # those that are declared are believed by nobody
            lines: list[list[str]] = []
            for count, line in enumerate(sheet.iter_rows(), 1):
                cells += len(line)
                if cells > MAX_CELLS or count > MAX_ROWS:
                    break
                found = [_cell(cell.value, cell.number_format) if cell.value is not None else "" for cell in line]
                if any(found):
                    lines.append(found)
            if cells > MAX_CELLS or len(lines) > MAX_ROWS:
                break
            width = max(map(len, lines), default=0)
            lines = [line + [""] * (width - len(line)) for line in lines]  # a row ends with its last filled cell
            try:
                more, what = read_rows(lines, columns)
            except Refused as error:
                reason, other = reason or error, other + 1
                continue
            names = names or list(what)
            rows += [replace(row, number=len(rows) + number) for number, row in enumerate(more, 1)]
    except MemoryError:
        raise
    except Exception as error:  # openpyxl fails in many ways on damaged workbooks
        raise Refused("bad_sheet", f"the workbook cannot be read ({type(error).__name__})") from None
    if cells > MAX_CELLS:
        raise Refused("too_large", "more than twenty million cells")
    if not names:
        raise reason or Refused("no_header", "an empty workbook")
    return records("xlsx", rows, "/".join(names), f"{other} other sheets" if other else "")


def check_zip(data: bytes) -> None:
    """Raises Refused("sheet_bomb" | "bad_sheet") for a workbook whose parts should not be unpacked."""
    try:
        parts = zipfile.ZipFile(BytesIO(data)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise Refused("bad_sheet", f"the workbook cannot be opened ({type(error).__name__})") from None
    unpacked = sum(part.file_size for part in parts)
    dense = any(p.file_size > (1 << 20) and p.file_size > MAX_RATIO * p.compress_size for p in parts)
    if len(parts) > MAX_MEMBERS or unpacked > MAX_UNPACKED or dense:
        raise Refused("sheet_bomb", "a workbook that inflates beyond measure")


def _cell(value: Any, shape: str = "") -> str:
    """A value as it is shown: whole numbers without a point, dates as ISO."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, int) and shape and not shape.strip("0"):
        return str(value).zfill(len(shape))  # numbers that are shown with leading zeros, as accession numbers may be
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, date | time):
        return value.isoformat()
    return decode(value)[0] if isinstance(value, bytes) else str(value)


def read_parquet(data: bytes, columns: Mapping[str, str]) -> Records:
    """The rows of a Parquet file; only the columns that say something are read.

    Raises Refused: "needs_extra:parquet" where pyarrow is not installed, "bad_parquet", "too_large", and as a CSV.
    """
    try:
        from pyarrow import parquet
    except ImportError:
        raise Refused("needs_extra:parquet", "install phenotype with the extra 'parquet' to read this") from None
    try:
        file = parquet.ParquetFile(BytesIO(data))
        names = [str(name) for name in file.schema_arrow.names]
        rows, packed = file.metadata.num_rows, file.metadata
        size = sum(packed.row_group(i).total_byte_size for i in range(packed.num_row_groups))
    except MemoryError:
        raise
    except Exception as error:  # pyarrow fails in many ways on damaged files
        raise Refused("bad_parquet", f"the file cannot be read ({type(error).__name__})") from None
    if rows > MAX_ROWS or size > MAX_UNPACKED:
        raise Refused("too_large", "more than two million rows, or a gigabyte of values")
    # the first rows, since a column of pictures is known by what it holds
    sample = next(_batches(file, names, 200), [])
    wanted = [names[i] for i in sorted(find_columns(names, columns, sample).values())]
    lines = [wanted, *(line for batch in _batches(file, wanted, 4096) for line in batch)]
    read, found = read_rows(lines, columns)
    return records("parquet", read, "/".join(found))


def _batches(file: Any, names: list[str], size: int) -> Iterator[list[list[str]]]:
    """Rows of cells, some at a time; lists and structures hold nothing that is asked for."""
    try:
        for batch in file.iter_batches(batch_size=size, columns=names):
            columns = [[_cell(value) for value in _values(batch.column(name))] for name in names]
            yield [list(row) for row in zip(*columns, strict=True)]
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise Refused("bad_parquet", f"the file cannot be read ({type(error).__name__})") from None


def _values(column: Any) -> list[Any]:
    """The values of a column; texts as bytes, since one that is not UTF-8 must not spoil the others."""
    from pyarrow import large_binary, types

    kind = column.type
    if types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if types.is_string(kind) or types.is_large_string(kind):
        column = column.cast(large_binary())
    found: list[Any] = [None] * len(column) if types.is_nested(kind) else column.to_pylist()
    return found
