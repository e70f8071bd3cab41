"""The same reports in every format give the same records."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image as Pillow
from report_maker import OPENI
from sqlalchemy import select

from db.tables import Report, VaultReport
from phenotype.imaging.files import FileRef
from phenotype.ingest.contents import Record, Records
from phenotype.ingest.reading import read_file

FORMATS = {"csv": "reports.csv", "hl7": "hl7/*", "sr": "dicom/**/report.dcm", "fhir": "fhir.ndjson", "txt": "reports/*"}


def rows_of(path: Path) -> tuple[Record, ...]:
    content = read_file(FileRef(str(path)), {}).content
    assert isinstance(content, Records)
    return content.rows


@pytest.mark.parametrize("planted", [False, True])
def test_a_report_is_the_same_in_every_format(shared, tmp_path, planted):
    tool = shared / "tools" / "make_pacs_export.py"
    found = {}
    for kind, names in FORMATS.items():
        arguments = [sys.executable, tool, tmp_path / kind, "--limit", "20", "--reports", kind]
        subprocess.run([*arguments, *(["--phi"] if planted else [])], check=True, capture_output=True, timeout=120)
        rows = [row for path in sorted((tmp_path / kind).glob(names)) for row in rows_of(path)]
        assert not any(row.refusal for row in rows)
        found[kind] = {(row.accession, row.patient, row.text) for row in rows}
        assert len(found[kind]) == 20
    # the name of a text file tells the examination only
    nobody = {(accession, "", text) for accession, _, text in found["csv"]}
    assert found["csv"] == found["hl7"] == found["sr"] == found["fhir"]
    assert found["txt"] == nobody


def test_the_same_words_under_two_names_are_two_reports(database, ingest, tmp_path):
    for name in ("A1.txt", "A2.txt", "again/A1.txt"):
        (tmp_path / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / name).write_bytes(b"Normal chest.")
    assert ingest(database, tmp_path / "texts").states == {"duplicate": 1, "ingested": 2}
    with database.reading() as session:
        assert sorted(session.scalars(select(VaultReport.accession))) == ["A1", "A2"]


def test_open_i_lists_its_pictures(database, ingest, states, tmp_path):
    stream = io.BytesIO()
    Pillow.new("L", (12, 10), 7).save(stream, "PNG")
    folder = tmp_path / "openi"
    folder.mkdir()
    for name, data in {"a/CXR1_1_IM-0001-3001.png": stream.getvalue(), "z/1.xml": OPENI, "z/readme.txt": b"x"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    ingest(database, folder)
    assert states(database) == {
        "1.xml": ("ingested", ""),
        "CXR1_1_IM-0001-3001.png": ("ingested", ""),
        "readme.txt": ("ignored", "accompanying_text"),
    }
    with database.reading() as session:
        assert session.execute(select(Report.match, Report.kind)).all() == [("matched", "xml")]
