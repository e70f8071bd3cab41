"""De-identified DICOM objects: one read, de-identified, written beside, read back and put in place.

This is what runs in the limited processes; `phenotype.export.dicom_folder` makes a folder of many.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from phenotype.export import burned_in
from phenotype.export.deidentify import Deidentifier, Options, Person
from phenotype.export.deidentify_known import known_of
from phenotype.export.scrub_names import Known, parts
from phenotype.imaging import encoding
from phenotype.imaging.files import FileRef, open_bytes
from phenotype.stage import Refused

_FLAGGED: Final = ("declared", "likely")  # of Instance.burned_in
_PIXELS: Final = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NOT_IMAGES: Final = ("EncapsulatedDocument", "EncapsulatedDocumentLength", "ContentSequence", "WaveformSequence")


@dataclass(frozen=True, slots=True)
class Plan:
    """How objects are written: below which folder, with which secret for UIDs, options, and what becomes of text."""

    folder: str
    key: bytes = field(repr=False)
    options: Options
    burned_in: str


@dataclass(frozen=True, slots=True)
class Item:
    """An object to be written: where it lies, where it goes, and whose it is."""

    ref: FileRef = field(repr=False)
    target: str
    person: Person
    burned_in: str


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written and read back."""

    sha256: str
    size: int
    sop_class: str
    transfer_syntax: str
    burned_in: str  # declared, denied, likely, kept as flagged; verified: read by OCR, no text left; or empty
    masked: int  # boxes painted over
    outside: bool  # of ultrasound regions painted over
    counts: dict[str, int]  # attributes by what was done with them


def write_objects(plan: Plan, items: dict[str, Item]) -> dict[str, Written]:
    """De-identify and write objects; each one that cannot leave raises `Refused` or `Unreadable` with its reason."""
    deidentifier = Deidentifier(plan.key, plan.options)
    done = {}
    for instance, item in items.items():
        content, written = deidentified(open_bytes(item.ref), item.person, deidentifier, plan.burned_in, item.burned_in)
        put(Path(plan.folder, item.target), content)
        done[instance] = written
    return done


def deidentified(
    source: bytes, person: Person, deidentifier: Deidentifier, mode: str = "quarantine", flagged: str = ""
) -> tuple[bytes, Written]:
    """The bytes of a de-identified object, and what was done.

    `mode` says what becomes of text in pixels ("quarantine", "mask", "keep"), `flagged` what ingestion thought of it.
    Raises `Refused`: "burned_in:declared", "burned_in:likely", "text_remains", "identifier_in_pixels",
    "overlay_in_pixels", "not_an_image", "no_pixel_data", "missing_tag:SOPInstanceUID", "transfer_syntax", "write_back";
    and `Unreadable` as of `encoding`.
    """
    with encoding.quiet():
        where = encoding.layout(source)
        for _ in encoding.elements(where):
            pass  # walked before anything is parsed
        data = encoding.dataset(where)
        name = UID(str(data.get("SOPClassUID", "") or where.sop_class)).keyword
        if any(keyword in data for keyword in _NOT_IMAGES) or not name.endswith("ImageStorage"):
            raise Refused("not_an_image", "documents, results and unknown objects do not leave")
        pixels = next((keyword for keyword in _PIXELS if keyword in data), None)
        if pixels is None:
            raise Refused("no_pixel_data", "an image without its pixels")
        if str(data.get("BurnedInAnnotation", "")).strip().upper() == "YES":
            flagged = "declared"
        if mode == "quarantine" and flagged in _FLAGGED:
            raise Refused(f"burned_in:{flagged}", "text stands or may stand in the pixels; mask paints it over")
        known = person.known | known_of(data)
        syntax = _syntax(where)
        masked = burned_in.Masked(0, False)
        _trim(data, pixels, where.transfer_syntax)
        _clear_overlays(data, pixels, where)
        if where.transfer_syntax not in encoding.NATIVE and pixels == "PixelData":
            data.PixelData = without_comments(data.PixelData)
        if mode == "mask":
            masked = burned_in.mask_text(data)
            if masked.changed:
                syntax = str(ExplicitVRLittleEndian)
        before = data[pixels].value
        _refuse_names_in(before, known)
        counts = deidentifier.apply(data, replace(person, known=known), clean_pixels=mode == "mask")
        if mode == "mask":
            data.BurnedInAnnotation, flagged = "NO", "verified"
        content = _encoded(data, syntax)
        _read_back(content, pixels, before)
    digest = hashlib.sha256(content).hexdigest()
    return content, Written(digest, len(content), name, syntax, flagged, masked.boxes, masked.outside, dict(counts))


