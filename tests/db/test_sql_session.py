"""Opening a database: settings, empty, foreign, outdated and newer ones; one writer at a time."""

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from db import session as module
from db.session import HEAD, Database, DatabaseError, open_database, revision, vault_key
from db.tables import Base, Patient, Study, VaultPatient
from db.views import VIEWS
from db.write import insert_rows

SETTINGS = {
    "journal_mode": "wal",
    "synchronous": 2,
    "foreign_keys": 1,
    "secure_delete": 1,
    "trusted_schema": 0,
    "busy_timeout": 60000,
}


def url(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_in_force(empty, name):
    with empty.reading() as session:
        assert session.scalar(text(f"PRAGMA {name}")) == SETTINGS[name]


def test_settings_hold_on_every_connection_and_after_a_migration(tmp_path):
    database = open_database(url(tmp_path / "x.db"))
    for _ in range(3):  # the one that migrated is among them
        with database.engine.connect() as one, database.engine.connect() as other:
            for connection in (one, other):
                assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    database.close()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_reads_back_otherwise_is_refused(tmp_path, monkeypatch, name):
    value, expected = module._SETTINGS[name]
    monkeypatch.setitem(module._SETTINGS, name, (value, f"not {expected}"))
    with pytest.raises(DatabaseError, match=name):
        open_database(url(tmp_path / "x.db"))


def test_a_file_system_without_shared_memory_is_refused(tmp_path):
    """A real one: this way of locking cannot do WAL, and SQLite says so only when asked."""
    with pytest.raises(DatabaseError, match=r"journal_mode = WAL \(it says delete\)"):
        Database(f"sqlite:///file:{tmp_path / 'x.db'}?vfs=unix-none&uri=true").engine.connect()


def test_an_empty_database_is_set_up(tmp_path):
    database = open_database(url(tmp_path / "new" / "folder" / "x.db"))
    with database.reading() as session:
        names = set(session.scalars(text("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")))
        assert len(vault_key(session)) == 32
    assert names == set(Base.metadata.tables) | set(VIEWS) | {"alembic_version"}
    assert revision(database.engine) == HEAD
    database.close()


def test_the_key_is_made_once_and_is_its_own(tmp_path):
    keys = []
    for name in ("a.db", "a.db", "b.db"):
        database = open_database(url(tmp_path / name))
        with database.reading() as session:
            keys.append(vault_key(session))
        database.close()
    assert keys[0] == keys[1] != keys[2]


def test_a_key_that_a_killed_process_did_not_make_is_made(empty):
    with empty.writing() as session:
        session.execute(text("DELETE FROM vault_key"))
    open_database(str(empty.url)).close()
    with empty.reading() as session:
        assert len(vault_key(session)) == 32


def test_one_in_memory_can_be_used():
    database = open_database("sqlite:///:memory:")
    assert database.path is None
    with database.writing() as session:
        insert_rows(session, Patient, [{"id": "p", "fold": 1}])
    with database.reading() as session:
        assert session.get(Patient, "p") is not None
    database.close()


@pytest.mark.parametrize("use", [open_database, lambda u: module.upgrade(Database(u))])
def test_a_foreign_database_is_refused_and_left_as_it_is(tmp_path, use):
    path = tmp_path / "foreign.db"
    with closing(sqlite3.connect(path)) as raw:
        raw.executescript("CREATE TABLE invoice (id INTEGER); INSERT INTO invoice VALUES (1)")
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="something else; choose another with --db"):
        use(url(path))
    assert path.read_bytes() == before


def test_what_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("These are notes, and nothing but notes. " * 50)
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="no SQLite database; choose another with --db"):
        open_database(url(path))
    assert path.read_bytes() == before


@pytest.mark.parametrize("use", [open_database, lambda u: module.upgrade(Database(u))])
def test_a_newer_database_is_refused(filled, use):
    with filled.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(DatabaseError, match="version 9999, which this program does not know: use the newer phenotype"):
        use(url(filled.path))


def test_nothing_remains_of_a_transaction_that_fails(empty):
    with pytest.raises(ZeroDivisionError), empty.writing() as session:
        insert_rows(session, Patient, [{"id": "p", "fold": 1}])
        raise ZeroDivisionError
    with empty.reading() as session:
        assert session.get(Patient, "p") is None


def test_errors_do_not_quote_values(filled):
    """A name that stands in a failing statement must not stand in its message."""
    row = {"patient_id": "nobody", "record_number": "KIS-1", "name": "Quastenflosser", "birth_date": "19410401"}
    with pytest.raises(IntegrityError) as caught, filled.writing() as session:
        insert_rows(session, VaultPatient, [row])
    assert "FOREIGN KEY" in str(caught.value)
    assert "Quastenflosser" not in str(caught.value)


WRITERS, TRANSACTIONS = 4, 50


def write_together(path: Path, *, immediate: bool) -> list[str]:
    """Writers that each read what there is and then add a row, again and again; the errors they met."""
    errors: list[str] = []
    together = threading.Barrier(WRITERS)

    def work(writer: int) -> None:
        database = Database(url(path))
        together.wait()
        for number in range(TRANSACTIONS):
            try:
                with database.writing() if immediate else database.reading() as session:
                    session.scalar(text("SELECT count(*) FROM study"))
                    insert_rows(session, Study, [{"id": f"{writer}-{number}", "patient_id": "p"}])
                    session.commit()
            except OperationalError as error:
                errors.append(str(error.orig))
        database.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def count_studies(database: Database) -> int:
    with database.reading() as session:
        return session.scalar(text("SELECT count(*) FROM study")) or 0


def test_writers_wait_for_each_other(empty):
    with empty.writing() as session:
        insert_rows(session, Patient, [{"id": "p", "fold": 1}])
    assert write_together(empty.path, immediate=True) == []
    assert count_studies(empty) == WRITERS * TRANSACTIONS


def test_writers_that_do_not_say_so_fail(empty):
    """The negative control: with a plain BEGIN the same work meets a locked database."""
    with empty.writing() as session:
        insert_rows(session, Patient, [{"id": "p", "fold": 1}])
    errors = write_together(empty.path, immediate=False)
    assert set(errors) == {"database is locked"}
    assert count_studies(empty) == WRITERS * TRANSACTIONS - len(errors)


def test_processes_that_open_an_empty_database_at_once(tmp_path):
    path = tmp_path / "x.db"
    code = f"from db.session import open_database; open_database({url(path)!r}).close()"
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == ["", "", ""]
    database = open_database(url(path))
    with database.reading() as session:
        assert len(vault_key(session)) == 32
    database.close()
