"""What comes in by files, and what leaves: attacked by somebody who looks for people in everything but the vault."""

import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit
from sqlalchemy import text
from typer.testing import CliRunner

from db.console import QueryError, ask
from db.session import open_database
from db.tables import VAULT, Base
from db.views import VIEWS
from phenotype import cli
from phenotype.export.deidentify import Deidentifier, Options, Person, uid_key
from phenotype.export.dicom import deidentified, without_comments
from phenotype.export.scrub import scrub
from phenotype.export.scrub_names import Known
from phenotype.ingest.delivery import take_in
from phenotype.ingest.stage import Ingest
from phenotype.sandbox import Ended, Limits, Sandbox
from phenotype.stage import Refused

NEEDLE = "QUASTENFLOSSER"
CR = "1.2.840.10008.5.1.4.1.1.1"
WHO = Person("0123456789abcdef", 100)


def phenotype(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The program as a person starts it."""
    command = [sys.executable, "-m", "phenotype", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def radiograph(number: int = 1, **attributes: object) -> Dataset:
    """A radiograph of 8 x 8 pixels."""
    data = Dataset()
    values = {
        "SOPClassUID": CR, "SOPInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": f"1.2.4.{number}",
        "SeriesInstanceUID": f"1.2.5.{number}",
        "PatientID": "P1", "PatientName": "Doe^Jane", "StudyDate": "20200110", "Modality": "CR",
        "Rows": 8, "Columns": 8, "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16, "BitsStored": 12,
        "HighBit": 11, "PixelRepresentation": 0, "PixelData": np.arange(64, dtype="<u2").tobytes(),
    } | attributes  # fmt: skip
    with _quiet():
        for keyword, value in values.items():
            setattr(data, keyword, value)
    return data


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings: pydicom has some for what is planted here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def encoded(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The bytes of a file."""
    data.file_meta = FileMetaDataset()
    with _quiet():
        data.file_meta.TransferSyntaxUID = syntax
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        stream = BytesIO()
        data.preamble = b"\0" * 128
        pydicom.dcmwrite(stream, data, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return stream.getvalue()


def exported(data: Dataset, syntax: str = ExplicitVRLittleEndian, **options: bool) -> bytes:
    """What leaves."""
    deidentifier = Deidentifier(uid_key(b"k" * 32), Options(**options))
    return deidentified(encoded(data, syntax), WHO, deidentifier)[0]


# ------------------------------------------------------------------------------------------------ who can read it


def test_what_is_written_is_for_its_owner_alone(tmp_path):
    delivery = tmp_path / "delivery"
    delivery.mkdir()
    (delivery / "a.dcm").write_bytes(encoded(radiograph(AccessionNumber="A1")))
    (delivery / "b.csv").write_text("accession,patient_id,text\nA1,P1,No effusion.\n")
    for command in (
        ["ingest", "delivery", "--report", "page.html"],
        ["export", "dicom", "objects", "--all"],
    ):
        done = phenotype(*command, cwd=tmp_path, umask=0o022)
        assert done.returncode == 0, done.stderr
    written = [p for p in tmp_path.rglob("*") if delivery not in (p, *p.parents)]
    assert {"phenotype.db", "page.html", "manifest.csv", "manifest.json"} <= {p.name for p in written}
    assert [p.name for p in written if p.stat().st_mode & 0o077] == []


def test_a_database_is_for_its_owner_alone_whoever_opens_it(tmp_path):
    before = os.umask(0o022)
    try:
        open_database(f"sqlite:///{tmp_path / 'own.db'}").close()
    finally:
        os.umask(before)
    assert (tmp_path / "own.db").stat().st_mode & 0o777 == 0o600


# ------------------------------------------------------------------------------------------------ beside the vault

_FREE = """
Modality BodyPartExamined ViewPosition PatientSex PatientAge ImageType PhotometricInterpretation SOPClassUID
BurnedInAnnotation AcquisitionNumber SeriesNumber InstanceNumber PatientOrientation LossyImageCompression
SeriesDescription StudyDescription ProtocolName SpecificCharacterSet Laterality EchoTime StudyTime StudyDate
ImagePositionPatient PixelSpacing SliceThickness StationName InstitutionName RecognizableVisualFeatures
"""


def _hostile(folder: Path) -> None:
    """Files that say the needle at every place where something else is expected."""
    for number, keyword in enumerate(_FREE.split(), 10):
        data = radiograph(number)
        with _quiet():
            if keyword in ("ImageType", "PatientOrientation"):
                setattr(data, keyword, [NEEDLE, NEEDLE, NEEDLE])
            else:
                data.add_new(keyword, "LO" if keyword not in ("SOPClassUID",) else "UI", NEEDLE)
        (folder / f"{number}.dcm").write_bytes(encoded(data))
    (folder / "syntax.dcm").write_bytes(encoded(radiograph(3), NEEDLE))
    for number, sop_class in enumerate((NEEDLE, f"1.2.{NEEDLE}", "1.2.840.10008.5.1.4.1.1.88.11"), 100):
        (folder / f"{number}.dcm").write_bytes(encoded(radiograph(number, SOPClassUID=sop_class, Modality=NEEDLE)))
    head = "accession,patient_id,text,language,status,modality,report_status,issued,sex,age"
    (folder / "odd.csv").write_text(f"{head}\nA1,P1,No effusion.{',' + NEEDLE:s}{(',' + NEEDLE) * 6}\n")
    (folder / "headless.csv").write_text(f"{NEEDLE},{NEEDLE} Anna,x\nA2,P2,y\n")
    (folder / "pictures.csv").write_text(f"accession,image,view,sex\nA3,a.png,{NEEDLE},{NEEDLE}\n")
    from PIL import Image

    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "a.png")
    report = {"resourceType": "DiagnosticReport", "id": NEEDLE, "language": NEEDLE, "status": NEEDLE,
              "code": {"text": NEEDLE}, "identifier": [{"value": "A9"}], "subject": {"reference": NEEDLE},
              "text": {"status": "generated", "div": "<div>No effusion.</div>"}, "conclusion": "No effusion at all.",
              "presentedForm": [{"contentType": NEEDLE, "data": "QUJD"}]}  # fmt: skip
    (folder / "a.json").write_text(json.dumps(report))
    (folder / "b.json").write_text(json.dumps({"resourceType": NEEDLE}))
    lines = [
        f"MSH|^~\\&|{NEEDLE}|X|Y|Z|20200101||ORU^R01|{NEEDLE}|P|2.5||||||{NEEDLE}|{NEEDLE}",
        "PID|1||P1||Doe^Jane||19600101|F", f"OBR|1|A1|A1|{NEEDLE}^{NEEDLE}|||20200101||||||||||||||||{NEEDLE}|{NEEDLE}",
        f"OBX|1|{NEEDLE}|{NEEDLE}||No effusion.||||||{NEEDLE}", f"OBX|2|TX|{NEEDLE}||Clear.||||||{NEEDLE}",
    ]  # fmt: skip
    (folder / "a.hl7").write_text("\r".join(lines))
    (folder / "b.hl7").write_text("\r".join([lines[0].replace("ORU^R01", f"{NEEDLE}^A01"), *lines[1:]]))
    (folder / "a.xml").write_text(f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e "{NEEDLE}">]><x>&e;</x>')
    (folder / "b.xml").write_text(f"<{NEEDLE}/>")
    (folder / f"{NEEDLE}.{NEEDLE}").write_text("?")
    (folder / f"{NEEDLE}.zip").write_bytes(b"PK\3\4" + NEEDLE.encode())


def test_free_text_of_a_delivery_stays_in_the_vault(tmp_path, capfd):
    folder = tmp_path / NEEDLE
    folder.mkdir()
    _hostile(folder)
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    take_in(Ingest(), database, tmp_path / "home", sources=[folder])
    with database.reading() as session:
        found = {
            name: [row for row in session.execute(text(f'SELECT * FROM "{name}"')) if NEEDLE in repr(row).upper()]
            for name in [*Base.metadata.tables, *VIEWS]
        }
        taken = session.scalar(text("SELECT count(*) FROM instance"))
    database.close()
    assert taken > 20 and found["vault_series"] and found["vault_export_file"]  # the negative control
    assert {name: rows for name, rows in found.items() if rows and name not in VAULT} == {}
    said = capfd.readouterr()
    assert NEEDLE not in (said.out + said.err).upper()


def test_the_console_does_not_reach_what_the_vault_has_got_since(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}")
    for table in sorted(VAULT):
        for query in (f"SELECT * FROM {table}", f"SELECT 1 FROM (SELECT * FROM main.{table})"):
            with pytest.raises(QueryError):
                ask(database, query)
    assert {"vault_access", "vault_transfer"} <= VAULT
    ask(database, "SELECT * FROM study_view")  # the negative control
    database.close()


# ------------------------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error", f"/mnt/{NEEDLE}"), ValueError(NEEDLE), KeyError(NEEDLE)]
)
def test_an_error_that_nobody_foresaw_does_not_quote(tmp_path, monkeypatch, capfd, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "open_database", fail)
    before = os.umask(0o022)
    try:
        done = CliRunner().invoke(cli.app, ["--db", f"sqlite:///{tmp_path / 'a.db'}", "status"])
    finally:
        os.umask(before)
    said = capfd.readouterr()
    assert isinstance(done.exception, SystemExit) and done.exit_code == 1
    everything = done.output + said.out + said.err
    assert type(error).__name__ in everything and NEEDLE not in everything


