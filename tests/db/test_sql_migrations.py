"""Migrations: no drift from the tables, up and down with data, and all or nothing."""

import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sample import REPORT, fill
from sqlalchemy import Connection, create_engine, event, inspect, text
from sqlalchemy.exc import IntegrityError

from db import session as module
from db.session import HEAD, Database, DatabaseError, migrating, open_database, revision, upgrade
from db.tables import Base
from db.views import VIEWS

NEXT = '''
"""another one, for the tests"""

import sqlalchemy as sa
from alembic import op

from db.session import create_views, drop_views

revision = "0005"
down_revision = "0004"


def upgrade():
    drop_views(op.get_bind())
    with op.batch_alter_table("study", recreate="always") as study:
        study.add_column(sa.Column("urgent", sa.Boolean(), nullable=True))
    {more}
    create_views(op.get_bind())


def downgrade():
    drop_views(op.get_bind())
    with op.batch_alter_table("study", recreate="always") as study:
        study.drop_column("urgent")
    create_views(op.get_bind())
'''


def contents(database: Database) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table, but for the version."""
    with database.reading() as session:
        return {
            table: sorted(map(tuple, session.execute(text(f'SELECT * FROM "{table}"'))), key=repr)
            for table in Base.metadata.tables
        }


def schema(database: Database) -> list[tuple[object, ...]]:
    """Alembic writes the constraints of a table that it makes anew in any order."""
    with database.reading() as session:
        rows = session.execute(text("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"))
        return [(*row[:3], sorted(line.strip(" \t,") for line in (row[3] or "").splitlines())) for row in rows]


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A copy of the migrations, to which the function adds one more."""
    folder = tmp_path / "scripts"
    shutil.copytree(module._scripts(), folder, ignore=shutil.ignore_patterns("__pycache__"))

    def add(more: str = "") -> None:
        (folder / "versions" / "0005_another.py").write_text(NEXT.replace("{more}", more))
        monkeypatch.setattr(module, "_scripts", lambda: folder)
        monkeypatch.setattr(module, "HEAD", "0005")

    return add


def check(database: Database) -> None:
    config = module._alembic()
    with migrating(database) as connection:
        config.attributes["connection"] = connection
        command.check(config)


def test_head_is_the_newest_revision():
    assert ScriptDirectory.from_config(module._alembic()).get_heads() == [HEAD]


def test_alembic_check_finds_no_drift(empty):
    check(empty)


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE patient ADD COLUMN nickname TEXT",
        "DROP TABLE sentence",
        "DROP INDEX ix_study_patient_id",
        "CREATE TABLE extra (id INTEGER)",
    ],
)
def test_alembic_check_finds_drift(empty, drift):
    with empty.writing() as session:
        session.execute(text(drift))
    with pytest.raises(CommandError, match="New upgrade operations detected"):
        check(empty)


def described(connection: Connection) -> dict[str, object]:
    """What Alembic does not compare: check constraints, names of constraints, primary keys, what a deletion does."""
    look = inspect(connection)
    return {
        table: {
            "columns": {c["name"]: (str(c["type"]), c["nullable"]) for c in look.get_columns(table)},
            "primary": look.get_pk_constraint(table),
            "foreign": sorted(look.get_foreign_keys(table), key=repr),
            "checks": sorted(look.get_check_constraints(table), key=repr),
            "unique": sorted(look.get_unique_constraints(table), key=repr),
            "indexes": sorted(look.get_indexes(table), key=repr),
        }
        for table in Base.metadata.tables
    }


def test_migrations_make_the_tables_as_they_are_declared(empty):
    declared = create_engine("sqlite://")
    with declared.begin() as connection:
        Base.metadata.create_all(connection)
        expected = described(connection)
    with empty.engine.connect() as connection:
        assert described(connection) == expected
    assert "'quarantined'" in str(expected["export_file"])  # the comparison does see check constraints


def test_up_down_and_up_again_with_data(filled):
    before, shape = contents(filled), schema(filled)
    upgrade(filled, "base")
    assert [row[1] for row in schema(filled) if not str(row[1]).startswith("sqlite_")] == ["alembic_version"]
    assert revision(filled.engine) is None
    upgrade(filled)
    assert schema(filled) == shape
    with filled.writing() as session:
        fill(session)
    after = contents(filled)
    assert after.pop("vault_key") != before.pop("vault_key")
    assert after == before


