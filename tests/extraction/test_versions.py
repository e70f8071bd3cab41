"""Labels are made of the version of a report that counts."""

import csv

import pytest
from ingest.dicom_maker import dicom
from sqlalchemy import select, text

from db.queries.reported import reports
from db.session import open_database
from db.tables import Label
from phenotype.extraction.stage import Extract, LabelStudies
from phenotype.ingest.delivery import take_in
from phenotype.ingest.stage import Ingest
from phenotype.stage import run_stage

HEADER = ("report_id", "accession", "patient_id", "status", "issued", "text")


@pytest.fixture
def deliver(tmp_path):
    """`deliver(name, (status, issued, text)...)` brings versions of one report and gives the labels of its study."""
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    home = tmp_path / "home"
    picture = tmp_path / "images"

    def ingest(name, *versions):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / "reports.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(("R1", "ACC1", "P1", *version) for version in versions)
        take_in(Ingest(), database, home, sources=[picture, folder])
        run_stage(Extract(), database, home)
        run_stage(LabelStudies(), database, home)
        with database.reading() as session:
            return {(label.concept_id, label.value) for label in session.scalars(select(Label))}

    picture.mkdir()
    (picture / "a.dcm").write_bytes(dicom(AccessionNumber="ACC1", PatientID="P1", Modality="CR"))
    yield ingest, database
    database.close()


def test_a_corrected_report_replaces_what_was_said(deliver):
    ingest, database = deliver
    first = ("final", "2024-01-01T10:00:00", "Left pleural effusion.")
    assert ("pleural_effusion", "present") in ingest("one", first)
    assert ("pleural_effusion", "absent") in ingest("two", ("corrected", "2024-01-02T10:00:00", "No pleural effusion."))
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM report")) == 2
        assert set(session.execute(text("SELECT assertion FROM finding_view WHERE concept = 'pleural_effusion'"))) == {
            ("absent",)
        }
        assert len(list(reports(session))) == 1


def test_an_older_version_that_comes_late_changes_nothing(deliver):
    ingest, _ = deliver
    labels = ingest("one", ("corrected", "2024-01-02T10:00:00", "No pleural effusion."))
    assert ingest("two", ("final", "2024-01-01T10:00:00", "Left pleural effusion.")) == labels
    assert ("pleural_effusion", "absent") in labels


def test_an_addendum_is_read_beside_its_report(deliver):
    ingest, _ = deliver
    labels = ingest(
        "one",
        ("final", "2024-01-01T10:00:00", "Left pleural effusion."),
        ("addendum", "2024-01-03T10:00:00", "Also a pneumothorax."),
    )
    assert {("pleural_effusion", "present"), ("pneumothorax", "present")} <= labels


def test_a_cancelled_report_says_nothing(deliver):
    ingest, _ = deliver
    assert ingest("one", ("preliminary", "2024-01-01T10:00:00", "Left pleural effusion."))
    assert ingest("two", ("cancelled", "2024-01-02T10:00:00", "Left pleural effusion.")) == set()


def test_a_report_is_taken_back_without_a_word(deliver):
    ingest, database = deliver
    assert ingest("one", ("final", "2024-01-01T10:00:00", "Left pleural effusion."))
    assert ingest("two", ("cancelled", "2024-01-02T10:00:00", "")) == set()
    with database.reading() as session:
        assert [row[0] for row in session.execute(text("SELECT state FROM export_record"))] == ["ingested"] * 2
