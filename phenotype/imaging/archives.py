"""What stands in a zip or a tar: its members one after another, with where their bytes lie. Nothing is unpacked here.

Both readers hold one entry at a time, so that an archive of millions costs no more memory than one of ten, and both
trust no number that they read: the libraries keep every entry, read headers of any size at once, and give up the whole
archive for one bad name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from phenotype.imaging.files import Unreadable

HEADER_BYTES = 1 << 20  # of a long name or a pax header in a tar; real ones are below a kilobyte
MAX_NAME = 4096
BLOCK = 512
PADDING = 4096  # empty blocks after which a tar is over; it is written in records of 20 blocks

_END, _END64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s4B4H3L5H2L")
_STORED, _DEFLATE, _BZIP2, _LZMA = 0, 8, 12, 14
_S_IFMT, _S_IFLNK, _S_IFREG = 0o170000, 0o120000, 0o100000


@dataclass(slots=True)
class Entry:
    """A member of an archive. `flaw` says why its bytes are not to be read; `size` is unpacked, `packed` as it lies."""

    index: int
    name: str
    size: int
    packed: int
    place: str = ""  # for `files.open_bytes`: where the bytes lie, and what must be found there
    flaw: str = ""

    @property
    def member(self) -> str:
        """How a FileRef names it. The name is for people and tables only."""
        return f"{self.index:07d}{self.place}/{self.name}"


# ---------------------------------------------------------------- zip


@dataclass(frozen=True, slots=True)
class Directory:
    """The directory of a zip: where it starts, its bytes, and by how much offsets are moved (something lies before)."""

    start: int
    size: int
    moved: int


def zip_directory(file: BinaryIO) -> Directory:
    """Find the directory at the end of a zip. Raises `Unreadable("bad_archive")`."""
    length = file.seek(0, 2)
    file.seek(max(0, length - 65_557))  # the record of 22 bytes and the longest comment
    tail = file.read(65_557)
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) - at < _END.size:
        raise _bad("no directory")
    _, _, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    end = length - len(tail) + at
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        file.seek(max(0, end - 20 - _END64.size))
        large = file.read(_END64.size)
        if large[:4] == b"PK\6\6":
            end = end - 20 - _END64.size
            size, offset = _END64.unpack(large)[8:]
    start = end - size
    if start < 0 or start < offset:
        raise _bad("a directory outside the file")
    return Directory(start, size, start - offset)


def zip_entries(file: BinaryIO, directory: Directory) -> Iterator[Entry]:
    """The members of a zip in the order of its directory, folders left out.

    Raises `Unreadable("bad_archive")` where the directory cannot be followed any further.
    """
    file.seek(directory.start)
    left, index = directory.size, -1
    while left > 0:
        fixed = file.read(_ENTRY.size)
        if len(fixed) < _ENTRY.size or fixed[:4] != b"PK\1\2":
            raise _bad("a broken directory")
        (_, _, system, _, _, flags, method, _, _, crc, packed, size, n, e, c, _, _, mode, offset) = _ENTRY.unpack(fixed)
        rest = file.read(n + e + c)
        if len(rest) < n + e + c:
            raise _bad("a broken directory")
        left -= _ENTRY.size + n + e + c
        index += 1
        size, packed, offset = _large(rest[n : n + e], size, packed, offset)
        name = _text(rest[:n], "utf-8" if flags & 0x800 else "cp437")
        kind = mode >> 16 & _S_IFMT if system == 3 else 0
        if name.endswith("/"):
            continue
        flaw = "name_too_long" if len(name) > MAX_NAME else ""
        if kind not in (0, _S_IFREG):
            flaw = "link" if kind == _S_IFLNK else "special_file"
        elif flags & 0x41:
            flaw = "encrypted"
        elif method not in (_STORED, _DEFLATE, _BZIP2, _LZMA):
            flaw = "zip_method"
        elif method == _STORED and size != packed:
            flaw = "bad_archive_member"
        place = "" if flaw else f"@{offset + directory.moved}+{packed}:{size}:{method}:{crc:08x}"
        yield Entry(index, name[:MAX_NAME], size, packed, place, flaw)


def _large(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The three numbers with those that are too large for 32 bits taken from the extra field."""
    values = [size, packed, offset]
    if 0xFFFFFFFF not in values:
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, at)
        if tag == 1:
            field = extra[at + 4 : at + 4 + length]
            for i, value in enumerate(values):
                if value == 0xFFFFFFFF:
                    if len(field) < 8:
                        raise _bad("a broken directory")
                    values[i], field = int.from_bytes(field[:8], "little"), field[8:]
            break
        at += 4 + length
    return values[0], values[1], values[2]


# ---------------------------------------------------------------- tar


