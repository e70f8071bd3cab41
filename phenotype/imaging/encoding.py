"""The outer shape of a DICOM file: where its parts lie, found before anything is decoded.

pydicom reads a truncated file without a word (measured: 95 of 100), inflates without bound, and quotes values in its
warnings. So the structure is walked here first, by lengths alone, as PS3.5 section 7 and PS3.10 lay it down.
"""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from phenotype.imaging.files import Unreadable

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its messages quote values

PIXEL_DATA = 0x7FE00010
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99"})
NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG}) | DEFLATED  # pixels stand as they are, without a codestream
MAX_INFLATED = 1 << 30
MAX_DEPTH = 32  # of sequences in sequences

_UNDEFINED = 0xFFFFFFFF
_ITEM, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})


@dataclass(frozen=True, slots=True)
class Layout:
    """The data set of a file: `body[start:]`, inflated where it was deflated, and what the file's meta header says."""

    body: bytes
    start: int
    implicit: bool
    little: bool
    transfer_syntax: str
    sop_class: str
    sop_instance: str


@dataclass(frozen=True, slots=True)
class Element:
    """A data element at the top of a data set: its value is `body[start:end]`, or `fragments` of coded pixels."""

    tag: int
    vr: bytes
    start: int
    end: int
    fragments: tuple[tuple[int, int], ...] | None = None


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings within: those of pydicom quote the values that they are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def layout(data: bytes) -> Layout:
    """Find the data set in the bytes of a file, with or without preamble and meta header.

    Raises `Unreadable`: "not_dicom", "truncated", "inflation" (broken, or larger than a gigabyte).
    """
    position = 132 if data[128:132] == b"DICM" else 0
    if position == 0 and not _looks_bare(data):
        raise Unreadable("not_dicom", "neither the DICM prefix nor a bare data set")
    meta: dict[int, str] = {}
    while data[position : position + 2] == b"\x02\x00":
        implicit = not _is_vr(data[position + 4 : position + 6])
        element = _element(data, position, implicit, True)
        meta[element.tag] = data[element.start : element.end].decode("ascii", "replace").strip(" \0")
        position = element.end
    syntax, body = meta.get(0x00020010, ""), data
    if syntax in DEFLATED:
        body, position = _inflate(data, position), 0
    little = syntax != BIG and not (not syntax and body[position : position + 2] == b"\0\x08")
    implicit = not _is_vr(body[position + 4 : position + 6])  # the bytes are believed before the declaration
    if not syntax:
        syntax = IMPLICIT if implicit else EXPLICIT if little else BIG
    return Layout(body, position, implicit, little, syntax, meta.get(0x00020002, ""), meta.get(0x00020003, ""))


def elements(where: Layout) -> Iterator[Element]:
    """The elements at the top of the data set, in order, by their lengths alone.

    Raises `Unreadable`: "truncated" (an element ends behind the end of the file), "bad_structure".
    """
    body, position = where.body, where.start
    while position < len(body):
        if len(body) - position < 8 or body[position : position + 4] == b"\0\0\0\0":
            if any(body[position:]):  # zeros behind the last element are padding
                raise Unreadable("truncated", "the file ends inside an element")
            return
        element = _element(body, position, where.implicit, where.little)
        yield element
        position = element.end