def test_a_pull_that_fails_does_not_quote_what_was_asked_for(tmp_path):
    secret = os.environ | {"PHENOTYPE_PACS_TOKEN": f"s{NEEDLE}"}
    done = phenotype("pull", "https://127.0.0.1:1", "--patient", NEEDLE, "--insecure", cwd=tmp_path, env=secret)
    assert done.returncode == 1 and "unreachable" in done.stderr
    assert NEEDLE not in done.stdout + done.stderr
    assert NEEDLE.encode() not in b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


# ------------------------------------------------------------------------------------------------ the sandbox


def environment(name: str) -> str:
    """A variable as a worker sees it."""
    return os.environ.get(name, "")


class Taken:
    """What a worker could send that is somebody else's by now."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


def take_over(path: str) -> Taken:
    """An answer whose reading would act."""
    return Taken(path)


def test_workers_that_read_foreign_bytes_know_no_secret(monkeypatch):
    monkeypatch.setenv("PHENOTYPE_PACS_TOKEN", NEEDLE)
    monkeypatch.setenv("PHENOTYPE_CACHE_GB", "3")
    with Sandbox(1, Limits()) as sandbox:
        assert sandbox.call(environment, "PHENOTYPE_PACS_TOKEN") == ""
        assert sandbox.call(environment, "PHENOTYPE_CACHE_GB") == "3"


def test_an_answer_of_a_worker_that_was_taken_over_does_nothing_here(tmp_path):
    pickle.loads(pickle.dumps(Taken(str(tmp_path / "control"))))  # the negative control: it would act
    assert (tmp_path / "control").exists()
    with Sandbox(1, Limits()) as sandbox:
        with pytest.raises(Ended, match="worker_died"):
            sandbox.call(take_over, str(tmp_path / "taken"))
        assert not (tmp_path / "taken").exists()
        assert sandbox.call(environment, "HOME") == os.environ.get("HOME", "")  # and another one is there


# ------------------------------------------------------------------------------------------------ objects that leave


_SHORT = """
PatientBirthDateInAlternativeCalendar PlacerOrderNumberProcedure FillerOrderNumberProcedure ImageID DeviceID
PlacerOrderNumberImagingServiceRequestRetired NTPSourceAddress OwnerID HangingProtocolCreator
WindowCenterWidthExplanation FrameOfInterestDescription AcquisitionProtocolName ConfidentialityCode
SystemStatusComment DoseComment RTImageName ContactDisplayName RadiationMachineName StationName
DeviceSerialNumber InstitutionName StudyID ImageComments RequestingService IssuerOfPatientID
"""


def test_short_texts_that_no_profile_names_do_not_leave():
    texts = _SHORT.split()
    data = radiograph(**dict.fromkeys(texts, NEEDLE[:16]), Manufacturer="Maker", ConvolutionKernel="B30f")
    inner = Dataset()
    for keyword in texts:
        setattr(inner, keyword, NEEDLE[:16])
    data.RequestAttributesSequence = Sequence([inner])
    data.ReferencedImageSequence = Sequence([Dataset()])
    data.ReferencedImageSequence[0].ReferencedSOPClassUID = "1.2.40.998877"
    left = exported(data)
    assert NEEDLE[:16].encode() not in left and b"998877" not in left
    kept = pydicom.dcmread(BytesIO(left))
    assert (kept.Manufacturer, kept.ConvolutionKernel) == ("Maker", "B30f")


def test_a_picture_in_a_picture_does_not_leave():
    small = Dataset()
    small.Rows, small.Columns, small.PixelData = 1, 14, NEEDLE.encode()
    small["PixelData"].VR = "OB"
    data = radiograph(PixelMeasuresSequence=Sequence([small]))
    assert NEEDLE.encode() in encoded(data)
    left = exported(data)
    assert NEEDLE.encode() not in left
    assert len(pydicom.dcmread(BytesIO(left)).PixelMeasuresSequence) == 1


def test_an_overlay_in_spare_bits_is_cleared():
    values = np.arange(64, dtype="<u2") | 0x8000  # letters drawn in bit 15
    data = radiograph(PixelData=values.tobytes())
    data.add_new(0x60000010, "US", 8)
    data.add_new(0x60000100, "US", 16)
    data.add_new(0x60000102, "US", 15)
    left = pydicom.dcmread(BytesIO(exported(data)))
    assert np.array_equal(np.frombuffer(left.PixelData, "<u2"), np.arange(64))
    assert not [tag for tag in left.keys() if tag.group == 0x6000]  # noqa: SIM118
    plain = radiograph(PixelData=values.tobytes())  # without one nothing is touched
    assert pydicom.dcmread(BytesIO(exported(plain))).PixelData == values.tobytes()


@pytest.mark.parametrize(("syntax", "kind"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")])
def test_comments_in_coded_pixels_are_blanked(syntax, kind):
    from PIL import Image

    pixels = np.random.default_rng(7).integers(0, 255, (32, 32), dtype=np.uint8)
    stream = BytesIO()
    if kind == "JPEG":
        from PIL import ExifTags

        exif = Image.Exif()
        exif[ExifTags.Base.Artist] = NEEDLE
        Image.fromarray(pixels).save(stream, kind, comment=NEEDLE.encode(), exif=exif, quality=90)
    else:
        Image.fromarray(pixels).save(stream, kind, no_jp2=True, comment=NEEDLE, irreversible=False)
    coded = stream.getvalue()
    assert NEEDLE.encode() in coded
    data = radiograph(Rows=32, Columns=32, BitsAllocated=8, BitsStored=8, HighBit=7, PixelData=encapsulate([coded]))
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    left = exported(data, syntax)
    assert NEEDLE.encode() not in left
    after, before = pydicom.dcmread(BytesIO(left)), pydicom.dcmread(BytesIO(encoded(data, syntax)))
    assert np.array_equal(after.pixel_array, before.pixel_array)
    assert without_comments(b"") == b"" and len(without_comments(data.PixelData)) == len(data.PixelData)


def test_an_overlay_in_coded_pixels_is_refused():
    data = radiograph(BitsStored=12, PixelData=encapsulate([b"\xff\xd8\xff\xd9"]))
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
    data.add_new(0x60000102, "US", 15)
    with pytest.raises(Refused, match="overlay_in_pixels"):
        exported(data, JPEG2000Lossless)


# ------------------------------------------------------------------------------------------------ words that leave

TITLED = Known(("Prof. Dr. Müller-Lüdenscheidt^Anna Maria^von der^Mag.^",), (), ("KIS-5550001",), ())


@pytest.mark.parametrize(
    ("words", "gone"),
    [
        ("Hausarzt Dr. Huber wurde verständigt.", "Huber"),
        ("Zuweiser: Dr. med. univ. Franz-Xaver Gruber", "Gruber"),
        ("Abteilung Prof. Kaltenbrunner.", "Kaltenbrunner"),
        ("Vidiert: Dr. S. Leitner", "Leitner"),
        ("Hr. Dipl.-Ing. Dr. Karl-Heinz von der Au", "Au"),
        ("Mag. Müller-Lüdenscheidt war hier.", "Lüdenscheidt"),
    ],
)
def test_titles_in_a_known_name_do_not_hide_other_people(words, gone):
    assert gone not in scrub(words, TITLED, 100, language="de").text


def test_particles_of_a_known_name_are_ordinary_words():
    found = scrub("Der Befund ist unauffällig. Das Herz und die Lunge von normaler Größe.", TITLED, 100, language="de")
    assert found.text == "Der Befund ist unauffällig. Das Herz und die Lunge von normaler Größe." and not found.residue


@pytest.mark.parametrize(
    ("language", "words", "gone"),
    [
        ("de", "In Begleitung des Sohnes Thomas Wagner.", ("Thomas", "Wagner")),
        ("de", "Die Tochter Eva Schmidt und der Ehemann Karl waren da.", ("Eva", "Schmidt", "Karl")),
        ("de", "Die Mutter der Patientin Helga Bauer berichtet.", ("Helga", "Bauer")),
        ("de", "Telefonat mit Kollegin Fischer um 14:30.", ("Fischer",)),
        ("de", "Mit kollegialen Grüßen\nSabine Leitner", ("Sabine", "Leitner")),
        ("de", "Verlauf seit März '21.", ("21",)),
        ("en", "Daughter Mary-Kate Wilson present.", ("Kate", "Wilson")),
        ("en", "Discussed with Dr. Van Der Berg.", ("Berg",)),
        ("en", "Spoke to nurse Jackie at 3pm. /s/ Peter Parker", ("Jackie", "Parker")),
        ("en", "Seen by drs. Brown and Green.", ("Brown", "Green")),
        ("en", "Alice Cooper (referring physician)", ("Alice", "Cooper")),
        ("en", "Kind regards,\nAmy Lee", ("Amy", "Lee")),
    ],
)
def test_people_around_the_patient_are_taken_out(language, words, gone):
    scrubbed = scrub(words, Known(), 100, language=language).text
    assert [word for word in gone if word in scrubbed.replace("[DATE 2020-12]", "")] == []


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("de", "Mutter Diabetes, Vater KHK. Die Schwester hat angerufen. Kollegiale Grüße."),
        ("en", "Mother has diabetes. Nurse was informed. Sister ship lesion. With regards to the lung, no change."),
        ("de", "Die Lunge ist frei. Der Sohn ist gesund."),
    ],
)
def test_what_names_nobody_stays(language, words):
    assert scrub(words, Known(), 100, language=language).text == words
