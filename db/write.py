"""Write rows in bulk: inserts of some thousand rows, with ids made by the client."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from operator import itemgetter
from typing import Any

from sqlalchemy import Dialect, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.tables import Base

CHUNK = 2000
_COUNTED = {"preserve_rowcount": True}  # PostgreSQL forgets the count otherwise


def insert_rows(session: Session, table: type[Base], rows: Iterable[Mapping[str, Any]]) -> int:
    """Insert `rows` (every row with the same keys), leaving rows whose key is already there as they are.

    Returns how many were new. Raises ValueError where the rows of a chunk differ in their keys: what only a later one
    has would be lost.
    """
    pending, new = iter(rows), 0
    while chunk := list(islice(pending, CHUNK)):
        connection = session.connection()
        statement, values_of = _plan(table, tuple(chunk[0]), connection.dialect)
        try:
            values = [values_of(row) for row in chunk]
        except KeyError:
            raise ValueError(f"rows of {table.__tablename__} have different columns") from None
        new += max(0, connection.exec_driver_sql(statement, values, execution_options=_COUNTED).rowcount)
    return new


@lru_cache(maxsize=256)
def _plan(table: type[Base], keys: tuple[str, ...], dialect: Dialect) -> tuple[str, Callable[[Mapping[str, Any]], Any]]:
    """The INSERT for rows of these keys, and what makes the driver's values of a row (KeyError for other keys).

    SQLAlchemy would work this out for every row; it is half of what an insert costs.
    """
    columns = table.__table__.columns
    defaults = {c.name: c.default.arg for c in columns if c.default is not None and c.name not in keys}
    insert: Any = (sqlite if dialect.name == "sqlite" else postgresql).insert
    statement = insert(table.__table__).on_conflict_do_nothing()
    compiled = statement.compile(dialect=dialect, column_keys=[*keys, *defaults])
    names = list(compiled.positiontup or (*keys, *defaults))
    converters = [(name, columns[name].type.dialect_impl(dialect).bind_processor(dialect)) for name in names]
    converted = [(at, converter) for at, (_, converter) in enumerate(converters) if converter is not None]
    width, take = len(keys), itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)

    def values_of(row: Mapping[str, Any]) -> Any:
        if len(row) != width:
            raise KeyError
        values = list(take({**defaults, **row} if defaults else row))
        for at, converter in converted:
            values[at] = converter(values[at])
        return tuple(values) if compiled.positional else dict(zip(names, values, strict=True))

    return str(compiled), values_of


def delete_rows(session: Session, table: type[Base], **equal: Any) -> None:
    """Delete the rows whose columns have these values; a list means any of them."""
    columns = table.__table__.columns
    conditions = [columns[k].in_(v) if isinstance(v, list) else columns[k] == v for k, v in equal.items()]
    session.execute(delete(table).where(*conditions))
