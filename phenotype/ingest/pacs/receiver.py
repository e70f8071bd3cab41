"""A C-STORE service: a PACS pushes objects, and is told Success only when they cannot be lost any more.

Objects are written as their bytes come, without being parsed or encoded anew, so memory does not grow with them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from pynetdicom import AE, _config, dimse_messages, evt
from pynetdicom.sop_class import StorageCommitmentPushModel, Verification  # type: ignore[attr-defined]
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from db.session import Database
from db.tables import ExportFile, VaultExportFile
from db.write import insert_rows
from phenotype.imaging.files import MAX_BYTES, Unreadable
from phenotype.ingest.pacs.received import Arriving, Inbox, NotStored, digest_of, found, identity, settle
from phenotype.ingest.registering import ledger_rows
from phenotype.ingest.sources import Found
from phenotype.stage import Refused

SUCCESS, PROCESSING_FAILURE, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0x0110, 0xA700, 0xC000
_STATUS = {
    "disk_full": OUT_OF_RESOURCES,
    "stopping": OUT_OF_RESOURCES,
    "too_large": CANNOT_UNDERSTAND,
    "not_dicom": CANNOT_UNDERSTAND,
    "other_instance": CANNOT_UNDERSTAND,  # the object is not the one that was announced
}
PDU = 1 << 17  # bytes; the default of 16 kB costs a third of the speed
MOST_PDU = 1 << 20  # bytes; some senders ask for an association in long ones, or do not keep to ours
MOST_HELD = 16 << 20  # bytes of a message that is no object to store: commitment of 100 000 objects
MOST_QUEUED = 16  # messages of one sender that wait for their turn; it should wait for each answer
GRACE = 30.0  # seconds that objects under way have to come to their end


@dataclass(frozen=True, slots=True)
class Service:
    """How the service presents itself, and to whom. Without `allow`, any calling AE title is served."""

    port: int = 11112
    aet: str = "PHENOTYPE"
    bind: str = "127.0.0.1"
    allow: tuple[str, ...] = ()
    associations: int = 10  # at once
    timeout: float = 60.0  # seconds of silence until a peer counts as gone
    object_bytes: int = MAX_BYTES
    peers: dict[str, tuple[str, int]] = field(default_factory=dict)  # where to report commitments to, by AE title


class _Spooled(Arriving):
    """An object on its way, in the shape of the temporary file that pynetdicom writes to."""

    def __init__(self, path: Path, limit: int, thread: int) -> None:
        super().__init__(path, limit)
        self.name, self.thread, self.file = str(path), thread, self

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Called when the answer was given; `keep` and `discard` close."""


@dataclass(slots=True, eq=False)
class _Entry:
    """A row of the ledger that waits for its commit."""

    file: Found
    done: bool = False
    reason: str = ""


