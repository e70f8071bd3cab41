"""Planted personal data of 100 patients: nothing of it in any byte that leaves, in whatever encoding it is searched."""

import base64
import csv
import html
import json
import random
import subprocess
import sys
import urllib.parse
import zlib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_objects import encoded, radiograph, uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless
from sqlalchemy import select, update

from db.session import Database, open_database
from db.tables import VaultAccess, VaultKey
from phenotype.export.deidentify import Options
from phenotype.export.dicom_folder import export_dicom
from phenotype.export.dicom_selection import Selection
from phenotype.export.scrub_folder import export_reports

PATIENTS, SEED = 100, 20261123
KINDS = ("family", "given", "number", "accession", "phone", "street", "physician", "born", "born", "born", "born")
_SYLLABLES = ["zwick", "brenn", "trupp", "klimm", "dorff", "vogg", "strob", "haxl", "mirr", "pfurr", "knitz", "schwob"]
_LETTERS = {  # by the character set of the header
    "ISO_IR 100": "äöüßéñ",
    "ISO_IR 192": "łşőğčž",
    "ISO_IR 144": "жщюяфы",
    "ISO_IR 126": "λψωδξφ",
    "GB18030": "王晓东张伟丽",
    "ISO_IR 6": "aeiouy",
}


@dataclass(frozen=True)
class Planted:
    """A person who does not exist."""

    family: str
    given: str
    number: str
    accession: str
    born: date
    phone: str
    street: str
    physician: str
    charset: str

    def needles(self) -> list[str]:
        """What may not be found anywhere."""
        days = [f"{self.born:{form}}" for form in ("%Y%m%d", "%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y")]
        return [self.family, self.given, self.number, self.accession, self.phone, self.street, self.physician, *days]


def people() -> list[Planted]:
    dice = random.Random(SEED)
    names = [a + b + c for a in _SYLLABLES for b in "aeiou" for c in _SYLLABLES if a != c]
    dice.shuffle(names)
    made = []
    for n in range(PATIENTS):
        charset = list(_LETTERS)[n % len(_LETTERS)]
        mark = "".join(dice.choices(_LETTERS[charset], k=2))
        made.append(
            Planted(
                family=(names[3 * n] + mark).capitalize(),
                given=(names[3 * n + 1] + mark).capitalize(),
                number=f"MRN{dice.randrange(10**8, 10**9)}",
                accession=f"ACC{dice.randrange(10**8, 10**9)}",
                born=date(1930, 1, 1) + timedelta(dice.randrange(25000)),
                phone=f"0316/{dice.randrange(10**6, 10**7)}",
                street=f"{names[3 * n + 2].capitalize()}gasse {dice.randrange(1, 99)}",
                physician=names[3 * n + 2].capitalize() + "mayr",
                charset=charset,
            )
        )
    return made


def planted_object(who: Planted, n: int) -> bytes:
    """A radiograph with the person in every corner of the file."""
    name, born = f"{who.family}^{who.given}", f"{who.born:%Y%m%d}"
    item, deep = Dataset(), Dataset()
    for level in (item, deep):
        level.PatientName, level.PatientID, level.PatientBirthDate = name, who.number, born
        level.RequestedProcedureDescription = f"for {who.family}, {who.phone}"
        level.ReferencedSOPInstanceUID = uid("reference", n)
        block = level.private_block(0x0029, "SOMEONE 1.0", create=True)
        block.add_new(0x01, "LO", who.number)
        block.add_new(0x02, "OB", who.street.encode("utf-8"))
    deep.ScheduledPerformingPhysicianName = f"{who.physician}^Dr"
    item.ReferencedImageSequence = Sequence([deep])
    data = radiograph(
        f"planted {n}",
        SpecificCharacterSet="" if who.charset == "ISO_IR 6" else who.charset,
        PatientName=name,
        PatientID=who.number,
        AccessionNumber=who.accession[:16],
        PatientBirthDate=born,
        OtherPatientIDs=[who.number, f"{who.number}X"],
        PatientAddress=who.street,
        PatientTelephoneNumbers=who.phone,
        ReferringPhysicianName=f"{who.physician}^Doc",
        OperatorsName=f"{who.given}^Op",
        InstitutionName=f"Institut {who.physician}",
        StudyDescription=f"{who.family} Thorax",
        SeriesDescription=f"born {who.born:%d.%m.%Y}",
        ProtocolName=who.number,
        ImageComments=f"{who.given} {who.family} {who.born:%Y-%m-%d} {who.born:%m/%d/%Y}",
        DerivationDescription=f"tel {who.phone}",
        Manufacturer=f"{who.family} GmbH",  # the table keeps it
        SoftwareVersions=who.accession,
        ConvolutionKernel=f"{who.given}"[:16],
        RequestAttributesSequence=Sequence([item]),
        SourceImageSequence=Sequence([item]),
        BurnedInAnnotation="YES" if n % 10 == 1 else None,
        Rows=12,
        Columns=16,
        PixelData=np.full(12 * 16, 100 + n, np.uint16).tobytes() + who.number.encode() * 2,
    )
    data.add_new(0x60003000, "OW", _everywhere(who))
    data.add_new(0x60004000, "LT", f"{who.given} {who.family}")
    data.add_new(0x00190010, "LO", "SOMEONE 2.0")
    data.add_new(0x00191001, "UN", zlib.compress(f"{who.given} {who.family}".encode()))
    data.add_new(0x00091002, "UN", who.street.encode("utf-8", "replace"))
    data.add_new(0x00180003, "UN", who.phone.encode())  # of no dictionary
    data.add_new(0xFFFCFFFC, "OB", who.number.encode())
    syntax = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless][n % 4]
    if syntax == RLELossless:
        data.PixelData = data.PixelData[: 12 * 16 * 2]
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(RLELossless, generate_instance_uid=False)
    preamble = f"{who.number} {who.accession}".encode().ljust(128, b"\0")
    return encoded(data, syntax, preamble)


