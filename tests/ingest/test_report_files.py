"""Sheets, texts, PDF and XML, and what a file is taken for."""

import struct
import sys
import zipfile
from datetime import date, datetime
from io import BytesIO

import pytest
from report_maker import (
    CDA,
    OPENI,
    STUDY,
    diagnostic,
    document,
    fhir,
    hl7,
    item,
    obx,
    parquet,
    pdf,
    table,
    workbook,
    zipped,
)

from phenotype.imaging.files import FileRef
from phenotype.ingest.contents import Read, Record, Records
from phenotype.ingest.reading import Delivered, read_delivered, read_file
from phenotype.ingest.reports.files import is_accompanying, named
from phenotype.ingest.tables import read_table
from phenotype.stage import Refused

RIS = [
    ["AccessionNumber", "PatientID", "ReportText"],
    ["A1", "P1", 'Größe "normal",\nkein Erguss'],
    ["A2", "P2", "Clear."],
]


def read(name: str, data: bytes, names: str = "", **columns: str) -> Read:
    return read_delivered(Delivered(data, name, columns, names))


def rows(name: str, data: bytes, names: str = "", **columns: str) -> tuple[Record, ...]:
    content = read(name, data, names, **columns).content
    assert isinstance(content, Records)
    return content.rows


def reason(name: str, data: bytes, names: str = "", **columns: str) -> str:
    found = read(name, data, names, **columns)
    assert found.content is None
    return found.reason if found.state == "quarantined" else f"{found.state}:{found.reason}"


def said(found: tuple[Record, ...]) -> list[tuple[str, str, str]]:
    return [(row.accession, row.patient, row.text) for row in found]


EXPECTED = [("A1", "P1", 'Größe "normal",\nkein Erguss'), ("A2", "P2", "Clear.")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", "^", "~"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "iso8859-15", "cp850", "mac-roman"],
)
def test_tables_in_all_encodings(encoding, delimiter):
    for end in ("\r\n", "\n"):
        assert said(rows("r.csv", table(RIS, encoding, delimiter, end))) == EXPECTED


def test_a_control_sample_in_an_encoding_that_nobody_tries():
    """The negative control of the encodings: what is not tried comes out wrong, and so would be seen above."""
    assert said(rows("r.csv", table(RIS, "iso8859-2"))) == EXPECTED  # German is the same there
    assert said(rows("r.csv", table([RIS[0], ["A1", "P1", "Łódź żółty"]], "iso8859-2"))) != [("A1", "P1", "Łódź żółty")]


@pytest.mark.parametrize(
    "text", ["Cœur élargi, œdème", "corazón, señal, año", "Überblähung", "à côté", "größer, „groß“ – 5 µm"]
)
def test_western_text_of_windows_stays_as_it_is(text):
    assert rows("r.csv", table([RIS[0], ["A1", "P1", text]], "cp1252"))[0].text == text


def test_meanings_of_columns():
    header = [
        "StudyInstanceUID", "Accession Number", "Patient ID", "Issuer of Patient ID", "Patient Name", "Modality",
        "Report ID",
        "Report Status", "Report Date", "Report Time", "Language", "Report",
    ]  # fmt: skip
    line = [STUDY, "A1", "P1", "H", "Doe^Jane", "ct", "R1", "F", "2020-01-02", "03:04", "DE", "Clear."]
    (row,) = read_table(table([header, line])).rows
    assert row == Record(
        1, accession="A1", study_uid=STUDY, patient="P1", issuer="H", name="Doe^Jane", modality="CT", text="Clear.",
        key="R1",
        status="final", issued="2020-01-02T03:04:00", language="de",
    )  # fmt: skip


def test_a_study_uid_alone_is_the_key():
    assert rows("r.csv", table([["StudyInstanceUID", "Report"], [STUDY, "Clear."]]))[0].accession == STUDY
    data = table([["Accession", "Study", "Report"], ["", STUDY, "Clear."], ["", "", "Clear."]])
    first, second = rows("r.csv", data, study_uid="Study")
    assert (first.study_uid, first.accession, first.refusal, second.refusal) == (STUDY, STUDY, "", "no_key")
    assert rows("r.csv", table([["Study", "Report"], [STUDY, "x"]]), study_uid="Study")[0].study_uid == STUDY