class Receiver:
    """The service while it runs; see `receiving`."""

    def __init__(self, database: Database, inbox: Inbox, service: Service) -> None:
        self.database, self.inbox, self.service = database, inbox, service
        self.stored = self.refused = 0  # objects that were answered
        self._on_their_way: dict[str, _Spooled] = {}
        self._in_hand = 0
        self._closing = False
        self._busy_at = time.monotonic()
        self._pending: deque[_Entry] = deque()
        self._commit, self._count = threading.Lock(), threading.Lock()
        self._silent: deque[Any] = deque()  # connections that may not have asked for an association yet

    def idle_seconds(self) -> float:
        """How long nothing has come."""
        return 0.0 if self._on_their_way or self._in_hand else time.monotonic() - self._busy_at

    def waiting(self) -> int:
        """Objects that were received and not yet read."""
        with self.database.reading() as session:
            rows = select(ExportFile.id).where(
                ExportFile.export_id == self.inbox.export_id, ExportFile.state == "found"
            )
            return len(session.scalars(rows.limit(1)).all())

    def begin(self, **_: Any) -> _Spooled:
        """A place for the next object; called where pynetdicom would make a temporary file."""
        path = self.inbox.arriving_path()
        spooled = _Spooled(path, self.service.object_bytes, threading.get_ident())
        if self._closing:
            spooled.reason = spooled.reason or "stopping"
        self._on_their_way[spooled.name] = spooled
        return spooled

    def on_store(self, event: evt.Event) -> Dataset:
        """Answer C-STORE."""
        with self._count:
            self._in_hand += 1
        spooled = self._on_their_way.pop(str(event.dataset_path), None)
        try:
            reason = "disk_error" if spooled is None else self._store(spooled, event)
        finally:
            if spooled is not None:
                spooled.discard()
            with self._count:
                self._in_hand -= 1
                self._busy_at = time.monotonic()
        with self._count:
            self.stored, self.refused = self.stored + (not reason), self.refused + bool(reason)
        answer = Dataset()
        answer.Status = _STATUS.get(reason, PROCESSING_FAILURE) if reason else SUCCESS
        if reason:
            answer.ErrorComment = reason
        return answer

    def _store(self, spooled: _Spooled, event: evt.Event) -> str:
        """Empty, or the reason why the object is not taken."""
        try:
            if spooled.reason:
                return spooled.reason
            told = identity(spooled.path)
            deflated = event.context.transfer_syntax == DeflatedExplicitVRLittleEndian
            if told.by_meta and not deflated:
                return "not_dicom"
            if told.sop_uid != str(getattr(event.request, "AffectedSOPInstanceUID", "")):
                return "other_instance"
            path = self._path(told.sop_uid, spooled.digest)
            if not path.parent.exists():
                path.parent.mkdir(mode=0o700, exist_ok=True)
                settle(self.inbox.folder)
            spooled.keep(path)
            settle(path.parent)
            return self._write_down(_Entry(found(path)))
        except Unreadable as error:
            return error.code
        except NotStored as error:
            return error.reason
        except OSError as error:
            return NotStored.of(error).reason

    def _path(self, sop_uid: str, digest: str) -> Path:
        """By UID and content: what comes twice is one file, what differs is kept beside."""
        name = self.inbox.name("object", sop_uid)
        return self.inbox.folder / name[:2] / f"{name}-{self.inbox.name('content', digest)}.dcm"

    def _write_down(self, entry: _Entry) -> str:
        """Commit a row. Who waits for the lock meanwhile finds its row committed by the one before: a commit costs an
        fsync, however many rows it holds."""
        self._pending.append(entry)
        with self._commit:
            if not entry.done:
                batch = [self._pending.popleft() for _ in range(len(self._pending))]
                reason = self._insert([one.file for one in batch])
                for one in batch:
                    one.done, one.reason = True, reason
        return entry.reason

    def _insert(self, batch: Sequence[Found]) -> str:
        rows = [ledger_rows(self.inbox.key, self.inbox.export_id, file) for file in batch]
        try:
            with self.database.writing() as session:
                insert_rows(session, ExportFile, [row for row, _ in rows])
                insert_rows(session, VaultExportFile, [place for _, place in rows])
        except SQLAlchemyError as error:
            return "disk_full" if "full" in str(getattr(error, "orig", "")) else "database"
        return ""

    def on_open(self, event: evt.Event) -> None:
        """Bound what a connection may cost that says no more, or announces more than a PDU can be: pynetdicom waits for
        ever, and reads as much as it is told to."""
        line: Any = event.assoc.dul.socket
        line.socket.settimeout(self.service.timeout)
        receive = line.recv
        line.recv = lambda size: receive(size) if size <= MOST_PDU else bytearray()
        with self._count:
            self._silent = deque(one for one in self._silent if not one.is_established)
            self._silent.append(event.assoc)
            # those who ask do so at once: who is silent makes room for who comes
            longest = self._silent.popleft() if len(self._silent) > self.service.associations else None
        if longest is not None:
            with suppress(OSError, AttributeError):  # it has gone by itself
                longest.dul.socket.socket.shutdown(SHUT_RDWR)

    def on_data(self, event: evt.Event) -> None:
        """End a connection that fills the memory: of messages only objects to store are large, and they go to the
        disk."""
        line: Any = event.assoc.dul.socket
        dimse = event.assoc.dimse
        held = (dimse.message.data_set, dimse.message.encoded_command_set) if dimse.message is not None else ()
        if dimse.msg_queue.qsize() > MOST_QUEUED or any(part is not None and part.tell() > MOST_HELD for part in held):
            line.close()

    def on_close(self, event: evt.Event) -> None:
        """A connection ended: what was on its way in it will not be completed."""
        if event.assoc.requestor.primitive is None:  # it asked for nothing, and its thread would still wait for that
            event.assoc.dul.to_user_queue.put(None)
        self._busy_at = time.monotonic()
        for name, spooled in list(self._on_their_way.items()):
            if spooled.thread == threading.get_ident():
                lost = self._on_their_way.pop(name, None)
                if lost is not None:  # else its handler has it by now
                    lost.discard()

    def holds(self, sop_uid: str) -> bool:
        """Whether an object lies here, unchanged and written down."""
        name = self.inbox.name("object", sop_uid)
        for path in (self.inbox.folder / name[:2]).glob(f"{name}-*.dcm"):
            row, _ = ledger_rows(self.inbox.key, self.inbox.export_id, found(path))
            with self.database.reading() as session:
                written = session.get(ExportFile, row["id"]) is not None
            if written and path == self._path(sop_uid, digest_of(path)):
                return True
        return False

    def close(self) -> None:
        """Refuse what begins from now on, and wait for what is under way."""
        self._closing = True
        end = time.monotonic() + GRACE
        while time.monotonic() < end and (
            self._in_hand or any(one.reason != "stopping" for one in list(self._on_their_way.values()))
        ):
            time.sleep(0.02)


