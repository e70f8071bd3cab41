"""A folder of de-identified files: what is selected, what is refused, stopped and continued, and the command."""

import csv
import hashlib
import json
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from pathlib import Path

import pydicom
import pytest
from dicom_objects import CR, encoded, radiograph, uid
from sqlalchemy import select, update

from db.session import Database, open_database
from db.tables import Study, VaultAccess, VaultKey, VaultStudy
from phenotype.export.deidentify import Options
from phenotype.export.dicom_folder import JOURNAL, NOTE, export_dicom
from phenotype.export.dicom_selection import Selection
from phenotype.stage import Refused

STUDIES = 12


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """Twelve studies of six patients, one of them with a document beside the images; one object is doubled."""
    top = tmp_path_factory.mktemp("folder")
    source = top / "source"
    source.mkdir()
    for n in range(STUDIES):
        for k in range(2):
            about = {
                "AccessionNumber": f"ACC{n:04d}", "PatientID": f"NUMBER{n // 2}", "PatientName": f"Familie{n // 2}^Vor",
                "StudyDate": f"202001{1 + n:02d}", "BurnedInAnnotation": "YES" if (n, k) == (5, 1) else None,
            }  # fmt: skip
            (source / f"{n}-{k}").write_bytes(encoded(radiograph(f"{n}-{k}", **about)))
    other = radiograph(
        "0-0", AccessionNumber="ACC0000", PatientID="NUMBER0", PatientName="Familie0^Vor", StudyTime="101113"
    )
    other.PixelData = bytes(len(other.PixelData))
    (source / "same uid").write_bytes(encoded(other))
    document = radiograph("document", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=None, Modality="SR")
    for keyword in ("Rows", "Columns"):
        del document[keyword]
    document.ValueType, document.ContinuityOfContent = "CONTAINER", "SEPARATE"
    (source / "document").write_bytes(encoded(document))
    url = f"sqlite:///{top / 'x.db'}"
    database = open_database(url)
    with database.writing() as session:
        session.execute(update(VaultKey).values(key=b"k" * 32))
    command = [sys.executable, "-m", "phenotype", "-q", "--db", url, "ingest", str(source)]
    assert subprocess.run(command, capture_output=True, timeout=120, check=False).returncode in (0, 3)
    return database


