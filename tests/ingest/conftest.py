"""Fixtures of the tests of ingestion."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from db.session import Database, open_database
from db.tables import ExportFile, VaultExportFile, VaultKey
from phenotype.ingest.stage import Assemble, Conservation, Ingest, conservation, match_reports, register
from phenotype.stage import run_stage


@pytest.fixture
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Database]]:
    """Makes empty databases that share one key, so that their surrogates can be compared."""
    made: list[Database] = []

    def make() -> Database:
        database = open_database(f"sqlite:///{tmp_path_factory.mktemp('db') / 'x.db'}")
        with database.writing() as session:
            session.execute(update(VaultKey).values(key=b"k" * 32))
        made.append(database)
        return database

    yield make
    for database in made:
        database.close()


@pytest.fixture
def database(new_database: Callable[[], Database]) -> Database:
    """An empty database."""
    return new_database()


def take_in(database: Database, *sources: Path, **knobs: object) -> Conservation:
    """Everything that `phenotype ingest` does."""
    for source in sources:
        register(database, source, database.path.with_suffix(".files"))
    home = database.path.with_suffix(".files")
    executor = str(knobs.pop("executor", "here"))
    run_stage(Ingest(**knobs), database, home, executor=executor)
    with database.writing() as session:
        match_reports(session)
    run_stage(Assemble(), database, home, executor=executor)
    with database.reading() as session:
        return conservation(session)


@pytest.fixture
def ingest() -> Callable[..., Conservation]:
    """`ingest(database, source...)` takes sources in and returns what became of each file."""
    return take_in


@pytest.fixture
def states() -> Callable[[Database], dict[str, tuple[str, str]]]:
    """`states(database)` gives state and reason of each file, by its name."""

    def ask(database: Database) -> dict[str, tuple[str, str]]:
        query = select(VaultExportFile.path, VaultExportFile.member, ExportFile.state, ExportFile.reason)
        with database.reading() as session:
            rows = session.execute(query.join(ExportFile, ExportFile.id == VaultExportFile.file_id))
            return {Path(member or path).name: (state, reason) for path, member, state, reason in rows}

    return ask
