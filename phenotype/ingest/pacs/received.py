"""The folder that a live PACS fills: an object is written beside, made durable, read back and renamed.

A name that stands in the folder is therefore a whole object. Names are surrogates: no UID, no number, no name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydicom.filereader import read_dataset
from sqlalchemy import select, update

from db.session import Database, vault_key
from db.tables import Export, VaultExport
from phenotype.identity import surrogate
from phenotype.imaging import encoding
from phenotype.imaging.files import MAX_BYTES, Unreadable
from phenotype.ingest.pacs.query import is_uid
from phenotype.ingest.registering import register
from phenotype.ingest.sources import Found, files
from phenotype.ingest.spool import KEPT_FREE
from phenotype.stage import Refused

HEAD = 1 << 18  # bytes at the beginning of an object, which tell what it is
LOOK = 4 << 20  # bytes of an object written between two looks at how full the disk is
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SYNTAX, _SOP_BY_META, _SOP, _SERIES = 0x00020010, 0x00020003, 0x00080018, 0x0020000E


class NotStored(Exception):
    """An object that did not reach the disk. `reason` is a code: disk_full, disk_error, too_large, read_back."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @classmethod
    def of(cls, error: OSError) -> NotStored:
        """The same of what the system says."""
        return cls("disk_full" if error.errno in _FULL else "disk_error")


@dataclass(frozen=True, slots=True)
class Identity:
    """What an object says it is. `series_uid` is empty where it does not say it near its beginning; `by_meta` where
    only the meta header tells the UID."""

    sop_uid: str
    series_uid: str
    by_meta: bool


@dataclass(frozen=True, slots=True)
class Inbox:
    """An open folder of received objects, held by this process alone. `folder` is the delivery."""

    export_id: str
    folder: Path
    beside: Path  # for what is still on its way; on the same file system, so that a rename is enough
    key: bytes

    def name(self, *parts: str) -> str:
        """The name of a file or folder for what `parts` say."""
        return surrogate(self.key, "received", self.export_id, *parts)

    def arriving_path(self) -> Path:
        """A place for an object on its way."""
        return self.beside / secrets.token_hex(8)


class Arriving:
    """An object on its way to the disk. Used as a file that is only written; `keep` or `discard` ends it.

    Nothing raises but `keep`: a full disk is remembered in `reason`, and what comes after it is thrown away, so that
    whoever sends can be given a proper answer.
    """

    def __init__(self, path: Path, limit: int = MAX_BYTES) -> None:
        self.path, self.limit = path, limit
        self.size, self.reason = 0, ""
        self._look = 0  # the size to look at the disk again
        self._digest = hashlib.sha256()
        self._open = False
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._open = True
        except OSError as error:
            self._fail(error)

    def write(self, data: bytes) -> int:
        """Take in the next bytes."""
        self.size += len(data)
        if self.size > self.limit and not self.reason:
            self.reason = "too_large"
        try:
            if not self.reason and self.size > self._look:
                self._look = self.size + LOOK
                if shutil.disk_usage(self.path.parent).free < KEPT_FREE:
                    self.reason = "disk_full"
            if not self.reason:
                self._digest.update(data)
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self._fail(error)
        return len(data)

    def keep(self, path: Path) -> bool:
        """Make the object durable, read it back, and give it its name. False where the same bytes have that name.

        The name itself is durable once `settle` was called for its folder. Raises `NotStored`.
        """
        try:
            if not self.reason:
                os.fsync(self._descriptor)
                # read from the disk, not from memory, as far as the system lets us
                os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                if digest_of(self.path) != self.digest:
                    self.reason = "read_back"
            if not self.reason:
                there = path.exists() and digest_of(path) == self.digest
                if not there:
                    self.path.replace(path)
                return not there
        except OSError as error:
            self._fail(error)
        finally:
            self.discard()
        raise NotStored(self.reason)

    def discard(self) -> None:
        """Forget what came. Without effect on an object that was kept."""
        if self._open:
            self._open = False
            os.close(self._descriptor)
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes that came."""
        return self._digest.hexdigest()

    def _fail(self, error: OSError) -> None:
        self.reason = NotStored.of(error).reason


@contextlib.contextmanager
def open_inbox(database: Database, home: Path, kind: str, name: str, origin: str) -> Iterator[Inbox]:
    """The folder of what comes from the source `name`, written down as an export of `kind`.

    `origin`, what was asked for, is added to what was asked for before. Raises Refused("busy") where another process
    holds the folder.
    """
    with database.reading() as session:
        key = vault_key(session)
    received = (home / "received").resolve()
    folder = received / surrogate(key, "source", kind, name)
    beside = folder.with_suffix(".part")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(folder.with_suffix(".lock"))
    try:
        held = lock.acquire(timeout=0)
    except Timeout:
        raise Refused("busy", "another process is receiving from this source; wait for it or stop it") from None
    with held:
        shutil.rmtree(beside, ignore_errors=True)  # what a process left behind that was killed
        beside.mkdir(mode=0o700)
        settle(received)
        export_id = register(database, folder).export_id
        with database.writing() as session:
            session.execute(update(Export).where(Export.id == export_id).values(kind=kind))
            where = VaultExport.export_id == export_id
            before = session.scalars(select(VaultExport.origin).where(where)).one()
            lines = list(dict.fromkeys([name, *before.splitlines()[1:], *origin.splitlines()]))
            session.execute(update(VaultExport).where(where).values(origin="\n".join(lines)))
        try:
            yield Inbox(export_id, folder, beside, key)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def settle(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def found(path: Path) -> Found:
    """A received file as the ledger lists it."""
    return next(files(path))


def identity(path: Path) -> Identity:
    """What the object in a file says it is. Only the beginning is read, and nothing but UIDs is parsed.

    Raises `Unreadable("not_dicom")`, and OSError where there is no file.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[128:132] != b"DICM":
        raise Unreadable("not_dicom", "no DICM prefix")
    meta: dict[int, str] = {}
    uids: dict[int, str] = {}
    # damaged or cut headers fail in more than a dozen ways; the meta header may still do
    with encoding.quiet(), contextlib.suppress(Exception):
        stream = BytesIO(head)
        stream.seek(132)
        meta = _uids(stream, False, True, 0x0002FFFF)
        if meta.get(_SYNTAX) in encoding.DEFLATED:  # as little of what it inflates to
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head[stream.tell() :], HEAD)
            uids = _uids(BytesIO(body), False, True, _SERIES)
        else:
            where = encoding.layout(head)
            stream.seek(where.start)
            uids = _uids(stream, where.implicit, where.little, _SERIES)
    by_meta = not uids.get(_SOP)
    sop_uid = meta.get(_SOP_BY_META, "") if by_meta else uids[_SOP]
    if not is_uid(sop_uid):
        raise Unreadable("not_dicom", "an object without identity")
    return Identity(sop_uid, "" if by_meta else uids.get(_SERIES, ""), by_meta)


def _uids(stream: BytesIO, implicit: bool, little: bool, last: int) -> dict[int, str]:
    """The UIDs among the elements up to the tag `last`; the stream stands behind that then."""
    read = read_dataset(stream, implicit, little, stop_when=lambda tag, vr, length: tag > last, defer_size=1024)
    return {tag: _text(read.get_item(tag)) for tag in (_SYNTAX, _SOP_BY_META, _SOP, _SERIES) if tag in read}


def _text(element: Any) -> str:
    value = element.value
    return (value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")).strip(" \0")
