"""What hospitals really deliver: folders that are used again, numbers that are used again, reports without numbers."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dicom_maker import dicom, uid
from report_maker import diagnostic, fhir, hl7, obx, table, zipped
from sqlalchemy import text

from db.session import Database
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.ingest.delivery import take_in
from phenotype.ingest.matching import denies
from phenotype.ingest.stage import Assemble, Ingest
from phenotype.stage import run_stage


class Hospital:
    """A database, and the folder that deliveries are written to."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder = database, folder
        self.home = folder.parent / "home"
        self.clock = 1_600_000_000

    def put(self, **files: bytes) -> None:
        """Write files, each newer than those before; "/" in their names may be "__"."""
        for name, data in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            self.clock += 1
            os.utime(path, (self.clock, self.clock))

    def ingest(self, *names: str, **knobs: Any) -> None:
        take_in(Ingest(**knobs), self.database, self.home, sources=[self.folder / name for name in names or ("",)])
        run_stage(Assemble(), self.database, self.home)

    def ask(self, query: str) -> list[Any]:
        with self.database.reading() as session:
            return [tuple(row) for row in session.execute(text(query))]

    def files(self) -> list[tuple[str, str, str]]:
        """Name, state and reason of each file."""
        found = self.ask(
            "SELECT v.path, v.member, f.state, f.reason FROM export_file f JOIN vault_export_file v ON v.file_id = f.id"
        )
        return sorted((Path(member or path).name, state, reason) for path, member, state, reason in found)

    def reports(self) -> dict[str, tuple[str, str]]:
        """Words -> match, by what."""
        rows = self.ask("SELECT v.text, match, matched_by FROM report JOIN vault_report v ON v.report_id = report.id")
        return {words: (match, by) for words, match, by in rows}

    def shades(self) -> dict[str, float]:
        """Accession number -> the shade that the study's image shows, read where the database says."""
        rows = self.ask(
            "SELECT s.accession, f.path, f.member FROM image i JOIN image_instance p ON p.image_id = i.id"
            " JOIN instance n ON n.id = p.instance_id JOIN vault_export_file f ON f.file_id = n.file_id"
            " JOIN vault_study s ON s.study_id = i.study_id"
        )
        return {number: float(read_pixels([FileRef(path, member)]).pixels[0, 0]) for number, path, member in rows}


@pytest.fixture
def hospital(database: Database, tmp_path: Path) -> Iterator[Hospital]:
    (tmp_path / "delivery").mkdir()
    yield Hospital(database, tmp_path / "delivery")


def scan(number: str, shade: int, **attributes: Any) -> bytes:
    values = {"AccessionNumber": f"A{number}", "PatientID": f"P{number}"} | attributes
    study = (values["AccessionNumber"], values.get("StudyDate", ""))
    values |= {"StudyInstanceUID": uid("study", *study), "SeriesInstanceUID": uid("series", *study)}
    return dicom(f"scan{number}{values.get('StudyDate', '')}", shade, **values)


# -------------------------------------------------------------------------------------- a folder that is used again


def test_a_file_overwritten_by_another_patient_no_longer_shows_under_the_first(hospital: Hospital) -> None:
    hospital.put(IM0=scan("1", 1), IM1=scan("2", 2))
    hospital.ingest()
    assert hospital.shades() == {"A1": 1, "A2": 2}
    hospital.put(IM0=scan("3", 3))
    hospital.ingest()
    assert hospital.shades() == {"A2": 2, "A3": 3}
    assert ("IM0", "quarantined", "overwritten") in hospital.files()
    before = hospital.files()
    hospital.ingest()
    assert hospital.files() == before


def test_a_copy_takes_the_place_of_an_overwritten_file(hospital: Hospital) -> None:
    hospital.put(a__IM0=scan("1", 1), b__COPY=scan("1", 1))
    hospital.ingest()
    for name in ("a__IM0", "b__COPY"):
        hospital.put(**{name: scan("3", 3)})
        hospital.ingest()
        expected = {"A1": 1, "A3": 3} if name == "a__IM0" else {"A3": 3}
        assert hospital.shades() == expected, name


def test_what_contradicted_an_overwritten_file_counts_now(hospital: Hospital) -> None:
    hospital.put(IM0=scan("1", 1))
    hospital.ingest()
    hospital.put(IM0=scan("1", 9))  # the same UID, corrected pixels, under the same name
    hospital.ingest()
    assert hospital.shades() == {"A1": 9}
    assert hospital.files() == [("IM0", "ingested", ""), ("IM0", "quarantined", "overwritten")]


def test_an_archive_overwritten_by_another(hospital: Hospital) -> None:
    hospital.put(**{"cd.zip": zipped({"IM0": scan("1", 1)})})
    hospital.ingest()
    hospital.put(**{"cd.zip": zipped({"IM0": scan("3", 3)})})
    hospital.ingest()
    assert hospital.shades() == {"A3": 3}


def test_files_that_were_only_touched_stay_as_they_are(hospital: Hospital) -> None:
    hospital.put(IM0=scan("1", 1), **{"cd.zip": zipped({"IM2": scan("2", 2)})})
    hospital.ingest()
    images = hospital.ask("SELECT id FROM image ORDER BY id")
    hospital.put(IM0=scan("1", 1), **{"cd.zip": zipped({"IM2": scan("2", 2)})})
    hospital.ingest()
    assert hospital.ask("SELECT id FROM image ORDER BY id") == images
    assert not [row for row in hospital.files() if row[2] == "overwritten"]