def test_odd_tables():
    assert said(rows("r.csv", b"sep=;\r\n" + table(RIS, "utf-8", ";"))) == EXPECTED
    assert said(rows("r.csv", table([["Export of today", "", ""], ["", "", ""], *RIS]))) == EXPECTED
    assert said(rows("r.csv", table([[*line, ""] for line in RIS]))) == EXPECTED
    trailing = table(RIS).replace(b'Erguss"', b'Erguss",,')
    assert said(rows("r.csv", trailing)) == EXPECTED
    twice = [["accession", "accession", "report"], ["A1", "A9", "x"], ["A1", "A9", "y"]]
    assert said(rows("r.csv", table(twice))) == [("A1", "", "x"), ("A1", "", "y")]
    assert said(rows("r.csv", table(RIS, end="\r"))) == EXPECTED
    blank = rows(
        "r.csv", table([RIS[0], ["", "", ""], ["A1", "", " "], ["", "P1", "x"], ["A1"], ["A1", "", "\x01" * 9]])
    )
    assert [r.refusal for r in blank] == ["no_text", "no_key", "cells", "not_text"]
    assert reason("r.csv", b'accession,report\n1,"' + b"x" * 10_000_001) == "bad_table"
    assert rows("r.csv", b"accession,report\n1," + b"x " * 1_100_000)[0].refusal == "too_large"


def test_nothing_told_holds_content():
    for name, data in {
        "r.csv": table(RIS),
        "r.xlsx": workbook(RIS),
        "r.parquet": parquet(RIS),
        "A1.txt": b"Clear.",
    }.items():
        content = read(name, data).content
        assert isinstance(content, Records) and not any(
            w in f"{content.told} {content}" for w in ("A1", "P1", "Clear", "ReportText")
        )


# sheets


def test_workbooks():
    shown = [
        ["Export", None, None],
        [None, None, None],
        ["Accession", "Study Date", "Report"],
        [4711, datetime(2020, 1, 2), "Clear."],
    ]
    other = [["notes"], ["nothing"]]
    assert said(rows("r.xlsx", workbook(RIS))) == EXPECTED
    found = rows(
        "r.xlsx", workbook(other, shown, [["Accession", "Report", "x"], [17.0, "Dry."], [None, "x"], ["A", None]])
    )
    assert [(r.number, r.accession, r.date, r.text, r.refusal) for r in found] == [
        (1, "4711", "2020-01-02", "Clear.", ""), (2, "17", "", "Dry.", ""), (3, "", "", "x", "no_key"),
        (4, "A", "", "", "no_text"),
    ]  # fmt: skip
    assert reason("r.xlsx", workbook(other)) == "no_columns" and reason("r.xlsx", workbook([])) == "no_header"
    assert said(rows("r.xlsx", workbook([["Fall", "Befund"], ["1", "x"]]), accession="Fall", text="Befund")) == [
        ("1", "", "x")
    ]
    assert said(rows("named_otherwise", workbook(RIS))) == EXPECTED


def test_leading_zeros_that_a_sheet_shows():
    import openpyxl

    book = openpyxl.load_workbook(BytesIO(workbook([["Accession", "Report"], [4711, "x"]])))
    book.active["A2"].number_format = "00000000"
    stream = BytesIO()
    book.save(stream)
    assert rows("r.xlsx", stream.getvalue())[0].accession == "00004711"


def test_damaged_and_hostile_workbooks():
    data = workbook(RIS)
    assert reason("r.xlsx", data[:-40]) == "bad_sheet" or reason("r.xlsx", data[:-40]) == "not_dicom"
    assert reason("r.xlsx", zipped({"xl/workbook.xml": b"x"})) == "bad_sheet"
    assert reason("r.xlsx", zipped({"xl/workbook.xml": b"<x/>" + b" " * 20_000_000})) == "sheet_bomb"
    assert reason("r.xlsx", zipped({"xl/workbook.xml": b"", **{f"xl/{i}": b"" for i in range(5001)}})) == "sheet_bomb"
    parts = {
        entry.filename: zipfile.ZipFile(BytesIO(data)).read(entry)
        for entry in zipfile.ZipFile(BytesIO(data)).infolist()
    }
    sheet = parts["xl/worksheets/sheet1.xml"]
    entity = b'<!DOCTYPE x [<!ENTITY a "aaaa">]>' + sheet[sheet.index(b"<worksheet") :]
    assert reason("r.xlsx", zipped(parts | {"xl/worksheets/sheet1.xml": entity})) == "bad_sheet"
    far = sheet.replace(b'r="3"', b'r="1048576"').replace(b'"A3"', b'"A1048576"')
    assert said(rows("r.xlsx", zipped(parts | {"xl/worksheets/sheet1.xml": far})))[0] == EXPECTED[0]


