"""Fixtures of the tests of pages."""

from collections.abc import Iterator

import pytest
from gallery_world import World, fill

from db.session import open_database


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The database, filled once; nobody changes it."""
    folder = tmp_path_factory.mktemp("world")
    url = f"sqlite:///{folder / 'phenotype.db'}"
    database = open_database(url)
    fill(database, folder / "private" / "export", {})
    yield World(database, folder, url)
    database.close()
