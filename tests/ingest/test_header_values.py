"""Values of headers equal those of pydicom, and digests mean what they say: on real and on generated objects."""

import hashlib
import struct
import warnings
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_maker import dicom, uid
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.multival import MultiValue

from phenotype.imaging import encoding
from phenotype.imaging.header import Header
from phenotype.ingest.contents import DicomFile
from phenotype.ingest.dicom import read_object
from phenotype.stage import Refused

TEXTS = {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
NUMBERS = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
SYNTAX = {"explicit": "1.2.840.10008.1.2.1", "implicit": "1.2.840.10008.1.2", "big": "1.2.840.10008.1.2.2"}


def element(tag: int, vr: str, value: bytes, kind: str = "explicit", length: int | None = None) -> bytes:
    """One data element as it stands in a file; its length may be told otherwise, and need not be even."""
    order = ">" if kind == "big" else "<"
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    size = len(value) if length is None else length
    if kind == "implicit" or tag >> 16 == 0xFFFE:
        return head + struct.pack(order + "I", size) + value
    if vr in LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(order + "I", size) + value
    return head + vr.encode() + struct.pack(order + "H", size) + value


def file_of(body: bytes, kind: str = "explicit", syntax: str = "", source: str = "") -> bytes:
    """The meta header and a data set."""
    told = (syntax or SYNTAX[kind]).encode()
    meta = element(0x00020010, "UI", told + b"\0" * (len(told) % 2))
    if source:
        meta += element(0x00020016, "AE", source.encode())
    return bytes(128) + b"DICM" + meta + body


def values(read: Any, keyword: str) -> tuple[str, ...]:
    """What pydicom says, as text."""
    found = read.get(keyword)
    several = list(found) if isinstance(found, (MultiValue, list)) else [] if found is None else [found]
    return tuple(str(value).replace("\0", "").strip() for value in several)


def same(ours: tuple[str, ...], theirs: tuple[str, ...], vr: str) -> bool:
    if vr in ("FL", "FD", "DS") and len(ours) == len(theirs):
        return all(a == b or float(a) == float(b) or a == b == "nan" for a, b in zip(ours, theirs, strict=True))
    return ours == theirs or {ours, theirs} == {(), ("",)}


def header(data: bytes) -> Header:
    where = encoding.layout(data)
    return Header(where, encoding.index(where))


def test_all_values_of_real_objects_are_those_of_pydicom(shared_data):
    compared, files = 0, 0
    for path in sorted(p for p in shared_data.glob("dicom/*/*") if p.is_file()):
        data = path.read_bytes()
        try:
            if not isinstance(read_object(data)[1], DicomFile):
                continue
        except Refused:
            continue
        ours, files = header(data), files + 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = pydicom.dcmread(path, force=True)
            for tag in list(theirs.keys()):
                keyword = pydicom.datadict.keyword_for_tag(tag)
                if tag.group in (2, 0xFFFE) or tag_for_keyword(keyword) is None:  # overlays have many tags
                    continue
                vr = theirs[tag].VR
                if vr in TEXTS or vr in NUMBERS:
                    assert same(ours.texts(keyword), values(theirs, keyword), vr), (path.name, keyword)
                    compared += 1
    assert files > 100 and compared > 7000


KEPT = {
    vr: [k for k in keywords.split() if dictionary_VR(tag_for_keyword(k) or 0) == vr]
    for vr, keywords in {
        "LO": "PatientID IssuerOfPatientID StudyDescription SeriesDescription ProtocolName",
        "SH": "AccessionNumber StudyID StationName",
        "PN": "PatientName ReferringPhysicianName",
        "CS": "Modality PatientSex BodyPartExamined ViewPosition ImageType PhotometricInterpretation",
        "DA": "StudyDate PatientBirthDate",
        "TM": "StudyTime",
        "UI": "SOPInstanceUID StudyInstanceUID FrameOfReferenceUID",
        "IS": "SeriesNumber InstanceNumber NumberOfFrames AcquisitionNumber",
        "DS": "PixelSpacing ImagePositionPatient SliceThickness EchoTime",
        "AS": "PatientAge",
        "US": "Rows Columns BitsAllocated SamplesPerPixel",
        "FD": "DiffusionBValue",
        "LT": "PatientComments",
        "UT": "TextValue",
        "UL": "SimpleFrameList",
    }.items()
}
CHARSETS = {  # charset as declared: codec, letters in it
    "": ("ascii", "AZaz09 ."),
    "ISO_IR 100": ("latin-1", "AZüöäßÉ "),
    "ISO_IR 101": ("iso8859_2", "ŁódźA "),
    "ISO_IR 144": ("iso8859_5", "ЛюкceмбypгA "),
    "ISO_IR 126": ("iso8859_7", "ΔιονυσιοςA "),
    "ISO_IR 192": ("utf-8", "Wang王小东üŁ "),
    "GB18030": ("gb18030", "王小东A "),
    "\\ISO 2022 IR 87": ("iso2022_jp", "山田太郎A "),
    "ISO 2022 IR 13\\ISO 2022 IR 87": ("shift_jis", "ﾔﾏﾀﾞA "),
    "\\ISO 2022 IR 149": ("euc_kr", "A "),
    "ISO_IR 999": ("ascii", "AZ "),
}


@st.composite
def objects(draw: Any) -> tuple[bytes, str]:
    """A data set in one of the encodings with anything that kept elements may hold, and what may stand between."""
    kind = draw(st.sampled_from(sorted(SYNTAX)))
    order = ">" if kind == "big" else "<"
    charset = draw(st.sampled_from(sorted(CHARSETS)))
    codec, letters = CHARSETS[charset]
    body: dict[int, bytes] = {0x00080005: element(0x00080005, "CS", charset.encode(), kind)} if charset else {}
    for vr, keywords in KEPT.items():
        for keyword in draw(st.lists(st.sampled_from(keywords), unique=True)):
            tag = tag_for_keyword(keyword) or 0
            if vr in NUMBERS:
                form = NUMBERS[vr]
                top = {"H": 65535, "I": 1 << 31}.get(form, 3000)
                numbers = draw(st.lists(st.integers(0, top), max_size=3))
                value = struct.pack(f"{order}{len(numbers)}{form}", *numbers)
            elif vr in ("IS", "DS"):
                number = st.integers(-9999, 99999).map(str) if vr == "IS" else st.floats(-1e4, 1e4).map("{:.4g}".format)
                value = "\\".join(draw(st.lists(number, max_size=6))).encode()
            elif vr in ("LO", "SH", "PN", "LT", "UT"):
                more = letters + ("^=" if vr == "PN" else "")
                count = st.lists(st.text(more, max_size=8).map(str.strip), max_size=3 if vr != "PN" else 1)
                value = "\\".join(draw(count)).encode(codec)
            else:
                value = draw(st.text("ABC019._ \\", max_size=12)).encode()
            value += draw(st.sampled_from([b"", b"", b" ", b"\0" if vr not in ("DS", "IS") else b" "]))[
                : 0 if vr in NUMBERS else 1
            ]  # so lengths are odd as well
            told = "UN" if kind != "implicit" and draw(st.integers(0, 9)) == 0 else vr
            body[tag] = element(tag, told, value, kind)
    inner = element(0x00080050, "SH", b"INSIDE", kind)
    item = element(0xFFFEE000, "", inner, kind)
    end = element(0xFFFEE0DD, "", b"", kind)
    open_item = element(0xFFFEE000, "", inner + element(0xFFFEE00D, "", b"", kind), kind, 0xFFFFFFFF)
    private = draw(st.binary(max_size=12))
    extra = {
        0x00081032: element(0x00081032, "SQ", item + item, kind),
        0x00081111: element(0x00081111, "SQ", item + open_item + end, kind, 0xFFFFFFFF),
        0x00091002: element(0x00091002, "OB", private, kind),
        0x00091003: element(0x00091003, "SQ", open_item + end, kind, 0xFFFFFFFF),
        0x00091004: element(0x00091004, "UN", private, kind),
        0x00091005: element(0x00091005, "ZZ", b"AB", kind),
    }
    for tag in draw(st.lists(st.sampled_from(sorted(extra)), unique=True)):
        body[tag] = extra[tag]
    body.setdefault(0x00080008, element(0x00080008, "CS", b"ORIGINAL", kind))  # a data set begins with group 8
    return file_of(b"".join(body[tag] for tag in sorted(body)), kind), charset


@settings(max_examples=150, deadline=None, derandomize=True)
@given(objects())
def test_generated_values_are_those_of_pydicom(made):
    data, charset = made
    ours = header(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pydicom.dcmread(BytesIO(data))
        for vr, keywords in KEPT.items():
            for keyword in keywords:
                assert same(ours.texts(keyword), values(theirs, keyword), vr), (keyword, vr, charset)
                first = values(theirs, keyword)[:1]
                assert same((ours.text(keyword),), first, vr)
    assert {tag for tag in ours.found.spans if tag >> 16 != 2} == set(map(int, theirs.keys()))


def test_letters_of_an_undeclared_or_wrong_charset_are_read_all_the_same():
    name = tag_for_keyword("PatientName") or 0

    def read(charset: bytes, raw: bytes) -> str:
        told = element(0x00080005, "CS", charset) if charset else element(0x00080008, "CS", b"A")
        return header(file_of(told + element(name, "PN", raw))).text("PatientName")

    for charset in (b"", b"ISO_IR 6", b"ISO_IR 192", b"ISO_IR 100", b"\\ISO 2022 IR 6"):
        assert read(charset, "Müller^Jörg".encode("latin-1")) == "Müller^Jörg"
        if charset != b"ISO_IR 100":  # where everything is a letter, there is nothing to notice
            assert read(charset, "Müller^Jörg".encode()) == "Müller^Jörg"
    for broken in (b"ISO\x1b\0IR", b"\xff\xfe", b"idna", b"zlib"):
        assert read(broken, b"Doe^\xfc")


def test_two_ways_of_a_number():
    """US or SS, as the sign of the pixels has it; and a length that is none of a number."""
    signed = element(0x00280103, "US", b"\1\0", "implicit")
    padding = element(0x00280120, "US", b"\xff\xff", "implicit")
    start = element(0x00080008, "CS", b"ORIGINAL", "implicit")
    assert header(file_of(start + padding, "implicit")).text("PixelPaddingValue") == "65535"
    assert header(file_of(start + signed + padding, "implicit")).text("PixelPaddingValue") == "-1"
    assert header(file_of(start + element(0x00280010, "US", b"\1\2\3", "implicit"), "implicit")).texts("Rows") == ()
    assert header(file_of(element(0x00280010, "SH", b"512 "))).text("Rows") == "512"  # the file knows what it wrote


# ---------------------------------------------------------------- digests


def image(
    kind: str = "explicit",
    bits: int = 16,
    pixels: bytes | None = None,
    vr: str = "OW",
    tag: int = encoding.PIXEL_DATA,
    tail: bytes = b"",
    syntax: str = "",
    source: str = "",
    **more: Any,
) -> bytes:
    """A CT slice of 4 x 3 pixels in any of the encodings, `pixels` as they stand in a little-endian file."""
    order = ">" if kind == "big" else "<"
    told = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": uid("x"),
        "Modality": "CT",
        "PatientID": "P1",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": 4,
        "Columns": 3,
        "BitsAllocated": bits,
        "BitsStored": bits,
        "PixelRepresentation": 0,
    } | more
    body = {}
    for keyword, value in told.items():
        place = tag_for_keyword(keyword) or 0
        raw = struct.pack(order + "H", value) if isinstance(value, int) else str(value).encode()
        body[place] = element(place, dictionary_VR(place), raw + b"\0" * (len(raw) % 2), kind)
    stored = bytes(range(1, 1 + 12 * bits // 8)) if pixels is None else pixels
    if kind == "big" and vr != "OB":
        word = max(bits // 8, 2)
        stored = b"".join(stored[i : i + word][::-1] for i in range(0, len(stored), word))
    body[tag] = element(tag, vr, stored + tail, kind)
    plain = b"".join(body[place] for place in sorted(body))
    if syntax == "1.2.840.10008.1.2.1.99":
        machine = zlib.compressobj(wbits=-15)
        plain = machine.compress(plain) + machine.flush()
    return file_of(plain, kind, syntax, source)


def pixel_digest(data: bytes) -> str:
    head = read_object(data)[1]
    assert isinstance(head, DicomFile)
    return head.pixel_digest


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_the_same_pixels_have_the_same_digest_however_they_are_sent(bits):
    stored = bytes(range(1, 1 + 12 * bits // 8))
    plain = image(bits=bits)
    alike = [
        image("implicit", bits),
        image("big", bits),
        image(bits=bits, syntax="1.2.840.10008.1.2.1.99"),
        image(bits=bits, source="ANOTHER PACS"),
        image(bits=bits, PatientID="P2"),
        image(bits=bits, tail=b"\0\0"),
        plain[132:],
    ]
    if bits == 8:
        alike += [image(bits=8, vr="OB"), image("big", 8, vr="OB")]
    digests = {pixel_digest(data) for data in [plain, *alike]}
    assert digests == {hashlib.sha256(stored).hexdigest()}
    assert len({read_object(data)[0] for data in [plain, *alike]}) >= 7  # but the objects differ
    assert pixel_digest(image(bits=bits, pixels=stored[:-1] + b"\0")) not in digests
    for data in (plain, alike[0], alike[1]):  # and pydicom sees them so
        seen = pydicom.dcmread(BytesIO(data)).pixel_array
        assert seen.astype(seen.dtype.newbyteorder("<")).tobytes() == stored


def test_odd_kinds_of_pixels():
    one_bit = image(bits=1, pixels=b"\xa5\x0f", tail=b"")
    assert pixel_digest(one_bit) == pixel_digest(image("implicit", 1, pixels=b"\xa5\x0f"))
    with pytest.raises(Refused, match="truncated"):
        read_object(image(bits=1, pixels=b"\xa5"))
    real = np.arange(12, dtype="<f4").tobytes()
    for kind in SYNTAX:
        assert pixel_digest(image(kind, 32, real, "OF", encoding.FLOAT_PIXEL_DATA)) == pixel_digest(
            image("explicit", 32, real, "OF", encoding.FLOAT_PIXEL_DATA)
        )
    double = np.arange(12, dtype="<f8").tobytes()
    assert pixel_digest(image("big", 64, double, "OD", encoding.DOUBLE_FLOAT_PIXEL_DATA)) == pixel_digest(
        image("implicit", 64, double, "OD", encoding.DOUBLE_FLOAT_PIXEL_DATA)
    )
    odd = image(bits=8, Columns=1, Rows=5, pixels=b"\1\2\3\4\5", vr="OB")  # without the byte that makes it even
    assert pixel_digest(odd) == pixel_digest(image(bits=8, Columns=1, Rows=5, pixels=b"\1\2\3\4\5", tail=b"\0"))
    subsampled = image(bits=8, pixels=bytes(24), SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422")
    assert len(pixel_digest(subsampled)) == 64


def test_fragments_are_hashed_without_what_holds_them():
    run = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x0b" + bytes(range(12)) + b"\0"
    end = element(0xFFFEE0DD, "", b"")

    def coded(table: bytes, *parts: bytes) -> bytes:
        inside = element(0xFFFEE000, "", table) + b"".join(element(0xFFFEE000, "", part) for part in parts) + end
        data = image(bits=8, pixels=b"", syntax="1.2.840.10008.1.2.5", vr="OB")
        return data[:-12] + element(encoding.PIXEL_DATA, "OB", inside, length=0xFFFFFFFF)

    plain, table = coded(b"", run), coded(bytes(4), run)
    assert pixel_digest(plain) == pixel_digest(table) == hashlib.sha256(run).hexdigest()
    assert read_object(plain)[0] != read_object(table)[0]
    assert pixel_digest(coded(b"", b"", run)) == pixel_digest(plain)  # an empty fragment holds nothing


def test_every_byte_counts_in_the_digest():
    data = image()
    digest = read_object(data)[0]
    assert read_object(bytes(data))[0] == digest
    read = 0
    for at in range(len(data)):
        mutant = bytearray(data)
        mutant[at] ^= 0x20
        try:
            assert read_object(bytes(mutant))[0] != digest, at
            read += 1
        except Refused:
            pass
    assert read > 100
    assert read_object(dicom())[0] != read_object(dicom(PatientName="Doe^John"))[0]