def test_parquet():
    assert said(rows("r.parquet", parquet(RIS))) == EXPECTED
    typed = [
        ["accession", "study_date", "age", "report", "vector"],
        [4711, date(2020, 1, 2), 61.0, "Clear.", [1, 2]],
        [7, None, None, None, None],
    ]
    first, second = rows("r", parquet(typed))
    assert (first.accession, first.date, first.age_years, second.refusal) == ("4711", "2020-01-02", 61.0, "no_text")
    assert (
        reason("r.parquet", parquet([["a"], [1]])) == "no_columns"
        and reason("r.parquet", parquet(RIS)[:-9]) == "bad_parquet"
    )


def test_parquet_text_that_is_not_utf8():
    damaged = parquet([RIS[0], ["A1", "P1", "Norm\u00e4l"], ["A2", "P2", "Clear."]]).replace(
        "Norm\u00e4l".encode(), b"Norm\xe4ls"
    )
    assert said(rows("r.parquet", damaged)) == [("A1", "P1", "Normäls"), ("A2", "P2", "Clear.")]


def test_parquet_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert reason("r.parquet", b"PAR1") == "needs_extra:parquet"


# one report a file


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("x/A1.txt", "", {"accession": "A1"}), ("x/A 1.2.txt", "", {"accession": "A 1.2"}),
        ("files/p10/p10000032/s50414267.txt", "", {"patient": "10000032", "accession": "50414267"}),
        (f"{STUDY}.txt", "", {"accession": STUDY, "study_uid": STUDY}),
        ("P1/A1.txt", "{patient}/{accession}.txt", {"patient": "P1", "accession": "A1"}),
        ("deep/er/P1_A1.TXT", "{patient}_{accession}.txt", {"patient": "P1", "accession": "A1"}),
        ("P1/20200101/1/A1.rep", "{patient}/{date}/*/{accession}.rep", {"patient": "P1", "date": "20200101",
        "accession": "A1"}),
        ("P1\\A1.txt", "{patient}\\{accession}.txt", {"patient": "P1", "accession": "A1"}),
        ("R7-A1.txt", "{key}-{accession}.txt", {"key": "R7", "accession": "A1"}),
        ("A1_final.txt", "{accession}_{any}.txt", {"accession": "A1"}),
        ("a+b(1).txt", "a+b({accession}).txt", {"accession": "1"}),
    ],
)  # fmt: skip
def test_names_of_files(name, names, expected):
    assert named(name, names) == expected


@pytest.mark.parametrize("names", ["x.txt", "{patient}.txt", "{accession}/{accession}", "{accession}{wrong}", "{}"])
def test_patterns_that_make_no_sense(names):
    with pytest.raises(Refused) as refused:
        named("A1.txt", names)
    assert refused.value.code == "names"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "cp850", "mac-roman"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts(encoding, end):
    text = f"Größe normal.{end}{end}Kein Erguß.{end}"
    (row,) = rows("A1.txt", text.encode(encoding))
    assert (row.accession, row.text, row.refusal) == ("A1", "Größe normal.\n\nKein Erguß.", "")


def test_texts_that_are_none():
    assert reason("A1.txt", b"Clear\0\0\1\2 x") == reason("A1.txt", bytes(range(1, 32)) * 4) == "not_text"
    assert reason("A1.txt", b" \r\n ") == "no_text" and reason("A1.txt", b"\xff\xfea") == "encoding"
    assert reason("A1.txt", b"x" * 2_000_001) == "too_large"
    assert reason("A1.txt", b"Clear.", "{accession}_{patient}.txt") == "no_key"
    assert rows("A1.txt", b"Clear.\x1a")[0].text == "Clear."  # as DOS ends its files


@pytest.mark.parametrize(
    "name",
    [
        "README.txt",
        "x/readme.md",
        "LICENSE.txt",
        "licence-mimic.txt",
        "SHA256SUMS.txt",
        "import.log",
        "LICENSE",
        "log.txt",
        "manifest.txt",
    ],
)
def test_accompanying_texts(name):
    assert is_accompanying(name) and reason(name, b"about the data") == "ignored:accompanying_text"


def test_reports_are_not_accompanying():
    assert not any(map(is_accompanying, ("A1.txt", "logan.txt", "notice7.txt", "readme", "1.dcm", "terminal.txt")))
    assert reason("unknown", b"something else") == "not_dicom"
    assert rows("A1.befund", b"Kein Erguss.", "{accession}.befund")[0].accession == "A1"


def test_a_table_called_text():
    assert said(rows("reports.txt", table(RIS, delimiter="\t"))) == EXPECTED
    assert rows("A1.txt", b"Report, findings: none")[0].text == "Report, findings: none"
    assert said(rows("A1.txt", b"<!DOCTYPE html><html><body><p>Clear.</p><p>Dry.</p></body></html>")) == [
        ("A1", "", "Clear.\nDry.")
    ]


