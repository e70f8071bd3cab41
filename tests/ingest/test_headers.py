"""Headers of DICOM files: read, ignored by a rule, or refused with a reason."""

import random
import struct
import warnings
from datetime import date
from typing import Any

import pydicom
import pytest
from dicom_maker import CT, ct_slice, dicom
from pydicom.uid import RLELossless

from phenotype.imaging.files import FileRef
from phenotype.ingest.contents import Ignored, Records, age, day, sex_of
from phenotype.ingest.dicom import read_header, read_object
from phenotype.ingest.reading import read_file
from phenotype.stage import Refused


def code(data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        read_header(data)
    return refused.value.code


def test_what_is_kept_of_a_header():
    head = read_header(dicom(ViewPosition="PA", PatientAge="061Y", BodyPartExamined="CHEST", IssuerOfPatientID="H"))
    assert (head.sop_class, head.modality, head.rows, head.columns, head.frames) == (
        "ComputedRadiographyImageStorage",
        "CR",
        8,
        6,
        1,
    )
    assert (head.patient_number, head.issuer, head.patient_name, head.sex) == ("P1", "H", "Doe^Jane", "F")
    assert (head.accession, head.study_date, head.age_years, head.view, head.body_part) == (
        "A1",
        "20200101",
        61.0,
        "PA",
        "CHEST",
    )
    assert read_header(dicom(PatientAge=None)).age_years == pytest.approx(60.0, abs=0.01)


def test_absent_text_never_fails_an_image():
    absent = ["PatientName", "PatientID", "PatientSex", "PatientBirthDate", "StudyDate", "AccessionNumber", "Modality"]
    head = read_header(dicom(**dict.fromkeys([*absent, "StudyInstanceUID", "SeriesInstanceUID"])))
    assert (head.modality, head.modality_basis) == ("CR", "class") and head.patient_number == head.study_uid == ""


def test_uids_missing_in_the_data_set_are_taken_from_the_meta_header():
    head = read_header(dicom(SOPInstanceUID=None, SOPClassUID=None))
    assert head.sop_uid and head.sop_class == "ComputedRadiographyImageStorage"


def test_reasons():
    assert code(b"nothing") == code(b"") == code(b"accession,text\n" * 20) == "not_dicom"
    assert code(dicom(Rows=None)) == "missing_tag:Rows"
    assert code(dicom(Rows=0)) == "bad_value:Rows"
    assert code(dicom(NumberOfFrames=5)) == "truncated"
    assert code(dicom(PixelData=None)) == "no_pixel_data"
    assert code(dicom(PhotometricInterpretation=None)) == "missing_tag:PhotometricInterpretation"
    assert code(dicom(Rows=65535, Columns=65535, BitsAllocated=16)) == "too_large"
    assert code(dicom()[:-20]) == "truncated"
    assert code(dicom() + b"\x08\x00") == "truncated"
    assert read_header(dicom() + bytes(100)).rows == 8  # padding
    ignored = {
        "1.2.840.10008.5.1.4.1.1.11.1": "not_an_image:GrayscaleSoftcopyPresentationStateStorage",
        "1.2.840.10008.5.1.4.1.1.88.67": "not_a_report:XRayRadiationDoseSRStorage",
        "1.2.840.10008.5.1.4.1.1.66.4": "not_an_image:SegmentationStorage",
        "1.2.840.10008.5.1.4.1.1.481.2": "not_an_image:RTDoseStorage",
        "1.2.840.10008.5.1.4.1.1.481.1": "not_an_image:RTImageStorage",
        "1.2.840.10008.1.3.10": "dicomdir",
    }
    for sop_class, rule in ignored.items():
        keep = {} if "RT" in rule or "Seg" in rule else {"Rows": None}
        data = dicom(SOPClassUID=sop_class, **keep)
        with pytest.raises(Ignored, match=rule):
            read_header(data)


def encapsulated(syntax: str, *fragments: bytes, **attributes: Any) -> bytes:
    """An object whose pixels are these fragments, behind an empty table of offsets."""
    data = dicom(PixelData=None, **attributes)
    old, new = b"1.2.840.10008.1.2.1\0", syntax.encode() + b"\0" * (len(syntax) % 2)
    data = data.replace(b"UI" + struct.pack("<H", len(old)) + old, b"UI" + struct.pack("<H", len(new)) + new)
    item = b"\xfe\xff\x00\xe0"
    coded = item + bytes(4) + b"".join(item + struct.pack("<I", len(f)) + f for f in fragments)
    return data + b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + coded + b"\xfe\xff\xdd\xe0" + bytes(4)


def rle(pixels: bytes) -> bytes:
    """One segment of literal runs."""
    return struct.pack("<16I", 1, 64, *[0] * 14) + bytes([len(pixels) - 1]) + pixels + b"\0" * ((len(pixels) + 1) % 2)


def jpeg(rows: int, columns: int, components: int = 1, bits: int = 8) -> bytes:
    """As much of a JPEG as the checks before decoding look at."""
    head = struct.pack(">HBHHB", 8 + 3 * components, bits, rows, columns, components)
    return b"\xff\xd8\xff\xc0" + head + bytes(32 + len(head) % 2)


def jpeg_2000(rows: int, columns: int, components: int = 1) -> bytes:
    """As much of a JPEG 2000 codestream as the checks look at."""
    size = struct.pack(">HHH8IH", 0xFF51, 38 + 3 * components, 0, columns, rows, 0, 0, columns, rows, 0, 0, components)
    return b"\xff\x4f" + size + b"\x07\1\1" * components + bytes(20 + components % 2)


def test_a_syntax_without_decoder_is_told_before_decoding():
    kept = encapsulated(RLELossless, rle(bytes(48)))
    assert read_header(kept).transfer_syntax == RLELossless
    # hierarchical, frames deflated one by one, uncompressed in fragments, JPEG XL, a private one
    for end in ("4.61", "8.1", "1.98", "4.110"):
        assert code(encapsulated(f"1.2.840.10008.1.2.{end}", jpeg(8, 6))) == "transfer_syntax"
    assert code(encapsulated("1.2.3.4", jpeg(8, 6))) == "transfer_syntax"
    for end in ("4.100", "4.106.1", "4.108", "7.1"):
        with pytest.raises(Ignored, match="video"):
            read_header(encapsulated(f"1.2.840.10008.1.2.{end}", bytes(100)))
    for end in ("94", "95", "204", "205"):
        assert code(encapsulated(f"1.2.840.10008.1.2.4.{end}", bytes(100))) == "jpip"
    assert code(kept[:-8]) == code(kept[:-20]) == "truncated"


def test_a_codestream_that_disagrees_with_the_header_is_refused():
    baseline = "1.2.840.10008.1.2.4.50"
    assert read_header(encapsulated(baseline, jpeg(8, 6))).rows == 8
    two = {"NumberOfFrames": 2}
    assert read_header(encapsulated(baseline, b"", jpeg(8, 6), b"", jpeg(8, 6), **two)).frames == 2
    assert read_header(encapsulated(baseline, jpeg(8, 6), bytes(40), jpeg(8, 6), **two)).frames == 2
    assert code(encapsulated(baseline, jpeg(8, 6), **two)) == "truncated"
    assert code(encapsulated(baseline, b"", b"")) == "truncated"
    wrong = [jpeg(9, 6), jpeg(8, 60000), jpeg(8, 6, 3), jpeg(8, 6, 1, 12), b"\xff\xd8" + bytes(40), bytes(40)]
    for stream in wrong:
        assert code(encapsulated(baseline, stream)) == "codestream"
    assert code(encapsulated(baseline, jpeg(8, 6), jpeg(30000, 30000), **two)) == "codestream"
    for end in ("90", "91", "201"):
        syntax = f"1.2.840.10008.1.2.4.{end}"
        assert read_header(encapsulated(syntax, jpeg_2000(8, 6))).rows == 8
        assert code(encapsulated(syntax, jpeg_2000(8, 1 << 20))) == "codestream"
        assert code(encapsulated(syntax, jpeg_2000(8, 6, 16384))) == "codestream"
    assert code(encapsulated(RLELossless, struct.pack("<16I", 3, *[64] * 15))) == "codestream"
    assert code(encapsulated("1.2.840.10008.1.2.1", jpeg(8, 6))) == "bad_structure"  # fragments where none belong
    unframed = encapsulated(baseline, jpeg(8, 6))
    at = unframed.rindex(b"\xe0\x7f\x10\x00OB\0\0")
    plain = unframed[: at + 8] + struct.pack("<I", len(unframed) - at - 12) + unframed[at + 12 :]
    assert code(plain) == "bad_structure"  # and none where they do


def test_a_file_without_preamble_is_read_and_deep_nesting_is_not():
    bare = dicom()
    for start in (bare.index(b"\x08\x00\x16\x00UI"), 128, 132):
        assert read_header(bare[start:]).sop_class == "ComputedRadiographyImageStorage"
    item, undefined = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xff\xff\xff\xff"
    deep = b"\x09\x10\x10\x10SQ\0\0" + undefined + item
    data = dicom(Modality="CR")
    at = data.index(b"\x10\x00\x10\x00")
    assert code(data[:at] + deep * 5000 + data[at:]) == "bad_structure"


def test_sequences_are_walked_whether_their_length_is_told_or_not():
    data = dicom()
    at = data.index(b"\x10\x00\x10\x00PN")

    def sequence(inside: bytes, vr: bytes = b"SQ") -> bytes:
        held = b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
        return b"\x09\x00\x10\x10" + vr + b"\0\0" + len(held).to_bytes(4, "little") + held

    def nested(depth: int) -> bytes:
        inside = b"\x08\x00\x50\x00SH\x02\x00A1"
        for _ in range(depth):
            inside = sequence(inside)
        return data[:at] + inside + data[at:]

    assert read_header(nested(1)).accession == read_header(nested(32)).accession == "A1"
    assert code(nested(33)) == "bad_structure"
    implicit = b"\x08\x00\x50\x00\x02\0\0\0A1"  # seen in the field: an item in the other encoding
    unknown = b"\x08\x00\x50\x00  \x02\x00A1"
    for inside in (b"", implicit, unknown):
        assert read_header(data[:at] + sequence(inside) + data[at:]).rows == 8
    for inside in (b"\x08\x00\x50\x00SH\x09\x00A1", b"\x08\x00\x50", b"\xfe\xff\x00\xe0" + bytes(4)):
        assert code(data[:at] + sequence(inside) + data[at:]) == "bad_structure"
        assert read_header(data[:at] + sequence(inside, b"OB") + data[at:]).rows == 8  # opaque: nobody's business


def test_a_flood_of_elements_or_fragments_is_refused(monkeypatch):
    data = dicom()
    assert read_header(data).rows == 8
    monkeypatch.setattr("phenotype.imaging.encoding.MAX_PARTS", 12)
    assert code(data) == "bad_structure"
    baseline = "1.2.840.10008.1.2.4.50"
    monkeypatch.setattr("phenotype.imaging.encoding.MAX_PARTS", 40)
    assert read_header(encapsulated(baseline, jpeg(8, 6))).rows == 8
    assert code(encapsulated(baseline, jpeg(8, 6), *[b""] * 50)) == "bad_structure"


def test_every_truncation_is_noticed(shared_data):
    seeds = []
    for path in sorted((shared_data / "dicom").rglob("*.dcm")):
        data = path.read_bytes()
        try:
            read_header(data)
        except Refused:
            continue
        seeds.append(data)
    assert len(seeds) > 85
    rng, kept = random.Random(4), 0
    for data in seeds:
        body = len(data.rstrip(b"\0"))  # zeros at the end are padding: without them nothing is missing
        for _ in range(5):
            try:
                read_header(data[: rng.randrange(1, body)])
                kept += 1
            except Refused:
                pass
    # What is cut between two elements that follow the pixels cannot be told from a file that ends there.
    assert kept <= 0.01 * 5 * len(seeds)


def test_no_mutant_crashes_and_none_says_what_it_holds(shared_data):
    seed = 5
    print("seed", seed)
    rng, outcomes = random.Random(seed), {"read": 0, "refused": 0, "unforeseen": 0}
    files = [p.read_bytes() for p in sorted((shared_data / "dicom").rglob("*.dcm")) if p.stat().st_size < 100_000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4000):
            data = bytearray(rng.choice(files))
            for _ in range(rng.randint(1, 8)):
                at = rng.randrange(min(len(data), 4000))
                data[at] = rng.choice([0, 255, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)])
            if rng.random() < 0.2:
                start = rng.randrange(len(data))
                data[start : start + rng.randrange(100)] = data[: rng.randrange(300)]
            try:
                read_object(bytes(data))
                outcomes["read"] += 1
            except Refused as error:
                outcomes["unforeseen" if "the header cannot be read" in error.message else "refused"] += 1
                assert len(str(error)) < 150
    assert outcomes["refused"] > 1000 and outcomes["read"] > 500
    assert outcomes["unforeseen"] == 0


