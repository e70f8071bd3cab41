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
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pydicom
from pydicom.datadict import DicomDictionary
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from phenotype.imaging.codestream import codestream_size
from phenotype.imaging.files import Unreadable

__all__ = [
    "Element", "Index", "Layout", "Span", "codestream_size", "dataset", "elements", "index", "items", "layout", "quiet"
]  # fmt: skip

logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # its messages quote values

PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00010, 0x7FE00008, 0x7FE00009
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99"})
NATIVE = frozenset({IMPLICIT, EXPLICIT, BIG}) | DEFLATED  # pixels stand as they are, without a codestream
# The pixels lie on a server that the object names; the second of each pair is deflated as well
JPIP = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (94, 95, 204, 205))
MAX_INFLATED = 1 << 30
MAX_DEPTH = 32  # of sequences in sequences
MAX_PARTS = 1 << 20  # elements of one data set or item, fragments of one element: more are an attack on the memory

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHORT, _LONG, _SEQUENCE, _UNKNOWN, _NEW = range(5)
_KIND: dict[bytes, int] = (
    {vr.value.encode(): _SHORT for vr in STANDARD_VR if len(vr) == 2}
    | {vr.value.encode(): _LONG for vr in EXPLICIT_VR_LENGTH_32}
    | {b"SQ": _SEQUENCE, b"UN": _UNKNOWN}
)
_BLANK_VRS = frozenset(
    {b"  ", b"??", b"--"}
)  # seen in the field for an element of unknown type: a short length follows
_SEQUENCES = frozenset(tag for tag, entry in DicomDictionary.items() if entry[0] == "SQ")
_STRUCTS = {
    little: tuple(struct.Struct(order + form).unpack_from for form in ("HHI", "HH2sH", "I"))
    for little, order in ((True, "<"), (False, ">"))
}

Span = tuple[bytes, int, int]  # VR (empty where it is implicit), start and end of the value


@dataclass(frozen=True, slots=True)
class Layout:
    """The data set of a file: `body[start:]`, inflated where it was deflated, and what the file's meta header says.

    `head` is where the meta header ends in the file itself.
    """

    body: bytes
    start: int
    implicit: bool
    little: bool
    transfer_syntax: str
    sop_class: str
    sop_instance: str
    head: int = 0


@dataclass(frozen=True, slots=True)
class Element:
    """A data element at the top of a data set: its value is `body[start:end]`, or `fragments` of coded pixels."""

    tag: int
    vr: bytes
    start: int
    end: int
    fragments: tuple[tuple[int, int], ...] | None = None


@dataclass(slots=True)
class Index:
    """Where the elements at the top of a data set, or of an item, lie.

    spans      by tag; of an element that stands there twice, the last
    fragments  (start, end) of the items of those of undefined length that are no sequence: coded pixels
    """

    spans: dict[int, Span] = field(default_factory=dict)
    fragments: dict[int, list[tuple[int, int]]] = field(default_factory=dict)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings within: those of pydicom quote the values that they are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def layout(data: bytes) -> Layout:
    """Find the data set in the bytes of a file, with or without preamble and meta header.

    Raises `Unreadable`: "not_dicom", "truncated", "bad_structure", "inflation" (broken, or larger than a gigabyte),
    "jpip" (an object without pixels, which lie on a server).
    """
    position = 132 if data[128:132] == b"DICM" else 4 if data[:4] == b"DICM" else 0
    if position == 0 and not _looks_bare(data):
        raise Unreadable("not_dicom", "neither the DICM prefix nor a bare data set")
    meta, position = _meta(data, position)
    syntax, body, head = meta.get(0x00020010, ""), data, position
    if syntax in JPIP:
        raise Unreadable("jpip", "the pixels lie on a server")
    if syntax in DEFLATED:
        body, position = _inflate(data, position), 0
    little = syntax != BIG and not (not syntax and body[position : position + 2] == b"\0\x08")
    implicit = not _is_vr(body[position + 4 : position + 6])  # the bytes are believed before the declaration
    if not syntax:
        syntax = IMPLICIT if implicit else EXPLICIT if little else BIG
    return Layout(body, position, implicit, little, syntax, meta.get(0x00020002, ""), meta.get(0x00020003, ""), head)


