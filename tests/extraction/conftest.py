"""A database with the sample's people and reports, to be read anew."""

import pytest
from sample import fill

from db.session import open_database


@pytest.fixture
def database(tmp_path):
    found = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with found.writing() as session:
        fill(session)
    yield found
    found.close()
