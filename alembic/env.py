"""How migrations run: on the connection that db.session gives, or, from the `alembic` command, on PHENOTYPE_DB.

A migration is one transaction, on SQLite too (BEGIN IMMEDIATE, see db.session): one that fails half way leaves nothing.
"""

import os
from typing import Any

from alembic import context
from sqlalchemy import Connection

from db import tables
from db.session import Database, DatabaseError, migrating
from db.views import VIEWS


def is_ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Views are made by hand; autogenerate would take a reflected one for a table."""
    return not (kind == "table" and name in VIEWS)


def migrate(connection: Connection) -> None:
    """Run what `alembic` was asked for."""
    context.configure(
        connection=connection,
        target_metadata=tables.Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
        compare_type=True,
        include_object=is_ours,
    )
    with context.begin_transaction():
        context.run_migrations()
        if connection.dialect.name == "sqlite" and connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise DatabaseError("a migration left rows that refer to nothing; it was undone")


if context.is_offline_mode():
    raise SystemExit("migrations need a database: `phenotype db upgrade`")
given = context.config.attributes.get("connection")
if given is not None:
    migrate(given)
else:
    with migrating(Database(os.environ.get("PHENOTYPE_DB", "sqlite:///phenotype.db"))) as own:
        migrate(own)
