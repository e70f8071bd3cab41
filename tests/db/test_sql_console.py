"""The SQL console: hostile statements are refused and change nothing, heavy ones are stopped, useful ones answered."""

import hashlib
import sqlite3
import time
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest
from sample_cases import NAMES
from statements import GREEDY, HEAVY, HOSTILE, JOINED, PERSONAL

from db import asker, console
from db.console import READABLE, Answer, QueryError, ask
from db.session import Database
from db.tables import VAULT


def state(database: Database) -> dict[str, str]:
    """The files beside the database and their contents. Its log, while empty, and the index of it come with reading."""
    assert database.path is not None
    log = database.path.name + "-wal"
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(database.path.parent.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm") and not (path.name == log and not path.stat().st_size)
    }


@pytest.fixture
def analysed(filled):
    """With the statistics that `ANALYZE` keeps: samples of indexed values, accession numbers among them."""
    with filled.engine.connect() as connection:
        connection.exec_driver_sql("ANALYZE")
        connection.commit()
    return filled


def test_hostile_statements_are_refused_and_change_nothing(analysed):
    before = state(analysed)
    assert len(HOSTILE) >= 150
    for sql, why in HOSTILE:
        with pytest.raises(QueryError, match=why) as caught:
            ask(analysed, sql.replace("{folder}", str(analysed.path.parent)).replace("{path}", str(analysed.path)))
        message = str(caught.value)
        assert not any(part in message for name in NAMES for part in name.split("^")), sql
        assert str(analysed.path.parent) not in message
    assert state(analysed) == before


def test_reading_mode_alone_is_not_enough(filled):
    """The negative control: without the authorizer the same statements do harm."""
    folder = filled.path.parent
    with closing(sqlite3.connect(f"{filled.path.as_uri()}?mode=ro", uri=True, isolation_level=None)) as raw:
        raw.execute(f"VACUUM INTO '{folder}/copy.db'")
        raw.execute(f"ATTACH '{folder}/new.db' AS new")
        assert raw.execute("SELECT name FROM vault_patient").fetchone() == (NAMES[0],)
    assert (folder / "copy.db").exists()


def test_an_authorizer_alone_is_not_enough(filled, monkeypatch):
    """The negative control: joined with all numbers that there may be, the vault tells which there are."""
    sql = (
        "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n WHERE x < 99), g(record_number) AS "
        "(SELECT printf('KIS-55500%02d', x) FROM n) SELECT g.record_number FROM g NATURAL JOIN vault_patient"
    )
    with pytest.raises(QueryError, match=JOINED):
        ask(filled, sql)
    monkeypatch.setattr(asker, "check", lambda *_: None)
    question = {"database": filled.path.as_uri(), "sql": sql, "limit": 99, "seconds": 5, "memory": 1 << 40}
    question |= {"tables": sorted(READABLE), "functions": sorted(console.FUNCTIONS), "bytes": console.ANSWER}
    assert [row[0] for row in asker.answer(question)["rows"]] == [f"KIS-55500{n:02d}" for n in range(1, 13)]


@pytest.mark.parametrize("table", sorted(VAULT))
def test_every_vault_table_is_closed(filled, table):
    with pytest.raises(QueryError, match=PERSONAL):
        ask(filled, f"SELECT count(*) FROM {table}")


@pytest.mark.parametrize("sql", HEAVY)
def test_what_never_ends_is_stopped(filled, monkeypatch, sql):
    monkeypatch.setattr(console, "GRACE", 0.5)
    before, started = state(filled), time.monotonic()
    with pytest.raises(QueryError, match=r"took longer than 0\.3 seconds and was stopped"):
        ask(filled, sql, seconds=0.3)
    assert time.monotonic() - started < 5
    assert state(filled) == before


@pytest.mark.parametrize(("sql", "why"), GREEDY)
def test_what_needs_too_much_memory_is_stopped(filled, monkeypatch, sql, why):
    monkeypatch.setattr(console, "MEMORY", 1 << 27)
    before = state(filled)
    with pytest.raises(QueryError, match=why):
        ask(filled, sql, seconds=20)
    assert state(filled) == before


