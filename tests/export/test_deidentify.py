"""The profile: every attribute of the table at every depth, the options, UIDs, dates; dicom-anonymizer as oracle."""

import copy
import re
from collections import Counter
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from dicom_objects import CR, PLANTED, encoded, radiograph, uid, with_every
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from phenotype.export.deidentify import Deidentifier, Options, Person, mapped_uid, table, uid_key
from phenotype.export.dicom import deidentified
from phenotype.export.scrub_names import Known
from phenotype.imaging import encoding
from phenotype.imaging.files import Unreadable
from phenotype.stage import Refused

KEY = uid_key(b"k" * 32)
WHO = Person("0123456789abcdef", 100)
TIMES = {"DA", "DT", "TM"}


def run(data: Dataset, person: Person = WHO, **options: bool) -> Dataset:
    """`data` de-identified, written and read back."""
    content, _ = deidentified(encoded(data), person, Deidentifier(KEY, Options(**options)))
    return pydicom.dcmread(BytesIO(content))


def nested(every: Dataset) -> Dataset:
    """A radiograph that holds `every` at the top, and twice in a sequence in a sequence that no profile removes."""
    whole = radiograph(PatientID="P7", PatientName="Some^One")
    inner, outer = Dataset(), Dataset()
    inner.SharedFunctionalGroupsSequence = Sequence([copy.deepcopy(every), copy.deepcopy(every)])
    outer.PixelMeasuresSequence = Sequence([inner])
    for element in every:
        if element.tag not in whole:
            whole[element.tag] = copy.deepcopy(element)
    whole.PerFrameFunctionalGroupsSequence = Sequence([outer])
    return whole


def earlier(day: str) -> str:
    """The day by which the dates of WHO are moved."""
    return (date.fromisoformat(day) - timedelta(days=WHO.days)).strftime("%Y%m%d")


def levels(data: Dataset) -> list[Dataset]:
    inner = data.PerFrameFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SharedFunctionalGroupsSequence
    assert len(inner) == 2
    return [data, *inner]


@pytest.mark.parametrize("dates", [False, True])
def test_every_attribute_of_the_table(dates: bool) -> None:
    tags = [tag for tag in table() if tag not in (0x0040A730, 0x00420011)]  # of documents, which do not leave
    every = with_every(tags)
    whole = nested(every)
    source = encoded(copy.deepcopy(whole))
    assert source.count(PLANTED.encode()) > 3 * 400  # the control: it is all there
    result = run(whole, modified_dates=dates)
    checked = 0
    for level in levels(result):
        for tag in tags:
            code, vr = table()[tag], dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
            if tag >> 16 < 8 or tag in (0x00100010, 0x00100020) or "DeidentificationMethod" in str(level.get(tag, "")):
                continue
            there = level.get(tag)
            if tag >> 16 == 8 and level is result and tag in (0x00080018, 0x00080016):
                continue
            checked += 1
            if dates and vr in TIMES and tag not in (0x00100030, 0x00100032):
                before = str((whole if level is result else every)[tag].value)
                expected = before if vr == "TM" else earlier(before[:8]) + before[8:]
                assert there is not None and there.value == expected, hex(tag)
                continue
            if there is None:
                assert "X" in code or not dictionary_has_tag(tag), (hex(tag), code)
                continue
            value = there.value
            assert code != "X", hex(tag)
            planted = (whole if level is result else every)[tag].value
            if code == "U":
                assert value == mapped_uid(KEY, planted) and value.startswith("2.25."), hex(tag)
            elif code == "Z":
                assert not value, (hex(tag), value)
            elif code == "D":
                assert (value or value == 0) and value != planted, hex(tag)
            else:
                assert value != planted, hex(tag)
    assert checked > 3 * 550
    written = BytesIO()
    result.save_as(written)
    assert PLANTED.encode() not in written.getvalue() and PLANTED.lower().encode() not in written.getvalue()


def test_repeating_groups_private_and_unknown_attributes_go_at_every_depth() -> None:
    data = radiograph()
    item = Dataset()
    for level in (data, item):
        for group in range(0x6000, 0x6020, 2):
            level.add_new(group << 16 | 0x3000, "OW", b"overlay-secret! ")
            level.add_new(group << 16 | 0x4000, "LT", "overlay secret")
        level.add_new(0x50000005, "US", 1)
        level.add_new(0x50003000, "OW", b"curve-secret")
        block = level.private_block(0x0029, "SOMEONE 1.0", create=True)
        block.add_new(0x01, "LO", "private secret")
        level.add_new(0x00091001, "UN", b"orphaned secret ")  # private, without a creator
        level.add_new(0x00180001, "UN", b"unknown secret")  # of no dictionary
        level.add_new(0x00080000, "UL", 12)  # a group length
    data.add_new(0xFFFCFFFC, "OB", b"padding secret")
    data.ReferencedImageSequence = Sequence([item])
    assert encoded(copy.deepcopy(data)).count(b"secret") > 70
    result = run(data)
    for level in (result, result.ReferencedImageSequence[0]):
        assert not [e.tag for e in level if e.tag.is_private or e.tag.group & 0xFF00 in (0x5000, 0x6000)]
        assert 0x00180001 not in level and 0x00080000 not in level
    stream = BytesIO()
    result.save_as(stream)
    assert b"secret" not in stream.getvalue()


