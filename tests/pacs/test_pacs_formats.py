"""The same 60 real studies as folder, zip, tar, DICOMweb pull and C-STORE push, with their reports as a table, HL7,
FHIR, DICOM SR and text: the same patients, studies, series, instances, images, reports and findings each time."""

from pathlib import Path
from typing import Any

import orthanc
import pytest

pytestmark = pytest.mark.skipif(bool(orthanc.missing()), reason=orthanc.missing() or "it is there")
WAYS = [
    "zip csv", "tar csv", "dicomweb csv", "push csv", "folder sr", "dicomweb sr", "push sr", "folder hl7",
    "folder fhir", "folder txt",
]  # fmt: skip


@pytest.fixture(scope="module")
def found(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    tmp = tmp_path_factory.mktemp("formats")
    return orthanc.isolated("scenarios_formats:formats", tmp, timeout=300, shared=str(shared), limit=60)


def test_all_of_it_was_taken_in(found: Any) -> None:
    counts = found["counts"]
    assert {counts[table] for table in ("patient", "study", "series", "instance", "image", "report")} == {60}
    assert counts["finding"] >= 60


@pytest.mark.parametrize("way", WAYS)
def test_the_same_rows_each_time(found: Any, way: str) -> None:
    assert found["differ"][way] == {}, found["examples"][way]


def test_control_a_study_left_out_differs(found: Any) -> None:
    assert found["differ"]["control: a study left out"]["study"] == [1, 0]


def test_control_a_pixel_changed_differs(found: Any) -> None:
    differ = found["differ"]["control: a pixel changed"]
    assert differ["instance"] == [1, 1] and "patient" not in differ and "report" not in differ
