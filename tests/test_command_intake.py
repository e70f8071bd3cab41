"""Commands about what was delivered."""

import os
import subprocess
import sys

import pytest
from sqlalchemy import select

from db.session import open_database
from db.tables import VaultAccess


def phenotype(*arguments, cwd):
    command = [sys.executable, "-m", "phenotype", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ, capture_output=True, text=True, check=False)


@pytest.fixture
def delivered(tmp_path):
    """A folder where a delivery with a fault was taken in, and what the command said."""
    export = tmp_path / "quastenflosser"
    export.mkdir()
    (export / "reports.csv").write_text("accession,patient_id,text\nACC77001,KIS-5550001,No effusion.\n")
    (export / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\x08\0\x16\0UI")
    return tmp_path, phenotype("ingest", "quastenflosser", "--report", "intake.html", cwd=tmp_path)


def test_a_delivery_is_explained_and_can_be_tried_again(delivered):
    folder, taken = delivered
    assert taken.returncode == 3, taken.stderr
    assert "wrote intake.html" in taken.stderr
    page = (folder / "intake.html").read_text(encoding="utf-8")
    assert "2 files" in page and "<code>truncated</code>" in page and "the file ends too early" in page
    assert "quastenflosser" not in page and "KIS-5550001" not in page

    again = phenotype("retry", cwd=folder)
    assert again.returncode == 3 and "ingest: 1 done" in again.stderr
    wrong = phenotype("retry", "--reason", "never_heard_of", cwd=folder)
    assert wrong.returncode == 1 and "no file that was read is quarantined for 'never_heard_of'" in wrong.stderr

    (folder / "intake.html").unlink()
    assert phenotype("ingest", "--report", "intake.html", cwd=folder).returncode == 0
    assert (folder / "intake.html").read_text(encoding="utf-8") == page
    assert phenotype("ingest", cwd=folder).returncode == 2


def test_personal_data_are_shown_by_one_way_that_writes_down_who_looked(delivered):
    folder, taken = delivered
    assert "quastenflosser" not in taken.stdout + taken.stderr
    paths = phenotype("paths", "--reason", "truncated", "--csv", cwd=folder)
    assert paths.returncode == 0 and paths.stdout.splitlines()[1].endswith("quastenflosser/broken.dcm,")
    report = phenotype("sql", "SELECT report FROM unmatched_report_view", "--csv", cwd=folder).stdout.split()[1]
    assert phenotype("text", report, cwd=folder).stdout == "No effusion.\n"
    assert phenotype("text", "nothing", cwd=folder).returncode == 1
    database = open_database(f"sqlite:///{folder / 'phenotype.db'}")
    with database.reading() as session:
        assert sorted(session.scalars(select(VaultAccess.way))) == ["paths", "text"]
    database.close()
