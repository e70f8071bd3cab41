"""Where the bytes of an image lie: a file on disk, or a member of a zip, read as a stream and never extracted."""

from __future__ import annotations

import functools
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 2 << 30  # nothing larger is read into memory at once


class Unreadable(ValueError):
    """Bytes that cannot become an image. `code` names the reason; neither it nor the message holds personal data."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


@dataclass(frozen=True, slots=True, order=True)
class FileRef:
    """A file on disk, or with `member` ("000012/name as stored") an entry of the zip at `path`.

    The index finds the entry, since names in a zip may be doubled; the name is only compared, never used as a path.
    """

    path: str
    member: str = ""


@functools.lru_cache(maxsize=4)
def _archive(path: str, size: int, modified: int, process: int) -> zipfile.ZipFile:
    # Kept open, since reading the directory of a large zip for every member would be quadratic. The key holds size and
    # time, so that a replaced zip is opened anew, and the process, since a forked child shares the parent's position.
    return zipfile.ZipFile(path)


def open_archive(path: str) -> zipfile.ZipFile:
    """The zip at `path`, opened once for each process. Raises `Unreadable("bad_archive" | "missing")`."""
    try:
        stat = Path(path).stat()
        return _archive(path, stat.st_size, stat.st_mtime_ns, os.getpid())
    except FileNotFoundError:
        raise Unreadable("missing", "the file is no longer there") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise Unreadable("bad_archive", f"not a readable zip ({type(error).__name__})") from None


def open_bytes(ref: FileRef, limit: int = MAX_BYTES) -> bytes:
    """All bytes of a file or zip member.

    Raises `Unreadable`: "missing", "too_large" (more than `limit` bytes), "unreadable_file", "bad_archive_member".
    """
    if ref.member:
        return _member_bytes(ref, limit)
    try:
        with Path(ref.path).open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise Unreadable("missing", "the file is no longer there") from None
    except OSError as error:
        raise Unreadable("unreadable_file", f"the file cannot be read ({type(error).__name__})") from None
    if len(data) > limit:
        raise Unreadable("too_large", f"more than {limit} bytes")
    return data


def _member_bytes(ref: FileRef, limit: int) -> bytes:
    index, _, name = ref.member.partition("/")
    entries = open_archive(ref.path).infolist()
    if not index.isdigit() or int(index) >= len(entries) or entries[int(index)].filename != name:
        raise Unreadable("missing", "the zip no longer holds this member")
    entry = entries[int(index)]
    if entry.file_size > limit:
        raise Unreadable("too_large", f"more than {limit} bytes")
    try:
        # `read` stops at the declared size and compares the checksum, so a member cannot inflate beyond it
        with open_archive(ref.path).open(entry) as stream:
            return stream.read(entry.file_size + 1)
    except Exception as error:  # zlib, lzma, EOFError, RuntimeError for encrypted ones: the same for us
        raise Unreadable("bad_archive_member", f"the zip member cannot be read ({type(error).__name__})") from None
