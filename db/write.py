"""Write rows in bulk: Core inserts of some thousand rows, with ids made by the client."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from sqlalchemy import delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.tables import Base

CHUNK = 2000
_COUNTED = {"preserve_rowcount": True}  # PostgreSQL forgets the count otherwise


def insert_rows(session: Session, table: type[Base], rows: Iterable[Mapping[str, Any]]) -> int:
    """Insert `rows` (every row with the same keys), leaving rows whose key is already there as they are.

    Returns how many were new. Raises ValueError where the rows of a chunk differ in their keys: SQLAlchemy takes the
    columns from the first and would silently drop what only a later one has.
    """
    dialect: Any = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table.__table__).on_conflict_do_nothing()
    pending, new = iter(rows), 0
    while chunk := [dict(row) for row in islice(pending, CHUNK)]:
        keys = chunk[0].keys()
        if any(row.keys() != keys for row in chunk):
            raise ValueError(f"rows of {table.__tablename__} have different columns")
        new += max(0, session.connection().execute(statement, chunk, execution_options=_COUNTED).rowcount)
    return new


def delete_rows(session: Session, table: type[Base], **equal: Any) -> None:
    """Delete the rows whose columns have these values; a list means any of them."""
    columns = table.__table__.columns
    conditions = [columns[k].in_(v) if isinstance(v, list) else columns[k] == v for k, v in equal.items()]
    session.execute(delete(table).where(*conditions))