@contextmanager
def receiving(database: Database, inbox: Inbox, service: Service) -> Iterator[Receiver]:
    """Serve C-ECHO, C-STORE of every storage class in whatever transfer syntax is offered, and storage commitment.

    One at a time in a process. Raises Refused: "aet" for an AE title that is none, "port" where the address cannot be
    listened on.
    """
    from phenotype.ingest.pacs.commitment import commit_later

    receiver = Receiver(database, inbox, service)
    try:
        entity = AE(service.aet)
        entity.require_calling_aet = list(service.allow)
    except ValueError:
        raise Refused("aet", "an AE title has 1 to 16 characters of ASCII") from None
    entity.maximum_pdu_size = PDU
    entity.maximum_associations = 2 * service.associations  # pynetdicom counts those in who did not ask yet
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = service.timeout
    entity.add_supported_context(Verification)
    if service.peers:
        entity.add_supported_context(StorageCommitmentPushModel)
    handlers: Any = [
        (evt.EVT_C_STORE, receiver.on_store),
        (evt.EVT_CONN_OPEN, receiver.on_open),
        (evt.EVT_DATA_RECV, receiver.on_data),
        (evt.EVT_CONN_CLOSE, receiver.on_close),
        (evt.EVT_N_ACTION, commit_later, [entity, receiver]),
    ]
    # pynetdicom would collect each object in memory, or in a temporary file whose failures end the association without
    # an answer; this is the one place where it can be given another file
    library: Any = dimse_messages
    before, library.NamedTemporaryFile = library.NamedTemporaryFile, receiver.begin
    _config.STORE_RECV_CHUNKED_DATASET = _config.UNRESTRICTED_STORAGE_SERVICE = True
    try:
        try:
            server = entity.start_server((service.bind, service.port), block=False, evt_handlers=handlers)
        except OSError:
            raise Refused("port", f"nothing can listen on {service.bind}:{service.port}; is it taken?") from None
        try:
            yield receiver
        finally:
            receiver.close()
            for association in list(entity.active_associations):
                association.abort()
            if server is not None:
                server.shutdown()
    finally:
        library.NamedTemporaryFile = before
        _config.STORE_RECV_CHUNKED_DATASET = _config.UNRESTRICTED_STORAGE_SERVICE = False
