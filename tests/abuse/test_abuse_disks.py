"""Power cuts and full disks."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from abuse import power
from abuse.outcome import check
from db.session import open_database


def test_after_a_power_cut_nothing_acknowledged_is_lost():
    if why := power.able():
        pytest.skip(f"{why}: nothing can be recorded")
    check("power")


def test_a_full_disk_is_told_and_harms_nothing():
    check("disk")


def test_a_transaction_that_a_cut_left_half_written_is_taken_back(tmp_path):
    """While tables are made, SQLite still writes a journal: whoever opens the file next must be allowed to write."""
    path, copy = tmp_path / "x.db", tmp_path / "cut" / "x.db"
    open_database(f"sqlite:///{path}").close()
    copy.parent.mkdir()
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
        raw.execute("PRAGMA cache_size = 2")  # pages go to the file before the end of the transaction
        raw.execute("BEGIN")
        exports = ((f"{number:016}", "zip", "2020-01-01 00:00:00") for number in range(9999))
        raw.executemany("INSERT INTO export (id, kind, registered_at) VALUES (?, ?, ?)", exports)
        for file in (path, path.with_name("x.db-journal")):
            shutil.copyfile(file, copy.with_name(file.name))
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as raw, pytest.raises(sqlite3.OperationalError):
        raw.execute("SELECT count(*) FROM export")
    open_database(f"sqlite:///{copy}").close()
    with closing(sqlite3.connect(copy)) as raw:
        assert raw.execute("SELECT count(*) FROM export").fetchone() == (0,)
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
