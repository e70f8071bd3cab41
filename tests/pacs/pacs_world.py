"""What the scenarios share: small studies, a database with a known key, its rows without what may differ, and a proxy
that fails on demand."""

import functools
import hashlib
import http.client
import multiprocessing
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from sqlalchemy import select, update

from db.session import Database, open_database
from db.tables import (
    ExportFile,
    Finding,
    Image,
    Instance,
    Patient,
    Report,
    Series,
    Study,
    Transfer,
    VaultKey,
    VaultReport,
)
from phenotype.pipeline import Step, make_stage, run_step

PROXY = 18043
ROOT = "1.2.826.0.1.3680043.10.1"


def fresh(folder: Path, name: str = "x") -> tuple[Database, Path]:
    """An empty database with the key that all databases of these tests share, and its home."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.db").write_bytes(_empty())
    return open_database(f"sqlite:///{folder / f'{name}.db'}"), folder / f"{name}.files"


@functools.cache
def _empty() -> bytes:
    """An empty database as a file, made once: setting one up takes a second."""
    folder = tempfile.mkdtemp()
    database = open_database(f"sqlite:///{folder}/empty.db")
    with database.writing() as session:
        session.execute(update(VaultKey).values(key=hashlib.sha256(b"shared").digest()))
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    return Path(folder, "empty.db").read_bytes()


def ingest(
    database: Database, home: Path, *sources: Path, exports: tuple[str, ...] = (), extract: bool = False
) -> None:
    """The ordinary stages."""
    steps = [Step(make_stage("ingest", {}), tuple(map(str, sources)), exports), Step(make_stage("assemble", {}))]
    if extract:
        steps.append(Step(make_stage("extract", {})))
    for step in steps:
        run_step(step, database, home, executor="here", progress=None)


def write_ct(path: Path, patient: int, study: int, series: int, number: int, *, size: int = 24) -> str:
    """One slice; returns its SOP Instance UID."""
    uid = f"{ROOT}.{patient}.{study}.{series}"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"{uid}.{number}"
    d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, f"{uid}.{number}"
    d.StudyInstanceUID, d.SeriesInstanceUID = f"{ROOT}.{patient}.{study}", uid
    d.PatientID, d.PatientName, d.AccessionNumber = f"P{patient}", f"Planted^Name{patient}", f"A{patient}{study}"
    d.StudyDate, d.Modality, d.InstanceNumber, d.SeriesNumber = f"2020010{study}", "CT", number, series
    d.PatientSex, d.PatientBirthDate = "F", "19500101"
    d.Rows = d.Columns = size
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 1
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.RescaleSlope, d.RescaleIntercept = 1, 0
    d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, 2.0 * number], [1, 0, 0, 0, 1, 0]
    d.PixelSpacing, d.SliceThickness = [1, 1], 2
    noise = np.random.default_rng([patient, study, series, number])
    d.PixelData = noise.integers(-1000, 1000, (size, size), dtype=np.int16).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    d.save_as(path, enforce_file_format=True)
    return str(d.SOPInstanceUID)


def write_studies(folder: Path, *, patients: int = 3, series: int = 2, slices: int = 4) -> list[str]:
    """Small CT studies: their SOP Instance UIDs."""
    return [
        write_ct(folder / f"{p}" / f"{s}" / f"{n}.dcm", p, 1, s, n)
        for p in range(1, patients + 1)
        for s in range(1, series + 1)
        for n in range(1, slices + 1)
    ]


WITHOUT = {"file_id", "run_id", "changed_at", "export_id"}  # when and from where


def rows(database: Database, *tables: type[Any]) -> dict[str, list[str]]:
    """The rows of tables, without the columns that say when or from which file."""
    found = {}
    with database.reading() as session:
        for table in tables:
            columns = [c for c in table.__table__.columns if c.name not in WITHOUT]
            found[table.__tablename__] = sorted(repr(tuple(row)) for row in session.execute(select(*columns)))
    return found


def content(database: Database) -> dict[str, list[str]]:
    """Everything that must not depend on how it came: objects by their ids, images, reports, findings."""
    found = rows(database, Patient, Study, Series, Instance, Image)
    with database.reading() as session:
        texts = select(Report.study_id, Report.match, VaultReport.text).join(VaultReport)
        found["report"] = sorted(repr(tuple(row)) for row in session.execute(texts))
        columns = [c for c in Finding.__table__.columns if c.name not in ("run_id", "report_id")]
        said = select(Report.study_id, *columns).select_from(Finding).join(Report, Report.id == Finding.report_id)
        found["finding"] = sorted(repr(tuple(row)) for row in session.execute(said))
        states = select(ExportFile.state, ExportFile.reason).where(ExportFile.kind == "dicom")
        found["dicom_file"] = sorted(repr(tuple(row)) for row in session.execute(states))
    return found


def transfers(database: Database) -> list[list[Any]]:
    """State, reason, expected, received, attempts of every transfer."""
    t = Transfer
    with database.reading() as session:
        query = select(t.state, t.reason, t.expected, t.received, t.attempts).order_by(t.id)
        return [list(row) for row in session.execute(query)]


def in_child(target: Callable[..., None], *arguments: Any) -> Any:
    """A process that is forked from a clean one which has everything imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pacs_world", "scenarios_pull", "scenarios_receive"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


