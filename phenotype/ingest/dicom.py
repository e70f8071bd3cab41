"""The header of a DICOM object as plain values, what must hold before its pixels are decoded, and its digests.

One walk over the bytes finds every element; only the values that are kept are converted; each byte is hashed once.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np
from pydicom.uid import UID_dictionary

from phenotype.executors import Refused
from phenotype.imaging import encoding
from phenotype.imaging.codestream import codestream_shape
from phenotype.imaging.decoding import decodable
from phenotype.imaging.dicom import frame_stack, slice_of
from phenotype.imaging.files import Unreadable
from phenotype.imaging.geometry import Slice
from phenotype.imaging.header import Header
from phenotype.ingest import checks
from phenotype.ingest.contents import DicomFile, Ignored, Records, age, day, sex_of

DICOMDIR = "1.2.840.10008.1.3.10"
MAX_PIXEL_BYTES = 4 << 30  # of one object, decoded
# What tells stacks in one series apart, in the order in which `DicomFile.acquisition` joins them. Some scanners write
# a number of its own for each slice: who groups slices must not take a difference for a reason by itself.
ACQUISITION = (
    "AcquisitionNumber",
    "EchoNumbers",
    "EchoTime",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "TriggerTime",
    "InversionTime",
    "FrameReferenceTime",
)  # and last, as a number, what the values are of: _COMPONENTS
_COMPONENTS = ("M", "P", "R", "I", "W", "F", "IP", "OP", "ADC", "FA", "TRACEW", "IN_PHASE", "OUT_PHASE", "OPP_PHASE")
# The b-value before it became standard: private group, element, beginning of its owner's name
_PRIVATE_B = ((0x0019, 0x100C, b"SIEMENS"), (0x0043, 0x1039, b"GEMS_PARM"), (0x2001, 0x1003, b"Philips"))
# Objects with pixels that are no image of a patient: results, plans, doses, overlays
_NOT_IMAGES = frozenset(
    f"{name}Storage" for name in ("RTImage", "Segmentation", "LabelMapSegmentation", "ParametricMap", "RTDose")
)
_CODESTREAMS = "1.2.840.10008.1.2.4."  # JPEG and its successors
_RLE = "1.2.840.10008.1.2.5"
_VIDEO = re.compile(r"^1\.2\.840\.10008\.1\.2\.(4\.10[0-8](\.1)?|7\.[123])$")
_SUBSAMPLED = {"YBR_FULL_422": (2, 3), "YBR_PARTIAL_422": (2, 3), "YBR_PARTIAL_420": (1, 2)}  # stored of what is meant
_PIXELS = (encoding.PIXEL_DATA, encoding.FLOAT_PIXEL_DATA, encoding.DOUBLE_FLOAT_PIXEL_DATA)
_NUMBER = re.compile(r"[+-]?\d{1,8}(\.\d{1,8})?([eE][+-]?\d{1,2})?")


@dataclass(frozen=True, slots=True)
class _Pixels:
    """The stored pixels: parts of the body, in words of so many bytes where they stand in big-endian order."""

    parts: tuple[tuple[int, int], ...]
    word: int = 1


def read_object(data: bytes) -> tuple[str, DicomFile | Records]:
    """The digest of a DICOM object, and what it holds: a header, or the report of a document.

    The digest is the same for the same bytes: SHA-256 over those of all but the pixels and of the pixels, which is
    `pixel_digest`; of a deflated data set, after inflation. Of a document it is SHA-256 of its bytes.

    Raises `Ignored` with a rule ("dicomdir", "video", "not_an_image:<SOP class>", "not_a_report:<SOP class>"), or
    `Refused` with a reason: "not_dicom", "bad_header", "bad_structure", "truncated", "inflation", "jpip",
    "missing_tag:<keyword>", "bad_value:<keyword>", "no_pixel_data", "transfer_syntax", "codestream", "too_large". No
    other exception but MemoryError leaves it, and no message carries personal data.
    """
    try:
        return _read(data)
    except (Refused, MemoryError):  # what it needs too much of is a matter of limits, not of the header
        raise
    except Unreadable as error:
        raise Refused(error.code, error.message) from None
    except Exception as error:  # whatever damaged values lead to
        raise Refused("bad_header", f"the header cannot be read ({type(error).__name__})") from None


def read_header(data: bytes) -> DicomFile:
    """What `read_object` finds of an image; a document is ignored as one."""
    content = read_object(data)[1]
    if isinstance(content, Records):
        raise Ignored("not_an_image:document", "an object without an image")
    return content


def _read(data: bytes) -> tuple[str, DicomFile | Records]:
    where = encoding.layout(data)
    head = Header(where, encoding.index(where))
    text = head.text
    sop_class = text("SOPClassUID") or where.sop_class
    if DICOMDIR in (sop_class, where.sop_class) or "DirectoryRecordSequence" in head:
        raise Ignored("dicomdir", "a directory; the files themselves are read")
    keyword = _registered(sop_class)[1]
    name = keyword or "private"  # what a file writes there could be anything
    if "ImageStorage" not in name and (name in _NOT_IMAGES or _whole(text("Rows")) is None):
        return hashlib.sha256(data).hexdigest(), _document(where, sop_class, keyword)
    if name in _NOT_IMAGES:
        raise Ignored(f"not_an_image:{name}", "an object without an image")
    sop_uid = text("SOPInstanceUID") or where.sop_instance
    if not sop_uid:
        raise Refused("missing_tag:SOPInstanceUID", "an object without identity")
    if _VIDEO.match(where.transfer_syntax):
        raise Ignored("video", "moving pictures")
    rows, columns = _positive(head, "Rows"), _positive(head, "Columns")
    frames = _positive(head, "NumberOfFrames", 1)
    pixels = _pixels(head, rows, columns, frames)
    digest, pixel_digest = _digests(data, where, pixels)

    place, stacked = _place(head, frames)
    modality, modality_basis = checks.modality_of(name, text("Modality"))
    if "SecondaryCapture" in name and text("ConversionType") == "SD":  # a scanned sheet of paper is no radiograph
        modality, modality_basis = "OT", "class"
    kinds = head.texts("ImageType")
    near = tuple(map(text, ("SeriesDescription", "AcquisitionDeviceProcessingDescription", "ProtocolName")))
    far = tuple(map(text, ("PerformedProcedureStepDescription", "RequestedProcedureDescription", "StudyDescription")))
    body_part, body_part_basis = checks.body_part_of(
        text("BodyPartExamined"), _codes(head, "AnatomicRegionSequence"), near + far
    )
    view, view_basis = checks.view_of(
        modality, text("ViewPosition"), _codes(head, "ViewCodeSequence"), near, far, head.texts("PatientOrientation")
    )
    birth, study_date, meaning = text("PatientBirthDate"), text("StudyDate"), text("PhotometricInterpretation")
    return digest, DicomFile(
        sop_class=name,
        sop_uid=sop_uid,
        study_uid=text("StudyInstanceUID"),
        series_uid=text("SeriesInstanceUID"),
        transfer_syntax=where.transfer_syntax,
        modality=modality,
        rows=rows,
        columns=columns,
        frames=frames,
        patient_number=text("PatientID"),
        issuer=text("IssuerOfPatientID"),
        patient_name=text("PatientName"),
        birth_date=birth,
        sex=sex_of(text("PatientSex")),
        age_years=age(text("PatientAge"), day(birth), day(study_date)),
        accession=text("AccessionNumber"),
        study_date=study_date,
        study_time=text("StudyTime"),
        study_description=far[-1],
        series_description=near[0],
        body_part=body_part,
        view=view,
        frame_of_reference=text("FrameOfReferenceUID"),
        series_number=text("SeriesNumber"),
        number=_whole(text("InstanceNumber")),
        localiser=place.localiser,
        position=place.position if stacked else None,
        orientation=place.orientation if stacked else None,
        spacing=place.pixel_spacing,
        thickness=place.thickness,
        pixel_digest=pixel_digest,
        acquisition=_acquisition(head, modality, kinds),
        lossy=checks.is_lossy(where.transfer_syntax, text("LossyImageCompression")),
        burned_in=checks.burned_in_of(
            text("BurnedInAnnotation"), text("RecognizableVisualFeatures"), name, modality, kinds, meaning
        ),
        view_basis=view_basis,
        modality_basis=modality_basis,
        body_part_basis=body_part_basis,
    )


def _document(where: encoding.Layout, sop_class: str, keyword: str) -> Records:
    """The report in an object without an image."""
    from phenotype.ingest.reports import documents

    if not sop_class:
        raise Refused("missing_tag:SOPClassUID", "an object that does not say what it is")
    if keyword not in documents.CLASSES:
        raise Ignored(f"not_an_image:{keyword or 'private'}", "an object without an image")
    return documents.read_document(keyword, where)


def _registered(uid: str) -> tuple[str, str]:
    """Name and keyword of a UID in the registry of PS3.6; empty where it is a private one."""
    entry = UID_dictionary.get(uid)
    return (entry[0], entry[4]) if entry else ("", "")


def _place(head: Header, frames: int) -> tuple[Slice, bool]:
    """Where the image lies, and whether that holds for all of it: frames that are no stack lie nowhere."""
    if "PerFrameFunctionalGroupsSequence" not in head:
        return slice_of(head), frames == 1
    if frames == 1:
        return slice_of(head, 0), True
    place, stack = slice_of(head), frame_stack(head, frames)
    if stack is None or stack.left_out:
        return place, False
    depth, *within = stack.spacing_mm
    return (
        Slice(
            rows=place.rows,
            columns=place.columns,
            position=stack.origin,
            orientation=stack.orientation,
            pixel_spacing=(within[0], within[1]),
            thickness=depth,
            localiser=place.localiser,
        ),
        True,
    )


def _pixels(head: Header, rows: int, columns: int, frames: int) -> _Pixels:
    """Where the stored pixels are, after their length, syntax and codestream were checked against the header."""
    where, syntax = head.where, head.where.transfer_syntax
    tag = next((tag for tag in _PIXELS if tag in head.found.spans), None)
    if tag is None:
        raise Refused("no_pixel_data", "an image without its pixels")
    bits, samples = _positive(head, "BitsAllocated"), _positive(head, "SamplesPerPixel", 1)
    meaning = head.text("PhotometricInterpretation")
    if not meaning:
        raise Refused("missing_tag:PhotometricInterpretation", "the meaning of the pixels is not told")
    expected = (rows * columns * samples * frames * bits + 7) // 8
    if expected > MAX_PIXEL_BYTES:
        raise Refused("too_large", "more pixels than are read at once")
    fragments = head.found.fragments.get(tag)
    if syntax in encoding.NATIVE:
        if fragments is not None:
            raise Refused("bad_structure", "pixels in fragments, in a transfer syntax that has none")
        stored, whole = _SUBSAMPLED.get(meaning, (1, 1))
        vr, start, end = head.found.spans[tag]
        stop = start + expected * stored // whole
        if stop > end:
            raise Refused("truncated", "fewer pixels than the header promises")
        swapped = 1 if where.little or vr == b"OB" else max(bits // 8, 2)
        return _Pixels(((start, stop),), swapped)
    if not decodable(syntax, _whole(head.text("BitsStored")) or bits):
        raise Refused("transfer_syntax", f"no decoder for {_registered(syntax)[0] or 'a private one'}")
    if fragments is None:
        raise Refused("bad_structure", "pixels not in fragments, in a transfer syntax that has nothing else")
    parts = tuple(part for part in fragments[1:] if part[0] < part[1])  # the first item is the table of offsets
    if len(parts) < frames:
        raise Refused("truncated", "fewer fragments than frames")
    _check_codestreams(memoryview(where.body), syntax, parts, (rows, columns, samples, bits))
    return _Pixels(parts)


def _check_codestreams(
    body: memoryview, syntax: str, parts: tuple[tuple[int, int], ...], told: tuple[int, int, int, int]
) -> None:
    """What each codestream says of itself against the header: a decoder believes the one, its caller the other."""
    rows, columns, samples, bits = told
    if syntax.startswith(_CODESTREAMS):
        for i, (start, end) in enumerate(parts):
            shape = codestream_shape(body[start:end])
            if shape is None:
                if i == 0:
                    raise Refused("codestream", "no codestream where one must begin")
                continue  # a frame may go on in the next fragment
            if shape[:3] != (rows, columns, samples) or shape[3] > bits:
                raise Refused("codestream", "the codestream declares another size than the header")
    elif syntax == _RLE:
        segments = samples * ((bits + 7) // 8)
        for start, end in parts:
            if end - start < 64 or int.from_bytes(body[start : start + 4], "little") != segments:
                raise Refused("codestream", "not as many segments as bytes in a pixel")


def _digests(data: bytes, where: encoding.Layout, pixels: _Pixels) -> tuple[str, str]:
    """Of the whole object, and of its pixels; each byte is hashed once.

    The pixels are told by the bytes around them, so the two digests together stand for all bytes in their order.
    """
    body, position = memoryview(where.body), 0
    rest, stored = hashlib.sha256(), hashlib.sha256()
    if where.body is not data:
        rest.update(memoryview(data)[: where.head])
    for start, end in pixels.parts:
        rest.update(body[position:start])
        stored.update(body[start:end] if pixels.word == 1 else _little(body, start, end, pixels.word))
        position = end
    rest.update(body[position:])
    return hashlib.sha256(rest.digest() + stored.digest()).hexdigest(), stored.hexdigest()


def _little(body: memoryview, start: int, end: int, word: int) -> bytes:
    """Words in big-endian order as they stand in a little-endian object."""
    length = -(-(end - start) // word) * word
    words = np.frombuffer(bytes(body[start : start + length]).ljust(length, b"\0"), dtype=np.dtype(f"u{word}"))
    return words.byteswap().tobytes()[: end - start]


def _acquisition(head: Header, modality: str, kinds: tuple[str, ...]) -> str:
    """The numbers of ACQUISITION and the component, joined by "/"; empty where there is none of them."""
    numbers = [_short(head.text(keyword)) if keyword in head else "" for keyword in ACQUISITION]
    if modality == "MR":
        place = ACQUISITION.index("DiffusionBValue")
        numbers[place] = numbers[place] or _private_b(head)
    component = next((str(_COMPONENTS.index(kind)) for kind in kinds[2:] if kind in _COMPONENTS), "")
    return "/".join([*numbers, component]) if any(numbers) or component else ""


def _private_b(head: Header) -> str:
    spans, body = head.found.spans, head.where.body
    for group, element, owner in _PRIVATE_B:
        span = spans.get(group << 16 | element)
        block = spans.get(group << 16 | element >> 8)
        if span is None or block is None or not body[block[1] : block[2]].startswith(owner):
            continue
        raw = body[span[1] : span[2]]
        if group == 0x2001:
            return f"{np.frombuffer(raw, '<f4' if head.where.little else '>f4')[0]:g}" if len(raw) == 4 else ""
        value = _short(raw.split(b"\\")[0].decode("latin-1").strip(" \0"))
        # GE adds a thousand millions to the b-values of one kind of scan
        return str(int(value) % 100_000) if group == 0x0043 and value.isdigit() else value
    return ""


def _short(text: str) -> str:
    """A number in its shortest form; empty for anything else."""
    if not _NUMBER.fullmatch(text):
        return str(int(text)) if re.fullmatch(r"\d{1,12}", text) else ""
    return f"{round(float(text), 4):.12g}"


def _codes(head: Header, keyword: str) -> tuple[str, ...]:
    """The codes of a sequence of them."""
    return tuple(code for item in head.items(keyword) if (code := item.text("CodeValue")))


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d{1,10}", text) else None


def _positive(head: Header, keyword: str, default: int | None = None) -> int:
    text = head.text(keyword)
    if not text:
        if default is None:
            raise Refused(f"missing_tag:{keyword}", "a value without which there is no image")
        return default
    value = _whole(text)
    if value is None or value < 1:
        raise Refused(f"bad_value:{keyword}", "a value that is not a positive number")
    return value