def is_tar(head: bytes) -> bool:
    """Whether a file with these first 512 bytes is a tar, by the sum that they hold of themselves."""
    if len(head) < BLOCK or head[128:132] == b"DICM":
        return False
    try:
        told = int(head[148:156].strip(b"\0 ") or b"0", 8)
    except ValueError:
        return False
    return told == sum(head) - sum(head[148:156]) + 8 * 32  # the oldest have it too


def tar_entries(file: BinaryIO) -> Iterator[Entry]:
    """The members of an uncompressed tar (V7, ustar, GNU, pax), folders left out. What follows an end mark is read too.

    Raises `Unreadable` at the place where the archive cannot be followed any further: "bad_archive" (no header where
    one must be), "truncated_archive", "archive_header_too_large".
    """
    length, at, index, empty = file.seek(0, 2), 0, 0, 0
    named: dict[str, str] = {}  # what headers before a member say of it
    while at + BLOCK <= length and empty < PADDING:
        block = _block(file, at)
        at += BLOCK
        if not any(block):
            empty += 1
            continue
        empty = 0
        kind, size, checksum = block[156:157], _number(block[124:136]), _checksum(block)
        if kind in (b"L", b"K", b"x", b"X", b"g"):
            if size > HEADER_BYTES:
                raise Unreadable("archive_header_too_large", "a header of a tar is larger than any real one")
            told = file.read(size)
            if len(told) < size:
                raise Unreadable("truncated_archive")
            if kind == b"L":
                named["path"] = _text(told.split(b"\0")[0], "utf-8")
            elif kind in (b"x", b"X"):
                named |= _pax(told)
            at += _padded(size)
            continue
        name = named.get("path") or _name(block)
        flaw = _flaw(kind, named, name)
        if "size" in named:
            size = _whole(named["size"])
        if kind == b"S":  # maps of where the holes are follow the header
            more = block[482]
            while more and at + BLOCK <= length:
                more = _block(file, at)[504]
                at += BLOCK
        data, holds = at, kind not in (b"1", b"2", b"3", b"4", b"5", b"6")
        at += _padded(size) if holds else 0
        named = {}
        if kind == b"5" or (name.endswith("/") and kind in (b"0", b"\0")):
            continue
        if holds and data + size > length:
            flaw = flaw or "truncated_member"
        place = "" if flaw else f"@{data}+{size}:{checksum}"
        yield Entry(index, name[:MAX_NAME], size if holds else 0, size, place, flaw)
        index += 1
    if not empty:
        raise Unreadable("truncated_archive", "the tar has no end")


def _flaw(kind: bytes, named: dict[str, str], name: str) -> str:
    if kind in (b"1", b"2"):
        return "link"
    if kind == b"S" or "sparse" in named:
        return "sparse_member"
    if kind == b"M":
        return "multi_volume"
    if kind not in (b"0", b"\0", b"7", b"5"):
        return "special_file"
    return "name_too_long" if len(name) > MAX_NAME else ""


def _block(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    return file.read(BLOCK)


def _checksum(block: bytes) -> int:
    """The sum that a header holds of itself. Raises where it is not right."""
    told, found = _number(block[148:156]), sum(block) - sum(block[148:156]) + 8 * 32
    signed = found - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # as some old systems count
    if told not in (found, signed):
        raise _bad("no header where one must be")
    return told


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise _bad("a negative number")
        return int.from_bytes(field[1:], "big")
    return _whole(field.replace(b"\0", b" ").decode("ascii", "replace").strip() or "0", 8)


def _whole(text: str, base: int = 10) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _bad("no number where one must be")
    try:
        return int(text, base)
    except ValueError:
        raise _bad("no number where one must be") from None


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _name(block: bytes) -> str:
    name = _text(block[:100].split(b"\0")[0], "utf-8")
    prefix = _text(block[345:500].split(b"\0")[0], "utf-8") if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _pax(records: bytes) -> dict[str, str]:
    """What is used of the records "length key=value" of a pax header: path, size, whether it has holes."""
    found: dict[str, str] = {}
    at = 0
    while at < len(records) and records[at]:
        blank = records.find(b" ", at, at + 12)
        size = _whole(records[at:blank].decode("ascii", "replace")) if blank > 0 else 0
        record = records[blank + 1 : at + size]
        if not record.endswith(b"\n") or at + size > len(records):
            raise _bad("a broken pax header")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"path", b"size"):
            found[key.decode()] = _text(value, "utf-8")
        elif key.startswith(b"GNU.sparse."):
            found["sparse"] = "yes"
        at += size
    return found


def _text(name: bytes, encoding: str) -> str:
    """A name that a database can hold: what cannot be decoded, and zeros, are written as escapes."""
    return name.decode(encoding, "backslashreplace").replace("\0", "\\x00")


def _bad(what: str) -> Unreadable:
    return Unreadable("bad_archive", what)
