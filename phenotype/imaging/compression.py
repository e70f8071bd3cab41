"""Single files kept compressed (gzip, bzip2, xz, Zstandard), inflated as a bounded stream.

The libraries' own readers are not used where they hide what must be known: `bz2.BZ2File` ignores what follows the last
stream, `lzma.LZMAFile` has no limit of memory, and `zstandard` does not tell a file that is cut from a whole one.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from io import SEEK_CUR, SEEK_END, BytesIO
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, cast

from phenotype.imaging.files import Unreadable

if TYPE_CHECKING:
    from zlib import _Decompress

    Decoder: TypeAlias = _Decompress | bz2.BZ2Decompressor | lzma.LZMADecompressor

SUFFIXES = frozenset((".gz", ".bz2", ".xz", ".zst"))
RATIO = 200  # inflated to compressed: pixels rarely shrink to a tenth
SMALL = 64 << 20  # what any file may inflate to, whatever the ratio: an empty picture shrinks to a thousandth
CHUNK = 1 << 20
MEMORY = 128 << 20  # of a decoder: `xz -9` needs 65 MiB, `zstd --long` 128 MiB

_READ = 1 << 15  # bytes taken at a time: after each of many tiny streams the rest of it is copied
_STARTS = re.compile(
    rb"(?P<gz>\x1f\x8b\x08)|(?P<bz2>BZh[1-9](?:1AY&SY|\x17rE8P\x90))|(?P<xz>\xfd7zXZ\0)"
    rb"|(?P<zst>\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18)"  # a frame, or one to be skipped, as `pzstd` writes first
)
_ZST = b"\x28\xb5\x2f\xfd"


def compression_of(start: bytes) -> str:
    """How a file with these first bytes is compressed: gz, bz2, xz, zst; or empty. The preamble of a DICOM file may
    hold anything, and says nothing."""
    found = _STARTS.match(start)
    return found.lastgroup or "" if found and start[128:132] != b"DICM" else ""


def inner_name(name: str) -> str:
    """The name of what is compressed in a file of this name, as "x.csv" of "x.csv.gz"."""
    before, dot, suffix = name.rpartition(".")
    return before if dot + suffix.lower() in SUFFIXES else name


def inflate(file: BinaryIO, kind: str, limit: int) -> bytes:
    """What is compressed in a file, read from its beginning; several streams one after another are one.

    Raises `Unreadable`: "too_large" (more than `limit` bytes), "archive_ratio" (more than 64 MiB and 200 times what is
    compressed), "truncated", "inflation" (damaged, followed by something else, or in need of too much memory).
    """
    bound = min(limit, max(SMALL, RATIO * file.seek(0, SEEK_END)))
    file.seek(0)
    whole = BytesIO()  # which gives its bytes away without a copy
    try:
        for data in pieces(file, kind):
            if whole.tell() + len(data) > bound:
                raise Unreadable("too_large" if bound == limit else "archive_ratio", f"more than {bound} bytes")
            whole.write(data)
    except EOFError:
        raise Unreadable("truncated", "the compressed file ends too early") from None
    return whole.getvalue()


def beginning(file: BinaryIO, kind: str, size: int = 512) -> bytes:
    """The first bytes of what is compressed in a file, as many as there are. Raises `Unreadable("inflation")`."""
    found = b""
    try:
        for data in _zst(file, size) if kind == "zst" else _streams(file, _DECODERS[kind], size):
            found += data
            if len(found) >= size:
                break
    except EOFError:
        pass  # as many as there are
    return found[:size]


def pieces(file: BinaryIO, kind: str) -> Iterator[bytes]:
    """The inflated bytes of a seekable file in pieces of at most a mebibyte.

    Raises EOFError where it is cut, and `Unreadable("inflation")`.
    """
    if kind == "zst":
        yield from _zst(file, CHUNK)
        _check_frames(file)  # the library ends in silence where the file does
    else:
        yield from _streams(file, _DECODERS[kind], CHUNK)


_DECODERS: dict[str, Callable[[], Decoder]] = {
    "gz": lambda: zlib.decompressobj(31),  # which checks sum and length
    "bz2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MEMORY),
}


def _streams(file: BinaryIO, new: Callable[[], Decoder], size: int) -> Iterator[bytes]:
    data = file.read(_READ)
    while data:
        decoder, full = new(), False
        while not decoder.eof:
            if not data and not full and not (data := file.read(_READ)):
                raise EOFError
            try:
                found = decoder.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError, ValueError) as error:
                raise _damaged(error) from None
            data = cast(bytes, getattr(decoder, "unconsumed_tail", b""))  # the others keep it themselves
            full = len(found) == size
            if found:
                yield found
        data = decoder.unused_data.lstrip(b"\0")  # streams may be padded
        while not data and (more := file.read(_READ)):
            data = more.lstrip(b"\0")


def _zst(file: BinaryIO, size: int) -> Iterator[bytes]:
    import zstandard

    decoder = zstandard.ZstdDecompressor(max_window_size=MEMORY)
    with decoder.stream_reader(file, read_size=_READ, read_across_frames=True, closefd=False) as stream:
        while True:
            try:
                found = stream.read(size)
            except zstandard.ZstdError as error:
                raise _damaged(error) from None
            if not found:
                return
            yield found


def _check_frames(file: BinaryIO) -> None:
    """Follow the frames of a Zstandard file to its end (RFC 8878, 3.1). Raises as `pieces` does."""
    end = file.seek(0, SEEK_END)
    at = file.seek(0)
    while at < end:
        magic = _exactly(file, 4)
        if magic[1:] == b"\x2a\x4d\x18":
            at = file.seek(int.from_bytes(_exactly(file, 4), "little"), SEEK_CUR)
            continue
        if magic != _ZST:
            raise Unreadable("inflation", "something else follows what is compressed")
        told = _exactly(file, 1)[0]
        single = told >> 5 & 1  # no size of a window, but at least a byte for the size of all
        file.seek((1 - single) + (0, 1, 2, 4)[told & 3] + (single, 2, 4, 8)[told >> 6], SEEK_CUR)
        last = False
        while not last:
            block = int.from_bytes(_exactly(file, 3), "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            file.seek(1 if kind == 1 else size, SEEK_CUR)  # of one byte that is repeated
        at = file.seek(4 if told & 4 else 0, SEEK_CUR)
    if at > end:
        raise EOFError


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _damaged(error: Exception) -> Unreadable:
    return Unreadable("inflation", f"it cannot be inflated ({type(error).__name__})")
