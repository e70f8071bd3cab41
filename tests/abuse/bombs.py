"""Small files that cost gigabytes or minutes where they are read without care.

Each must end with a code for its reason within the bounds: what its worker takes of memory and processor time is
measured, not believed. The negative control is the plain way to read the same bytes, in a process of the same limits.
"""

# ruff: noqa: E501  (a line a bomb)

from __future__ import annotations

import base64
import bz2
import io
import random
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))  # dicom_maker stands there


from abuse.bomb_parts import (
    _MAIN,
    DEFLATED,
    END,
    EXPLICIT,
    HTJ2K,
    J2K,
    JLS,
    JPEG,
    LOSSLESS,
    RLE,
    SEQUENCE_END,
    SHEET,
    by_csv,
    by_etree,
    by_hl7,
    by_json,
    by_openpyxl,
    by_pillow,
    by_pydicom,
    by_pypdf,
    by_zipfile,
    by_zlib,
    chunk,
    coded,
    deflated,
    element,
    fhir,
    hl7,
    image,
    item,
    jpeg,
    laughs,
    meta,
    pdf,
    png,
    siz,
    workbook,
    zipped,
    zlibbed,
)
from abuse.mutants import CODE, ENDED, generated_objects
from abuse.outcome import Outcome
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef, Unreadable
from phenotype.ingest.reading import read_file
from phenotype.sandbox import Ended, Limits, Sandbox

LIMITS = Limits(memory_bytes=3 << 30, cpu_seconds=10, wall_seconds=60.0, file_bytes=1 << 30)
SECONDS, MEGABYTES = 6.0, 1200  # of one bomb: the time, and what it adds to the memory that is resident
PLAIN = Limits(memory_bytes=(MEGABYTES + 300) << 20, cpu_seconds=6, wall_seconds=30.0, file_bytes=1 << 30)
CONTROLS = 12  # so many of them are also read in the plain way, in CI


# ------------------------------------------------------------------------------------------------ the bombs


@dataclass(frozen=True)
class Bomb:
    """`make` gives the bytes of a size near 1 (0.3 to 1.5); `plain` reads a file of them without care."""

    name: str
    file: str  # its name in the delivery
    make: Callable[[float], bytes]
    plain: Callable[[Path], object] = by_pydicom
    member: str = ""


def _giga(scale: float) -> int:
    return int(scale * 2) * (1 << 30) or 1 << 30


def _nested(depth: int, vr: bytes = b"SQ", known: bool = False) -> bytes:
    if not known:
        return element(8, 0x1140, vr, item(length=END), END) * depth
    inner = b""
    for _ in range(min(depth, 6000)):  # each level is copied into the next
        inner = element(8, 0x1140, vr, item(inner))
    return inner


def _many(scale: float, what: bytes) -> bytes:
    return what * int(300_000 * scale)


def _lut(scale: float) -> bytes:
    tables = b"".join(element(0x28, 0x1101 + i, b"US", struct.pack("<HHH", 0, 0, 16)) for i in range(3))
    tables += b"".join(element(0x28, 0x1201 + i, b"OW", bytes(4)) for i in range(3))
    pixels = element(0x7FE0, 0x10, b"OW", bytes(8192))
    return image(EXPLICIT, pixels, between=tables, photometric=b"PALETTE COLOR ", frames=str(int(1e6 * scale)))


_RAW = element(0x7FE0, 0x10, b"OW", bytes(8192))
_HEAD = image(DEFLATED, b"")[132 + len(meta(DEFLATED)) - 132 :]
_PDF_CLASS = "1.2.840.10008.5.1.4.1.1.104.1"

