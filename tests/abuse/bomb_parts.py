"""What bombs are made of, and the plain ways to read them."""

# ruff: noqa: E501  (a line a piece)

from __future__ import annotations

import io
import json
import lzma
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np

J2K, JLS, JPEG, LOSSLESS, HTJ2K = (f"1.2.840.10008.1.2.4.{n}" for n in (90, 80, 50, 70, 201))
RLE, DEFLATED, IMPLICIT, EXPLICIT = (f"1.2.840.10008.1.2{end}" for end in (".5", ".1.99", "", ".1"))
END = 0xFFFFFFFF


# ------------------------------------------------------------------------------------------------ pieces


def element(group: int, number: int, vr: bytes, value: bytes = b"", length: int | None = None) -> bytes:
    """An explicit little-endian element; `length` is what it says of itself."""
    said = len(value) if length is None else length
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2s2xI", group, number, vr, said) + value
    return struct.pack("<HH2sH", group, number, vr, said & 0xFFFF) + value


def item(value: bytes = b"", length: int | None = None) -> bytes:
    """An item of a sequence, or a fragment."""
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value) if length is None else length) + value


SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def meta(syntax: str, sop_class: str = "1.2.840.10008.5.1.4.1.1.2") -> bytes:
    """Preamble and file meta header."""
    syntax += "\0" * (len(syntax) % 2)
    sop_class += "\0" * (len(sop_class) % 2)
    group = element(2, 2, b"UI", sop_class.encode()) + element(2, 3, b"UI", b"1.2.3.4\0")
    group += element(2, 0x10, b"UI", syntax.encode())
    return bytes(128) + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(group))) + group


