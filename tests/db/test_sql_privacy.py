"""Personal data stands in tables whose name begins with `vault`, and nowhere else."""

import pytest
from sample import REPORT
from sample_cases import NAMES, accession
from sqlalchemy import text

from db.session import Database
from db.tables import VAULT, Base
from db.views import VIEWS

HARMLESS = {"sex", "age_years", "view"}  # stand beside the vault as well
PERSONAL_NAMES = {"text", "birth", "uid", "path", "member", "accession", "record_number", "patient_number", "issuer"}


def secrets(database: Database) -> set[str]:
    """Every text of the vault but for surrogates; of a report, each of its lines."""
    found: set[str] = set()
    with database.reading() as session:
        for name in VAULT:
            columns = Base.metadata.tables[name].columns
            for column in columns:
                if column.foreign_keys or column.name in HARMLESS or name == "vault_key":
                    continue
                for value in session.scalars(text(f'SELECT "{column.name}" FROM {name}')):
                    found.update(line for line in str(value).splitlines() if line)
    for name in NAMES:
        found.update(name.split("^"))
    return found


def everything(database: Database, names: object) -> dict[str, str]:
    """Table or view to all that stands in it, bytes included."""
    dump = {}
    with database.reading() as session:
        for name in names:  # type: ignore[attr-defined]
            rows = session.execute(text(f'SELECT * FROM "{name}"'))
            dump[name] = "\n".join(
                value.decode("latin-1") if isinstance(value, bytes) else str(value) for row in rows for value in row
            )
    return dump


def leaks(database: Database, names: object) -> set[tuple[str, str]]:
    planted = secrets(database)
    return {(name, s) for name, all_of_it in everything(database, names).items() for s in planted if s in all_of_it}


OPEN = sorted(set(Base.metadata.tables) - VAULT) + sorted(VIEWS)


def test_the_planted_data_is_in_the_vault(filled):
    """The negative control: the same search finds all of it there."""
    planted = secrets(filled)
    assert {"Quastenflosser", "KIS-5550001", "19410401", accession(1), "1.2.826.0.1.3680043.8.498.7741.1"} <= planted
    assert len(planted) > 150
    found = {secret for _, secret in leaks(filled, VAULT)}
    assert found == planted


def test_the_planted_data_is_nowhere_else(filled):
    assert len(everything(filled, OPEN)["finding_view"]) > 1000
    assert leaks(filled, OPEN) == set()


@pytest.mark.parametrize(
    "leak",
    [
        f"UPDATE task SET reason = 'cannot read {NAMES[0]}' WHERE state = 'failed'",
        f"UPDATE concept SET name = '{accession(3)}' WHERE id = 'nodule'",
        "UPDATE embedding SET whole = CAST('KIS-5550004' AS BLOB)",
        """UPDATE run SET recipe = '{"path": "/archive/pacs/2026-01.zip"}' WHERE stage = 'ingest'""",
    ],
)
def test_a_leak_is_found(filled, leak):
    with filled.writing() as session:
        session.execute(text(leak))
    assert leaks(filled, OPEN)


def test_no_open_table_or_view_has_a_column_for_it(filled):
    with filled.reading() as session:
        columns = {
            (name, column.lower())
            for name in OPEN
            for column in session.execute(text(f'SELECT * FROM "{name}" LIMIT 0')).keys()  # noqa: SIM118
        }
    found = {(n, c) for n, c in columns for word in PERSONAL_NAMES if word == c or f"_{word}" in c or f"{word}_" in c}
    # offsets into a text are no text
    offsets = {("finding_site_view", "text_start"), ("modifier_view", "text_start")}
    assert found == {("finding_view", "text_start"), ("finding_view", "text_end"), *offsets}


def test_no_view_reads_the_vault():
    assert [name for name, body in VIEWS.items() if "vault" in body.lower()] == []


def test_surrogates_do_not_hold_what_they_stand_for(filled):
    with filled.reading() as session:
        ids = list(
            session.scalars(text("SELECT id FROM patient UNION SELECT id FROM study UNION SELECT id FROM report"))
        )
    assert REPORT[1, 0] in ids
    assert all(len(i) == 16 and set(i) <= set("0123456789abcdef") for i in ids)
