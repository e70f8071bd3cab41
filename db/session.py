"""Open a database: SQLite by default, PostgreSQL by URL.

SQLite holds one writer at a time. A transaction that means to write says so at its beginning (`BEGIN IMMEDIATE`): of
1,200 transactions of eight writers that found out in the middle, 1,050 failed with "database is locked".
"""

import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from db import views
from db.tables import VaultKey

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0004"  # the newest migration; a test compares it with alembic/versions

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
        self.engine = create_engine(
            self.url,
            connect_args={"timeout": 60} if self.sqlite else {},
            hide_parameters=True,  # errors would quote values, and values are personal data
        )
        if self.sqlite:
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)

    @property
    def sqlite(self) -> bool:
        """Whether this is a SQLite file."""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file of a SQLite database; None for one in memory."""
        name = self.url.database
        return Path(name) if self.sqlite and name and name != ":memory:" else None

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

    Raises DatabaseError where its tables are of another version, with the command that mends it, and where it holds
    something else, which is left as it is.
    """
    database = Database(url)
    _refuse_foreign(database)
    found = revision(database.engine)
    if found is None:
        upgrade(database)
    elif found != HEAD:
        _refuse_newer(found)
        raise DatabaseError(f"the database has version {found}, this program needs {HEAD}: run `phenotype db upgrade`")
    _make_key(database)
    return database


def revision(engine: Engine) -> str | None:
    """The version of the tables, or None where there are none."""
    with engine.connect() as connection:
        if "alembic_version" not in inspect(connection).get_table_names():
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(database: Database, target: str = "head") -> None:
    """Bring the tables to the newest version, or back to an older one (`target` like "base").

    All of it is one transaction. Raises DatabaseError as `open_database` does.
    """
    from alembic import command

    _refuse_foreign(database)
    current = revision(database.engine)
    _refuse_newer(current)
    config = _alembic()
    goes_down = target == "base" or (current is not None and target < current)
    with migrating(database) as connection:
        config.attributes["connection"] = connection
        (command.downgrade if goes_down else command.upgrade)(config, target)


@contextmanager
def migrating(database: Database) -> Iterator[Connection]:
    """A connection for migrations, not yet in a transaction.

    SQLite changes a table by making it anew and dropping the old one, which takes along every row that refers to it
    where foreign keys are enforced. So they are not, here; alembic/env.py checks them all before it commits.
    """
    with database.engine.execution_options(writes=True).connect() as connection:
        if not database.sqlite:
            yield connection
            return
        raw = connection.connection.cursor()  # within a transaction the setting would be without effect
        raw.execute("PRAGMA foreign_keys = OFF")
        try:
            yield connection
        finally:
            connection.rollback()
            raw.execute("PRAGMA foreign_keys = ON")


def _scripts() -> Path:
    packaged = Path(__file__).parent / "migrations"  # in a wheel; in a checkout they stand at the top
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "alembic"


def _alembic() -> "Config":
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_scripts()).replace("%", "%%"))
    return config


def _refuse_foreign(database: Database) -> None:
    """Before anything is written: opening a file as ours already changes its journal mode."""
    path = database.path
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():  # it will hold the vault; SQLite gives the files beside it the same rights
            with suppress(OSError):  # what stands in the way, SQLite says itself
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if not path.exists() or not path.stat().st_size:
            return
        # the power may have been cut within a transaction: who reads next takes it back, and has to write for that
        mode = "rw" if path.with_name(f"{path.name}-journal").exists() else "ro"
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=60)) as raw:
            try:
                names = {name for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorname != "SQLITE_NOTADB":
                    raise
                raise DatabaseError("the file is no SQLite database; choose another with --db") from None
    else:
        with database.engine.connect() as connection:
            names = set(inspect(connection).get_table_names())
    if names and "alembic_version" not in names:
        raise DatabaseError("the database holds tables of something else; choose another with --db")


def _refuse_newer(found: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}
    if found is not None and found not in known:
        raise DatabaseError(
            f"the database has version {found}, which this program does not know: use the newer phenotype that made "
            "it, or choose another database with --db"
        )


def _make_key(database: Database) -> None:
    """Unless there is one. Asked at every opening, since the tables may have been made by a process that was killed."""
    with database.reading() as session:
        if session.scalar(select(VaultKey.key)) is not None:
            return
    with database.writing() as session:
        if session.scalar(select(VaultKey.key)) is None:  # another process may have been here in between
            session.add(VaultKey(id=1, key=secrets.token_bytes(32)))


def vault_key(session: Session) -> bytes:
    """The secret of this database, from which surrogates are made."""
    return session.scalars(select(VaultKey.key)).one()


def create_views(connection: Connection, frozen: str = "") -> None:
    """Make the views anew; called by migrations after the tables are as they should be.

    `frozen` names an older version, whose views are kept as text in alembic/views; without it they are today's.
    """
    drop_views(connection)
    if frozen:
        _, *kept = (_scripts() / "views" / f"{frozen}.sql").read_text(encoding="utf-8").split("\nCREATE VIEW ")
        statements = [view.strip().removesuffix(";") for view in kept]
    else:
        statements = [f"{name} AS {body}" for name, body in views.VIEWS.items()]
    for statement in statements:
        connection.execute(text(f"CREATE VIEW {statement}"))


def drop_views(connection: Connection) -> None:
    """Take the views away, so that the tables under them can change. No later version may forget a view's name."""
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