USEFUL = [
    ("SELECT count(*) FROM study_view", [(20,)]),
    ("SELECT count(*) AS n, sex FROM patient GROUP BY sex ORDER BY sex", [(6, "F"), (6, "M")]),
    ("SELECT assertion, count(*) FROM finding_view WHERE concept = 'nodule' GROUP BY 1 ORDER BY 1",
     [("absent", 1), ("present", 2), ("uncertain", 1)]),
    ("SELECT DISTINCT modality FROM study_view ORDER BY 1", [("CT",), ("DX",)]),
    ("SELECT round(avg(age_years), 1), min(age_years), max(age_years) FROM study_view", None),
    ("SELECT finding, rank() OVER (ORDER BY count(*) DESC) FROM label_view WHERE value = 'present' GROUP BY finding",
     None),
    ("SELECT study, lag(shifted_date) OVER (PARTITION BY patient ORDER BY shifted_date) FROM study_view", None),
    ("SELECT study, ntile(4) OVER (ORDER BY score), percent_rank() OVER (ORDER BY score) FROM anomaly_view", None),
    ("SELECT sum(score) OVER w, row_number() OVER w FROM anomaly_view WINDOW w AS (ORDER BY score)", None),
    ("SELECT max(julianday(b.shifted_date) - julianday(a.shifted_date)) FROM study a JOIN study b USING (patient_id)",
     [(90.0,)]),
    ("SELECT strftime('%Y', shifted_date) AS year, count(*) FROM study_view GROUP BY year", None),
    ("SELECT date('2026-01-31', '+1 month'), datetime(0, 'unixepoch')", [("2026-03-03", "1970-01-01 00:00:00")]),
    ("WITH sick AS (SELECT DISTINCT study FROM label_view WHERE value = 'present' AND category = 'finding') "
     "SELECT count(*) FROM sick", [(12,)]),
    ("WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS y FROM a) SELECT x, y, (SELECT count(*) FROM b) FROM a, b",
     [(1, 2, 1)]),
    ("WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT sum(x) FROM n", [(15,)]),
    ("SELECT json_extract(recipe, '$.seed') FROM run WHERE stage = 'embed'", [(0,)]),
    ("SELECT recipe ->> 'seed', recipe -> '$.seed' FROM run WHERE stage = 'embed'", [(0, "0")]),
    ("SELECT j.key, j.value FROM image i, json_each(i.left_out_reasons) j", [("same_uid", 1)]),
    ("SELECT count(*) FROM image i, json_each(i.spacing) j", [(42,)]),
    ("SELECT json_group_array(study) FROM (SELECT study FROM study_view LIMIT 2)", None),
    ("SELECT fullkey FROM json_tree('{\"a\": [1, 2]}') WHERE atom = 2", [("$.a[1]",)]),
    ("SELECT group_concat(finding, '; ') FROM label_view WHERE value = 'present' GROUP BY study", None),
    ("SELECT study FROM study_view EXCEPT SELECT study FROM report_view WHERE study IS NOT NULL", None),
    ("SELECT count(*) FROM study_view WHERE study IN (SELECT study FROM label_view WHERE side = 'left')", None),
    ("SELECT count(*) FROM study_view s WHERE NOT EXISTS (SELECT 1 FROM report_view r WHERE r.study = s.study)",
     [(1,)]),
    ("SELECT upper(substr(name, 1, 3)), length(name), instr(name, 'e') FROM concept WHERE id = 'nodule'",
     [("NOD", 6, 6)]),
    ("SELECT CASE WHEN age_years < 50 THEN 'young' ELSE 'old' END AS age, count(*) FROM study_view GROUP BY age", None),
    ("SELECT coalesce(size_mm, 0.0), iif(side = '', '-', side) FROM finding_view ORDER BY 1 DESC LIMIT 1",
     [(12.0, "right")]),
    ("SELECT count(*) FILTER (WHERE value = 'present') * 1.0 / count(*) FROM label_view", None),
    ("SELECT sqrt(2), ln(exp(1)), log10(100), pow(2, 10), round(pi(), 3)", [(2**0.5, 1.0, 2.0, 1024.0, 3.142)]),
    ("SELECT typeof(whole), length(whole) > 128 FROM embedding LIMIT 1", [("blob", 1)]),
    ("SELECT study FROM study_view ORDER BY random() LIMIT 3", None),
    ("SELECT type, name FROM sqlite_master WHERE name = 'study_view'", [("view", "study_view")]),
    ("SELECT current_date", None),
    ("VALUES (1, 'a'), (2, 'b')", [(1, "a"), (2, "b")]),
    ("SELECT 1 -- a remark", [(1,)]),
    ("SELECT 1;", [(1,)]),
]  # fmt: skip


