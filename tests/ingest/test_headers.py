"""Headers of DICOM files: read, ignored by a rule, or refused with a reason."""

import random
import warnings
from datetime import date

import pytest
from dicom_maker import CT, dicom
from pydicom.uid import JPEG2000Lossless, RLELossless

from phenotype.imaging.files import FileRef
from phenotype.ingest.contents import Ignored, age, day, sex_of
from phenotype.ingest.dicom import read_header
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
    assert head.modality == "OT" and head.patient_number == head.study_uid == ""


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
        "1.2.840.10008.5.1.4.1.1.88.11": "not_an_image:BasicTextSRStorage",
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


def test_a_syntax_without_decoder_is_told_before_decoding():
    def encapsulated(syntax: str) -> bytes:
        data = dicom()  # the pixels of 48 bytes as one fragment behind an empty table of offsets
        head, pixels = data[: -(12 + 48)], data[-48:]
        item = b"\xfe\xff\x00\xe0"
        coded = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + item + bytes(4) + item + (48).to_bytes(4, "little") + pixels
        old, new = b"1.2.840.10008.1.2.1\0", syntax.encode()
        new += b"\0" * (len(new) % 2)
        head = head.replace(b"UI" + len(old).to_bytes(2, "little") + old, b"UI" + len(new).to_bytes(2, "little") + new)
        return head + coded + b"\xfe\xff\xdd\xe0" + bytes(4)

    assert read_header(encapsulated(RLELossless)).transfer_syntax == RLELossless
    assert read_header(encapsulated(JPEG2000Lossless)).rows == 8
    assert code(encapsulated("1.2.840.10008.1.2.4.70")) == "transfer_syntax"  # JPEG lossless
    assert code(encapsulated("1.2.3.4")) == "transfer_syntax"
    assert code(encapsulated(RLELossless)[:-8]) == "truncated"
    assert code(encapsulated(RLELossless)[:-20]) == "truncated"


def test_a_file_without_preamble_is_read_and_deep_nesting_is_not():
    bare = dicom()
    assert read_header(bare[bare.index(b"\x08\x00\x16\x00UI") :]).sop_class == "ComputedRadiographyImageStorage"
    item, undefined = b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"\xff\xff\xff\xff"
    deep = b"\x09\x10\x10\x10SQ\0\0" + undefined + item
    data = dicom(Modality="CR")
    at = data.index(b"\x10\x00\x10\x00")
    assert code(data[:at] + deep * 5000 + data[at:]) == "bad_structure"


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
    rng, refused = random.Random(5), 0
    files = [p for p in sorted((shared_data / "dicom").rglob("*.dcm")) if p.stat().st_size < 40_000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(600):
            data = bytearray(rng.choice(files).read_bytes())
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(min(len(data), 3000))] = rng.randrange(256)
            try:
                read_header(bytes(data))
            except Refused as error:
                refused += 1
                assert len(str(error)) < 150
    assert refused > 60


def test_every_real_file_has_an_outcome(shared_data):
    outcomes: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in sorted(p for p in (shared_data / "dicom").rglob("*") if p.is_file()):
            read = read_file(FileRef(str(path)), {})
            outcomes[read.state] = outcomes.get(read.state, 0) + 1
            assert (read.content is None) == (read.state != "ingested") == bool(read.reason)
    assert sum(outcomes.values()) == 173 and outcomes["ingested"] > 85


def test_a_real_slice_of_every_syntax_has_the_same_header(shared_data):
    heads = set()
    for path in (shared_data / "dicom" / "cornerstone_wado").glob("CTImage.dcm*"):
        try:
            head = read_header(path.read_bytes())
        except Refused as refused:
            assert refused.code == "transfer_syntax"
            continue
        heads.add((head.sop_class, head.sop_uid, head.position, head.spacing, head.study_date, head.rows))
    assert len(heads) == 1


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