def test_a_message_never_quotes_the_header():
    secret = "Doe^Jane"
    rng = random.Random(6)
    data = dicom(PatientName=secret, PatientID="P4711", NumberOfFrames="1")
    codes = set()
    for _ in range(3000):
        mutant = bytearray(data)
        for _ in range(rng.randint(1, 3)):
            mutant[rng.randrange(128, len(mutant))] = rng.randrange(256)
        try:
            read_object(bytes(mutant))
        except Refused as error:
            codes.add(error.code.split(":")[0])
            assert "Doe" not in str(error) and "Jane" not in str(error) and "4711" not in str(error)
    assert len(codes) >= 6


def test_every_real_file_has_an_outcome(shared_data):
    outcomes: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(p for p in (shared_data / "dicom").rglob("*") if p.is_file()):
            read = read_file(FileRef(str(path)), {})
            outcomes[read.state] = outcomes.get(read.state, 0) + 1
            assert (read.content is None) == (read.state != "ingested") == bool(read.reason)
    assert sum(outcomes.values()) == 173 and outcomes["ingested"] > 100


def test_a_real_slice_of_every_syntax_has_the_same_header(shared_data):
    heads = {}
    for path in (shared_data / "dicom" / "cornerstone_wado").glob("CTImage.dcm*"):
        try:
            heads[path.name] = read_header(path.read_bytes())
        except Refused as refused:
            assert refused.code == "transfer_syntax"
    kept = [head for head in heads.values() if not head.lossy]
    assert len(kept) == 7
    assert len({(h.sop_class, h.sop_uid, h.position, h.spacing, h.study_date, h.rows) for h in kept}) == 1
    stored = {h.transfer_syntax: h.pixel_digest for h in kept}
    assert len(kept) == 7 and len(set(stored.values())) == 5  # twice implicit, deflated; and four ways of coding
    assert stored["1.2.840.10008.1.2"] == stored["1.2.840.10008.1.2.1.99"]
    lossy = [head for head in heads.values() if head.lossy]
    assert all(head.sop_uid != kept[0].sop_uid for head in lossy)  # derived images have their own