def test_a_migration_keeps_what_refers_to_the_table_it_changes(filled, scripts):
    """On SQLite the table is made anew and the old one dropped: with foreign keys enforced, every row that refers to it
    would go with it."""
    before, shape = contents(filled), schema(filled)
    scripts()
    upgrade(filled)
    with filled.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM study WHERE urgent IS NULL")) == len(before["study"])
    assert {table: len(rows) for table, rows in contents(filled).items()} == {t: len(r) for t, r in before.items()}
    upgrade(filled, HEAD)
    assert contents(filled) == before
    assert {row[:3] for row in schema(filled)} == {row[:3] for row in shape}
    upgrade(filled)
    assert revision(filled.engine) == "0005"


def test_the_same_migration_loses_rows_where_foreign_keys_are_enforced(filled, scripts):
    """The negative control of the test above."""
    scripts()
    config = module._alembic()
    with filled.engine.execution_options(writes=True).connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    assert contents(filled)["label"] == []


def test_an_outdated_database_is_refused_with_the_command_that_mends_it(filled, scripts):
    scripts()
    with pytest.raises(DatabaseError, match="version 0004, this program needs 0005: run `phenotype db upgrade`"):
        open_database(str(filled.url))
    upgrade(filled)
    open_database(str(filled.url)).close()


@pytest.mark.parametrize(
    "failing",
    [
        "raise ZeroDivisionError",
        "op.execute('INSERT INTO study SELECT * FROM nowhere')",
        "op.execute(\"UPDATE study SET patient_id = 'nobody'\")",  # found by the check before the commit
    ],
)
def test_a_migration_that_fails_leaves_everything_as_it_was(filled, scripts, failing):
    before, shape = contents(filled), schema(filled)
    scripts(failing)
    with pytest.raises(Exception, match=r"ZeroDivision|no such table|refer to nothing|^$"):
        upgrade(filled)
    assert (contents(filled), schema(filled), revision(filled.engine)) == (before, shape, HEAD)
    with filled.engine.connect() as connection:
        assert connection.scalar(text("PRAGMA foreign_keys")) == 1
    scripts()
    upgrade(filled)
    assert revision(filled.engine) == "0005"


def columns_of(database: Database) -> dict[str, list[str]]:
    with database.engine.connect() as connection:
        look = inspect(connection)
        return {name: [c["name"] for c in look.get_columns(name)] for name in look.get_table_names()}


def rows_of(database: Database, columns: dict[str, list[str]]) -> dict[str, list[tuple[object, ...]]]:
    """Every row of these tables, these columns only."""
    with database.reading() as session:
        return {
            table: sorted(
                map(tuple, session.execute(text("SELECT {} FROM {}".format(", ".join(f'"{c}"' for c in some), table)))),
                key=repr,
            )
            for table, some in columns.items()
            if table != "alembic_version"
        }


def test_richer_readings_go_down_and_up_again_with_data(filled):
    """To 0001 and back: what the older version has no place for is lost, everything else stays."""
    with filled.writing() as session:
        session.execute(text("UPDATE report SET language = 'de' WHERE id = :r"), {"r": REPORT[7, 0]})
        session.execute(text("UPDATE run SET recipe = '{\"language\": \"en\"}' WHERE stage = 'extract'"))
        hypothetical = "UPDATE finding SET temporality = 'hypothetical' WHERE report_id = :r AND concept_id = 'nodule'"
        session.execute(text(hypothetical), {"r": REPORT[16, 1]})
    views = contents_of_views(filled)
    upgrade(filled, "0001")
    old = columns_of(filled)
    assert not {"site", "modifier", "reading", "text_score"} & set(old)
    before = rows_of(filled, old)
    with filled.reading() as session:
        assert {row[0] for row in session.execute(text("SELECT language FROM report"))} == {"en", "de"}
        assert {row[0] for row in session.execute(text("SELECT label FROM run WHERE stage = 'extract'"))} == {"en"}
        assert session.scalar(text("SELECT count(*) FROM finding_view")) == views["finding_view"] - 2
        with pytest.raises(Exception, match="no such column"):
            session.execute(text("SELECT change FROM finding_view"))
    with filled.writing() as session, pytest.raises(IntegrityError, match="CHECK"):
        session.execute(text("UPDATE finding SET temporality = 'hypothetical'"))
    upgrade(filled)
    assert alike(rows_of(filled, old), before)
    with filled.reading() as session:
        assert set(session.execute(text("SELECT experiencer, implied, count, change, prior_size_mm FROM finding"))) == {
            ("patient", 0, "", "", None)
        }
        assert {row[0] for row in session.execute(text("SELECT language FROM report"))} == {"", "de"}
        assert {row[0] for row in session.execute(text("SELECT label FROM run WHERE stage = 'extract'"))} == {""}
        assert not session.execute(text("PRAGMA foreign_key_check")).all()
    with filled.writing() as session:
        session.execute(text("UPDATE finding SET temporality = 'hypothetical'"))
    with filled.writing() as session, pytest.raises(IntegrityError, match="CHECK"):
        session.execute(text("UPDATE finding SET experiencer = 'sister'"))
    check(filled)
    again = contents_of_views(filled)
    assert again["finding_view"] == views["finding_view"] - 2
    assert again["modifier_view"] == again["site_view"] == again["disagreement_view"] == 0


