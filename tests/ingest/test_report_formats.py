"""The same reports in every format give the same records."""

import subprocess
import sys
from pathlib import Path

import pytest

from phenotype.imaging import encoding
from phenotype.imaging.files import FileRef
from phenotype.ingest.contents import Record, Records
from phenotype.ingest.reading import read_file
from phenotype.ingest.reports.documents import read_document

SHARED = Path(__file__).parents[3] / "shared"
TOOL = SHARED / "tools" / "make_pacs_export.py"
FORMATS = {"csv": "reports.csv", "hl7": "hl7/*", "sr": "dicom/**/report.dcm", "fhir": "fhir.ndjson", "txt": "reports/*"}


def rows_of(path: Path) -> tuple[Record, ...]:
    if path.suffix == ".dcm":
        return read_document("BasicTextSRStorage", encoding.layout(path.read_bytes())).rows
    content = read_file(FileRef(str(path)), {}).content
    assert isinstance(content, Records)
    return content.rows


@pytest.mark.skipif(not TOOL.exists(), reason="the shared data is not here")
@pytest.mark.parametrize("planted", [False, True])
def test_a_report_is_the_same_in_every_format(tmp_path, planted):
    found = {}
    for kind, names in FORMATS.items():
        arguments = [sys.executable, TOOL, tmp_path / kind, "--limit", "20", "--reports", kind]
        subprocess.run([*arguments, *(["--phi"] if planted else [])], check=True, capture_output=True, timeout=120)
        rows = [row for path in sorted((tmp_path / kind).glob(names)) for row in rows_of(path)]
        assert not any(row.refusal for row in rows)
        found[kind] = {(row.accession, row.patient, row.text) for row in rows}
        assert len(found[kind]) == 20
    # the name of a text file tells the examination only
    nobody = {(accession, "", text) for accession, _, text in found["csv"]}
    assert found["csv"] == found["hl7"] == found["sr"] == found["fhir"]
    assert found["txt"] == nobody