BOMBS = (
    Bomb("deflated data set: zeros", "a.dcm", lambda s: meta(DEFLATED) + deflated(_giga(s), _HEAD)),
    Bomb("deflated data set: one value", "a.dcm", lambda s: meta(DEFLATED) + deflated(_giga(s), _HEAD + element(9, 1, b"UN", length=1 << 30))),
    Bomb("deflated data set without end", "a.dcm", lambda s: meta(DEFLATED) + deflated(_giga(s), _HEAD, whole=False)),
    Bomb("zip: a member of gigabytes", "a.zip", lambda s: zipped("a", deflated(3 << 30), 3 << 30), by_zipfile, "000000/a"),
    Bomb("zip: a member larger than it says", "a.zip", lambda s: zipped("a", deflated(_giga(s)), 1000), by_zipfile, "000000/a"),
    Bomb("zip: bzip2 larger than it says", "a.zip", lambda s: zipped("a", bz2.compress(bytes(1 << 26)) * int(20 * s + 1), 1000, 12), by_zipfile, "000000/a"),
    Bomb("zip: lzma with a giant dictionary", "a.zip", lambda s: zipped("a", b"\x09\x04\x05\x00\x5d\xff\xff\xff\xff" + bytes(100), 1 << 20, 14), by_zipfile, "000000/a"),
    Bomb("PNG: 100,000 x 100,000 declared", "a.png", lambda s: png(100_000, int(1e5 * s), zlib.compress(bytes(1000))), by_pillow),
    Bomb("PNG: gigabytes of pixels", "a.png", lambda s: png(60_000, 30_000, zlibbed(1 << 31)), by_pillow),
    Bomb("PNG: a text of gigabytes", "a.png", lambda s: png(8, 8, zlib.compress(bytes(72)), extra=chunk(b"zTXt", b"a\0\0" + zlibbed(_giga(s)))), by_pillow),
    Bomb("PNG: a colour profile of gigabytes", "a.png", lambda s: png(8, 8, zlib.compress(bytes(72)), extra=chunk(b"iCCP", b"a\0\0" + zlibbed(_giga(s)))), by_pillow),
    Bomb("JPEG: 65,500 x 65,500 declared", "a.jpg", lambda s: jpeg(0xC0, 65_500, int(43_000 * s)), by_pillow),
    Bomb("native pixels: giant size", "a.dcm", lambda s: image(EXPLICIT, _RAW, 65_535, int(43_000 * s))),
    Bomb("native pixels: GIANT frames", "a.dcm", lambda s: image(EXPLICIT, _RAW, frames=str(int(1.4e9 * s)))),
    Bomb("native pixels: 65,535 samples", "a.dcm", lambda s: image(EXPLICIT, _RAW, samples=65_535, rows=int(40_000 * s))),
    Bomb("native pixels: a length of 4 GB", "a.dcm", lambda s: image(EXPLICIT, element(0x7FE0, 0x10, b"OW", bytes(99), 0xFFFFFFF0))),
    Bomb("palette: millions of frames", "a.dcm", _lut),
    Bomb("JPEG 2000: giant size", "a.dcm", lambda s: image(J2K, coded(siz(60_000, int(40_000 * s))), 60_000, int(40_000 * s))),
    Bomb("JPEG 2000: another size than the header's", "a.dcm", lambda s: image(J2K, coded(siz(1 << 30, int((1 << 30) * s))))),
    Bomb("JPEG 2000: tiles of one pixel", "a.dcm", lambda s: image(J2K, coded(siz(8000, 8000, tile=(1, 1))), 8000, 8000)),
    Bomb("JPEG 2000: 16,384 components", "a.dcm", lambda s: image(J2K, coded(siz(2000, 2000, components=16_384)), 2000, 2000)),
    Bomb("JPEG 2000: one byte of a real size changed", "a.dcm", lambda s: image(J2K, coded(_flipped(s)))),
    Bomb("HTJ2K: giant size", "a.dcm", lambda s: image(HTJ2K, coded(siz(50_000, int(40_000 * s))), 50_000, int(40_000 * s))),
    Bomb("JPEG-LS: giant size", "a.dcm", lambda s: image(JLS, coded(jpeg(0xF7, 65_535, int(32_000 * s))), 65_535, int(32_000 * s), bits=8)),
    Bomb("JPEG lossless: giant size", "a.dcm", lambda s: image(LOSSLESS, coded(jpeg(0xC3, 60_000, int(35_000 * s), 16)), 60_000, int(35_000 * s))),
    Bomb("JPEG: giant size", "a.dcm", lambda s: image(JPEG, coded(jpeg(0xC0, 60_000, int(43_000 * s))), 60_000, int(43_000 * s), bits=8)),
    Bomb("RLE: giant size", "a.dcm", lambda s: image(RLE, coded(struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"), 50_000, int(40_000 * s))),
    Bomb("RLE: segments beyond the end", "a.dcm", lambda s: image(RLE, coded(struct.pack("<16I", 15, *[0xFFFFFFF0] * 15) + bytes(99)))),
    Bomb("RLE: GIANT frames", "a.dcm", lambda s: image(RLE, coded(struct.pack("<16I", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"), frames=str(int(1e9 * s)))),
    Bomb("offset table of millions", "a.dcm", lambda s: image(RLE, coded(bytes(64), table=bytes(4 * int(2e6 * s))), frames="2")),
    Bomb("extended offset table beyond the end", "a.dcm", lambda s: image(RLE, coded(bytes(64), bytes(64)), frames="2", between=element(0x7FE0, 1, b"OB", struct.pack("<2Q", 1 << 62, 1 << 63)) + element(0x7FE0, 2, b"OB", struct.pack("<2Q", 1 << 62, 1 << 62)))),
    Bomb("hundreds of thousands of empty fragments", "a.dcm", lambda s: image(J2K, element(0x7FE0, 0x10, b"OB", length=END) + item() + _many(s, item()) + SEQUENCE_END)),
    Bomb("sequences 100,000 deep", "a.dcm", lambda s: image(EXPLICIT, b"", before=_nested(int(1e5 * s)))),
    Bomb("sequences thousands deep, of known length", "a.dcm", lambda s: image(EXPLICIT, _RAW, before=_nested(int(6e3 * s), known=True))),
    Bomb("unknown values 100,000 deep", "a.dcm", lambda s: image(EXPLICIT, b"", before=_nested(int(1e5 * s), b"UN"))),
    Bomb("SR: content 30,000 deep", "a.dcm", lambda s: meta(EXPLICIT, "1.2.840.10008.5.1.4.1.1.88.11") + element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.88.11\0") + (element(0x40, 0xA730, b"SQ", item(length=END), END) * int(30_000 * s))),
    Bomb("encapsulated PDF: gigabytes of a page", "a.dcm", lambda s: meta(EXPLICIT, _PDF_CLASS) + element(8, 0x16, b"UI", _PDF_CLASS.encode() + b"\0") + element(8, 0x18, b"UI", b"1.2.3.4\0") + element(8, 0x50, b"SH", b"A1") + element(0x20, 0xD, b"UI", b"1.2\0") + element(0x42, 0x11, b"OB", _even(pdf(zlibbed(1 << 30))))),
    Bomb("PDF: gigabytes of a page", "A1.pdf", lambda s: pdf(zlibbed(_giga(s))), by_zlib),
    Bomb("PDF: inflated three times", "A1.pdf", lambda s: pdf(zlib.compress(zlib.compress(zlibbed(1 << 30))), "/FlateDecode/FlateDecode/FlateDecode"), by_zlib),
    Bomb("PDF: run lengths of gigabytes", "A1.pdf", lambda s: pdf(zlib.compress(b"\x81 " * int(15e6 * s)), "/FlateDecode/RunLengthDecode"), by_pypdf),
    Bomb("PDF: pages in a circle", "A1.pdf", lambda s: pdf(b"x", kids="2 0 R " * 50), by_pypdf),
    Bomb("xlsx: a sheet of gigabytes", "a.xlsx", lambda s: workbook(sheet1=SHEET % (b"<row>" + b"<c/>" * int(10e6 * s) + b"</row>")), by_openpyxl),
    Bomb("xlsx: entities of entities", "a.xlsx", lambda s: workbook(sheet1=laughs(10, 10) + SHEET % b"<row><c><v>&a9;</v></c></row>"), by_openpyxl),
    Bomb("xlsx: texts of gigabytes", "a.xlsx", lambda s: workbook(strings=b'<sst xmlns="%s"><si><t>%s</t></si></sst>' % (_MAIN, b"a" * int(2e8 * s))), by_openpyxl),
    Bomb("XML: entities of entities", "a.xml", lambda s: b'<?xml version="1.0"?>' + laughs(10, 10) + b"<eCitation>&a9;</eCitation>", by_etree),
    Bomb("XML: one long entity, often", "a.xml", lambda s: b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "%s">]><eCitation>%s</eCitation>' % (b"x" * 100_000, b"&a;" * int(30_000 * s)), by_etree),
    Bomb("XML: a million deep", "a.xml", lambda s: b'<?xml version="1.0"?><eCitation>' + b"<a>" * int(1e6 * s), by_etree),
    Bomb("JSON: a million deep", "a.json", lambda s: b'{"resourceType":"Bundle","entry":' + b"[" * int(1e6 * s), by_json),
    Bomb("JSON: a number of millions of digits", "a.json", lambda s: fhir(n=1)[:-2] + b"9" * int(1e7 * s) + b"}", by_json),
    Bomb("FHIR: a PDF of gigabytes", "a.json", lambda s: fhir(presentedForm=[{"contentType": "application/pdf", "data": base64.b64encode(pdf(zlibbed(1 << 30))).decode()}])),
    Bomb("HL7: a giant line", "a.hl7", lambda s: hl7(b"OBX|1|TX|a^b||" + b"word " * int(8e6 * s)), by_hl7),
    Bomb("HL7: hundreds of thousands of orders", "a.hl7", lambda s: hl7(b"OBX|1|TX|a^b||word\r", int(300_000 * s)), by_hl7),
    Bomb("HL7: millions of repetitions", "a.hl7", lambda s: hl7(b"OBX|1|TX|a^b||" + b"~^&" * int(5e6 * s)), by_hl7),
    Bomb("table: one giant cell", "a.csv", lambda s: b'accession,text\nA1,"' + b"word " * int(1e7 * s) + b'"\n', by_csv),
    Bomb("table: millions of columns", "a.csv", lambda s: b"accession,text" + b",x" * int(5e6 * s) + b"\nA1,b\n", by_csv),
)  # fmt: skip


def _even(data: bytes) -> bytes:
    return data + b"\0" * (len(data) % 2)


def _flipped(scale: float) -> bytes:
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    read = dcmread(io.BytesIO(generated_objects()[4]))
    stream = bytearray(next(generate_frames(read.PixelData, number_of_frames=1)))
    stream[8 + int(scale * 40) % 38] ^= 0x40
    return bytes(stream)


# ------------------------------------------------------------------------------------------------ what they cost


def careful(path: str, member: str) -> tuple[str, float, float]:
    """The reason, and what was taken: seconds of computing, megabytes that became resident."""
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    began = time.process_time()
    ref = FileRef(path, member)
    read = read_file(ref, {})
    reason = read.reason
    if type(read.content).__name__ in ("DicomFile", "PictureFile"):
        try:
            read_pixels([ref])
        except Unreadable as error:
            reason = error.code
    elif read.content is not None:
        rows = read.content.rows
        reason = ",".join(sorted({row.refusal for row in rows if row.refusal})) or ("" if rows else "no_rows")
    return reason, time.process_time() - began, _resident("VmHWM") - before


def _resident(name: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def careless(plain: Callable[[Path], object], path: str) -> tuple[float, float]:
    """What the plain way takes."""
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    began = time.process_time()
    kept = plain(Path(path))
    took = time.process_time() - began, _resident("VmHWM") - before
    del kept
    return took


def run(count: int, seed: int) -> Outcome:
    """`count` bombs, each of them once, then again in sizes drawn at random."""
    draw = random.Random(seed)
    chosen = draw.sample(BOMBS, min(count, len(BOMBS))) + draw.choices(BOMBS, k=max(0, count - len(BOMBS)))
    controls = CONTROLS if count <= len(BOMBS) else len(BOMBS)
    reasons: Counter[str] = Counter()
    problems: list[str] = []
    worst = [0.0, 0.0]
    beyond = tried_plainly = 0
    with tempfile.TemporaryDirectory() as name, Sandbox(1, LIMITS) as sandbox, Sandbox(1, PLAIN) as other:
        for number, bomb in enumerate(chosen):
            path = Path(name) / bomb.file
            path.write_bytes(bomb.make(1.0 if number < len(BOMBS) else draw.uniform(0.5, 1.5)))
            seconds = megabytes = 0.0
            try:
                reason, seconds, megabytes = sandbox.submit(careful, str(path), bomb.member).result()
            except Ended as error:
                reason = error.code
            except Exception as error:
                reason = f"PROBLEM {type(error).__name__}"
            reasons[reason.partition(":")[0]] += 1
            worst = [max(worst[0], seconds), max(worst[1], megabytes)]
            fine = reason in ENDED or all(CODE.fullmatch(part) for part in reason.split(","))
            if not fine or seconds > SECONDS or megabytes > MEGABYTES:
                problems.append(f"PROBLEM {bomb.name}: '{reason}' after {seconds:.1f} s and {megabytes:.0f} MB")
            if number < controls:
                tried_plainly += 1
                beyond += _is_beyond(other, bomb, path)
            path.unlink()
    tried = len(chosen)
    told = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common())
    cost = f"at most {worst[0]:.1f} s of computing and {worst[1]:.0f} MB"
    return Outcome(tried, tried - len(problems), f"{beyond} of {tried_plainly}", (told, cost, *problems))


def _is_beyond(sandbox: Sandbox, bomb: Bomb, path: Path) -> bool:
    """Whether the plain way breaks the bounds, or its process; that a library refuses does not count."""
    try:
        seconds, megabytes = sandbox.submit(careless, bomb.plain, str(path)).result()
    except (Ended, RecursionError):
        return True
    except Exception:
        return False
    return seconds > SECONDS or megabytes > MEGABYTES
