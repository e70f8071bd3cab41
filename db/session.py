"""Open a database: SQLite by default, PostgreSQL by URL.

SQLite holds one writer at a time. A transaction that means to write says so at its beginning (`BEGIN IMMEDIATE`): of
1,200 transactions of eight writers that found out in the middle, 1,050 failed with "database is locked".
"""

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from db import views
from db.tables import VaultKey

HEAD = "0001"  # the newest migration; a test compares it with alembic/versions

_SETTINGS = {  # PRAGMA: (value to set, value that must be read back)
    "journal_mode": ("WAL", "wal"),
    "synchronous": ("FULL", 2),  # NORMAL loses acknowledged work in a power cut
    "foreign_keys": ("ON", 1),
    "secure_delete": ("ON", 1),
    "trusted_schema": ("OFF", 0),
    "busy_timeout": ("60000", 60000),
}


class DatabaseError(Exception):
    """The database cannot be used as it is; the message says what to do."""


class Database:
    """An open database. `reading()` and `writing()` give sessions; a written transaction commits or leaves no trace."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.engine = create_engine(self.url, connect_args={"timeout": 60} if self.sqlite else {})
        if self.sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @property
    def sqlite(self) -> bool:
        """Whether this is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database."""
        return Path(self.url.database) if self.sqlite and self.url.database else None

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only asks."""
        with Session(self.engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on any error."""
        with Session(self.engine.execution_options(writes=True)) as session, session.begin():
            yield session

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()


def open_database(url: str) -> Database:
    """The database at `url`, ready for use. An empty one is set up.

    Raises DatabaseError where its tables are of another version, with the command that mends it.
    """
    database = Database(url)
    if database.path is not None:
        database.path.parent.mkdir(parents=True, exist_ok=True)
    found = revision(database.engine)
    if found is None:
        with database.engine.connect() as connection:
            names = set(inspect(connection).get_table_names())
        if names:
            raise DatabaseError("the database holds tables of something else; choose another with --db")
        upgrade(database)
    elif found != HEAD:
        raise DatabaseError(f"the database has version {found}, this program needs {HEAD}: run `phenotype db upgrade`")
    return database


def revision(engine: Engine) -> str | None:
    """The version of the tables, or None where there are none."""
    with engine.connect() as connection:
        if "alembic_version" not in inspect(connection).get_table_names():
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(database: Database, target: str = "head") -> None:
    """Bring the tables to the newest version, or back to an older one (`target` like "base")."""
    from alembic import command
    from alembic.config import Config

    packaged = Path(__file__).parent / "migrations"  # in a wheel; in a checkout they stand at the top
    scripts = packaged if packaged.is_dir() else Path(__file__).parents[1] / "alembic"
    config = Config()
    config.set_main_option("script_location", str(scripts))
    with database.engine.execution_options(writes=True).connect() as connection:
        config.attributes["connection"] = connection
        current = revision(database.engine)
        goes_down = target == "base" or (current is not None and target < current)
        (command.downgrade if goes_down else command.upgrade)(config, target)
    if not goes_down:
        _make_key(database)


def _make_key(database: Database) -> None:
    with database.writing() as session:
        if session.scalar(select(VaultKey.key)) is None:
            session.add(VaultKey(id=1, key=secrets.token_bytes(32)))


def vault_key(session: Session) -> bytes:
    """The secret of this database, from which surrogates are made."""
    return session.scalars(select(VaultKey.key)).one()


def create_views(connection: Connection) -> None:
    """Make the views anew; called by migrations after the tables are as they should be."""
    drop_views(connection)
    for name, body in views.VIEWS.items():
        connection.execute(text(f"CREATE VIEW {name} AS {body}"))


def drop_views(connection: Connection) -> None:
    """Take the views away, so that the tables under them can change."""
    for name in reversed(views.VIEWS):
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    for name, (value, expected) in _SETTINGS.items():
        connection.execute(f"PRAGMA {name} = {value}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != expected and not (name == "journal_mode" and found == "memory"):
            raise DatabaseError(f"SQLite refuses {name} = {value} (it says {found}): data could be lost here")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")
