"""The header of a DICOM object as plain values, and what must hold before its pixels are ever decoded."""

from __future__ import annotations

import functools
import re
from typing import Any

from pydicom.pixels import get_decoder
from pydicom.uid import UID

from phenotype.imaging import dicom as pixels
from phenotype.imaging import encoding
from phenotype.imaging.files import Unreadable
from phenotype.imaging.geometry import Slice, Stack
from phenotype.ingest.contents import DicomFile, Ignored, age, day, sex_of
from phenotype.stage import Refused

DICOMDIR = "1.2.840.10008.1.3.10"
MAX_PIXEL_BYTES = 4 << 30  # of one object, decoded
_PRIVATE_GROUP = 0x00290000  # what is needed stands before it; what follows is large
_JPEG = re.compile(r"^1\.2\.840\.10008\.1\.2\.4\.")
_EXTENDED_12 = "1.2.840.10008.1.2.4.51"
# Objects with pixels that are no image of a patient: results, plans, doses, overlays
_NOT_IMAGES = frozenset({"RTImageStorage", "SegmentationStorage", "ParametricMapStorage", "RTDoseStorage"})


def read_header(data: bytes) -> DicomFile:
    """The header of the DICOM object in `data`, after the checks that need no decoding.

    Raises `Ignored` with a rule ("dicomdir", "not_an_image:<SOP class>"), or `Refused` with a reason: "not_dicom",
    "bad_header", "bad_structure", "truncated", "inflation", "missing_tag:<keyword>", "bad_value:<keyword>",
    "no_pixel_data", "transfer_syntax", "codestream", "too_large". No other exception leaves it, and no message carries
    personal data.
    """
    try:
        with encoding.quiet():
            return _read(data)
    except Refused:
        raise
    except Unreadable as error:
        raise Refused(error.code, error.message) from None
    except Exception as error:  # pydicom fails in more than a dozen ways on damaged values
        raise Refused("bad_header", f"the header cannot be read ({type(error).__name__})") from None


def _read(data: bytes) -> DicomFile:
    where = encoding.layout(data)
    # walked before anything is parsed: the parser follows nesting as deep as it goes, and reads on where a file ends
    last = {element.tag: element for element in encoding.elements(where)}
    if where.sop_class == DICOMDIR:
        raise Ignored("dicomdir", "a directory; the files themselves are read")
    read = encoding.dataset(where, stop=_PRIVATE_GROUP)
    sop_class = _text(read, "SOPClassUID") or where.sop_class
    if "DirectoryRecordSequence" in read or sop_class == DICOMDIR:
        raise Ignored("dicomdir", "a directory; the files themselves are read")
    name = UID(sop_class).keyword or sop_class
    has_size = _number(read, "Rows") is not None
    if name in _NOT_IMAGES or ("ImageStorage" not in name and not has_size):
        if not sop_class:
            raise Refused("missing_tag:SOPClassUID", "an object that does not say what it is")
        raise Ignored(f"not_an_image:{name if UID(sop_class).keyword else 'private'}", "an object without an image")

    sop_uid = _text(read, "SOPInstanceUID") or where.sop_instance
    if not sop_uid:
        raise Refused("missing_tag:SOPInstanceUID", "an object without identity")
    rows, columns = _positive(read, "Rows"), _positive(read, "Columns")
    frames = _positive(read, "NumberOfFrames", default=1)
    _check_pixels(where, last.get(encoding.PIXEL_DATA), read, rows, columns, frames)

    place = pixels.slice_of(read)
    if frames > 1:
        stack = pixels.frame_stack(encoding.dataset(where, stop=encoding.PIXEL_DATA), frames)
        whole = stack is not None and not stack.left_out
        place = _whole(place, stack) if stack is not None and whole else _nowhere(place)
    study_day = day(_text(read, "StudyDate"))
    return DicomFile(
        sop_class=name,
        sop_uid=sop_uid,
        study_uid=_text(read, "StudyInstanceUID"),
        series_uid=_text(read, "SeriesInstanceUID"),
        transfer_syntax=where.transfer_syntax,
        modality=_text(read, "Modality").upper() or "OT",
        rows=rows,
        columns=columns,
        frames=frames,
        patient_number=_text(read, "PatientID"),
        issuer=_text(read, "IssuerOfPatientID"),
        patient_name=_text(read, "PatientName"),
        birth_date=_text(read, "PatientBirthDate"),
        sex=sex_of(_text(read, "PatientSex")),
        age_years=age(_text(read, "PatientAge"), day(_text(read, "PatientBirthDate")), study_day),
        accession=_text(read, "AccessionNumber"),
        study_date=_text(read, "StudyDate"),
        study_time=_text(read, "StudyTime"),
        study_description=_text(read, "StudyDescription"),
        series_description=_text(read, "SeriesDescription"),
        body_part=_text(read, "BodyPartExamined").upper(),
        view=_text(read, "ViewPosition").upper(),
        frame_of_reference=_text(read, "FrameOfReferenceUID"),
        series_number=_text(read, "SeriesNumber"),
        number=_number(read, "InstanceNumber"),
        localiser=place.localiser,
        position=place.position,
        orientation=place.orientation,
        spacing=place.pixel_spacing,
        thickness=place.thickness,
    )


