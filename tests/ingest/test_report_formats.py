"""The same reports in every format give the same records."""

import subprocess
import sys
from pathlib import Path

import pytest

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