def index(where: Layout) -> Index:
    """Where the elements at the top of the data set lie, after one walk over all of it by lengths alone. Sequences are
    walked too, so that whatever parses them later finds them whole and not nested too deeply.

    Raises `Unreadable`: "truncated" (an element ends behind the end of the file), "bad_structure".
    """
    found = Index()
    try:
        _walk(where.body, where.start, len(where.body), where.implicit, where.little, 0, found)
    except struct.error:
        raise Unreadable("truncated", "the file ends inside an element") from None
    return found


def items(where: Layout, found: Index, tag: int) -> list[Index]:
    """The elements of each item of a sequence at the top of the data set; empty where there is none."""
    span = found.spans.get(tag)
    if span is None:
        return []
    vr, start, end = span
    inside: list[Index] = []
    implicit = where.implicit or vr == b"UN"
    try:
        _sequence(where.body, start, end, implicit, where.little, 1, inside=inside)
    except (struct.error, Unreadable):  # an opaque value in place of a sequence
        return []
    return inside


def elements(where: Layout) -> Iterator[Element]:
    """The elements at the top of the data set, in order. Raises as `index` does, before the first one."""
    found = index(where)
    for tag, (vr, start, end) in found.spans.items():
        parts = found.fragments.get(tag)
        yield Element(tag, vr, start, end, None if parts is None else tuple(parts))


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


def _looks_bare(data: bytes) -> bool:
    """Whether a file without prefix starts like a data set: group 2 or 8, and a value that fits in."""
    if data[:2] in (b"\x02\0", b"\x08\0"):
        if _is_vr(data[4:6]):
            return True
        return len(data) >= 8 and int.from_bytes(data[4:8], "little") < min(len(data), 1024)
    return data[:2] == b"\0\x08" and _is_vr(data[4:6])


def _is_vr(data: bytes) -> bool:
    return len(data) == 2 and data.isalpha() and data.isupper()


def _meta(data: bytes, position: int) -> tuple[dict[int, str], int]:
    """The meta header as text by tag, and where it ends. It is always little endian; implicit only by mistake."""
    implicit_head, explicit_head, long_length = _STRUCTS[True]
    meta: dict[int, str] = {}
    try:
        while data[position : position + 2] == b"\x02\x00":
            group, number, vr, length = explicit_head(data, position)
            start = position + 8
            if not _is_vr(vr):
                length = implicit_head(data, position)[2]
            elif _KIND.get(vr, _SHORT) != _SHORT:
                (length,), start = long_length(data, start), position + 12
            position = start + length
            if position > len(data):
                raise Unreadable("truncated", "the file ends inside its meta header")
            meta[group << 16 | number] = data[start:position].decode("ascii", "replace").strip(" \0")
    except struct.error:
        raise Unreadable("truncated", "the file ends inside its meta header") from None
    return meta, position


def _inflate(data: bytes, start: int) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    most = min(MAX_INFLATED, 200 * len(data) + (128 << 20))  # pixels rarely shrink to a tenth, but small ones be black
    try:
        body = machine.decompress(memoryview(data)[start:], most)
    except zlib.error:
        raise Unreadable("inflation", "the deflated data set is broken") from None
    if not machine.eof:
        raise Unreadable("inflation", "the deflated data set is cut off or inflates beyond the limit")
    return body