def _whole(place: Slice, stack: Stack) -> Slice:
    depth, *within = stack.spacing_mm
    return Slice(
        place.rows, place.columns, stack.origin, stack.orientation, (within[0], within[1]), depth, place.localiser
    )


def _nowhere(place: Slice) -> Slice:
    return Slice(place.rows, place.columns, None, None, place.pixel_spacing, place.thickness, place.localiser)


def _check_pixels(
    where: encoding.Layout, found: encoding.Element | None, read: Any, rows: int, columns: int, frames: int
) -> None:
    """Length, syntax and codestream of the pixels against the header."""
    if found is None:
        raise Refused("no_pixel_data", "an image without its pixels")
    bits, samples = _positive(read, "BitsAllocated"), _positive(read, "SamplesPerPixel", default=1)
    if not _text(read, "PhotometricInterpretation"):
        raise Refused("missing_tag:PhotometricInterpretation", "the meaning of the pixels is not told")
    expected = (rows * columns * samples * frames * bits + 7) // 8
    if expected > MAX_PIXEL_BYTES:
        raise Refused("too_large", "more pixels than are read at once")
    if where.transfer_syntax in encoding.NATIVE:
        if _text(read, "PhotometricInterpretation") == "YBR_FULL_422":
            expected = expected * 2 // 3
        if found.end - found.start < expected:
            raise Refused("truncated", "fewer pixels than the header promises")
        return
    if not _decodable(where.transfer_syntax) or (
        where.transfer_syntax == _EXTENDED_12 and (_number(read, "BitsStored") or bits) > 8
    ):
        raise Refused("transfer_syntax", f"no decoder for {UID(where.transfer_syntax).name}")
    parts = (found.fragments or ())[1:]  # the first item is the table of offsets
    if len(parts) < frames:
        raise Refused("truncated", "fewer fragments than frames")
    if _JPEG.match(where.transfer_syntax):
        start, end = parts[0]
        size = encoding.codestream_size(where.body[start : min(end, start + 65536)])
        if size is not None and size != (rows, columns):
            raise Refused("codestream", "the codestream declares another size than the header")


@functools.cache
def _decodable(transfer_syntax: str) -> bool:
    try:
        return bool(get_decoder(UID(transfer_syntax)).is_available)
    except NotImplementedError:
        return False


def _text(read: Any, keyword: str) -> str:
    """The value as text, the first of several; empty where absent or not to be decoded, since all text is optional."""
    try:
        value = read.get(keyword)
        if value is not None and not isinstance(value, str) and hasattr(value, "__getitem__") and len(value):
            value = value[0]
        return "" if value is None else str(value).replace("\0", "").strip()
    except Exception:  # an unknown charset, a broken number: pydicom raises whatever comes
        return ""


def _number(read: Any, keyword: str) -> int | None:
    return _whole_number(_text(read, keyword))


def _whole_number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d{1,10}", text) else None


def _positive(read: Any, keyword: str, default: int | None = None) -> int:
    text = _text(read, keyword)
    if not text:
        if default is None:
            raise Refused(f"missing_tag:{keyword}", "a value without which there is no image")
        return default
    value = _whole_number(text)
    if value is None or value < 1:
        raise Refused(f"bad_value:{keyword}", "a value that is not a positive number")
    return value