def contents_of_views(database: Database) -> dict[str, int]:
    with database.reading() as session:
        return {view: session.scalar(text(f"SELECT count(*) FROM {view}")) or 0 for view in VIEWS}


def alike(one: dict[str, list[tuple[object, ...]]], other: dict[str, list[tuple[object, ...]]]) -> bool:
    """Equal but for what the migration sets on purpose: languages that nobody named, and labels of runs."""
    return {t: r for t, r in one.items() if t not in ("report", "run")} == {
        t: r for t, r in other.items() if t not in ("report", "run")
    }


class Stopped(Exception):
    """Raised in the middle of a migration."""


def upgrade_until(database: Database, step: int) -> int:
    """Upgrade, failing before the statement of this number that writes; how many there were."""
    done = 0

    def stop(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        nonlocal done
        done += statement.lstrip().startswith(("CREATE", "INSERT"))
        if done == step:
            raise Stopped

    event.listen(database.engine, "before_cursor_execute", stop)
    try:
        upgrade(database)
    finally:
        event.remove(database.engine, "before_cursor_execute", stop)
    return done


def test_the_first_migration_stopped_at_any_step_leaves_an_empty_database(tmp_path):
    whole = Database(f"sqlite:///{tmp_path / 'whole.db'}")
    steps = upgrade_until(whole, -1)
    assert steps > 80
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    for step in {*range(1, steps, 12), steps}:
        with pytest.raises(Stopped):
            upgrade_until(database, step)
        assert schema(database) == [], f"stopped at step {step} of {steps}"
    upgrade(database)
    assert schema(database) == schema(whole)
    for used in (whole, database):
        used.close()


def test_without_our_transaction_half_a_migration_remains(tmp_path, monkeypatch):
    """The negative control of the test above: Python's own way of beginning transactions leaves tables behind."""

    def fail(_connection: Connection, _frozen: str = "") -> None:
        raise Stopped

    monkeypatch.setattr(module, "create_views", fail)
    plain = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    config = module._alembic()
    with plain.connect() as connection, pytest.raises(Stopped):
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    assert "study" in inspect(plain).get_table_names()

    ours = Database(f"sqlite:///{tmp_path / 'y.db'}")
    with pytest.raises(Stopped):
        upgrade(ours)
    assert schema(ours) == []
    ours.close()


def test_the_views_are_those_of_the_code(empty):
    """An edited view needs a migration that makes the views anew."""
    with empty.reading() as session:
        made = session.execute(text("SELECT name, sql FROM sqlite_master WHERE type = 'view'")).all()
    expected = [(name, f"CREATE VIEW {name} AS {body}".strip()) for name, body in VIEWS.items()]
    assert sorted(map(tuple, made)) == sorted(expected)


def test_the_alembic_command_works_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("PHENOTYPE_DB", f"sqlite:///{tmp_path / 'x.db'}")
    config = module._alembic()
    command.upgrade(config, "head")
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    assert revision(database.engine) == HEAD
    command.downgrade(config, "base")
    assert revision(database.engine) is None
    with pytest.raises(SystemExit, match="phenotype db upgrade"):
        command.upgrade(config, "head", sql=True)
    database.close()


def test_scripts_stand_where_a_checkout_has_them():
    assert (module._scripts() / "env.py").is_file()
    assert module._scripts() == Path(__file__).parents[2] / "alembic"
