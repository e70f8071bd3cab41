"""Tables of words: tab-separated files that people edit, with errors that say where to look.

The first line names the columns. Empty lines and lines that start with # are skipped.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path


class LexiconError(ValueError):
    """A lexicon or rule file cannot be used; the message names the file, the line and the column."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table: `row["column"]` is its text, "" where the column is missing or empty."""

    path: Path
    line: int
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells.get(column, "")

    def error(self, column: str, problem: str) -> LexiconError:
        """The error to raise about one cell."""
        return LexiconError(f"{self.path}, line {self.line}, column {column}: {problem}")

    def one_of(self, column: str, choices: Collection[str]) -> str:
        """The cell's text, which must be one of `choices`."""
        if self[column] not in choices:
            raise self.error(column, f"{self[column]!r} is none of {', '.join(sorted(filter(None, choices)))}")
        return self[column]

    def number(self, column: str, default: float) -> float:
        """The cell as a number, `default` where it is empty."""
        try:
            return float(self[column]) if self[column] else default
        except ValueError:
            raise self.error(column, f"{self[column]!r} is not a number") from None


def read_table(path: Path, required: Collection[str], optional: Collection[str] = ()) -> Iterator[Row]:
    """The rows of a table. Columns in `required` must be there; any that is in neither list is an error."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise LexiconError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise LexiconError(f"{path}: cannot be read as UTF-8 text ({type(error).__name__})") from None
    columns: list[str] | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if columns is None:
            columns = _columns(path, number, cells, required, optional)
            continue
        if len(cells) > len(columns):
            raise LexiconError(
                f"{path}, line {number}, column {len(columns) + 1}: {len(cells)} cells, but the first line names "
                f"{len(columns)} columns (cells are separated by one tab)"
            )
        yield Row(path, number, dict(zip(columns, cells, strict=False)))
    if columns is None:
        raise LexiconError(f"{path}, line 1: the first line must name the columns {', '.join(required)}")


def _columns(
    path: Path, number: int, cells: list[str], required: Collection[str], optional: Collection[str]
) -> list[str]:
    for name in required:
        if name not in cells:
            raise LexiconError(f"{path}, line {number}, column {name}: the column is missing")
    for position, name in enumerate(cells, start=1):
        if name not in required and name not in optional:
            raise LexiconError(f"{path}, line {number}, column {position}: unknown column {name!r}")
        if name in cells[: position - 1]:
            raise LexiconError(f"{path}, line {number}, column {position}: {name!r} is named twice")
    return cells