def test_useful_questions_are_answered(filled):
    assert len(USEFUL) >= 30
    before = state(filled)
    for sql, expected in USEFUL:
        found = ask(filled, sql)
        assert found.rows, sql
        assert expected is None or found.rows == expected, sql
        assert all(len(row) == len(found.columns) for row in found.rows)
    assert state(filled) == before


def test_every_open_table_and_view_can_be_read(filled):
    union = " UNION ALL ".join(f"SELECT '{name}', count(*) FROM \"{name}\"" for name in sorted(READABLE))
    found = dict(ask(filled, union).rows)
    assert set(found) == READABLE
    assert all(found.values())


def test_values_come_back_as_they_are(filled):
    found = ask(filled, "SELECT 1 AS i, 1.5 AS f, 'ä\"\n' AS t, x'00ff' AS b, NULL AS n, 9e999 AS inf, 1 << 62 AS big")
    assert found == Answer(
        ("i", "f", "t", "b", "n", "inf", "big"), [(1, 1.5, 'ä"\n', b"\x00\xff", None, float("inf"), 1 << 62)], False
    )


def test_no_more_rows_than_asked_for(filled):
    sql = "SELECT study FROM study_view"
    few, all_of_them = ask(filled, sql, limit=3), ask(filled, sql, limit=20)
    assert (len(few.rows), few.cut) == (3, True)
    assert (len(all_of_them.rows), all_of_them.cut) == (20, False)


@pytest.mark.parametrize("bounds", [{"limit": 0}, {"limit": -1}, {"seconds": 0}, {"seconds": float("nan")}])
def test_bounds_that_bound_nothing_are_refused(filled, bounds):
    with pytest.raises(QueryError, match="at least one row"):
        ask(filled, "SELECT 1", **bounds)


def test_a_database_that_is_no_file_is_refused():
    with pytest.raises(QueryError, match="reads SQLite files only"):
        ask(Database("sqlite:///:memory:"), "SELECT 1")


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(QueryError, match="unable to open"):
        ask(Database(f"sqlite:///{tmp_path / 'none.db'}"), "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_odd_names_of_files(templates, tmp_path):
    path = tmp_path / "a b#c%20d?mode=rw.db"
    path.write_bytes(Path(templates["filled"]).read_bytes())
    found = Database("sqlite://")
    found.url = found.url.set(database=str(path))
    assert ask(found, "SELECT count(*) FROM study").rows == [(20,)]


def test_it_sees_what_was_just_committed(filled):
    with filled.writing() as session:
        from db.tables import Study
        from db.write import insert_rows

        patient = ask(filled, "SELECT min(id) FROM patient").rows[0][0]
        row = {"id": "new", "patient_id": patient, "shifted_date": date(2025, 1, 2), "age_years": 40.0}
        insert_rows(session, Study, [row])
        assert ask(filled, "SELECT count(*) FROM study WHERE id = 'new'").rows == [(0,)]
    assert ask(filled, "SELECT shifted_date FROM study WHERE id = 'new'").rows == [("2025-01-02",)]
