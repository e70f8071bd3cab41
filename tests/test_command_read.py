"""Reading reports from files and handing findings on, as a user does it: `phenotype read`, `phenotype export`."""

import csv
import io
import json
import subprocess
import sys

import pytest
from sample import CASES, RUN_ID, fill
from sqlalchemy import func, select

from db.queries import reported
from db.session import open_database
from db.tables import Finding, Reading, VaultReport

REPORT = "FINDINGS: No pneumothorax. 12 mm nodule in the right upper lobe.\nIMPRESSION: Nodule."


def phenotype(*arguments, cwd, stdin=None):
    command = [sys.executable, "-m", "phenotype", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, input=stdin)


@pytest.fixture
def report(tmp_path):
    (tmp_path / "report.txt").write_text(REPORT)
    return "report.txt"


def test_a_report_is_read_without_a_database(tmp_path, report):
    run = phenotype("read", report, "--json", cwd=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    (reading,) = json.loads(run.stdout)
    assert reading["language"] == "en"
    assert [(m["concept"], m["assertion"], m["section"]) for m in reading["mentions"] if not m["implied"]] == [
        ("pneumothorax", "absent", "findings"),
        ("nodule", "present", "findings"),
        ("nodule", "present", "impression"),
    ]
    nodule = reading["mentions"][1]
    assert {REPORT[e["start"] : e["end"]] for e in nodule["evidence"]} >= {"12 mm", "right", "upper lobe"}
    assert not (tmp_path / "phenotype.db").exists()


def test_the_same_as_csv_and_from_standard_input(tmp_path, report):
    run = phenotype("read", "-", "--csv", "--language", "en", cwd=tmp_path, stdin=REPORT)
    rows = list(csv.DictReader(io.StringIO(run.stdout)))
    assert run.returncode == 0
    assert [r["words"] for r in rows if r["implied"] == "False"] == ["pneumothorax", "nodule", "Nodule"]
    assert "12 mm" in phenotype("read", report, cwd=tmp_path).stdout


def test_the_picture_of_a_report(tmp_path, report):
    run = phenotype("read", report, report, "--html", "seen.html", cwd=tmp_path)
    assert run.returncode == 0
    assert "it shows report text" in run.stderr
    assert (tmp_path / "seen.html").read_text().count("<mark class=") > 6


def test_a_report_in_no_known_language_is_said_to_be_unread(tmp_path):
    (tmp_path / "fr.txt").write_text("Pas d'épanchement pleural ni de pneumothorax. Silhouette cardiaque normale.")
    run = phenotype("read", "fr.txt", cwd=tmp_path)
    assert run.returncode == 3
    assert "no language recognised" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.txt",), "no file"),
        (("report.txt", "--language", "xx"), "no lexicon for language 'xx'"),
        (("report.txt", "--lexicon", "mine.tsv"), "mine.tsv, line 2, column"),
    ],
)
def test_errors_say_what_to_do(tmp_path, command, report, arguments, message):
    (tmp_path / "mine.tsv").write_text("id\tphrases\nnose\tbig nose\n")
    run = command("read", *arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert message in run.stderr.replace("\n", " ")
    assert "Traceback" not in run.stderr


@pytest.fixture
def filled(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'phenotype.db'}")
    with database.writing() as session:
        fill(session)
    yield database
    database.close()


def test_every_finding_of_the_current_run_is_handed_on_once(filled, monkeypatch):
    monkeypatch.setattr(reported, "_CHUNK", 7)  # so that there are several chunks
    with filled.reading() as session:
        reports = list(reported.reports(session))
        findings = session.scalar(select(func.count()).where(Finding.run_id == RUN_ID["extract"]))
        read = session.scalar(select(func.count()).where(Reading.run_id == RUN_ID["extract"]))
    assert len(reports) == len({r.report for r in reports}) == read > 14
    assert sum(len(r.findings) for r in reports) == findings > len(CASES)
    told = [f for r in reports for f in r.findings if f.sites]
    assert told and all(f.sites[0].name for f in told)


@pytest.mark.parametrize("kind", ["findings", "fhir", "omop"])
def test_exports_hold_no_word_of_a_report(filled, tmp_path, command, kind):
    run = command("export", kind, "out")
    assert (run.returncode, run.stdout) == (0, "")
    assert "out" in run.stderr
    files = [tmp_path / "out"] if kind == "findings" else list((tmp_path / "out").iterdir())
    written = " ".join(f.read_text() for f in files)
    with filled.reading() as session:
        texts = list(session.execute(select(VaultReport.text, VaultReport.accession)))
        ids = set(session.scalars(select(Reading.report_id)))
    assert texts and all(words not in written for words, _ in texts)
    assert all(accession not in written for _, accession in texts if accession)
    assert all(report in written for report in ids)
    again = command("export", kind, "out")
    assert again.returncode == 1
    assert "there already" in again.stderr