def _walk(
    body: bytes,
    position: int,
    end: int,
    implicit: bool,
    little: bool,
    depth: int,
    found: Index | None = None,
    delimited: bool = False,
) -> int:
    """Walk the elements from `position` to `end`, or to the delimiter of their item, and return where that is. This
    loop is what reading a header costs, hence the local names and plain tuples."""
    implicit_head, explicit_head, long_length = _STRUCTS[little]
    kind_of, sequences = _KIND.get, _SEQUENCES
    spans = {} if found is None else found.spans
    vr, kind = b"", _SHORT
    while position < end:
        if end - position < 8:
            return _tail(body, position, end, depth)
        start = position + 8
        if implicit:
            group, number, length = implicit_head(body, position)
            tag = group << 16 | number
            kind = _SEQUENCE if tag in sequences else _LONG
        else:
            group, number, vr, length = explicit_head(body, position)
            tag = group << 16 | number
            kind = kind_of(vr, _NEW)
        if group == 0xFFFE:
            if tag == _ITEM_END and delimited:
                return start
            if depth:
                raise Unreadable("bad_structure", "something else than an element in an item")
            kind, length = _LONG, implicit_head(body, position)[2]
        elif tag == 0:
            return _tail(body, position, end, depth)
        elif implicit or kind == _SHORT:
            pass
        elif kind != _NEW:
            (length,) = long_length(body, start)
            start += 4
        elif not _is_vr(vr):  # of those yet to come, a short length is all that can be guessed
            if depth and vr not in _BLANK_VRS:
                length, vr = implicit_head(body, position)[2], b""  # some writers change to implicit in an item
                kind = _SEQUENCE if tag in sequences else _LONG
            elif vr not in _BLANK_VRS:
                raise Unreadable("bad_structure", "an element without value representation")
        if length == _UNDEFINED:
            stop, parts = _undefined(body, start, end, implicit or not vr, little, depth, kind)
            if found is not None and parts is not None:
                found.fragments[tag] = parts
        else:
            stop = start + length
            if stop > end:
                code = "truncated" if stop > len(body) else "bad_structure"
                raise Unreadable(code, "an element ends behind the end of the file or of its item")
            if kind == _SEQUENCE and length:
                _sequence(body, start, stop, implicit or not vr, little, depth + 1)
        spans[tag] = vr, start, stop
        if len(spans) > MAX_PARTS:
            raise Unreadable("bad_structure", "too many elements")
        position = stop
    if delimited:
        raise Unreadable("truncated", "the file ends inside a sequence")
    return position


def _tail(body: bytes, position: int, end: int, depth: int) -> int:
    """Zeros behind the last element are padding; anything else is an element cut off."""
    if depth:
        raise Unreadable("bad_structure", "an element ends behind the end of its item")
    if any(body[position:end]):
        raise Unreadable("truncated", "the file ends inside an element")
    return end


def _undefined(
    body: bytes, start: int, end: int, implicit: bool, little: bool, depth: int, kind: int
) -> tuple[int, list[tuple[int, int]] | None]:
    """The end of an element of undefined length, and where its items lie unless it is a sequence."""
    if kind == _UNKNOWN:
        try:  # PS3.5 6.2.2: UN of undefined length holds a sequence in implicit VR; some writers leave it explicit
            return _sequence(body, start, end, True, little, depth + 1, True), None
        except (Unreadable, struct.error):
            return _sequence(body, start, end, implicit, little, depth + 1, True), None
    if kind == _SEQUENCE:
        return _sequence(body, start, end, implicit, little, depth + 1, True), None
    parts: list[tuple[int, int]] = []
    return _sequence(body, start, end, implicit, little, depth + 1, True, parts), parts


def _sequence(
    body: bytes,
    position: int,
    end: int,
    implicit: bool,
    little: bool,
    depth: int,
    delimited: bool = False,
    parts: list[tuple[int, int]] | None = None,
    inside: list[Index] | None = None,
) -> int:
    """Walk the items from `position` to `end`, or to the delimiter of their sequence, and return where that is.

    Into `parts` goes where items of known length lie, which are then not walked: fragments of coded pixels. Into
    `inside` go the elements of each item.
    """
    if depth > MAX_DEPTH:
        raise Unreadable("bad_structure", "sequences nested too deeply")
    head = _STRUCTS[little][0]
    while position < end:
        if end - position < 8:
            break
        group, number, length = head(body, position)
        tag = group << 16 | number
        position += 8
        if tag != _ITEM:
            if tag == _SEQUENCE_END and (delimited or position == end):
                return position
            raise Unreadable("bad_structure", "something else than an item in a sequence")
        found = None
        if inside is not None:
            found = Index()
            inside.append(found)
        if length == _UNDEFINED:
            position = _walk(body, position, end, implicit, little, depth, found, True)
            continue
        stop = position + length
        if stop > end:
            if stop > len(body):
                raise Unreadable("truncated", "the file ends inside a sequence")
            raise Unreadable("bad_structure", "an item ends behind the end of its sequence")
        if parts is not None:
            parts.append((position, stop))
            if len(parts) > MAX_PARTS:
                raise Unreadable("bad_structure", "too many fragments")
        else:
            _walk(body, position, stop, implicit, little, depth, found)
        position = stop
    if position == end and not delimited:
        return position
    raise Unreadable("truncated" if end == len(body) else "bad_structure", "the file ends inside a sequence")