def files(out: Path) -> dict[str, str]:
    """What a folder holds, by path: hashes."""
    found = sorted(path for path in out.rglob("*") if path.is_file() and path.name != JOURNAL)
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_manifest_tells_what_is_there_and_what_is_not(taken_in: Database, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = export_dicom(taken_in, out, Selection(everything=True), Options(), who="tester")
    assert (done.patients, done.studies, done.objects) == (6, 12, 23)
    assert sum(done.refused.values()) == 2 and done.refused["burned_in:declared"] == 1
    assert [reason for reason in done.refused if reason.startswith("conflict:")]
    listed = rows(out / "manifest.csv")
    assert len(listed) == 23
    for row in listed:
        content = (out / row["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"] and len(content) == int(row["size"])
        assert Path(row["file"]).parts == (
            "dicom",
            row["patient"],
            row["study"],
            row["series"],
            f"{row['instance']}.dcm",
        )
    assert {row["reason"] for row in rows(out / "refused.csv")} == set(done.refused)
    told = json.loads((out / "manifest.json").read_text())
    assert told["objects"] == 23 and told["note"] == NOTE and "Not anonymous" in NOTE
    assert [code["value"] for code in told["codes"]] == ["113100", "113107"]
    with taken_in.reading() as session:
        look = session.scalars(select(VaultAccess).where(VaultAccess.who == "tester")).one()
    assert (look.way, look.what) == ("export dicom", "12 studies, options 113100+113107, burned-in text quarantine")


def test_dates_agree_with_the_database(taken_in: Database, tmp_path: Path) -> None:
    export_dicom(taken_in, tmp_path / "out", Selection(everything=True), Options())
    with taken_in.reading() as session:
        query = select(Study.id, Study.shifted_date, VaultStudy.study_date).join(VaultStudy)
        days = {study: (shifted, before) for study, shifted, before in session.execute(query)}
    moved = set[timedelta]()
    for row in rows(tmp_path / "out" / "manifest.csv"):
        data = pydicom.dcmread(tmp_path / "out" / row["file"])
        shifted, before = days[row["study"]]
        assert date.fromisoformat(data.StudyDate) == shifted
        moved.add(date.fromisoformat(before) - shifted)
    assert len(moved) == 6  # one for each patient


def test_stopped_and_continued(taken_in: Database, tmp_path: Path) -> None:
    """Stopped half way and run again: the same bytes as in one go, and nothing is written twice."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    export_dicom(taken_in, whole, Selection(everything=True), Options())

    def stop(done: int, *_: object) -> None:
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_dicom(taken_in, out, Selection(everything=True), Options(), progress=stop)
    with (out / JOURNAL).open("a") as file:
        file.write('{"patient": "cut o')  # as a kill in the middle of a line leaves it
    assert not (out / "manifest.csv").exists()
    first = {path: path.stat().st_mtime_ns for path in out.rglob("*.dcm")}
    done = export_dicom(taken_in, out, Selection(everything=True), Options())
    assert done.before >= 7 and done.objects == 23
    assert all(path.stat().st_mtime_ns == before for path, before in first.items())
    assert files(out) == files(whole)
    again = export_dicom(taken_in, out, Selection(everything=True), Options())
    assert (again.before, again.objects) == (23, 23) and files(out) == files(whole)
    with pytest.raises(Refused, match="other_options"):
        export_dicom(taken_in, out, Selection(everything=True), Options(device=True))


def test_killed_and_continued(taken_in: Database, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    command = [sys.executable, "-m", "phenotype", "--db", str(taken_in.url), "export", "dicom", str(out), "--all"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and len(list(out.rglob("*.dcm"))) < 3 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 3, ran.stderr
    assert "23 objects of 12 studies of 6 patients" in ran.stderr and "Not anonymous" in ran.stderr
    assert "refused: 1 burned_in:declared" in ran.stderr and "Familie" not in ran.stderr and not ran.stdout
    export_dicom(taken_in, whole, Selection(everything=True), Options())
    assert files(out) == files(whole) and not list(out.rglob(".*.part"))


def test_selection(taken_in: Database, tmp_path: Path) -> None:
    with taken_in.reading() as session:
        study = session.scalars(select(VaultStudy.study_id).where(VaultStudy.accession == "ACC0003")).one()
    done = export_dicom(taken_in, tmp_path / "one", Selection(studies=(study,)), Options())
    assert (done.patients, done.studies, done.objects) == (1, 1, 2)
    for wrong, code in (
        (Selection(), "selection"),
        (Selection(cohort="a", everything=True), "selection"),
        (Selection(cohort="nobody"), "cohort"),
        (Selection(studies=("0" * 16,)), "study"),
    ):
        with pytest.raises(Refused, match=code):
            export_dicom(taken_in, tmp_path / "none", wrong, Options())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(Refused, match="exists"):
        export_dicom(taken_in, tmp_path / "full", Selection(everything=True), Options())
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"
    with pytest.raises(Refused, match="burned_in"):
        export_dicom(taken_in, tmp_path / "none", Selection(everything=True), Options(), text="ignore")


def test_references_hold_across_files(taken_in: Database, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dicom(taken_in, out, Selection(everything=True), Options(), executor="processes:2")
    studies: dict[str, set[str]] = {}
    for row in rows(out / "manifest.csv"):
        data = pydicom.dcmread(out / row["file"])
        assert data.SOPClassUID == CR and data.SOPInstanceUID == data.file_meta.MediaStorageSOPInstanceUID
        assert data.StudyInstanceUID not in {uid("study", f"ACC{n:04d}") for n in range(STUDIES)}
        studies.setdefault(row["study"], set()).add(data.StudyInstanceUID)
    assert all(len(uids) == 1 for uids in studies.values())
    assert len(set.union(*studies.values())) == STUDIES