class Rule:
    """What the proxy does to requests whose path matches; to the first `times` of them."""

    def __init__(self, pattern: str, act: str, times: int = 1 << 30) -> None:
        self.pattern, self.act, self.times, self.hits = re.compile(pattern), act, times, 0

    def applies(self, path: str) -> bool:
        if not self.pattern.search(path) or self.hits >= self.times:
            return False
        self.hits += 1
        return True


PRIVATE = ("Host", "Accept-Encoding", "Connection")  # of the way to the proxy
OBJECTS = r"/series/[^/?]+(/instances/[^/?]+)?$"  # retrieve, not search
SERIES_SEARCH = r"/series\?"
INSTANCE_SEARCH = r"/instances\?"


@contextmanager
def proxy(rules: list[Rule], to: int, port: int = PROXY) -> Iterator[list[str]]:
    """A server between the two that spoils answers by rules; yields the paths that were asked for."""
    asked: list[str] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # the other side was killed
                super().handle()

        def do_GET(self) -> None:
            with lock:
                asked.append(self.path)
                act = next((rule.act for rule in rules if rule.applies(self.path)), "")
            if act.isdigit():
                self._send(int(act), {}, b"")
                return
            if act == "redirect":
                self._send(302, {"Location": f"http://127.0.0.2:{to}{self.path}"}, b"")
                return
            if act == "slow":
                time.sleep(0.05)
            connection = http.client.HTTPConnection("127.0.0.1", to, timeout=60)
            connection.request("GET", self.path, headers={k: v for k, v in self.headers.items() if k not in PRIVATE})
            answer = connection.getresponse()
            body, kind = answer.read(), answer.headers.get("Content-Type", "")
            connection.close()
            if act == "fewer":
                body = without_last_part(body, kind)
            elif act == "uncounted":
                body = re.sub(rb'"00201209" :\s*\{.*?"vr" : "IS"\s*\},?', b"", body, flags=re.DOTALL)
                body = re.sub(rb",(\s*\})", rb"\1", body)
            elif act == "counts_more":
                body = re.sub(rb'("00201209" :\s*\{\s*"Value" :\s*\[\s*)(\d+)', lambda m: m[1] + b"9", body)
            elif act == "lists_less":
                body = b"[" + body.strip()[1:].split(b"\n,{", 1)[0].rstrip(b"]\n") + b"]"
            elif act == "garbage":
                body = re.sub(rb"\x00{128}DICM", b"\0" * 132, body)
            elif act == "foreign":
                body = body.replace(f"{ROOT}.1.1.".encode(), f"{ROOT}.9.9.".encode())
            self._send(answer.status, {"Content-Type": kind}, body, act)

        def _send(self, status: int, headers: dict[str, str], body: bytes, act: str = "") -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            try:
                if act in ("cut", "stall"):
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    if act == "stall":
                        time.sleep(2)
                    self.close_connection = True
                else:
                    self.wfile.write(body)
            except OSError:  # the other side has given up
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()


def without_last_part(body: bytes, kind: str) -> bytes:
    """A multipart body with an object less, and well-formed."""
    mark = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    *parts, _, end = body.split(mark)
    return mark.join([*parts, end])
