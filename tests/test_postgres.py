"""The same pipeline on PostgreSQL ends with the same rows. Skipped where no PostgreSQL server is installed."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import select
from support import contents, differences

from db.session import Database, open_database, upgrade
from db.tables import VaultKey
from phenotype.demo.export import write_export
from phenotype.pipeline import Step, make_stage, run_step

SERVERS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if Path("/usr/lib/postgresql").is_dir() else []


@pytest.fixture(scope="module")
def server():
    """The URL of a server of our own, which listens on a socket in a folder of its own and nowhere else."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install -e '.[postgres]'")
    found = shutil.which("initdb")
    programs = Path(found).parent if found else SERVERS[-1] if SERVERS else None
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a socket's path must be short
    own = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []  # a server refuses to run as root
    if own:
        shutil.chown(folder, "postgres")

    def run(*command):
        subprocess.run([*own, *command], check=True, capture_output=True, cwd="/")

    run(programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres")
    options = f"-c listen_addresses= -c unix_socket_directories={folder}"
    run(programs / "pg_ctl", "-D", folder / "data", "-o", options, "-l", folder / "log", "-w", "start")
    try:
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        run(programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


STEPS = (
    ("ingest", {}),
    ("assemble", {}),
    ("extract", {}),
    ("classify", {"least": 4}),
    ("label", {}),
    ("cohort", {}),
    ("train", {"size": 16, "steps": 5, "batch_size": 4}),
    ("train", {"patch": 16, "resolution": 64, "patches": 4, "steps": 5, "batch_size": 4}),
    ("embed", {"resolution": 64}),
    ("score", {"model": "cae-image"}),
    ("link", {"least": 4, "ferns": 8, "depth": 4}),
    ("map", {}),
    ("cluster", {"k_max": 2, "min_cases": 5, "resamples": 2}),
)


def pipeline(database, export, home):
    for name, values in STEPS:
        step = Step(make_stage(name, values), (str(export),) if name == "ingest" else ())
        summary = run_step(step, database, home, executor="here", progress=None)
        assert summary.failed == 0
    return contents(database)


def test_the_same_rows_as_on_sqlite(server, tmp_path):
    write_export(tmp_path / "export", studies=40, volumes=1, seed=2)
    sqlite, postgres = open_database(f"sqlite:///{tmp_path / 'x.db'}"), open_database(server)
    with sqlite.reading() as session:
        key = session.scalars(select(VaultKey.key)).one()
    with postgres.writing() as session:
        session.get_one(VaultKey, 1).key = key
    one = pipeline(sqlite, tmp_path / "export", tmp_path / "one")
    other = pipeline(postgres, tmp_path / "export", tmp_path / "other")
    assert differences(one, other) == {}
    assert pipeline(postgres, tmp_path / "export", tmp_path / "other") == other, "a second time changes nothing"
    assert sum(map(len, other.values())) > 1000
    upgrade(postgres, "base")
    postgres.close()
    upgrade(Database(server))
