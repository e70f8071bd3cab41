"""Compressed tars, inflated once into the folder beside the database, so that their members can be read in any order.

A compressed tar can only be read from its beginning; reading each member so would take time that grows with the square
of their number. Nothing in it is unpacked by its name: the one file written holds the tar as it is.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from phenotype.imaging.files import Unreadable, open_file

KINDS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz"}  # by the first bytes
CHUNK = 1 << 20
KEPT_FREE = 256 << 20  # bytes that stay free on the disk of the database
LOOK = 64 << 20  # bytes written between two looks at that
_MEMORY = 128 << 20  # `xz -9` needs 65 MiB


def beginning(path: str, kind: str, size: int = 512) -> bytes:
    """The first bytes of what is compressed in a file, as many as there are. Raises `Unreadable`."""
    found = b""
    with open_file(path) as file, suppress(EOFError):
        for data in _inflated(file, kind):
            found += data
            if len(found) >= size:
                break
    return found[:size]


def inflate(path: str, kind: str, target: Path, limit: int) -> None:
    """Write what is compressed in the file at `path` to `target`, unless it is there.

    Killed at any moment, `target` is complete or absent. Of a file that is cut, what it still holds is written: the tar
    then lacks its end. Raises `Unreadable`: "archive_ratio" (more than `limit` bytes), "no_space", "bad_archive"
    (damaged: what came before the damage cannot be trusted).
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what was delivered, names and all
    part = target.with_suffix(".part")
    with FileLock(target.parent / "spool.lock"):
        if target.exists():
            return
        try:
            with open_file(path) as source, part.open("wb") as file:
                with suppress(EOFError):
                    _write(_inflated(source, kind), file, target.parent, limit)
                file.flush()
                os.fsync(file.fileno())
            part.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise Unreadable("no_space", "the disk of the database is full") from None
            raise
        finally:
            part.unlink(missing_ok=True)


def _write(pieces: Iterator[bytes], file: BinaryIO, folder: Path, limit: int) -> None:
    written = looked = 0
    for data in pieces:
        written += len(data)
        if written > limit:
            raise Unreadable("archive_ratio", "it inflates to far more than it should")
        if written > looked:
            if shutil.disk_usage(folder).free < KEPT_FREE:
                raise Unreadable("no_space", "the disk of the database is too full to inflate this archive")
            looked = written + LOOK
        file.write(data)


def _inflated(file: BinaryIO, kind: str) -> Iterator[bytes]:
    """The bytes of a compressed file in pieces. Raises EOFError where it is cut, and `Unreadable("bad_archive")`."""
    try:
        if kind == "xz":
            yield from _xz(file)
            return
        with gzip.GzipFile(fileobj=file) if kind == "gz" else bz2.BZ2File(file) as stream:
            while data := stream.read(CHUNK):
                yield data
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise Unreadable("bad_archive", f"it cannot be inflated ({type(error).__name__})") from None


def _xz(file: BinaryIO) -> Iterator[bytes]:
    # lzma.LZMAFile has no limit of memory, and the file says how much is needed, up to 4 GiB
    data = file.read(CHUNK)
    while data:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        while not decoder.eof:
            if decoder.needs_input and not data:
                data = file.read(CHUNK)
                if not data:
                    raise EOFError
            if found := decoder.decompress(data, CHUNK):
                yield found
            data = b""
        data = decoder.unused_data.lstrip(b"\0")  # streams may be padded
        while not data and (more := file.read(CHUNK)):
            data = more.lstrip(b"\0")


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
