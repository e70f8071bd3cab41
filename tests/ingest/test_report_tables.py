"""Tables of reports and of pictures, as people deliver them."""

import csv
import io

import pytest

from phenotype.ingest.tables import read_table, summary
from phenotype.stage import Refused


def code(data: bytes, **columns: str) -> str:
    with pytest.raises(Refused) as refused:
        read_table(data, columns)
    return refused.value.code


def write(rows: list[list[str]], encoding: str = "utf-8", delimiter: str = ",") -> bytes:
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue().encode(encoding)


RIS = [
    ["accession_number", "patient_id", "study_date", "report_text"],
    ["A1", "P1", "20200102", 'Größe "normal",\nkein Erguss; alles gut'],
    ["", "P2", "", "a text without key"],
    ["A3", "P3", "", "  "],
]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    ("encoding", "told"),
    [("utf-8", "utf-8-sig"), ("utf-8-sig", "utf-8-sig"), ("cp1252", "cp1252"), ("utf-16", "utf-16")],
)
def test_encodings_and_delimiters(encoding, told, delimiter):
    table = read_table(write(RIS, encoding, delimiter))
    assert (table.encoding, table.delimiter) == (told, delimiter)
    first, second, third = table.rows
    assert (first.accession, first.patient, first.date) == ("A1", "P1", "2020-01-02")
    assert first.text == 'Größe "normal",\nkein Erguss; alles gut' and not first.refusal
    assert (second.number, second.refusal) == (2, "no_key") and (third.number, third.refusal) == (3, "no_text")
    assert "Erguss" not in summary(table) and "A1" not in summary(table)


@pytest.mark.parametrize(
    "header",
    ["AccessionNumber", "Accession No.", "ACCESSION_NUMBER", "accession", "StudyID", "uid", "Study Instance UID"],
)
def test_usual_names_of_the_key(header):
    assert read_table(write([[header, "Report"], ["7", "clear"]])).rows[0].accession == "7"


def test_sections_are_joined_under_their_headings():
    header = ["uid", "impression", "findings", "indication", "MeSH", "image"]
    table = read_table(write([header, ["1", "No change.", "Clear.", "Cough.", "normal", "Chest PA and lateral"]]))
    assert table.rows[0].text == "INDICATION: Cough.\nFINDINGS: Clear.\nIMPRESSION: No change."
    assert table.rows[0].image == ""  # Open-i's "image" names an examination, not a file


def test_columns_can_be_named():
    data = write([["Fall", "Befund"], ["1", "Kein Erguss"]])
    assert code(data) == "no_columns"
    table = read_table(data, {"accession": "Fall", "text": "Befund"})
    assert (table.rows[0].accession, table.rows[0].text) == ("1", "Kein Erguss")
    assert code(data, text="Text") == "column" and code(data, wrong="Befund") == "column"


def test_pictures_in_the_style_of_padchest():
    header = [
        "",
        "ImageID",
        "StudyDate_DICOM",
        "StudyID",
        "PatientID",
        "PatientBirth",
        "PatientSex_DICOM",
        "Projection",
    ]
    data = write([[*header, "Report"], ["0", "a_b.png", "20140915", "S1", "P1", "1950.0", "F", "L", "sin cambios"]])
    row = read_table(data).rows[0]
    assert (row.image, row.accession, row.patient, row.sex, row.view) == ("a_b.png", "S1", "P1", "F", "LATERAL")
    assert row.age_years == pytest.approx(64.2, abs=0.1) and row.text == "sin cambios"


def test_pictures_in_the_style_of_open_i():
    row = read_table(write([["uid", "filename", "projection"], ["1", "1_IM-0001-4001.dcm.png", "Frontal"]])).rows[0]
    assert (row.accession, row.image, row.view, row.text, row.refusal) == (
        "1",
        "1_IM-0001-4001.dcm.png",
        "FRONTAL",
        "",
        "",
    )


def test_a_folder_is_kept_unless_it_is_of_another_machine():
    rows = [["image"], ["images/1.png"], ["C:\\data\\2.png"], ["/data/3.png"], ["../4.png"], ["sub\\5.png"]]
    assert [r.image for r in read_table(write(rows)).rows] == ["images/1.png", "2.png", "3.png", "4.png", "sub/5.png"]
    assert read_table(write(rows)).rows[0].accession == "1"  # a picture without a study is a study of its own


def test_odd_tables():
    assert code(b"") == code(b"\n\n") == "no_header"
    assert code(b"a,b\n1,2\n") == code(b"accession,b\n1,2\n") == code(b"b,report\n1,2\n") == "no_columns"
    assert code(b"\xff\xfea") == "encoding"
    ragged = read_table(b"accession,report\n1,clear\n2\n3,too,many\n\n4,clear\n")
    assert [(r.number, r.refusal) for r in ragged.rows] == [(1, ""), (2, "cells"), (3, "cells"), (4, "")]
    long = "word " * 100_000
    assert read_table(write([["accession", "report"], ["1", long]])).rows[0].text == long.strip()
    nul = read_table(b"accession,report\n1,a\x00b\n").rows[0]
    assert nul.text in ("a\x00b", "ab") and csv.field_size_limit() == 131072
    assert code(b'accession,report\n1,"' + b"x" * 10_000_001 + b'"\n') == "bad_table"


@pytest.mark.parametrize("further", [16_382, 16_383, 5_000_000])
def test_more_columns_than_a_table_has(further):
    data = b"accession,report" + b",c" * further + b"\nA1,clear" + b"," * further + b"\n"
    if further == 16_382:
        (row,) = read_table(data).rows
        assert (row.accession, row.text) == ("A1", "clear")
    else:
        assert code(data) == "bad_table"