def put(path: Path, content: bytes) -> None:
    """Write a file beside its place and move it there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with beside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _syntax(where: encoding.Layout) -> str:
    """The transfer syntax to write: that of the source, but for a deflated one, and one that its bytes contradict."""
    if where.transfer_syntax in encoding.DEFLATED:
        return encoding.EXPLICIT
    if where.transfer_syntax in encoding.NATIVE:
        return encoding.IMPLICIT if where.implicit else encoding.EXPLICIT if where.little else encoding.BIG
    return where.transfer_syntax


def _trim(data: Dataset, pixels: str, syntax: str) -> None:
    """Cut what stands behind the last pixel: nobody sees it, and anything may be hidden there."""
    if syntax not in encoding.NATIVE or pixels != "PixelData":
        return
    frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
    bits = int(data.Rows) * int(data.Columns) * samples * frames * int(data.BitsAllocated)
    if str(data.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        bits = bits * 2 // 3
    length = (bits + 7) // 8
    value = data.PixelData
    if len(value) > length:
        data.PixelData = value[:length] + b"\0" * (length % 2)


def _clear_overlays(data: Dataset, pixels: str, where: encoding.Layout) -> None:
    """Clear the bits beside those of the pixels where an overlay says that it lies there: letters are drawn in it, and
    its description is removed, not its bits."""
    groups = {tag.group for tag in data.keys() if tag.group & 0xFF01 == 0x6000}  # noqa: SIM118  (elements otherwise)
    allocated, stored = int(data.get("BitsAllocated") or 0), int(data.get("BitsStored") or 0)
    if all((group, 0x3000) in data for group in groups) or stored >= allocated:
        return
    if where.transfer_syntax not in encoding.NATIVE or allocated not in (8, 16, 32) or pixels != "PixelData":
        raise Refused("overlay_in_pixels", "an overlay lies in bits of coded pixels")
    lowest = int(data.get("HighBit", stored - 1)) - stored + 1
    order = "<" if where.little else ">"
    words = np.frombuffer(data.PixelData, dtype=f"{order}u{allocated // 8}")
    data.PixelData = (words & (((1 << stored) - 1) << max(lowest, 0))).astype(words.dtype).tobytes()


def without_comments(pixels: bytes) -> bytes:
    """Coded frames with what their comments and application segments say overwritten by zeros; nothing moves."""
    clean, at = bytearray(pixels), 0
    while clean[at : at + 4] == b"\xfe\xff\x00\xe0":
        start = at + 8
        at = start + int.from_bytes(clean[at + 4 : start], "little")
        _blank(clean, start, min(at, len(clean)))
    return bytes(clean)


def _blank(frame: bytearray, start: int, end: int) -> None:
    long = frame[start : start + 4] == b"\xff\x4f\xff\x51"  # JPEG 2000; else JPEG and JPEG-LS
    if not long and frame[start : start + 2] != b"\xff\xd8":
        return
    last, place = (0x90, 0x93, 0xD9) if long else (0xDA, 0xD9), start + 2
    while place + 4 <= end and frame[place] == 0xFF and frame[place + 1] not in last:
        marker, stop = frame[place + 1], min(end, place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big"))
        said = bytes(frame[place + 4 : stop])
        needed = (said[:5] == b"JFIF\0" and len(said) == 14) or (said[:5] == b"Adobe" and len(said) == 12)
        if long and marker == 0x64:
            frame[place + 6 : stop] = bytes(max(0, stop - place - 6))  # the kind of comment stays
        elif not long and (marker == 0xFE or (0xE0 <= marker <= 0xEF and marker != 0xE8 and not needed)):
            frame[place + 4 : stop] = bytes(len(said))  # of APP8 colours of JPEG-LS are read
        place = max(stop, place + 2)


def _refuse_names_in(pixels: bytes, known: Known) -> None:
    """Coded pixels may carry comments. A name or number of the person among them is refused, not mended."""
    lowered = pixels.lower()
    words = [part for name in known.names for part in parts(name) if len(part) >= 5]
    words += [number for number in known.numbers if len(number) >= 6 and len(set(number)) >= 3]
    for word in words:
        for charset in ("utf-8", "latin-1", "utf-16-le"):
            coded = word.lower().encode(charset, "replace")
            if b"?" not in coded and coded in lowered:
                raise Refused("identifier_in_pixels", "the coded pixels carry a name or number of the person")


def _encoded(data: Dataset, syntax: str) -> bytes:
    if not data.get("SOPInstanceUID"):
        raise Refused("missing_tag:SOPInstanceUID", "an object without identity")
    if UID(syntax).type != "Transfer Syntax":
        raise Refused("transfer_syntax", "a transfer syntax that cannot be written")
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    data.file_meta, data.preamble = meta, b"\0" * 128
    stream = BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _read_back(content: bytes, pixels: str, before: Any) -> None:
    where = encoding.layout(content)
    for _ in encoding.elements(where):
        pass
    if encoding.dataset(where)[pixels].value != before:
        raise Refused("write_back", "what was written does not read the same")