def test_pdf_files():
    assert said(rows("A1.pdf", pdf("Clear (chest).", "Page 2"))) == [("A1", "", "Clear (chest).\nPage 2")]
    assert reason("A1.pdf", pdf("")) == "no_text_layer" and reason("A1.pdf", pdf("x")[:100]) == "bad_pdf"


def test_locked_pdf_files():
    import pypdf

    writer = pypdf.PdfWriter(clone_from=BytesIO(pdf("Clear.")))
    writer.encrypt("secret", algorithm="RC4-128")
    stream = BytesIO()
    writer.write(stream)
    assert reason("A1.pdf", stream.getvalue()) == "encrypted"


# XML


def test_open_i():
    report, first, second = rows("1.xml", OPENI)
    assert report.text == "INDICATION: Cough < 1 week\nCOMPARISON: None.\nFINDINGS: Clear.\nIMPRESSION: Normal chest."
    assert (report.accession, first.image, second.image) == (
        "CXR1",
        "CXR1_1_IM-0001-3001.png",
        "CXR1_1_IM-0001-4001.png",
    )
    assert first.accession == second.accession == "CXR1"
    assert rows("1.xml", OPENI.replace(b'<uId id="CXR1"/>', b""))[0].refusal == "no_key"
    assert [r.refusal for r in rows("1.xml", b'<eCitation><uId id="1"/></eCitation>')] == ["no_text"]


def test_cda():
    (row,) = rows("1.xml", CDA)
    assert row == Record(
        1, accession="A1", study_uid=STUDY, patient="P1", issuer="H", name="Doe^Jane", birth="19600101", sex="F",
        date="2020-01-01",
        text="BEFUND: Kein Erguss.\nHerz normal\nBEURTEILUNG: Unauffällig.", key="S1", issued="2020-01-02T03:04:05",
        language="de-at",
    )  # fmt: skip


def test_hostile_and_other_xml():
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "' + b"b" * 1000 + b'">]><eCitation>&b;&b;</eCitation>'
    fetch = b'<?xml version="1.0"?><!DOCTYPE a SYSTEM "file:///etc/passwd"><eCitation/>'
    deep = b"<?xml version='1.0'?>" + b"<a>" * 50_000 + b"</a>" * 50_000
    assert (
        reason("1.xml", bomb)
        == reason("1.xml", fetch)
        == reason("1.xml", deep)
        == reason("1.xml", OPENI[:-5])
        == "bad_xml"
    )
    assert reason("1.xml", b"<?xml version='1.0'?><other/>") == "unknown_xml"


# what a file is taken for


def test_what_a_file_is():
    order = {
        "dicom": document(item("TEXT", None, TextValue="Clear.")), "hl7": hl7(*obx("Clear.")),
        "fhir": fhir(diagnostic()),
        "xml": OPENI, "pdf": pdf("x"), "xlsx": workbook(RIS), "parquet": parquet(RIS),
    }  # fmt: skip
    for kind, data in order.items():  # whatever the name
        for name in ("x", "x.dat", "x.bin"):
            assert read(name, data).kind == {"dicom": "sr"}.get(kind, kind), kind
    for data in (
        b"\x0b" + order["hl7"],
        b"\r\n " + order["hl7"],
        b"\xef\xbb\xbf" + order["hl7"],
        order["hl7"].decode().encode("utf-16"),
    ):
        assert read("x.txt", data).kind == "hl7"
    assert (
        read("x.txt", order["fhir"]).kind == "fhir"
        and read("x", b"\xef\xbb\xbf [" + order["fhir"] + b"]").kind == "fhir"
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "office_save_as_xlsx"),
        (zipped({"word/document.xml": b"x"}), "word_save_as_txt"),
        (zipped({"content.xml": b"x"}), "opendocument_save_as_xlsx"),
        (b"PK\x03\x04 and more", "not_dicom"), (b"{" * 50, "bad_json"), (b'{"a": 1}', "unknown_json"),
        (b"", "not_dicom"),
        (struct.pack("<I", 0x5A4D), "not_dicom"),
    ],
)  # fmt: skip
def test_formats_that_are_refused(data, code):
    assert reason("x", data) == code


def test_a_file_on_disk(tmp_path):
    path = tmp_path / "P1" / "A1.txt"
    path.parent.mkdir()
    path.write_bytes(b"Clear.")
    found = read_file(FileRef(str(path)), {}, "{patient}/{accession}.txt")
    assert found.kind == "text" and len(found.digest) == 64 and isinstance(found.content, Records)
    assert said(found.content.rows) == [("A1", "P1", "Clear.")]