def forms(needle: str) -> dict[str, list[bytes]]:
    """How a needle may look in bytes, by encoding."""
    utf8 = needle.encode()
    found = {
        "utf-8": [utf8],
        "utf-16-le": [needle.encode("utf-16-le")],
        "utf-16-be": [needle.encode("utf-16-be")],
        "utf-32-le": [needle.encode("utf-32-le")],
        "upper": [needle.upper().encode()],
        "lower": [needle.lower().encode()],
        "backwards": [needle[::-1].encode()],
        "base64": [_inner64(utf8, shift) for shift in range(3)],
        "hex": [utf8.hex().encode(), utf8.hex().upper().encode(), utf8.hex(" ").encode()],
        "percent": [urllib.parse.quote(needle, safe="").encode()],
        "json": [json.dumps(needle)[1:-1].encode()],
        "html": [html.escape(needle).encode(), "".join(f"&#{ord(c)};" for c in needle).encode()],
        "inflated": [utf8],
    }
    for charset in ("latin-1", "cp1252", "iso8859-5", "iso8859-7", "gb18030", "cp037"):
        try:
            found[charset] = [needle.encode(charset)]
        except UnicodeEncodeError:
            continue
    return found


def _inner64(data: bytes, shift: int) -> bytes:
    """What of `data` is the same in base64 wherever it stands, when it stands `shift` bytes behind a multiple of 3."""
    coded = base64.b64encode(b"\0" * shift + data)
    return coded[-(-shift * 8 // 6) : (shift + len(data)) * 8 // 6]


def _everywhere(who: Planted) -> bytes:
    """All needles in all forms, as a private attribute might hold them."""
    plain = " ".join(who.needles())
    parts = [form for needle in who.needles() for kind in forms(needle).values() for form in kind]
    whole = b" ".join(parts) + b" " + zlib.compress(plain.encode()) + b" "
    return whole + b" " * (len(whole) % 2)


def haystack(folder: Path) -> tuple[bytes, bytes]:
    """All bytes of all files with their names; and all that can be inflated in them."""
    raw, inflated = bytearray(), bytearray()
    for path in sorted(folder.rglob("*")):
        raw += str(path.relative_to(folder)).encode() + b"\n"
        if not path.is_file():
            continue
        data = path.read_bytes()
        raw += data + b"\n"
        for head in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b"):
            start = data.find(head)
            while start >= 0:
                try:
                    inflated += zlib.decompressobj(47).decompress(data[start:])
                except zlib.error:
                    inflated += b""
                start = data.find(head, start + 1)
        if data[128:132] == b"DICM":
            meta = pydicom.filereader.read_file_meta_info(path)
            if meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
                start = 132 + 12 + meta.FileMetaInformationGroupLength
                inflated += zlib.decompressobj(-15).decompress(data[start:])
    return bytes(raw), bytes(inflated)


def search(planted: list[tuple[Planted, tuple[bytes, bytes]]]) -> dict[str, dict[str, int]]:
    """Encoding -> kind of needle -> how many of the people were found in their haystacks."""
    found: dict[str, dict[str, int]] = {}
    for who, (raw, inflated) in planted:
        both = raw + inflated
        for kind, needle in zip(KINDS, who.needles(), strict=True):
            for encoding, looks in forms(needle).items():
                if any(look in (inflated if encoding == "inflated" else both) for look in looks):
                    of_encoding = found.setdefault(encoding, {})
                    of_encoding[kind] = of_encoding.get(kind, 0) + 1
    return found


def anyone(planted: list[Planted], folder: Path) -> dict[str, dict[str, int]]:
    """What of anyone is found in any file of a folder."""
    everything = haystack(folder)
    return search([(who, everything) for who in planted])


def report_of(who: Planted, n: int) -> str:
    german = (
        f"Patient {who.given} {who.family}, geb. {who.born:%d.%m.%Y}, {who.number}, Tel. {who.phone}, {who.street}. "
        f"Zuweiser: Dr. {who.physician}. Thorax: kein Infiltrat bei {who.family}s Lunge."
    )
    english = (
        f"{who.family.upper()}, {who.given} (DOB {who.born:%m/%d/%Y}), {who.number}, accession {who.accession}, phone "
        f"{who.phone}, lives at {who.street}. Lungs are clear. Electronically signed by Dr. {who.physician}"
    )
    return (german, english)[n % 2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Planted], Path, Database, Path]:
    """People, what a PACS delivers of them, and the database that took it in."""
    top = tmp_path_factory.mktemp("planted")
    planted, source = people(), top / "source"
    for n, who in enumerate(planted):
        folder = source / f"{who.family}_{who.given}" / who.number
        folder.mkdir(parents=True)
        (folder / f"{who.born:%Y%m%d}_{who.accession}.dcm").write_bytes(planted_object(who, n))
    with (source / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["accession_number", "patient_id", "study_date", "modality", "report_text"])
        for n, who in enumerate(planted):
            rows.writerow([who.accession, who.number, "20200110", "CR", report_of(who, n)])
    url = f"sqlite:///{top / 'x.db'}"
    database = open_database(url)
    with database.writing() as session:
        session.execute(update(VaultKey).values(key=b"k" * 32))  # the same surrogates each time
    command = [sys.executable, "-m", "phenotype", "-q", "--db", url, "ingest", str(source)]
    ran = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ran.returncode in (0, 3), ran.stderr.decode()
    return planted, source, database, top


def test_the_search_finds_everything_in_what_was_delivered(
    world: tuple[list[Planted], Path, Database, Path],
) -> None:
    """The negative control: every kind of every person, in every encoding."""
    planted, source, _, _ = world
    found = search([(who, haystack(source / f"{who.family}_{who.given}")) for who in planted])
    assert len(found) >= 14
    for encoding in forms("x"):
        expected: dict[str, int] = {}
        for who in planted:
            for kind, needle in zip(KINDS, who.needles(), strict=True):
                expected[kind] = expected.get(kind, 0) + (encoding in forms(needle))
        assert found[encoding] == expected, (encoding, SEED)


@pytest.mark.parametrize("kept", [False, True])
def test_nothing_of_it_leaves_as_dicom(world: tuple[list[Planted], Path, Database, Path], kept: bool) -> None:
    planted, _, database, top = world
    out = top / f"dicom {kept}"
    options = Options(characteristics=kept, device=kept, descriptors=kept, safe_private=kept)
    done = export_dicom(database, out, Selection(everything=True), options, who="tester")
    assert dict(done.refused) == {"burned_in:declared": 10} and done.objects == PATIENTS - 10
    assert anyone(planted, out) == {}, SEED
    uids = {uid(kind, n).encode() for n in range(PATIENTS) for kind in ("reference", "instance")}
    uids |= {uid("study", who.accession).encode() for who in planted}
    raw, _ = haystack(out)
    assert not [one for one in uids if one in raw]
    for path in sorted((out / "dicom").rglob("*.dcm"))[::9]:
        data = pydicom.dcmread(path)
        assert data.PatientIdentityRemoved == "YES" and data.PatientID == path.parts[-4]
        assert data.SourceImageSequence[0].ReferencedSOPInstanceUID.startswith("2.25.")
    with database.reading() as session:
        looks = [(look.who, look.way) for look in session.scalars(select(VaultAccess))]
    assert ("tester", "export dicom") in looks


def test_nothing_of_it_leaves_as_words(world: tuple[list[Planted], Path, Database, Path]) -> None:
    planted, _, database, top = world
    out = top / "reports"
    done = export_reports(database, out, Selection(everything=True), strict=False, who="tester")
    assert done.reports == PATIENTS
    assert anyone(planted, out) == {}, SEED
    text = (out / "reports.csv").read_text(encoding="utf-8")
    assert text.count("kein Infiltrat") == text.count("Lungs are clear") == PATIENTS // 2
