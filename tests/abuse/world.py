"""What the fault tests share: a small nasty delivery, databases under one key, and forked processes that are warm."""

from __future__ import annotations

import io
import os
import pickle
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TypeVar

import alembic.command  # noqa: F401  (imported once, not in each fork)
import numpy as np
from dicom_maker import ct_slice, dicom, uid  # noqa: F401
from PIL import Image
from support import contents

import phenotype.ingest.delivery
import phenotype.ingest.reading
import phenotype.ingest.stage  # noqa: F401
from db.session import Database, open_database
from phenotype.pipeline import Step, run_step

KEY = b"k" * 32  # one key for all: the rows of different databases can be compared
T = TypeVar("T")
Rows = dict[str, list[str]]


@contextmanager
def folder() -> Iterator[Path]:
    """A folder of its own, outside of what is delivered."""
    with TemporaryDirectory(prefix="abuse-") as name:
        yield Path(name)


def put(where: Path, files: dict[str, bytes]) -> Path:
    """A folder with these files."""
    for name, data in files.items():
        path = where / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return where


def png(shade: int) -> bytes:
    """A picture of 12 x 10 pixels."""
    stream = io.BytesIO()
    Image.fromarray(np.full((12, 10), shade, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip with these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def hl7(accession: str, patient: str, words: str, *, status: str = "F", when: str = "20200102", name: str = "",
        birth: str = "", issuer: str = "HOSP", key: str = "", study_uid: str = "", charset: str = "UNICODE UTF-8",
        withdrawn: bool = False) -> bytes:  # fmt: skip
    """A message ORU^R01 with one report; `key` is the filler's order number, which all its versions share."""
    code, letter = "18748-4^Diagnostic imaging report^LN", "X" if withdrawn else status if status in "PFCA" else "F"
    obx = [f"OBX|{i}|TX|{code}||{line}||||||{letter}" for i, line in enumerate(words.split("\n"), 1)]
    if study_uid:
        obx.append(f"OBX|{len(obx) + 1}|ST|113014^DICOM Study^DCM||{study_uid}||||||{letter}")
    order = [""] * 26
    order[0], order[1], order[3], order[4] = "OBR", "1", key or accession, "CXR^Chest PA^L"
    order[7], order[18], order[22], order[25] = "20200101120000", accession, f"{when}120000", status
    lines = [
        f"MSH|^~\\&|RIS|HOSP|RESEARCH|HOSP|{when}120000||ORU^R01|1|P|2.5.1|||||AUT|{charset}",
        f"PID|1||{patient}^^^{issuer}||{name}||{birth}|F",
        "|".join(order),
        *obx,
    ]
    encoding = {"UNICODE UTF-8": "utf-8", "8859/1": "latin-1"}[charset]
    return "\r".join([*lines, ""]).encode(encoding)


def nasty() -> dict[str, bytes]:
    """About 40 files of a delivery: radiographs, a CT, a zip, tables, messages; twins, contradictions, bad ones."""
    other = {"AccessionNumber": "A2", "PatientID": "P2", "PatientSex": "M"}
    sr = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Rows": None, "Columns": None, "PixelData": None}
    slices = {f"ct/{i * 7 % 8}": ct_slice(i, AccessionNumber="A3", PatientID="P1") for i in range(8)}
    late = {f"gap/{i}": ct_slice(i, "gap", AccessionNumber="A4", PatientID="P3") for i in (0, 1, 3, 4)}
    return {
        "1/a": dicom("a", 1, ViewPosition="PA"),
        "1/b": dicom("b", 2, ViewPosition="LATERAL"),
        "2/c": dicom("c", 3, PhotometricInterpretation="MONOCHROME1", **other),
        **slices,
        **late,
        "twice": dicom("a", 1, ViewPosition="PA"),
        "zz_other_pixels": dicom("a", 9, ViewPosition="PA"),
        "zz_other_header": dicom("b", 2, ViewPosition="LATERAL", **other),
        "cut.dcm": dicom("d")[:-10],
        "dose": dicom("e", **sr),
        "readme": b"not a picture at all",
        "nothing.dcm": b"",
        "Thumbs.db": b"of a system",
        "inside.zip": zipped(
            {"x/f": dicom("f", 4), "x/a_again": dicom("a", 1, ViewPosition="PA"), "x/bad": b"DICM" * 9, "in.zip": b"PK"}
        ),
        "reports.csv": b"accession_number,patient_id,report_text\n"
        b"A1,P1,Clear.\nA2,P2,Effusion.\nA9,P9,Nobody.\n,P1,x\nA1,P1,Clear.\n",
        "again/reports.csv": b"accession_number,patient_id,report_text\nA1,P1,Clear.\nA3,P1,A nodule of 4 mm.\n",
        "pictures/list.csv": b"image_id,study_id,patient_id,report\np1.png,S1,Q1,Normal.\np2.png,S2,Q2,Pneumonia.\n",
        "pictures/p1.png": png(10),
        "pictures/p2.png": png(20),
        "pictures/p3.png": png(30),
        "hl7/1.hl7": hl7("A4", "P3", "Preliminary: effusion.", status="P", when="20200102", key="R4"),
        "hl7/2.hl7": hl7("A4", "P3", "No effusion.", status="F", when="20200103", key="R4"),
    }


def new_database(path: Path) -> Path:
    """An empty database with our key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with keyed():
        open_database(f"sqlite:///{path}").close()
    return path


def copy_database(template: Path, path: Path) -> Path:
    """The same database in another place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(template, path)
    return path


@contextmanager
def keyed() -> Iterator[None]:
    """Databases made in here get our key."""
    real, secrets.token_bytes = secrets.token_bytes, lambda _size=32: KEY
    try:
        yield
    finally:
        secrets.token_bytes = real


def small_batches() -> None:
    """A small delivery makes many transactions from now on."""
    from phenotype.ingest import ledger
    from phenotype.ingest.stage import Assemble, Ingest

    Ingest.batch, Assemble.batch, ledger.CHUNK = 5, 2, 16


def take_in(path: Path, *sources: Path, executor: str = "here") -> None:
    """All that `phenotype ingest` does, in small batches."""
    from phenotype.ingest.stage import Assemble, Ingest

    small_batches()
    with keyed():
        database = open_database(f"sqlite:///{path}")
    home = path.with_suffix(".files")
    try:
        run_step(Step(Ingest(), tuple(map(str, sources))), database, home, executor=executor, progress=None)
        run_step(Step(Assemble()), database, home, executor=executor, progress=None)
    finally:
        database.close()


def rows(path: Path) -> Rows:
    """Every row of a sound database, but for times. Raises AssertionError where SQLite finds it damaged."""
    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the file is damaged"
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == [], "rows refer to nothing"
    database = Database(f"sqlite:///{path}")
    try:
        return contents(database)
    finally:
        database.close()


def forked(work: Callable[[], T], *, group: bool = False) -> tuple[int, int]:
    """Run `work` in a child of this process, all modules being imported already; its id, and a pipe to `answer`.

    The child is silent. With `group` it leads a process group, so that it can be killed with all its children.
    """
    read, write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write)
        return pid, read
    try:  # only here, in the child
        os.close(read)
        if group:
            os.setpgid(0, 0)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            told: Any = (True, work())
        except BaseException as error:
            told = (False, f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-4:])}")
        with os.fdopen(write, "wb") as pipe:
            pickle.dump(told, pipe)
    finally:
        os._exit(0)