def test_uids_are_mapped_the_same_everywhere_and_what_the_standard_defines_stays() -> None:
    one, two = radiograph("one"), radiograph("two")
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = CR, one.SOPInstanceUID
    two.SourceImageSequence = Sequence([reference])
    two.FrameOfReferenceUID = "1.2.840.10008.1.4.1.1"  # Talairach: of the standard, not of a patient
    first, second = run(one), run(two)
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID != uid("study", "A1")
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID
    assert first.SOPClassUID == second.SourceImageSequence[0].ReferencedSOPClassUID == CR
    assert second.FrameOfReferenceUID == "1.2.840.10008.1.4.1.1"
    assert re.fullmatch(r"2\.25\.\d{30,39}", first.SOPInstanceUID) and len(first.SOPInstanceUID) <= 64
    other = Deidentifier(uid_key(b"o" * 32), Options())
    content, _ = deidentified(encoded(radiograph("one")), WHO, other)
    assert pydicom.dcmread(BytesIO(content)).SOPInstanceUID != first.SOPInstanceUID  # another key, another UID
    assert run(radiograph("one"), uids=True).SOPInstanceUID == uid("instance", "one")


def test_dates_keep_their_intervals_and_times() -> None:
    first = run(radiograph(StudyDate="20200110", AcquisitionDateTime="20200111235959.5+0100"))
    later = run(radiograph(StudyDate="20210301", DateOfSecondaryCapture="20200110"))
    days = [date.fromisoformat(str(d.StudyDate)) for d in (first, later)]
    assert (days[1] - days[0]).days == (date(2021, 3, 1) - date(2020, 1, 10)).days
    assert first.StudyDate == "20191002" and first.StudyTime == "101112"
    assert first.AcquisitionDateTime == "20191003235959.5+0100"
    assert later.DateOfSecondaryCapture == "20191002"
    assert first.PatientBirthDate == ""
    assert first.LongitudinalTemporalInformationModified == "MODIFIED"
    gone = run(radiograph(DateOfSecondaryCapture="20200110"), modified_dates=False)
    assert (gone.StudyDate, gone.StudyTime, gone.LongitudinalTemporalInformationModified) == ("", "", "REMOVED")
    assert "DateOfSecondaryCapture" not in gone
    with encoding.quiet():
        broken = run(radiograph(StudyDate="someday", AcquisitionDate="2020", ContentDate="20201399"))
    assert (broken.StudyDate, broken.AcquisitionDate, broken.ContentDate) == ("", "", "19000101")


def test_options() -> None:
    data = radiograph(
        PatientAge="095Y", PatientSize="1.81", PatientWeight="80", DeviceSerialNumber="SN4711", StationName="CR3",
        DeviceUID=uid("device"), StudyDescription="Thorax pa liegend", SeriesDescription="Chest PA for Dr. Foo",
    )  # fmt: skip
    plain = run(copy.deepcopy(data))
    assert plain.PatientSex == "" and "PatientAge" not in plain and "PatientWeight" not in plain
    assert "SN4711" not in str(plain) and plain.DeviceUID.startswith("2.25.")
    assert "StudyDescription" not in plain and "SeriesDescription" not in plain
    kept = run(copy.deepcopy(data), characteristics=True, device=True, descriptors=True)
    assert (kept.PatientSex, kept.PatientAge, str(kept.PatientSize), str(kept.PatientWeight)) == (
        "F",
        "090Y",
        "1.81",
        "80",
    )
    assert (kept.DeviceSerialNumber, kept.StationName, kept.DeviceUID) == ("SN4711", "CR3", uid("device"))
    assert kept.StudyDescription == "Thorax pa liegend" and "SeriesDescription" not in kept
    codes = [item.CodeValue for item in kept.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113105", "113107", "113108", "113109"]
    assert [i.CodeValue for i in plain.DeidentificationMethodCodeSequence] == ["113100", "113107"]
    assert plain.PatientIdentityRemoved == "YES" and plain.PatientID == plain.PatientName == WHO.pseudonym
    assert all(len(value) <= 64 for value in plain.DeidentificationMethod)


def test_safe_private() -> None:
    data = radiograph()
    block = data.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "2.5")
    block.add_new(0x09, "LO", "Doe^Jane")  # listed, but no number
    block.add_new(0x03, "ST", "file of Doe")
    other = data.private_block(0x7053, "SOMEONE ELSE", create=True)
    other.add_new(0x00, "DS", "7.5")
    result = run(data, safe_private=True)
    private = [(hex(e.tag), e.value) for e in result if e.tag.is_private]
    assert private == [("0x70530010", "Philips PET Private Group"), ("0x70531000", 2.5)]
    assert not [e for e in run(data) if e.tag.is_private]


