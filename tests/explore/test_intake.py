"""The page that explains what was taken in."""

import re
from pathlib import Path

import pytest
from sample import fill
from sqlalchemy import text

from db.queries import intake
from db.session import open_database
from phenotype.explore.intake import bar, explain, readable, write_intake

ROOT = Path(__file__).parents[2]
# raised to the person at the keyboard, never written into the ledger
SPOKEN = {"ledger", "source", "names", "reason", "busy", "query", "url", "plain_http", "stage", "field", "executor"}


@pytest.fixture
def empty(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    yield database
    database.close()


@pytest.fixture
def filled(empty):
    with empty.writing() as session:
        fill(session)
    return empty


def codes() -> set[str]:
    """Every code that reading a delivery can end with, as the sources write them."""
    found = set()
    for folder in ("phenotype/ingest", "phenotype/imaging"):
        for path in (ROOT / folder).rglob("*.py"):
            if "pacs" in path.parts:
                continue
            source = path.read_text(encoding="utf-8")
            found |= set(re.findall(r"(?:[Rr]efused|Unreadable|Ignored)\(\s*f?\"([a-z0-9_]+)", source))
            found |= set(re.findall(r"\"(?:quarantined|ignored|conflict)\", \"([a-z0-9_]+)\"", source))
            found |= set(re.findall(r"refusal=\"([a-z0-9_]+)\"", source))
    return found - SPOKEN


def test_every_reason_is_explained():
    assert len(codes()) > 50
    assert {code for code in codes() if not explain(code).meaning} == set()


def test_details_are_shown_and_unknown_codes_are_not_made_up():
    assert explain("missing_tag:Rows").meaning.endswith(": Rows")
    assert explain("never_heard_of").meaning == ""


def test_the_page_holds_every_count(filled, tmp_path):
    page = write_intake(filled, tmp_path / "intake.html").read_text(encoding="utf-8")
    with filled.reading() as session:
        files = intake.file_outcomes(session)
        assert sum(o.count for o in files) == session.scalar(text("SELECT count(*) FROM export_file"))
        assert sum(d.states[s] for d in intake.deliveries(session) for s in d.states) == sum(o.count for o in files)
        reports = intake.report_outcomes(session)
        assert sum(r.versions for r in reports) == session.scalar(text("SELECT count(*) FROM report"))
        assert sum(s.series for s in intake.series_outcomes(session)) == session.scalar(
            text("SELECT count(*) FROM series")
        )
        secrets = [v for (v,) in session.execute(text("SELECT path FROM vault_export_file"))]
        secrets += [v for (v,) in session.execute(text("SELECT record_number FROM vault_patient")) if v]
    assert f"{sum(o.count for o in files):,} files" in page
    for outcome in files:
        assert not outcome.reason or f"<code>{outcome.reason}</code>" in page
    assert secrets and not [s for s in secrets if s in page]
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")


def test_the_page_of_an_empty_database(empty, tmp_path):
    page = write_intake(empty, tmp_path / "intake.html").read_text(encoding="utf-8")
    assert "0 files" in page and "No report was delivered yet" in page


@pytest.mark.parametrize("states", [{}, {"ingested": 3}, {"ingested": 1_000_000, "quarantined": 1, "ignored": 1}])
def test_a_bar_shows_every_state_and_is_full(states):
    parts = bar(states)
    assert [p.count for p in parts] == [states[p.state] for p in parts] and len(parts) == len(states)
    assert all(p.width >= 0.7 for p in parts)
    assert not parts or sum(p.width for p in parts) == pytest.approx(100, abs=0.01)


def test_sizes_for_people():
    assert [readable(n) for n in (0, 999, 1000, 52_700_000, 4 * 10**12)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "52.7 MB",
        "4.0 TB",
    ]


def test_a_number_of_several_pseudonyms_is_counted(filled):
    def shared():
        with filled.reading() as session:
            return [c.count for c in intake.checks(session) if c.what == "same_number"]

    assert shared() == []
    with filled.writing() as session:
        one, other = session.execute(text("SELECT patient_id FROM vault_patient ORDER BY 1 LIMIT 2")).scalars()
        for patient, number in ((one, "0815"), (other, "815")):
            session.execute(
                text("UPDATE vault_patient SET record_number = :n WHERE patient_id = :p"), {"n": number, "p": patient}
            )
    assert shared() == [1]