def dataset(where: Layout, stop: int | None = None) -> Any:
    """The data set as pydicom reads it, up to the tag `stop`, ready for `pixel_array`. Its warnings go nowhere.

    Raises `Unreadable("bad_header")` whatever pydicom stumbles over.
    """
    stream = BytesIO(where.body)
    stream.seek(where.start)
    try:
        with quiet():
            found = read_dataset(
                stream,
                where.implicit,
                where.little,
                stop_when=None if stop is None else lambda tag, vr, length: tag >= stop,
            )
            meta = FileMetaDataset()
            meta.TransferSyntaxUID = UID(EXPLICIT if where.transfer_syntax in DEFLATED else where.transfer_syntax)
            read = pydicom.dataset.FileDataset(None, found, file_meta=meta)
            read.set_original_encoding(where.implicit, where.little, found.original_character_set)
    except Exception as error:
        raise Unreadable("bad_header", f"the header cannot be parsed ({type(error).__name__})") from None
    return read


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 codestream declares of itself; None for anything else."""
    if data[:4] == b"\xff\x4f\xff\x51":  # JPEG 2000: SIZ follows SOC
        if len(data) < 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", data[8:24])
        return bottom - top, right - left
    position = 2
    while data[:2] == b"\xff\xd8" and position + 9 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # a start of frame
            rows, columns = struct.unpack(">2H", data[position + 5 : position + 9])
            return rows, columns
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _looks_bare(data: bytes) -> bool:
    """Whether a file without prefix starts like a data set: group 2 or 8, and a value that fits in."""
    if data[:2] in (b"\x02\0", b"\x08\0"):
        if _is_vr(data[4:6]):
            return True
        return len(data) >= 8 and int.from_bytes(data[4:8], "little") < min(len(data), 1024)
    return data[:2] == b"\0\x08" and _is_vr(data[4:6])


def _is_vr(data: bytes) -> bool:
    return len(data) == 2 and data.isalpha() and data.isupper()


def _inflate(data: bytes, start: int) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = machine.decompress(data[start:], MAX_INFLATED)
    except zlib.error:
        raise Unreadable("inflation", "the deflated data set is broken") from None
    if not machine.eof:
        raise Unreadable("inflation", "the deflated data set is cut off or inflates beyond the limit")
    return body


def _element(body: bytes, position: int, implicit: bool, little: bool, depth: int = 0) -> Element:
    order = "<" if little else ">"
    try:
        group, number = struct.unpack_from(order + "HH", body, position)
        tag, vr = group << 16 | number, b""
        if implicit or group == 0xFFFE:
            (length,) = struct.unpack_from(order + "I", body, position + 4)
            start = position + 8
        else:
            vr = body[position + 4 : position + 6]
            if not _is_vr(vr):
                raise Unreadable("bad_structure", "an element without value representation")
            long = vr in _LONG
            (length,) = struct.unpack_from(order + ("I" if long else "H"), body, position + (8 if long else 6))
            start = position + (12 if long else 8)
    except struct.error:
        raise Unreadable("truncated", "the file ends inside an element") from None
    if length == _UNDEFINED:
        # PS3.5 6.2.2: UN of undefined length holds a sequence in implicit VR
        end, fragments = _items(body, start, implicit or vr == b"UN", little, depth + 1)
        return Element(tag, vr, start, end, fragments if tag == PIXEL_DATA else None)
    if start + length > len(body):
        raise Unreadable("truncated", "an element ends behind the end of the file")
    return Element(tag, vr, start, start + length)


def _items(
    body: bytes, position: int, implicit: bool, little: bool, depth: int
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """The end of a sequence of undefined length that starts at `position`, and where its items of known length lie."""
    if depth > MAX_DEPTH:
        raise Unreadable("bad_structure", "sequences nested too deeply")
    header = struct.Struct("<HHI" if little else ">HHI")
    item_end = header.pack(0xFFFE, 0xE00D, 0)[:4]
    items: list[tuple[int, int]] = []
    while position + 8 <= len(body):
        group, number, length = header.unpack_from(body, position)
        tag = group << 16 | number
        position += 8
        if tag == _SEQUENCE_END:
            return position, tuple(items)
        if tag != _ITEM:
            raise Unreadable("bad_structure", "something else than an item in a sequence")
        if length != _UNDEFINED:
            items.append((position, position + length))
            position += length
            continue
        while body[position : position + 4] != item_end:  # at the end of the file `_element` says so
            position = _element(body, position, implicit, little, depth).end
        position += 8
    raise Unreadable("truncated", "the file ends inside a sequence")
