"""Where the bytes of an image lie: a file on disk, or a member of an archive, read in place and never extracted."""

from __future__ import annotations

import bz2
import lzma
import os
import stat
import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import BinaryIO
from urllib.parse import quote_from_bytes, unquote_to_bytes

MAX_BYTES = 2 << 30  # nothing larger is read into memory at once

_COMPRESSED = frozenset(bytes([n]) for n in (0x1F, 0x42, 0xFD, 0x28, *range(0x50, 0x60)))  # first bytes; most files: 0
_LOCAL = struct.Struct("<4s5H3L2H")
_DICTIONARY = 256 << 20  # no sound lzma member needs more memory than this
_SPELLED = "bytes:"  # paths are absolute, so none begins like this
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)  # a pipe without a writer would wait


class Unreadable(ValueError):
    """Bytes that cannot become an image. `code` names the reason; neither it nor the message holds personal data."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


@dataclass(frozen=True, slots=True, order=True)
class FileRef:
    """A file on disk, or with `member` an entry of the archive at `path`.

    A member is "0000012@PLACE/name as stored". The place says where in the archive the bytes lie and what must be
    found there, so that a member is read without the directory, and never taken from an archive that was replaced
    since. For an entry of a zip the place may be left out: then it is looked up by its index, and the name compared.
    """

    path: str
    member: str = ""


def spell(path: str) -> str:
    """A path as a database can hold it: one whose bytes are no text in this system's encoding becomes an escape."""
    if path.isascii():
        return path
    try:
        path.encode()
    except UnicodeEncodeError:
        return _SPELLED + quote_from_bytes(os.fsencode(path))
    return path


def open_file(path: str, buffering: int = -1) -> BinaryIO:
    """The regular file at `path`, opened for reading. Raises `Unreadable`: "missing", "unreadable_file"."""
    try:
        name = unquote_to_bytes(path.removeprefix(_SPELLED)) if path.startswith(_SPELLED) else path
        opened = os.open(name, _FLAGS)
    except FileNotFoundError:
        raise Unreadable("missing", "the file is no longer there") from None
    except (OSError, ValueError) as error:
        raise Unreadable("unreadable_file", f"the file cannot be read ({type(error).__name__})") from None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise Unreadable("unreadable_file", "this is no longer a file")
    return open(opened, "rb", buffering)  # noqa: PTH123  (of a descriptor)


def open_bytes(ref: FileRef, limit: int = MAX_BYTES) -> bytes:
    """All bytes of a file or member of an archive; of one that is compressed by itself, the inflated ones.

    Raises `Unreadable`: "missing", "too_large" (more than `limit` bytes), "unreadable_file", "bad_archive",
    "bad_archive_member", and the reasons of `compression.inflate`.
    """
    with open_file(ref.path, 0) as file:
        try:
            if ref.member:
                data = _member_bytes(file, ref.member, limit)
                return _inflated(BytesIO(data), limit - len(data)) if data[:1] in _COMPRESSED else data
            if os.fstat(file.fileno()).st_size <= limit:
                data = file.read()
                if data[:1] not in _COMPRESSED:
                    return data
                del data  # what is compressed and what is inflated are never both in memory
                return _inflated(file, limit)
        except OSError as error:
            raise Unreadable("unreadable_file", f"the file cannot be read ({type(error).__name__})") from None
    raise Unreadable("too_large", f"more than {limit} bytes")


def _inflated(file: BinaryIO, limit: int) -> bytes:
    """All bytes of a file that begins as a compressed one may."""
    from phenotype.imaging.compression import compression_of, inflate

    file.seek(0)
    kind = compression_of(file.read(132))
    file.seek(0)
    return inflate(file, kind, limit) if kind else file.read()


def _member_bytes(file: BinaryIO, member: str, limit: int) -> bytes:
    head, _, name = member.partition("/")
    index, _, place = head.partition("@")
    if not place:
        place = _look_up(file, index, name)
    start, _, rest = place.partition("+")
    try:
        packed, *checks = rest.split(":")
        if max(int(n) for n in (packed, *checks[:-1])) <= limit:
            read = _of_tar if len(checks) == 1 else _of_zip
            return read(file, int(start), int(packed), *checks)
    except (Unreadable, OSError, MemoryError):
        raise
    except Exception as error:  # zlib, lzma, struct, EOFError: the same for us
        raise Unreadable("bad_archive_member", f"the member cannot be read ({type(error).__name__})") from None
    raise Unreadable("too_large", f"more than {limit} bytes")


def _look_up(file: BinaryIO, index: str, name: str) -> str:
    from phenotype.imaging.archives import zip_directory, zip_entries

    entries = zip_entries(file, zip_directory(file))
    for entry in islice(entries, int(index) + 1) if index.isdigit() else ():
        if (entry.index, entry.name) == (int(index), name):
            if entry.flaw:
                raise Unreadable("bad_archive_member", entry.flaw)
            return entry.place.removeprefix("@")
    raise Unreadable("missing", "the archive no longer holds this member")


def _of_tar(file: BinaryIO, offset: int, size: int, checksum: str) -> bytes:
    file.seek(offset - 512)
    data = file.read(512 + size)
    if not data[148:156].strip(b"\0 ") or int(data[148:156].strip(b"\0 "), 8) != int(checksum):
        raise Unreadable("missing", "the archive no longer holds this member")
    if len(data) < 512 + size:
        raise Unreadable("bad_archive_member", "the member is cut")
    return data[512:]


def _of_zip(file: BinaryIO, offset: int, packed: int, size: str, method: str, crc: str) -> bytes:
    file.seek(offset)
    head = file.read(_LOCAL.size)
    if head[:4] != b"PK\3\4":
        raise Unreadable("missing", "the archive no longer holds this member")
    *_, name, extra = _LOCAL.unpack(head)
    file.seek(offset + _LOCAL.size + name + extra)
    data = _unpacked(file.read(packed), int(method), int(size))
    if len(data) != int(size) or zlib.crc32(data) != int(crc, 16):
        raise Unreadable("bad_archive_member", "the member is not what the directory says")
    return data


def _unpacked(data: bytes, method: int, size: int) -> bytes:
    """The bytes of a zip member; one more than `size` where there are more, and never more than that."""
    if method == 0:
        return data
    if method == 8:
        return zlib.decompressobj(-15).decompress(data, size + 1)
    if method == 12:
        return bz2.BZ2Decompressor().decompress(data, size + 1)
    bits, dictionary = struct.unpack_from("<BL", data, 4)
    if dictionary > _DICTIONARY:
        raise ValueError
    kind = {"id": lzma.FILTER_LZMA1, "lc": bits % 9, "lp": bits // 9 % 5, "pb": bits // 45, "dict_size": dictionary}
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[kind]).decompress(data[9:], size + 1)
