"""An empty database, and one filled with the sample; each test gets its own file."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample import fill

from db.session import Database, open_database


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An empty and a filled database, made once."""
    folder = tmp_path_factory.mktemp("templates")
    paths = {name: folder / f"{name}.db" for name in ("empty", "filled")}
    for name, path in paths.items():
        database = open_database(f"sqlite:///{path}")
        if name == "filled":
            with database.writing() as session:
                fill(session)
        database.close()
    return paths


def _copy(template: Path, folder: Path) -> Iterator[Database]:
    path = folder / "phenotype.db"
    shutil.copyfile(template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.close()


@pytest.fixture
def empty(templates: dict[str, Path], tmp_path: Path) -> Iterator[Database]:
    """A database that was set up and holds nothing."""
    yield from _copy(templates["empty"], tmp_path)


@pytest.fixture
def filled(templates: dict[str, Path], tmp_path: Path) -> Iterator[Database]:
    """A database with the sample."""
    yield from _copy(templates["filled"], tmp_path)