def test_a_file_that_was_still_being_copied_leaves_no_fault_behind(hospital: Hospital) -> None:
    hospital.put(IM0=scan("1", 1)[:600])
    hospital.ingest()
    assert hospital.files() == [("IM0", "quarantined", "truncated")]
    hospital.put(IM0=scan("1", 1))
    hospital.ingest()
    assert hospital.files() == [("IM0", "ignored", "overwritten"), ("IM0", "ingested", "")]


# -------------------------------------------------------------------------------------- numbers that are used again


def test_an_accession_number_used_again_does_not_take_the_report_of_somebody_else(hospital: Hospital) -> None:
    rows = [
        ["accession", "patient_id", "study_date", "date_of_birth", "report"],
        ["A1", "", "2010-03-04", "", "of ten years before"],
        ["A1", "", "", "05.05.1930", "of somebody older"],
        ["A1", "", "02.01.2020", "01.01.1960", "written a day later"],
        ["A1", "P1", "2010-03-04", "", "of the same number"],
        ["A1", "", "", "", "of which nothing else is said"],
    ]
    hospital.put(scan=scan("1", 1))
    hospital.put(**{"reports.csv": table(rows)})
    hospital.ingest()
    unsure, sure = ("ambiguous", ""), ("matched", "accession")
    assert hospital.reports() == {
        "of ten years before": unsure,
        "of somebody older": unsure,
        "written a day later": sure,
        "of the same number": sure,
        "of which nothing else is said": sure,
    }


@pytest.mark.parametrize(
    ("birth", "seen", "expected"),
    [
        (("19600101", "1960-01-01"), ("", ""), False),
        (("19600101", "1960-07-01"), ("", ""), False),  # a day and month that were made up
        (("19600101", "01.01.1961"), ("", ""), True),
        (("1960", "19610101"), ("", ""), False),
        (("", ""), ("2020-01-01", "20200630"), False),
        (("", ""), ("2020-01-01", "20200801"), True),
        (("", "19600101"), ("", "20200101"), False),
    ],
)
def test_what_denies_a_study(birth: tuple[str, str], seen: tuple[str, str], expected: bool) -> None:
    assert denies(birth, seen) is expected and denies(birth[::-1], seen[::-1]) is expected


# -------------------------------------------------------------------------------------- reports without a number


def _hl7(day: str, words: str) -> bytes:
    return hl7("PID|1||P1", f"OBR|1|||CXR|||{day}||||||||||||||||||F", *obx(words))


def _fhir(day: str, words: str) -> bytes:
    when = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return fhir(diagnostic(id=f"r{day}", identifier=None, effectiveDateTime=when, conclusion=words))


def _csv(day: str, words: str) -> bytes:
    pointed = f"{day[6:]}.{day[4:6]}.{day[:4]}"
    rows = [["Patientennummer", "Untersuchungsdatum", "Befund"], ["P1", pointed, words]]
    return table(rows, "cp1252", ";")


@pytest.mark.parametrize(("form", "suffix"), [(_hl7, ".hl7"), (_fhir, ".json"), (_csv, ".csv")])
def test_reports_without_a_number_find_the_study_of_their_day(
    hospital: Hospital, form: Callable[[str, str], bytes], suffix: str
) -> None:
    for day in ("20240201", "20240203"):
        hospital.put(**{f"scan{day}": scan("1", 1, AccessionNumber="", StudyDate=day)})
        hospital.put(**{f"{day}{suffix}": form(day, "Unauffällig.")})  # the same words on two days are two reports
    hospital.put(
        **{f"between{suffix}": form("20240202", "Of the day between."), f"b{suffix}": form("20240204", "After.")}
    )
    hospital.ingest()
    found = hospital.ask(
        "SELECT v.text, s.study_date, r.match FROM report r JOIN vault_report v ON v.report_id = r.id"
        " LEFT JOIN vault_study s ON s.study_id = r.study_id ORDER BY 1, 2"
    )
    assert found == [
        ("After.", None, "ambiguous"),  # whose own study was not delivered
        ("Of the day between.", None, "ambiguous"),
        ("Unauffällig.", "20240201", "matched"),
        ("Unauffällig.", "20240203", "matched"),
    ]


# -------------------------------------------------------------------------------------- tables and papers


def test_a_conclusion_in_a_column_of_its_own_is_part_of_the_report(hospital: Hospital) -> None:
    rows = [
        ["Auftragsnummer", "Befund", "Beurteilung"],
        ["A1", "Herz normal groß.", "Pneumothorax rechts."],
        ["A2", "Herz normal.\nBeurteilung: Kein  Erguss.", "Kein Erguss."],
    ]
    hospital.put(**{"befunde.csv": table(rows, "cp1252", ";")})
    hospital.ingest()
    assert set(hospital.reports()) == {
        "Herz normal groß.\nIMPRESSION: Pneumothorax rechts.",
        "Herz normal.\nBeurteilung: Kein  Erguss.",
    }


def test_a_scanned_sheet_of_paper_is_no_radiograph(hospital: Hospital) -> None:
    capture = "1.2.840.10008.5.1.4.1.1.7"
    hospital.put(sheet=scan("1", 1, SOPClassUID=capture, ConversionType="SD"))
    hospital.put(film=scan("2", 2, SOPClassUID=capture, ConversionType="DF"))
    hospital.ingest()
    assert hospital.ask("SELECT kind, modality FROM image ORDER BY 1") == [("frames", "OT"), ("radiograph", "CR")]


def test_an_age_that_stands_for_unknown_is_none(hospital: Hospital) -> None:
    hospital.put(a=scan("1", 1, PatientAge="999Y", PatientBirthDate=None))
    hospital.put(b=scan("2", 2, PatientAge="999Y"), c=scan("3", 3, PatientAge="101Y"))
    hospital.ingest()
    assert hospital.ask("SELECT age_years FROM study ORDER BY 1") == [(None,), (60.0,), (101.0,)]
