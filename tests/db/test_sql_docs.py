"""docs/sql.md is true: its columns are those of the database, and its queries give answers."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sample import REPORT, STUDY
from sample_cases import STORIES
from sqlalchemy import text

from db.console import ask
from db.views import VIEWS

PAGE = Path(__file__).parents[2] / "docs" / "sql.md"
QUERIES = re.findall(r"^### (\d+)\. (.+?)$.*?^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def documented() -> dict[str, list[str]]:
    """View to the columns that the page lists."""
    views = PAGE.read_text(encoding="utf-8").split("\n## The views\n")[1].split("\n## ")[0]
    sections = re.split(r"^### ", views, flags=re.M)[1:]
    return {
        section.split("\n")[0]: re.findall(r"^\| (\w+) \|", section, re.M)[1:]  # the first is the heading "column"
        for section in sections
    }


def test_every_view_and_column_is_documented(empty):
    with empty.reading() as session:
        columns = {view: list(session.execute(text(f"SELECT * FROM {view}")).keys()) for view in VIEWS}
    assert documented() == columns


def test_every_column_says_what_it_is():
    rows = re.findall(r"^\| (\w+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(rows) == sum(map(len, documented().values())) + len(documented())
    assert all(len(meaning) > 2 for _, meaning in rows)


def test_there_are_fourteen_queries():
    assert [int(number) for number, _, _ in QUERIES] == list(range(1, 15))
    assert PAGE.read_text(encoding="utf-8").count("```sql") == 14


@pytest.mark.parametrize(("number", "title", "sql"), QUERIES, ids=[number for number, _, _ in QUERIES])
def test_each_query_has_an_answer(filled, number, title, sql):
    found = ask(filled, sql)
    assert found.rows, title
    assert all(any(value is not None for value in column) for column in zip(*found.rows, strict=True)), title


def answer(filled, number: int) -> list[dict[str, object]]:
    found = ask(filled, QUERIES[number - 1][2])
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


def test_the_answers_are_those_planted_in_the_sample(filled):
    assert {row["side"]: row["studies"] for row in answer(filled, 1)} == {"right": 4, "left": 3, "bilateral": 1}
    (turned,) = answer(filled, 2)
    assert (turned["study"], turned["finding"], turned["days_later"]) == (
        STUDY[STORIES["denied, then asserted"]], "Pleural effusion", 30.0
    )  # fmt: skip
    assert answer(filled, 3)[0]["study"] == STUDY[STORIES["most anomalous of those reported normal"]]
    assert [row["study"] for row in answer(filled, 4)] == [
        STUDY[STORIES["peak on the other side than the report says"]]
    ]  # fmt: skip
    assert [(row["number"], row["finding"]) for row in answer(filled, 5)] == [(1, "Pleural effusion")]
    failures = {(row["stage"], row["subjects"]) for row in answer(filled, 6)}
    assert failures == {("score", 2), ("ingest", 1), ("extract", 1)}
    first = answer(filled, 7)[0]
    assert (first["finding"], first["with_finding"], first["studies"]) == ("Cardiomegaly", "Pleural effusion", 5)
    assert first["lift"] == round(5 * 19 / (6 * 8), 2)
    assert [row["studies"] for row in answer(filled, 8)] == [8, 4, 6]
    confirmed = {(row["doubted_in"], row["confirmed_in"], row["days_until"]) for row in answer(filled, 9)}
    doubted, proven = (STUDY[n] for n in STORIES["doubted, then confirmed"])
    assert confirmed == {(doubted, proven, 60.0), (STUDY[19], STUDY[20], 5.0)}
    assert [row["size_mm"] for row in answer(filled, 10)] == [12.0, 9.0, 8.0]
    grown = [(row["study"], row["site_name"], row["growth_mm"], row["change"]) for row in answer(filled, 11)]
    assert grown == [(STUDY[6], "Upper lobe", 1.0, "increased")]
    new = [(row["study"], row["finding"], row["side"]) for row in answer(filled, 12)]
    assert new == [(STUDY[4], "Pleural effusion", "left")]
    places = {(row["place"], row["finding"]): row["studies"] for row in answer(filled, 13)}
    assert places["Lower lobe", "Consolidation"] == places["Thorax", "Consolidation"] == 1
    assert (places["Upper lobe", "Nodule"], places["Lower lobe", "Nodule"], places["Lung", "Nodule"]) == (1, 1, 2)
    assert [(row["finding"], row["studies"]) for row in answer(filled, 14)] == [("Cardiomegaly", 1)]


def command(filled, *words: str) -> subprocess.CompletedProcess[str]:
    python = [sys.executable, "-m", "phenotype", "--db", str(filled.url), *words]
    return subprocess.run(python, check=False, capture_output=True, text=True, timeout=60)


def test_the_command_asks_as_documented(filled):
    sql = "SELECT report, finding FROM finding_view WHERE side = 'bilateral'"
    as_csv = command(filled, "sql", sql, "--csv")
    assert as_csv.returncode == 0, as_csv.stderr
    assert list(csv.reader(io.StringIO(as_csv.stdout))) == [
        ["report", "finding"], [REPORT[8, 0], "Pleural effusion"]
    ]  # fmt: skip
    as_json = command(filled, "sql", "SELECT study FROM study_view ORDER BY study", "--json", "--limit", "2")
    assert [row["study"] for row in json.loads(as_json.stdout)] == sorted(STUDY.values())[:2]
    assert "only the first 2 rows" in as_json.stderr


def test_the_frames_come_as_documented(filled, tmp_path):
    """The Python of the page, run beside a database of the name that it uses."""
    present = len(ask(filled, "SELECT 1 FROM label_view WHERE value = 'present'").rows)
    filled.close()
    filled.path.rename(tmp_path / "chest.db")
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S))
    code += "print(len(frame), *frame.columns, len(reports), *reports.columns)"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = subprocess.run(
        [sys.executable, "-c", code],
        check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=os.environ | {"PATH": path},
    )  # fmt: skip
    assert found.stdout.split() == [str(present), "study", "finding", "side", "21", "report_id", "text"], found.stderr


def test_the_command_refuses_as_documented(filled):
    found = command(filled, "sql", "SELECT name FROM vault_patient")
    assert (found.returncode, found.stdout) == (1, "")
    assert "holds personal data" in found.stderr