def test_dates_ages_and_sexes():
    assert day("20200229") == day("2020.02.29") == day("2020-02-29") == date(2020, 2, 29)
    assert day("20210229") is day("") is day("soon") is None
    assert (age("045Y"), age("018M"), age("45"), age("45.5"), age("x")) == (45.0, 1.5, 45.0, 45.5, None)
    assert age("", date(1960, 1, 1), date(2020, 1, 1)) == pytest.approx(60, abs=0.01)
    assert age("", date(2021, 1, 1), date(2020, 1, 1)) is None
    assert [sex_of(s) for s in ("Male", "f", "O", "weiblich", "", "unknown")] == ["M", "F", "O", "F", "", ""]


def test_a_secondary_object_with_the_wrong_class_is_not_taken_for_an_image():
    with pytest.raises(Ignored, match="private"):
        read_header(dicom(SOPClassUID="1.2.3.4.5", Rows=None))
    assert read_header(dicom(SOPClassUID=CT)).sop_class == "CTImageStorage"


def test_a_report_in_a_dicom_object_is_handed_on(shared_data):
    digest, content = read_object((shared_data / "dicom" / "robyoung_dicom_test_files" / "reportsi.dcm").read_bytes())
    assert len(digest) == 64 and isinstance(content, Records) and content.rows[0].text