def image(
    syntax: str, pixels: bytes, rows: int = 64, columns: int = 64, bits: int = 16, samples: int = 1, frames: str = "",
    before: bytes = b"", photometric: bytes = b"MONOCHROME2 ", between: bytes = b"",
) -> bytes:  # fmt: skip
    """A CT slice with this element of pixels."""
    words = [element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.2\0"), element(8, 0x18, b"UI", b"1.2.3.4\0")]
    words += [element(8, 0x60, b"CS", b"CT"), before, element(0x20, 0xD, b"UI", b"1.2\0")]
    words += [element(0x20, 0xE, b"UI", b"1.3\0"), element(0x28, 2, b"US", struct.pack("<H", samples))]
    words += [element(0x28, 4, b"CS", photometric)]
    words += [element(0x28, 8, b"IS", frames.encode() + b" " * (len(frames) % 2))] if frames else []
    sizes = {0x10: rows, 0x11: columns, 0x100: bits, 0x101: bits, 0x102: bits - 1, 0x103: 0}
    words += [element(0x28, number, b"US", struct.pack("<H", value & 0xFFFF)) for number, value in sizes.items()]
    return meta(syntax) + b"".join(words) + between + pixels


def coded(*fragments: bytes, table: bytes = b"") -> bytes:
    """Pixels as a table of offsets and codestreams."""
    even = (fragment + b"\0" * (len(fragment) % 2) for fragment in fragments)
    return element(0x7FE0, 0x10, b"OB", length=END) + item(table) + b"".join(map(item, even)) + SEQUENCE_END


def deflated(size: int, head: bytes = b"", *, whole: bool = True) -> bytes:
    """A raw deflate stream of `head` and so many zeros: one compressed piece, again and again."""
    piece = 1 << 24
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = machine.compress(head) + machine.flush(zlib.Z_FULL_FLUSH)
    machine = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = machine.compress(bytes(piece)) + machine.flush(zlib.Z_FULL_FLUSH)
    return first + zeros * (size // piece) + (b"\x03\0" if whole else b"")


def zlibbed(size: int) -> bytes:
    """The same as a zlib stream, with a checksum that is right."""
    check = (size >> 24 << 24) % 65521 << 16 | 1  # Adler's, of zeros
    return b"\x78\xda" + deflated(size) + struct.pack(">I", check)


def siz(rows: int, columns: int, *, tile: tuple[int, int] | None = None, components: int = 1) -> bytes:
    """The beginning of a JPEG 2000 codestream, and one empty tile."""
    high, wide = tile or (rows, columns)
    body = struct.pack(">H8IH", 0, columns, rows, 0, 0, wide, high, 0, 0, components) + b"\x0f\x01\x01" * components
    head = b"\xff\x4f\xff\x51" + struct.pack(">H", len(body) + 2) + body
    head += b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01" + b"\xff\x5c\x00\x13\x40" + b"\x40" * 16
    return head + b"\xff\x90\x00\x0a\x00\x00\x00\x00\x00\x0e\x00\x01\xff\x93" + b"\xff\xd9"


def jpeg(marker: int, rows: int, columns: int, precision: int = 8) -> bytes:
    """A JPEG or JPEG-LS header and a scan without anything."""
    start = struct.pack(">BBHBHHB", 0xFF, marker, 11, precision, rows, columns, 1) + b"\x01\x11\x00"
    return b"\xff\xd8" + start + b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x00" + bytes(64) + b"\xff\xd9"


def png(rows: int, columns: int, data: bytes, *, extra: bytes = b"", depth: int = 8) -> bytes:
    """A PNG with these compressed pixels; `extra` are chunks before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zipped(name: str, packed: bytes, size: int, method: int = 8, crc: int = 0) -> bytes:
    """A zip with one member of packed bytes, which says of itself that it has `size` bytes."""
    said = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(packed), min(size, END - 1), len(name), 0)
    local = b"PK\x03\x04" + said + name.encode()
    central = b"PK\x01\x02" + struct.pack("<H", 20) + said + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    end = struct.pack("<4H2IH", 0, 0, 1, 1, len(central), len(local) + len(packed), 0)
    return local + packed + central + b"PK\x05\x06" + end


def workbook(**parts: bytes) -> bytes:
    """An .xlsx; parts by name, as in sheet1."""
    stream = io.BytesIO()
    plain = {"xl/workbook.xml": WORKBOOK, "[Content_Types].xml": TYPES, "_rels/.rels": RELS}
    plain |= {
        "xl/_rels/workbook.xml.rels": RELS_OF_BOOK,
        "xl/worksheets/sheet1.xml": SHEET % b"",
        "xl/sharedStrings.xml": STRINGS,
    }
    names = {"sheet1": "xl/worksheets/sheet1.xml", "strings": "xl/sharedStrings.xml"}
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (plain | {names[key]: data for key, data in parts.items()}).items():
            archive.writestr(name, data)
    return stream.getvalue()


_MAIN = b"http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = b"http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = b"http://schemas.openxmlformats.org/package/2006/"
_KINDS = b"application/vnd.openxmlformats-officedocument.spreadsheetml."
WORKBOOK = b'<workbook xmlns="%s" xmlns:r="%s"><sheets><sheet name="a" sheetId="1" r:id="r1"/></sheets></workbook>' % (
    _MAIN,
    _OFFICE,
)
TYPES = (
    b'<Types xmlns="%scontent-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    % _PACKAGE
)
TYPES += b'<Override PartName="/xl/workbook.xml" ContentType="%ssheet.main+xml"/>' % _KINDS
TYPES += b'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="%sworksheet+xml"/>' % _KINDS
TYPES += b'<Override PartName="/xl/sharedStrings.xml" ContentType="%ssharedStrings+xml"/></Types>' % _KINDS
RELS = (
    b'<Relationships xmlns="%srelationships"><Relationship Id="r1" Type="%s/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    % (_PACKAGE, _OFFICE)
)
RELS_OF_BOOK = (
    b'<Relationships xmlns="%srelationships"><Relationship Id="r1" Type="%s/worksheet" Target="worksheets/sheet1.xml"/>'
    % (_PACKAGE, _OFFICE)
)
RELS_OF_BOOK += b'<Relationship Id="r2" Type="%s/sharedStrings" Target="sharedStrings.xml"/></Relationships>' % _OFFICE
SHEET = b'<worksheet xmlns="' + _MAIN + b'"><sheetData>%s</sheetData></worksheet>'
STRINGS = b'<sst xmlns="' + _MAIN + b'"/>'


def pdf(stream: bytes, filters: str = "/FlateDecode", kids: str = "3 0 R", extra: bytes = b"") -> bytes:
    """A PDF of one page whose content is this stream."""
    parts = [b"<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count 1/Kids[{kids}]>>".encode()]
    parts.append(b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R/Resources<<>>>>")
    parts.append(f"<</Length {len(stream)}/Filter[{filters}]>>stream\n".encode() + stream + b"\nendstream")
    out, places = b"%PDF-1.5\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(out))
        out += b"%d 0 obj" % number + part + b"endobj\n"
    out += extra
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    tail = b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(parts) + 1, len(out))
    return out + b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1) + table + tail


def laughs(levels: int, fan: int) -> bytes:
    """Entities made of entities."""
    names = [f'<!ENTITY a{i} "{f"&a{i - 1};" * fan if i else "ha"}">' for i in range(levels)]
    return f"<!DOCTYPE x [{''.join(names)}]>".encode()


ACCESSION = {"type": {"coding": [{"code": "ACSN"}]}, "value": "A1"}


def fhir(**values: object) -> bytes:
    """A DiagnosticReport."""
    code = {"coding": [{"system": "http://loinc.org", "code": "18748-4"}]}
    return json.dumps(
        {"resourceType": "DiagnosticReport", "status": "final", "code": code, "identifier": [ACCESSION]} | values
    ).encode()


def hl7(obx: bytes, orders: int = 1) -> bytes:
    """A message with these segments as its observations."""
    head = b"MSH|^~\\&|RIS|H|A|H|20200101||ORU^R01|1|P|2.5\rPID|1||P1^^^H||Doe^Jane\r"
    return head + b"OBR|1|A1|A1|71020^CHEST\r%s" % obx * orders


# ------------------------------------------------------------------------------------------------ the plain ways


def by_pydicom(path: Path) -> object:
    """All values and the pixels."""
    from pydicom import dcmread

    read = dcmread(path, force=True)
    for one in read.iterall():
        _ = one.value
    return read.pixel_array


def by_pillow(path: Path) -> object:
    """All pixels, and the texts beside them."""
    from PIL import Image, PngImagePlugin

    Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_MEMORY, PngImagePlugin.MAX_TEXT_CHUNK = None, END, END
    with Image.open(path) as picture:
        return np.asarray(picture, dtype=np.float32)


def by_zipfile(path: Path) -> object:
    """The first member."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(archive.infolist()[0])


def by_lzma(path: Path) -> object:
    """What the decoder of a member allocates."""
    return lzma.decompress(
        path.read_bytes()[-100:], lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 32 - 1}]
    )


def by_openpyxl(path: Path) -> object:
    """All cells."""
    from openpyxl import load_workbook

    return [row for sheet in load_workbook(path) for row in sheet.values]


def by_zlib(path: Path) -> object:
    """The content of a page, through all its filters."""
    data = path.read_bytes()
    data = data[data.index(b">>stream\n") + 9 : data.index(b"\nendstream")]
    while data[:1] == b"\x78":
        data = zlib.decompress(data)
    return data


def by_pypdf(path: Path) -> object:
    """The text of all pages."""
    import pypdf

    return [page.extract_text() for page in pypdf.PdfReader(path).pages]


def by_etree(path: Path) -> object:
    """The whole tree, as text."""
    from xml.etree import ElementTree

    return ElementTree.tostring(ElementTree.parse(path).getroot())


def by_json(path: Path) -> object:
    """The whole tree."""
    return json.loads(path.read_bytes())


def by_csv(path: Path) -> object:
    """All rows."""
    import csv

    csv.field_size_limit(sys.maxsize)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def by_hl7(path: Path) -> object:
    """The whole message by python-hl7."""
    import hl7 as library

    return library.parse(path.read_text())