def answer(pid: int, pipe: int, seconds: float = 120) -> Any:
    """What the child returned. Raises AssertionError where it failed, was killed, or takes too long."""
    import select

    with os.fdopen(pipe, "rb") as stream:
        if not select.select([stream], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        data = stream.read()
    os.waitpid(pid, 0)
    assert data, "the process was killed or took too long"
    sound, value = pickle.loads(data)
    assert sound, value
    return value


class _Fork:
    """What subprocess.Popen is to the sandbox, but a fork: its modules are imported already, which saves a second."""

    def __init__(self, command: list[str], *, pass_fds: tuple[int, ...], **_: Any) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                kept = sorted(pass_fds)
                for low, high in zip([2, *kept], [*kept, 4096], strict=True):
                    os.closerange(low + 1, high)
                exec(command[2], {})
            finally:
                os._exit(1)

    def poll(self) -> int | None:
        """The status, if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The status, waited for."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(0.001)
        return self.returncode or 0

    def kill(self) -> None:
        """End it."""
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def forking_sandbox() -> None:
    """From now on the sandbox of this process forks its workers instead of starting Python anew."""
    from phenotype import sandbox

    vars(sandbox)["subprocess"] = SimpleNamespace(
        Popen=_Fork, DEVNULL=subprocess.DEVNULL, TimeoutExpired=subprocess.TimeoutExpired
    )


def in_fork(work: Callable[[], T], seconds: float = 120) -> T:
    """The result of `work`, computed in a child."""
    result: T = answer(*forked(work), seconds)
    return result


def command_line(*words: str) -> tuple[int, str]:
    """The exit code of `phenotype words...` and all that it prints, on either stream; run in this process, for good."""
    from phenotype import cli

    with TemporaryDirectory() as name:
        path = Path(name) / "out"
        stream = path.open("w+", encoding="utf-8")
        sys.stdout = sys.stderr = stream
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.argv = ["phenotype", *words]
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 70
        stream.flush()
        return code, path.read_text(encoding="utf-8", errors="replace")


def cpu() -> float:
    """CPU seconds of this process and of all children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def wait_for(condition: Callable[[], bool], seconds: float = 30, pause: float = 0.01) -> bool:
    """Whether it came true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(pause)
    return False
