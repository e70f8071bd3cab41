"""Scenarios of `phenotype receive`, each run in a network of its own by orthanc.isolated."""

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import orthanc
import pacs_world as world
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE, dimse_primitives
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from db.session import Database, open_database
from db.tables import Export, ExportFile, Instance, VaultExportFile, VaultInstance
from phenotype.ingest.pacs import received
from phenotype.ingest.pacs import receiver as room
from phenotype.ingest.pacs.received import open_inbox
from phenotype.ingest.pacs.receiver import Receiver, Service, receiving

PORT = orthanc.RECEIVER
PRIVATE = f"{world.ROOT}.77"
COUNTS = ("InstancesCount", "FailedInstancesCount")
SYNTAXES = {CTImageStorage: [ExplicitVRLittleEndian, RLELossless], PRIVATE: [ExplicitVRLittleEndian]}


@contextmanager
def associated(aet: str = "SENDER", to: str = "PHENOTYPE") -> Iterator[Any]:
    """An association that offers one transfer syntax a context."""
    entity = AE(aet)
    entity.dimse_timeout = entity.network_timeout = 20
    for sop_class, syntaxes in SYNTAXES.items():
        for syntax in syntaxes:
            entity.add_requested_context(sop_class, syntax)
    association = entity.associate("127.0.0.1", PORT, ae_title=to)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def send(association: Any, sop_class: str, uid: str, payload: bytes, syntax: str = ExplicitVRLittleEndian) -> list[Any]:
    """Send the bytes of a data set as they are: status and comment of the answer, or [None, ""]."""
    wanted = [c for c in association.accepted_contexts if c.abstract_syntax == sop_class]
    context = next(c for c in wanted if c.transfer_syntax[0] == syntax)
    request = dimse_primitives.C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.DataSet = sop_class, uid, BytesIO(payload)
    association._reactor_checkpoint.clear()  # as its own send_c_store does
    while not association._is_paused:
        time.sleep(0.001)
    association.dimse.send_msg(request, context.context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    return [None, ""] if answer is None else [answer.Status, getattr(answer, "ErrorComment", "") or ""]


def payload(path: Path) -> tuple[str, bytes]:
    """The UID of a file's object and its data set without the meta header."""
    head = dcmread(path, stop_before_pixels=True)
    data = path.read_bytes()
    return str(head.SOPInstanceUID), data[144 + head.file_meta.FileMetaInformationGroupLength :]


def until(happened: Callable[[], Any], seconds: float = 40) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + seconds
    while not (found := happened()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def states(database: Database) -> dict[str, int]:
    with database.reading() as session:
        found: dict[str, int] = {}
        for state in session.scalars(select(ExportFile.state)):
            found[state] = found.get(state, 0) + 1
    return found


def pushed(tmp: Path) -> dict[str, Any]:
    """The command itself, pushed to by Orthanc and by pynetdicom."""
    world.write_studies(tmp / "ct", patients=2, series=2, slices=6)
    database, home = world.fresh(tmp)
    found: dict[str, Any] = {}
    command = [sys.executable, "-m", "phenotype", "--db", str(database.url), "receive", "--idle-ingest", "0.2"]
    command += ["--peer", f"{orthanc.AET}=127.0.0.1:{orthanc.DICOM}"]
    command += ["--allow", "ORTHANC", "--allow", "SENDER"]
    with orthanc.running(tmp / "orthanc") as server, (tmp / "said").open("wb") as said:
        server.load(tmp / "ct")
        process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            until(lambda: b"listens" in (tmp / "said").read_bytes())
            found["echo"] = server.ask("POST", "/modalities/phenotype/echo", {})
            found["first"] = [answer[name] for answer in [server.push()] for name in COUNTS]
            found["ingested"] = until(lambda: states(database) == {"ingested": 24})
            found["second"] = [answer[name] for answer in [server.push()] for name in COUNTS]
            found["states"] = states(database)
            with associated("STRANGER") as association:
                found["stranger"] = [association.is_established, association.is_rejected]
            uid, data = payload(tmp / "ct/1/1/1.dcm")
            with associated() as association:
                other = data[:-1] + bytes([data[-1] ^ 1])  # a pixel
                found["other_content"] = send(association, CTImageStorage, uid, other)
                found["garbage"] = send(association, CTImageStorage, f"{uid}.1", os.urandom(5000))
                found["wrong_uid"] = send(association, CTImageStorage, f"{uid}.2", data)
                found["private"] = send(association, PRIVATE, uid, data)
                packed = dcmread(tmp / "ct/1/1/2.dcm")
                packed.compress(RLELossless, generate_instance_uid=False)
                packed.save_as(tmp / "packed.dcm", enforce_file_format=True)
                packed_uid, packed_data = payload(tmp / "packed.dcm")
                found["rle"] = send(association, CTImageStorage, packed_uid, packed_data, RLELossless)
            names = {hashlib.sha256(data).hexdigest(), hashlib.sha256(packed_data).hexdigest()}
            kept = [path for path in home.rglob("*.dcm") if hashlib.sha256(payload(path)[1]).hexdigest() in names]
            syntaxes = sorted({str(dcmread(path).file_meta.TransferSyntaxUID) for path in kept})
            found["as_they_came"] = [len(kept), syntaxes, all(path.read_bytes()[:128] == b"\0" * 128 for path in kept)]
            known = [{"SOPClassUID": CTImageStorage, "SOPInstanceUID": uid}]
            strange = [{"SOPClassUID": CTImageStorage, "SOPInstanceUID": f"{uid}.9"}]
            for name, objects in {"commitment": known, "no_commitment": known + strange}.items():
                asked = {"DicomInstances": objects}
                number = server.ask("POST", "/modalities/phenotype/storage-commitment", asked)["ID"]
                path = f"/storage-commitment/{number}"
                found[name] = until(
                    lambda path=path: (
                        (s := server.ask("GET", path))["Status"] != "Pending"
                        and [s["Status"], len(s["Success"]), len(s["Failures"])]
                    )
                )
            process.send_signal(signal.SIGTERM)
            found["exit"] = process.wait(60)
        finally:
            process.kill()
    found["end"] = states(database)
    with database.reading() as session:
        found["kind"] = session.scalars(select(Export.kind)).all()
        found["instances"] = len(session.scalars(select(Instance.id)).all())
    found["said"] = (tmp / "said").read_text()
    return found


def troubles(tmp: Path) -> dict[str, Any]:
    """A full disk, a ledger that cannot be written, too large, cut off, stopping; and the order of things."""
    world.write_studies(tmp / "ct", patients=1, series=1, slices=8)
    objects = [payload(path) for path in sorted((tmp / "ct").rglob("*.dcm"))]
    database, home = world.fresh(tmp)
    found: dict[str, Any] = {}
    with (
        open_inbox(database, home, "receiver", "PHENOTYPE", "") as inbox,
        receiving(database, inbox, Service(PORT, object_bytes=1_000_000)) as receiver,
    ):

        def files() -> int:
            return len(list(inbox.folder.rglob("*.dcm")))

        def one(number: int, data: bytes = b"") -> list[Any]:
            with associated() as association:
                return [*send(association, CTImageStorage, objects[number][0], data or objects[number][1]), files()]

        found["order"] = _order(lambda: one(0))
        honest = os.write

        class Full:
            def __getattr__(self, name: str) -> Any:
                return getattr(os, name)

            def write(self, descriptor: int, data: Any) -> int:
                if len(data) > 500:  # not the meta header
                    raise OSError(28, "No space left on device")
                return honest(descriptor, data)

        received.os = Full()  # type: ignore[assignment]
        found["disk_full"] = one(1)
        received.os = os
        found["after_disk_full"] = one(1)
        insert = room.insert_rows

        def failing(*_: Any) -> int:
            raise OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full"))

        room.insert_rows = failing
        found["ledger_full"] = one(2)
        room.insert_rows = insert
        found["after_ledger_full"] = one(2)
        found["too_large"] = one(3, objects[3][1] + b"\0" * 1_000_000)
        found["cut_off"] = _cut_off(objects[4], inbox.beside, files)
        found["clean"] = len(list(inbox.beside.iterdir()))
        found["at_once"] = _at_once(objects, receiver)
        receiver._closing = True
        found["stopping"] = one(5, objects[5][1].replace(b"P1", b"P2"))
    try:
        with (
            open_inbox(database, home, "receiver", "PHENOTYPE", "") as inbox,
            receiving(database, inbox, Service(PORT)),
            receiving(database, inbox, Service(PORT)),
        ):
            found["port"] = ""
    except Exception as error:
        found["port"] = type(error).__name__ + str(error).partition(":")[0]
    return found


def _order(run: Callable[[], list[Any]]) -> list[str]:
    """What happened, in order, while one object was received."""
    happened: list[str] = []

    def note(module: Any, name: str, word: Callable[..., str]) -> tuple[Any, str, Any]:
        honest = getattr(module, name)

        def noted(*arguments: Any, **more: Any) -> Any:
            answer = honest(*arguments, **more)
            happened.append(word(*arguments))
            return answer

        setattr(module, name, noted)
        return module, name, honest

    undo = [
        note(os, "fsync", lambda fd: "folder" if Path(f"/proc/self/fd/{fd}").is_dir() else "file"),
        note(Path, "replace", lambda *_: "rename"),
        note(Receiver, "_insert", lambda *_: "commit"),
    ]
    happened.append(f"answer {run()[0]:#06x}")
    for module, name, honest in undo:
        setattr(module, name, honest)
    return happened


def _cut_off(thing: tuple[str, bytes], beside: Path, files: Callable[[], int]) -> list[Any]:
    """The connection breaks in the middle of an object."""
    before = files()
    with associated() as association:
        request = dimse_primitives.C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CTImageStorage, thing[0]
        request.DataSet = BytesIO(thing[1] * 400)  # several PDUs
        context = association.accepted_contexts[0]
        honest, sent = association.dul.send_pdu, []

        def some(primitive: Any) -> None:
            if len(sent) < 2:  # the command, and a piece of the data
                honest(primitive)
            sent.append(primitive)

        association.dul.send_pdu = some
        association.dimse.send_msg(request, context.context_id)
        came = bool(until(lambda: any(beside.iterdir()), 5))
        association.dul.send_pdu = honest
        association.dul.socket.socket.close()
    gone = bool(until(lambda: not any(beside.iterdir()), 5))
    return [came, gone, files() - before]


def _at_once(objects: list[tuple[str, bytes]], receiver: Receiver) -> list[Any]:
    """Eight associations at once, all with the same objects."""
    answers: list[Any] = []

    def work() -> None:
        with associated() as association:
            answers.extend(send(association, CTImageStorage, uid, data)[0] for uid, data in objects)

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with receiver.database.reading() as session:
        rows = len(session.scalars(select(ExportFile.id)).all())
    return [len(answers), sorted(set(answers)), rows, len(list(receiver.inbox.folder.rglob("*.dcm")))]


def _child(url: str, home: str, hasty: bool) -> None:
    if hasty:
        slow = Receiver._store

        def store(self: Receiver, spooled: Any, event: Any) -> str:
            spooled.path = spooled.path.rename(spooled.path.with_suffix(".late"))
            spooled.discard, discard = lambda: None, spooled.discard

            def later() -> None:
                time.sleep(0.03)
                spooled.discard = discard
                slow(self, spooled, event)

            Thread(target=later).start()
            return ""

        Receiver._store = store  # type: ignore[method-assign]
    database = open_database(url)
    with (
        open_inbox(database, Path(home), "receiver", "PHENOTYPE", "") as inbox,
        receiving(database, inbox, Service(PORT)),
    ):
        Event().wait()


def kills(tmp: Path, rounds: int, seed: int, hasty: bool = False) -> dict[str, Any]:
    """Killed again and again while objects come. `hasty` answers before anything is kept: the negative control."""
    print("seed", seed)
    chance = random.Random(seed)
    world.write_studies(tmp / "ct", patients=10, series=5, slices=8)
    objects = [payload(path) for path in sorted((tmp / "ct").rglob("*.dcm"))]
    database, home = world.fresh(tmp)
    acknowledged: set[str] = set()
    lost: set[str] = set()
    pending, killed = iter(objects), 0
    for _ in range(rounds):
        child = world.in_child(_child, str(database.url), str(home), hasty)
        goal = chance.randint(3, 12)
        association = until(_try, 30)
        end = time.monotonic() + chance.uniform(0, 0.02)
        for done, (uid, data) in enumerate(pending):
            if done == goal:
                break
            if send(association, CTImageStorage, uid, data)[0] == 0:
                acknowledged.add(uid)
        time.sleep(max(0, end - time.monotonic()))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        association.abort()
        lost |= acknowledged - _kept(database)
    folder = next(path for path in (home / "received").iterdir() if path.is_dir() and path.suffix != ".part")
    world.ingest(database, home, folder)
    with database.reading() as session:
        taken_in = set(session.scalars(select(VaultInstance.sop_instance_uid)))
    return {
        "seed": seed,
        "killed": killed,
        "acknowledged": len(acknowledged),
        "lost": len(lost),
        "not_ingested": len(acknowledged - taken_in),
        "states": states(database),
    }


def _try() -> Any:
    entity = AE("SENDER")
    entity.dimse_timeout = 10
    entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = entity.associate("127.0.0.1", PORT)
    return association if association.is_established else None


def _kept(database: Database) -> set[str]:
    """The objects whose file is whole and whose row is committed."""
    with database.reading() as session:
        places = select(VaultExportFile.path, ExportFile.size).join(
            ExportFile, ExportFile.id == VaultExportFile.file_id
        )
        rows = session.execute(places).all()
    return {str(dcmread(path).SOPInstanceUID) for path, size in rows if Path(path).stat().st_size == size}