def test_what_tells_stacks_apart():
    def acquisition(**attributes: Any) -> str:
        return read_header(ct_slice(0, **attributes)).acquisition

    assert acquisition() == ""
    assert acquisition(AcquisitionNumber=2) == "2////////"
    assert acquisition(EchoNumbers=1, EchoTime="4.60", TriggerTime="0", InversionTime="1e2") == "/1/4.6///0/100//"
    mr = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}
    assert acquisition(ImageType=["ORIGINAL", "PRIMARY", "W", "NONE"], **mr) == "////////4"
    assert acquisition(AcquisitionNumber=99999999, DiffusionBValue=1000.0, **mr) == "99999999////1000////"
    private = {
        b"SIEMENS MR HEADER ": (0x0019, 0x0C, b"IS", b"800 ", "800"),
        b"GEMS_PARM_01": (0x0043, 0x39, b"IS", b"1000000050\\8\\0 ", "50"),
        b"Philips Imaging DD 001": (0x2001, 0x03, b"FL", struct.pack("<f", 600), "600"),
        b"SOMEBODY ELSE ": (0x0019, 0x0C, b"IS", b"800 ", ""),
    }
    for owner, (group, element, vr, value, expected) in private.items():
        data = ct_slice(0, **mr)
        pixels = data.rindex(b"\xe0\x7f\x10\x00")
        block = struct.pack("<HH2sH", group, 0x10, b"LO", len(owner)) + owner
        block += struct.pack("<HH2sH", group, 0x1000 | element, vr, len(value)) + value
        at = pixels if group > 0x28 else data.index(b"\x20\x00\x0d\x00UI")
        found = read_header(data[:at] + block + data[at:]).acquisition
        assert found == (f"////{expected}////" if expected else "")


def test_a_single_frame_of_an_enhanced_object_has_a_place():
    place, plane, measures = (pydicom.Dataset() for _ in range(3))
    place.ImagePositionPatient, plane.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.5], 2
    own, shared = pydicom.Dataset(), pydicom.Dataset()
    own.PlanePositionSequence, shared.PlaneOrientationSequence = [place], [plane]
    shared.PixelMeasuresSequence = [measures]
    head = read_header(
        dicom(
            SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
            NumberOfFrames=1,
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=[own],
        )
    )
    assert (head.position, head.spacing, head.thickness) == ((1, 2, 3), (0.5, 0.5), 2)
