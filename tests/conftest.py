"""Fixtures shared by all tests."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import db.session

SHARED = Path(__file__).resolve().parents[2] / "shared"

# Files that take longest begin first, so that none of them is what everything else has to wait for at the end; xdist is
# told not to put those with the most tests first (--no-loadscope-reorder).
LONG = (
    "test_stage_contract.py",
    "test_continuing.py",
    "test_contract.py",
    "test_onnx.py",
    "test_killed.py",
    "test_abuse_kills.py",
    "test_abuse_mutants.py",
    "test_abuse_many.py",
    "test_abuse_people.py",
    "test_abuse_disks.py",
    "test_pacs_pull.py",
    "test_pacs_receive.py",
    "test_pacs_formats.py",
    "test_real_export.py",
    "test_postgres.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the files."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and tools beside the checkout; tests that need it skip where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared beside the checkout: real data is absent")
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared: Path) -> Path:
    """The real data sets (see ../shared/data/README.md)."""
    return shared / "data"


@pytest.fixture(scope="session", autouse=True)
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tables of a new SQLite database are copied from one that was migrated: a migration costs a quarter of a second,
    and hundreds of tests begin with one. Those of the database itself, and processes of their own, migrate."""
    migrate, template = db.session.upgrade, tmp_path_factory.mktemp("template") / "migrated.db"
    made = db.session.Database(f"sqlite:///{template}")
    migrate(made)
    made.close()

    def copy(database: db.session.Database, target: str = "head") -> None:
        path = database.path
        if path is not None and target == "head" and "tests/db/" not in os.environ.get("PYTEST_CURRENT_TEST", ""):
            with closing(sqlite3.connect(template)) as source, closing(sqlite3.connect(path)) as new:
                if not new.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    source.backup(new)
                    return
        migrate(database, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(db.session, "upgrade", copy)
        yield


@pytest.fixture
def command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """`command(argument...)` is `phenotype argument...` in an empty folder, without the start of a process."""
    from phenotype.cli import main

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["phenotype", *arguments])
        capsys.readouterr()
        try:
            code = main()
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run
