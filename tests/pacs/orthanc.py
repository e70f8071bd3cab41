"""A real Orthanc for tests and benchmarks, in a network namespace of its own: version 1.10 listens on every address,
whatever its configuration says.

    reason = orthanc.missing()                        why it cannot be had here, or empty
    orthanc.isolated("module:function", tmp, **more)  calls function(tmp, **more) in a fresh process and namespace
    with orthanc.running(folder) as server: ...       starts Orthanc there
"""

import fcntl
import functools
import http.client
import importlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROGRAM = "/usr/sbin/Orthanc"  # where Debian puts it, which is not on everybody's path
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
AET = "ORTHANC"
HTTP, DICOM, RECEIVER = 18042, 14242, 11112  # ports


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc; `dicomweb` is the address for `phenotype pull`."""

    http: int = HTTP
    dicom: int = DICOM

    @property
    def dicomweb(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def ask(self, method: str, path: str, body: bytes | dict[str, Any] | None = None) -> Any:
        """The answer of the REST API as JSON. Raises RuntimeError for any other status than 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
        try:
            connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body)
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} {path}: {answer.status}")
        return json.loads(content) if content.strip() else None

    def load(self, folder: Path) -> int:
        """Give it every DICOM file below a folder."""
        files = sorted(folder.rglob("*.dcm"))
        for file in files:
            self.ask("POST", "/instances", file.read_bytes())
        return len(files)

    def push(self, modality: str = "phenotype") -> dict[str, Any]:
        """Let it send all it has by C-STORE."""
        everything = {"Resources": self.ask("GET", "/instances"), "Synchronous": True}
        found: dict[str, Any] = self.ask("POST", f"/modalities/{modality}/store", everything)
        return found


@functools.cache
def missing() -> str:
    """Why there is no Orthanc to test with here, or empty."""
    if not (Path(PROGRAM).exists() and Path(PLUGIN).exists()):
        return "Orthanc with its DICOMweb plugin is not installed (Debian: orthanc, orthanc-dicomweb)"
    if shutil.which("unshare") is None:
        return "unshare is not installed (Debian: util-linux)"
    tried = subprocess.run([*_unshare(), "true"], check=False, capture_output=True)
    return "no network namespaces can be made here" if tried.returncode else ""


def _unshare() -> list[str]:
    own = ["unshare", "--net", "--pid", "--fork", "--kill-child"]  # nothing in there outlives a test that was stopped
    return own if os.geteuid() == 0 else [*own, "--map-root-user"]


def isolated(what: str, tmp: Path, *, timeout: float = 120, **more: Any) -> Any:
    """What `module:function` returns for (tmp, **more), called in a process with a network of its own."""
    out = tmp / "returned.json"
    command = [*_unshare(), sys.executable, str(Path(__file__)), what, str(tmp), json.dumps(more), str(out)]
    path = os.pathsep.join(map(str, (HERE, HERE.parent, HERE.parents[1])))
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{what} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return json.loads(out.read_text("utf-8"))


def bring_up_loopback() -> None:
    """A new network namespace has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        flags = struct.pack("16sh", b"lo", 0x1 | 0x40)  # IFF_UP, IFF_RUNNING
        fcntl.ioctl(any_socket, 0x8914, flags.ljust(40, b"\0"))  # SIOCSIFFLAGS


@contextmanager
def running(folder: Path, *, receiver: int = RECEIVER) -> Iterator[Orthanc]:
    """An Orthanc with empty storage in `folder`, which knows the receiver of this project as "phenotype"."""
    server = Orthanc()
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": server.http,
        "DicomPort": server.dicom,
        "DicomAet": AET,
        "RemoteAccessAllowed": False,
        "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "DicomModalities": {"phenotype": ["PHENOTYPE", "127.0.0.1", receiver]},
    }
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(200):
            try:
                server.ask("GET", "/system")
                break
            except (OSError, RuntimeError):
                time.sleep(0.05)
        else:
            raise RuntimeError((folder / "log").read_text()[-2000:])
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    target, place, keywords, answer_file = sys.argv[1:]
    bring_up_loopback()
    module, _, function = target.partition(":")
    returned = getattr(importlib.import_module(module), function)(Path(place), **json.loads(keywords))
    Path(answer_file).write_text(json.dumps(returned), "utf-8")