def test_what_is_known_of_a_person_is_swept_from_what_the_table_is_silent_on() -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "99X", "Jane's chest"
    data = radiograph(
        PatientName="Müller^Jane", Manufacturer="for Mueller", ConvolutionKernel="B30", BodyPartExamined="MÜLLER",
        ScanOptions="19600101", ManufacturerModelName="Acme 4711/09", AnatomicRegionSequence=Sequence([item]),
    )  # fmt: skip
    result = run(data, Person(WHO.pseudonym, 5, Known(numbers=("471109",))))
    for keyword in ("Manufacturer", "BodyPartExamined", "ScanOptions", "ManufacturerModelName"):
        assert not result.get(keyword), keyword
    assert "CodeMeaning" not in result.AnatomicRegionSequence[0]
    assert result.ConvolutionKernel == "B30"
    control = run(radiograph(Manufacturer="Acme", BodyPartExamined="CHEST"))
    assert (control.Manufacturer, control.BodyPartExamined) == ("Acme", "CHEST")


@pytest.mark.parametrize("charset", ["ISO_IR 100", "ISO_IR 144", "ISO_IR 192", "GB18030", ["", "ISO 2022 IR 87"]])
def test_texts_that_stay_are_written_as_utf8(charset: str) -> None:
    words = {"ISO_IR 144": "Томограф", "GB18030": "王小东", "ISO_IR 100": "Gerät"}
    word = words.get(str(charset), "Gerat")
    result = run(radiograph(SpecificCharacterSet=charset, Manufacturer=word))
    assert (result.SpecificCharacterSet, result.Manufacturer) == ("ISO_IR 192", word)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless]
)
def test_pixels_stay_byte_for_byte_and_the_header_of_the_file_is_new(syntax: str) -> None:
    data = radiograph(preamble=None)
    pixels = data.PixelData
    if syntax == RLELossless:
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
        pixels = data.PixelData
    if syntax == ExplicitVRBigEndian:
        pixels = data.PixelData = data["PixelData"].value[::-1]
    content, written = deidentified(encoded(data, syntax, b"Doe^Jane" * 16), WHO, Deidentifier(KEY, Options()))
    assert content[:128] == b"\0" * 128 and b"Doe" not in content
    result = pydicom.dcmread(BytesIO(content))
    assert result.PixelData == pixels
    expected = "1.2.840.10008.1.2.1" if syntax == DeflatedExplicitVRLittleEndian else syntax
    assert written.transfer_syntax == result.file_meta.TransferSyntaxUID == expected
    assert "SourceApplicationEntityTitle" not in result.file_meta


def test_what_is_hidden_behind_or_in_the_pixels() -> None:
    data = radiograph()
    whole = data.PixelData
    data.PixelData = whole + b"Doe^Jane " * 4
    assert run(data).PixelData == whole
    data.PixelData = b"PatientenNummer 47110815" + whole[24:]
    with pytest.raises(Refused, match="identifier_in_pixels"):
        run(data, Person(WHO.pseudonym, 5, Known(numbers=("47110815",))))


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned_in:declared"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "not_an_image"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"}, "not_an_image"),
        ({"PixelData": None}, "no_pixel_data"),
    ],
)
def test_what_does_not_leave(attributes: dict[str, object], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        run(radiograph(**attributes))


def test_at_least_what_dicom_anonymizer_removes_is_removed(shared_data: Path) -> None:
    """The oracle, on real files: what it deletes or empties may not be there with the value it had."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions

    compared = 0
    for path in sorted((shared_data / "dicom").rglob("*")):
        if not path.is_file():
            continue
        try:
            with encoding.quiet():
                source = path.read_bytes()
                data = encoding.dataset(encoding.layout(source))
                theirs = copy.deepcopy(data)
                anonymize_dataset(theirs, base_rules_gen=lambda: initialize_actions("dicomfields_2026c"))
                ours = copy.deepcopy(data)
                Deidentifier(KEY, Options(modified_dates=False)).apply(ours, WHO)
        except Exception:
            continue
        for element in data:
            if element.VR == "SQ" or element.is_empty or element.tag.group < 8:
                continue
            before, after = element.value, theirs.get(element.tag)
            if after is None or after.is_empty or (after.value != before and element.VR != "SQ"):
                mine = ours.get(element.tag)
                compared += 1
                same = mine is not None and mine.value == before
                assert not same or str(before) in ("", "000000") or before == 0, (element.tag, element.VR)
    assert compared > 2000


def test_real_objects_of_many_makers(shared_data: Path) -> None:
    """Each of 173 leaves with its pixels as they were, or is refused with a reason; nothing else is raised."""
    deidentifier, refused = Deidentifier(KEY, Options()), Counter[str]()
    left = 0
    for path in sorted((shared_data / "dicom").rglob("*")):
        if not path.is_file():
            continue
        try:
            content, _ = deidentified(path.read_bytes(), WHO, deidentifier, "keep")
        except (Refused, Unreadable) as error:
            refused[error.code] += 1
            continue
        with encoding.quiet():
            assert pydicom.dcmread(BytesIO(content)).PatientName == WHO.pseudonym
        left += 1
    assert left >= 100 and "identifier_in_pixels" not in refused, refused
