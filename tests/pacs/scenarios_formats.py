"""The same real studies by every way that there is, with their reports in every format: see test_pacs_formats.py."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import orthanc
import pacs_world as world
from pydicom import dcmread

from db.session import Database
from phenotype.ingest.pacs.dicomweb import Access
from phenotype.ingest.pacs.pulling import pull
from phenotype.ingest.pacs.query import Query
from phenotype.ingest.pacs.received import open_inbox
from phenotype.ingest.pacs.receiver import Service, receiving

REPORTS = {"csv": "reports.csv", "hl7": "hl7", "fhir": "fhir.ndjson", "txt": "reports"}
YEAR = Query(study_date="20190101-20191231")


def tool_of(shared: Path, tmp: Path, limit: int) -> Path:
    """The tool that makes exports, over studies from all of the set: its first hundreds are all normal."""
    readings = (shared / "data/shenzhen/readings.csv").read_text("utf-8").splitlines(keepends=True)
    head, *rows = readings
    data = tmp / "made" / "data" / "shenzhen"
    data.mkdir(parents=True)
    for entry in (shared / "data/shenzhen").iterdir():
        if entry.name != "readings.csv":
            (data / entry.name).symlink_to(entry)
    chosen = [rows[number * len(rows) // limit] for number in range(limit)]
    (data / "readings.csv").write_text("".join([head, *chosen]), "utf-8")
    tools = tmp / "made" / "tools"
    tools.mkdir()
    return Path(shutil.copy(shared / "tools/make_pacs_export.py", tools))


def make(tool: Path, out: Path, reports: str) -> Path:
    """What the tool writes, called as by hand."""
    subprocess.run([sys.executable, str(tool), str(out), "--reports", reports], check=True, capture_output=True)
    return out


def formats(tmp: Path, shared: str, limit: int) -> dict[str, Any]:
    """How each way differs from the folder with a CSV table: tables by the count of rows only here or only there."""
    tool = tool_of(Path(shared), tmp, limit)
    export = make(tool, tmp / "export", "csv")
    sr = make(tool, tmp / "sr", "sr")
    with zipfile.ZipFile(tmp / "export.zip", "w") as archive:
        for path in sorted(export.rglob("*")):
            archive.write(path, path.relative_to(export))
    with tarfile.open(tmp / "export.tar.gz", "w:gz", compresslevel=1) as tar:
        tar.add(export, "export")
    contents: dict[str, dict[str, list[str]]] = {}

    def take(name: str, *sources: Path, before: Any = None, extract: bool = True) -> None:
        database, home = world.fresh(tmp / "by", name)
        more = before(database, home) if before else []
        world.ingest(database, home, *more, *sources, extract=extract)
        contents[name] = world.content(database)

    take("folder csv", export)
    take("zip csv", tmp / "export.zip")
    take("tar csv", tmp / "export.tar.gz")
    with orthanc.running(tmp / "orthanc") as server:
        server.load(export)
        take("dicomweb csv", export / "reports.csv", before=lambda d, h: [_pulled(d, h, server)])
        take("push csv", export / "reports.csv", before=lambda d, h: [_pushed(d, h, server)])
        for path in sorted(sr.rglob("report.dcm")):
            server.ask("POST", "/instances", path.read_bytes())
        take("dicomweb sr", before=lambda d, h: [_pulled(d, h, server)])
        take("push sr", before=lambda d, h: [_pushed(d, h, server)])
    take("folder sr", sr)
    for format_name in ("hl7", "fhir", "txt"):
        reports = make(tool, tmp / format_name, format_name) / REPORTS[format_name]
        take(f"folder {format_name}", export / "dicom", reports)
    _less(export, tmp / "less")
    take("control: a study left out", tmp / "less", extract=False)
    _other(export, tmp / "other")
    take("control: a pixel changed", tmp / "other", extract=False)
    first = contents["folder csv"]
    return {
        "counts": {table: len(rows) for table, rows in first.items()},
        "differ": {
            name: {
                table: [len(set(rows) - set(found[table])), len(set(found[table]) - set(rows))]
                for table, rows in first.items()
                if rows != found[table]
            }
            for name, found in contents.items()
        },
        "examples": {
            name: [row for table, rows in first.items() for row in sorted(set(rows) ^ set(found[table]))[:2]]
            for name, found in contents.items()
        },
    }


def _pulled(database: Database, home: Path, server: orthanc.Orthanc) -> Path:
    pulled = pull(database, home, Access(server.dicomweb), [YEAR])
    assert not pulled.failed and not pulled.waiting, pulled
    return pulled.folder


def _pushed(database: Database, home: Path, server: orthanc.Orthanc) -> Path:
    with open_inbox(database, home, "receiver", "PHENOTYPE", "") as inbox, receiving(database, inbox, Service()):
        assert server.push()["FailedInstancesCount"] == 0
        return inbox.folder


def _less(export: Path, out: Path) -> None:
    shutil.copytree(export, out)
    shutil.rmtree(sorted((out / "dicom").iterdir())[7])


def _other(export: Path, out: Path) -> None:
    shutil.copytree(export, out)
    path = sorted(out.rglob("*.dcm"))[7]
    read = dcmread(path)
    pixels = bytearray(read.PixelData)
    pixels[len(pixels) // 2] ^= 1
    read.PixelData = bytes(pixels)
    read.save_as(path)
