"""Compressed tars, inflated once into the folder beside the database, so that their members can be read in any order.

A compressed tar can only be read from its beginning; reading each member so would take time that grows with the square
of their number. Nothing in it is unpacked by its name: the one file written holds the tar as it is.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock

from phenotype.imaging.compression import pieces
from phenotype.imaging.files import Unreadable, open_file

KEPT_FREE = 256 << 20  # bytes that stay free on the disk of the database
LOOK = 64 << 20  # bytes written between two looks at that


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
    """The bytes of a compressed file in pieces. Raises EOFError where it is cut, and `Unreadable`."""
    try:
        yield from pieces(file, kind)
    except Unreadable as error:
        raise Unreadable("bad_archive", error.message) from None
    except OSError as error:
        raise Unreadable("unreadable_file", f"the file cannot be read ({type(error).__name__})") from None


def _sync_folder(folder: Path) -> None:
    if hasattr(os, "O_DIRECTORY"):
        opened = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
