"""Exports into the database: every file in one state, the same rows whatever the way."""

import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from dicom_maker import CT, ct_slice, dicom, uid
from PIL import Image as Pillow
from sqlalchemy import delete, func, select, update
from support import contents, differences

from db.queries.images import image_files
from db.tables import (
    Base,
    Export,
    ExportFile,
    ExportRecord,
    Image,
    ImageInstance,
    Instance,
    Patient,
    Report,
    Series,
    Study,
    Task,
    VaultInstance,
    VaultListedImage,
    VaultPatient,
    VaultReport,
    VaultStudy,
)
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.ingest.matching import Candidate, choose
from phenotype.ingest.stage import Ingest, conservation, match_reports, register
from phenotype.stage import Refused, run_stage

LEDGER = {"export", "vault_export", "export_file", "vault_export_file", "export_record", "task", "run"}


def put(folder, files: dict[str, bytes]):
    """A folder with these files."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def table(*rows: str) -> bytes:
    return "\n".join(rows).encode()


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Pillow.fromarray(np.full((12, 10), shade, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def count(database, what, *where) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(what).where(*where))


def values(database, query) -> list:
    with database.reading() as session:
        return [tuple(row) for row in session.execute(query)]


@pytest.fixture
def small_export(tmp_path):
    """Two radiographs of one patient, one of another, a CT of eight slices, reports, and some that go wrong."""
    other = {"AccessionNumber": "A2", "PatientID": "P2", "PatientSex": "M"}
    return put(
        tmp_path / "export",
        {
            "1/a": dicom("a", 1, ViewPosition="PA"),
            "1/b": dicom("b", 2, ViewPosition="LATERAL"),
            "2/c": dicom("c", 3, PhotometricInterpretation="MONOCHROME1", **other),
            **{f"ct/{i * 7 % 8}": ct_slice(i, AccessionNumber="A3", PatientID="P1") for i in range(8)},
            "twice": dicom("a", 1, ViewPosition="PA"),
            "zz_other_content": dicom("a", 9, ViewPosition="PA"),
            "cut.dcm": dicom("d")[:-10],
            "sr": dicom("e", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None),
            "readme": b"not a picture at all",
            "reports.csv": table(
                "accession_number,patient_id,report_text", "A1,P1,Clear.", "A2,P2,Effusion.", "A9,P9,Nobody.", ",P1,x"
            ),
        },
    )


def test_every_file_ends_in_one_state(database, small_export, ingest, states):
    ledger = ingest(database, small_export)
    assert ledger.found == 17 == sum(ledger.states.values())
    assert ledger.states == {"conflict": 1, "duplicate": 1, "ingested": 12, "quarantined": 3}
    found = states(database)
    assert found["cut.dcm"] == ("quarantined", "truncated") and found["readme"] == ("quarantined", "not_dicom")
    assert found["sr"] == ("quarantined", "no_text")
    assert found["twice"] == ("duplicate", "") and found["zz_other_content"] == ("conflict", "other_pixels")
    records = values(database, select(ExportRecord.number, ExportRecord.state, ExportRecord.reason))
    assert sorted(records) == [
        (1, "ingested", ""),
        (1, "quarantined", "no_text"),
        (2, "ingested", ""),
        (3, "ingested", ""),
        (4, "quarantined", "no_key"),
    ]
    assert count(database, Patient) == 2 and count(database, Study) == 3 and count(database, Series) == 3
    assert count(database, Instance) == 12  # both of the two that contradict each other are kept
    assert count(database, VaultInstance, VaultInstance.sop_instance_uid == uid("a")) == 2
    originals = values(database, select(ExportFile.same_as).where(ExportFile.same_as.is_not(None)).distinct())
    assert len(originals) == 1


def test_images_are_put_together(database, small_export, ingest):
    ingest(database, small_export)
    rows = values(
        database, select(Image.kind, Image.view, Image.slices, Image.rows, Image.spacing).order_by(Image.kind)
    )
    assert sorted(r[:4] for r in rows if r[0] == "radiograph") == [
        ("radiograph", "", 1, 8),
        ("radiograph", "LATERAL", 1, 8),
        ("radiograph", "PA", 1, 8),
    ]
    assert [r for r in rows if r[0] == "volume"] == [("volume", "AXIAL", 8, 8, [2.5, 0.7, 0.8])]
    with database.reading() as session:
        volume, turned = (
            session.scalars(query).one()
            for query in (
                select(Image.id).where(Image.kind == "volume"),
                select(Image.id).join(Study, Study.id == Image.study_id).join(Patient).where(Patient.sex == "M"),
            )
        )
        files = image_files(session, [volume, turned])
    picture = read_pixels([FileRef(*place) for place in files[volume].files])
    assert picture.pixels[:, 0, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert picture.spacing_mm == (2.5, 0.7, 0.8)
    assert (read_pixels([FileRef(*place) for place in files[turned].files]).pixels == 252).all()


def test_reports_find_their_studies(database, small_export, ingest):
    ingest(database, small_export)
    query = select(VaultReport.accession, Report.match, VaultStudy.accession).join(Report)
    query = query.outerjoin(VaultStudy, VaultStudy.study_id == Report.study_id).order_by(VaultReport.accession)
    assert values(database, query) == [("A1", "matched", "A1"), ("A2", "matched", "A2"), ("A9", "unmatched", None)]
    # the study comes later
    put(small_export, {"late": dicom("late", AccessionNumber="A9", PatientID="P9")})
    ingest(database, small_export)
    assert values(database, query)[2] == ("A9", "matched", "A9")


def test_twice_changes_nothing(database, small_export, ingest):
    ingest(database, small_export)
    before = contents(database)
    ingest(database, small_export)
    assert differences(before, contents(database)) == {}
    ingest(database, small_export, language="de")  # another recipe does it all anew, with the same outcome
    after = contents(database)
    assert {name for name in before if before[name] != after[name]} == {"task", "run"}


def test_a_zip_gives_the_rows_of_the_folder(new_database, small_export, ingest, tmp_path):
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
        for path in sorted(p for p in small_export.rglob("*") if p.is_file()):
            z.write(path, path.relative_to(small_export))
    shutil.copytree(small_export, tmp_path / "moved")
    databases = [new_database() for _ in range(4)]
    sources = [small_export, tmp_path / "moved", archive, small_export]
    ledgers = []
    for database, source in zip(databases, sources, strict=True):
        executor = "processes:2" if database is databases[3] else "here"
        ledgers.append(ingest(database, source, executor=executor))
    found = []
    for database in databases:
        everything = contents(database)
        found.append({name: rows for name, rows in everything.items() if name not in LEDGER | {"instance", "report"}})
        kept = [c for c in Instance.__table__.columns if c.name != "file_id"]
        found[-1]["instance"] = sorted(map(str, values(database, select(*kept))))
        kept = [c for c in Report.__table__.columns if c.name != "file_id"]
        found[-1]["report"] = sorted(map(str, values(database, select(*kept))))
    assert found[0] == found[1] == found[2] == found[3] and found[0]["image"]
    assert ledgers[0].reasons == ledgers[1].reasons == ledgers[3].reasons
    assert ledgers[2].states["ingested"] == ledgers[0].states["ingested"]
    assert differences(contents(databases[0]), contents(databases[3])) == {}


def test_folder_and_zip_of_the_same_are_duplicates(database, small_export, ingest, tmp_path):
    ingest(database, small_export)
    tables = (Patient, Study, Series, Instance, Image, Report)
    before = [count(database, table) for table in tables]
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for path in sorted(p for p in small_export.rglob("*") if p.is_file()):
            z.write(path, path.relative_to(small_export))
    ledger = ingest(database, archive)
    assert [count(database, table) for table in tables] == before
    assert ledger.states["ingested"] == 12 and ledger.states["duplicate"] == 1 + 1 + 13
    assert count(database, Export) == 2


def test_stopped_anywhere_it_ends_the_same(new_database, small_export, ingest, monkeypatch):
    monkeypatch.setattr(Ingest, "batch", 2)
    whole = new_database()
    ingest(whole, small_export)
    for seed in range(2):
        rng, database = random.Random(seed), new_database()
        home = database.path.with_suffix(".files")
        for _ in range(3):
            left = rng.randint(1, 6)

            def stop(done, total, what, left=left):
                if done >= left * 2:
                    raise KeyboardInterrupt

            register(database, small_export)
            try:
                run_stage(Ingest(), database, home, progress=stop)
            except KeyboardInterrupt:
                with database.reading() as session, pytest.raises(Refused, match="no final state"):
                    conservation(session)
        ingest(database, small_export)
        assert differences(contents(whole), contents(database)) == {}, seed


def test_a_file_that_went_away_is_quarantined_and_tried_again(database, small_export, ingest, states):
    register(database, small_export)
    data = (small_export / "1/a").read_bytes()
    stat = (small_export / "1/a").stat()
    (small_export / "1/a").unlink()
    home = database.path.with_suffix(".files")
    assert run_stage(Ingest(), database, home).failed == 1
    assert states(database)["a"] == ("quarantined", "missing")
    (small_export / "1/a").write_bytes(data)
    os.utime(small_export / "1/a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = run_stage(Ingest(), database, home)
    assert (again.done, again.failed) == (1, 0)
    # its copy was taken in meanwhile, so it is the copy now
    assert states(database)["a"][0] == "duplicate"
    with database.reading() as session:
        conservation(session)


def test_what_is_lost_is_noticed(database, small_export, ingest):
    ingest(database, small_export)
    for damage in (
        update(ExportFile).where(ExportFile.reason == "truncated").values(state="found"),
        delete(Instance).where(Instance.number == 3),
        update(ExportFile).where(ExportFile.state == "duplicate").values(same_as="gone"),
        update(ExportFile).where(ExportFile.state == "ingested", ExportFile.kind == "dicom").values(state="ignored"),
    ):
        with database.reading() as session:
            conservation(session)
            session.execute(damage)
            with pytest.raises(Refused, match="ledger"):
                conservation(session)


def test_localisers_and_unsound_series(database, ingest, tmp_path):
    sagittal = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    good = {f"good{i}": ct_slice(i, "good") for i in range(6)}
    gap = {f"gap{i}": ct_slice(i, "gap") for i in (0, 1, 3, 4)}
    scout = {"scout": ct_slice(9, "scout", **sagittal)}
    screen = {"screen": ct_slice(9, "good", SOPClassUID="1.2.840.10008.5.1.4.1.1.7", ImagePositionPatient=None)}
    put(tmp_path / "e", good | gap | scout | screen | {"local": ct_slice(8, "good", **sagittal)})
    ingest(database, tmp_path / "e")
    found = values(database, select(Image.kind, Image.slices, Image.left_out, Image.left_out_reasons))
    assert sorted(map(str, found)) == ["('frames', 1, 0, {})", "('volume', 6, 1, {'localiser': 1})"]
    failed = values(database, select(Task.reason).where(Task.state == "failed"))
    assert failed == [("missing_slices: gaps of whole slices",)]
    # the missing slice arrives, and a second one that changes the good series
    put(tmp_path / "e", {"gap2": ct_slice(2, "gap"), "good6": ct_slice(6, "good")})
    ingest(database, tmp_path / "e")
    slices = values(database, select(Image.slices).where(Image.kind == "volume").order_by(Image.slices))
    assert slices == [(5,), (7,)] and count(database, ImageInstance) == 5 + 7 + 1
    assert count(database, Task, Task.state == "failed") == 0


def test_a_real_ct_series_in_any_order_is_one_volume(new_database, shared_data, ingest, tmp_path):
    files = sorted((shared_data / "ct_series" / "dicom").iterdir())
    seen = set()
    for seed in range(2):
        names = list(range(len(files)))
        random.Random(seed).shuffle(names)
        folder = put(tmp_path / str(seed), {f"{n:02d}": f.read_bytes() for n, f in zip(names, files, strict=True)})
        database = new_database()
        assert ingest(database, folder).states == {"ingested": 20}
        with database.reading() as session:
            image = session.scalars(select(Image)).one()
            assert (image.kind, image.slices, image.spacing) == ("volume", 20, [2.0, 0.9765625, 0.9765625])
            place = image_files(session, [image.id])[image.id]
            picture = read_pixels([FileRef(*file) for file in place.files])
            positions = [
                i.position[2]
                for i in session.scalars(select(Instance).join(ImageInstance).order_by(ImageInstance.position))
            ]
        assert positions == sorted(positions) and positions[0] == -804.5
        seen.add((image.id, hashlib.sha256(picture.pixels.tobytes()).hexdigest()))
    assert len(seen) == 1


def test_every_real_odd_file_ends_in_one_state_with_its_reason(database, shared_data, ingest, caplog, recwarn):
    ledger = ingest(database, shared_data / "dicom")
    assert ledger.found == 173 + 11 + 20  # two of the files are zips, of 11 and 20 members
    without = [key for key in ledger.reasons if not key[1]]
    assert without == [("duplicate", ""), ("ingested", "")]  # a file beside, and packed in, an archive
    assert ledger.states["ingested"] + ledger.states["conflict"] > 110
    assert not caplog.records and not recwarn.list


def test_personal_data_stay_in_the_vault(database, shared, ingest, tmp_path, caplog, capfd):
    caplog.set_level(0)
    out = tmp_path / "out"
    tool = shared / "tools" / "make_pacs_export.py"
    subprocess.run([sys.executable, tool, out, "--limit", "20", "--phi"], check=True, capture_output=True)
    put(out, {"broken.dcm": next(out.rglob("1.dcm")).read_bytes()[:-99]})
    assert ingest(database, out).states == {"ingested": 21, "quarantined": 1}
    assert count(database, Report, Report.match == "matched") == 20
    planted = (tmp_path / "out.truth" / "planted_phi.txt").read_text(encoding="utf-8").split("\n")
    planted = [text for text in planted if len(text) > 3]
    with database.reading() as session:
        planted += [uid for (uid,) in session.execute(select(VaultStudy.study_uid))] + [str(tmp_path)]
        planted += [accession for (accession,) in session.execute(select(VaultStudy.accession))]
        dates = {text for (text,) in session.execute(select(VaultStudy.study_date))}
        shown = {d.strftime("%Y%m%d") for (d,) in session.execute(select(Study.shifted_date))}
    everything = contents(database)
    open_rows = "\n".join(row for name, rows in everything.items() if not name.startswith("vault") for row in rows)
    vault_rows = "\n".join(row for name, rows in everything.items() if name.startswith("vault") for row in rows)
    assert len(planted) > 80 and all(text in vault_rows for text in planted)  # the search does find what is there
    spoken = "".join(record.getMessage() for record in caplog.records) + "".join(capfd.readouterr())
    for text in planted:
        assert text not in open_rows
        assert text not in spoken
    assert len(shown) == len(dates) and shown != dates


def test_pictures_and_one_table_in_the_style_of_padchest(database, ingest, tmp_path, states):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("p3.png", png(3))
    rows = [
        "ImageID,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Report",
        "p1.png,20150101,S1,P1,1950.0,F,PA,derrame",
        "p2.png,20150101,S1,P1,1950.0,F,L,derrame",
        "p3.png,20160101,S2,P1,1950.0,F,PA,normal",
        "gone.png,20160101,S9,P2,,M,PA,normal",
    ]
    files = {
        "0/p1.png": png(1),
        "0/p2.png": png(2),
        "1.zip": archive.getvalue(),
        "p.csv": table(*rows),
        "x.png": png(9),
    }
    ledger = ingest(database, put(tmp_path / "e", files))
    assert ledger.states == {"ingested": 4, "ignored": 1, "quarantined": 1}
    assert states(database)["x.png"] == ("quarantined", "not_listed")
    assert (count(database, Patient), count(database, Study), count(database, Image)) == (1, 2, 3)
    assert sorted(values(database, select(Image.kind, Image.modality, Image.view))) == [
        ("radiograph", "CR", "LATERAL"),
        ("radiograph", "CR", "PA"),
        ("radiograph", "CR", "PA"),
    ]
    # one report of a study that two rows repeat
    assert sorted(values(database, select(Report.match))) == [("matched",), ("matched",), ("unmatched",)]
    assert values(database, select(Patient.sex)) == [("F",)]
    ages = values(database, select(Study.age_years).order_by(Study.age_years))
    assert ages == [(pytest.approx(64.5, abs=0.1),), (pytest.approx(65.5, abs=0.1),)]
    with database.reading() as session:
        dates = [d for (d,) in session.execute(select(Study.shifted_date).order_by(Study.shifted_date))]
    assert (dates[1] - dates[0]).days == 365


def test_pictures_and_two_tables_in_the_style_of_open_i(new_database, ingest, tmp_path):
    files = {
        "images/1_a.dcm.png": png(1),
        "images/1_b.dcm.png": png(2),
        "images/2_a.dcm.png": png(3),
        "projections.csv": table(
            "uid,filename,projection", "1,1_a.dcm.png,Frontal", "1,1_b.dcm.png,Lateral", "2,2_a.dcm.png,Frontal"
        ),
        "reports.csv": table(
            "uid,MeSH,image,indication,findings,impression", "1,normal,Chest,Cough.,Clear.,Normal.", "2,x,Chest,,,"
        ),
    }
    first, second = (put(tmp_path / name, files) for name in ("one", "two"))
    database = new_database()
    assert ingest(database, first).states == {"ingested": 5}
    assert values(database, select(VaultReport.text)) == [
        ("INDICATION: Cough.\nFINDINGS: Clear.\nIMPRESSION: Normal.",)
    ]
    assert values(database, select(Report.match)) == [("matched",)]
    records = select(ExportRecord.state, ExportRecord.reason).where(ExportRecord.state != "ingested")
    assert values(database, records) == [("quarantined", "no_text")]
    assert sorted(values(database, select(Image.view))) == [("FRONTAL",), ("FRONTAL",), ("LATERAL",)]
    # uid 1 of another delivery is somebody else
    other = new_database()
    put(second, {name: png(50 + i) for i, name in enumerate(n for n in files if n.endswith("png"))})
    put(second, {"reports.csv": table("uid,findings", "1,Effusion.", "2,Clear.")})
    ingest(other, first, second)
    assert count(other, Study) == 4
    assert sorted(values(other, select(Report.match))) == [("matched",)] * 3
    assert len(set(values(other, select(Report.study_id)))) == 3


def test_tables_are_read_before_pictures(database, ingest, tmp_path, monkeypatch):
    monkeypatch.setattr(Ingest, "batch", 1)
    folder = put(tmp_path / "e", {"1.png": png(1), "z.CSV": table("accession,image", "A1,1.png")})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("2.png", png(2))
        z.writestr("z.tsv", "accession\timage\nA2\t2.png")
    ledger = ingest(database, put(folder, {"a.zip": archive.getvalue()}))
    assert ledger.reasons == {("ignored", "archive"): 1, ("ingested", ""): 4}


def test_a_list_that_comes_late_is_used(database, ingest, tmp_path, states):
    folder = put(tmp_path / "e", {"1.png": png(1), "2.png": png(2)})
    assert ingest(database, folder).reasons == {("quarantined", "not_listed"): 2}
    ingest(database, put(folder, {"list.csv": table("accession,image", "A1,1.png")}))
    assert states(database)["1.png"] == ("ingested", "") and count(database, Image) == 1
    before = contents(database)
    assert ingest(database, folder).reasons == {("ingested", ""): 2, ("quarantined", "not_listed"): 1}
    assert differences(before, contents(database)) == {}


def test_a_damaged_member_of_a_zip_is_quarantined_for_good(database, ingest, tmp_path, states):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("a", dicom("a"))
        z.writestr("b", dicom("b"))
    damaged = bytearray(archive.getvalue())
    damaged[damaged.index(b"DICM") + 30] ^= 1
    ingest(database, put(tmp_path / "e", {"x.zip": bytes(damaged)}))
    assert states(database)["a"] == ("quarantined", "bad_archive_member")
    assert states(database)["b"] == ("ingested", "")
    assert count(database, Task, Task.state == "failed") == 0


def test_a_table_may_name_folders(database, ingest, tmp_path, states):
    files = {
        "images/1.png": png(1),
        "masks/1.png": png(255),
        "list.csv": table("accession,image,mask,reading", "A1,images/1.png,masks/1.png,normal"),
    }
    ingest(database, put(tmp_path / "e", files))
    found = values(database, select(VaultInstance.sop_instance_uid))
    assert len(found) == 1 and found[0][0].endswith("/images/1.png")
    contradiction = {"other.csv": table("accession,image", "A2,images/1.png")}
    ingest(database, put(tmp_path / "e", contradiction))
    assert count(database, ExportRecord, ExportRecord.state == "conflict", ExportRecord.reason == "listed_twice") == 1
    assert values(database, select(VaultListedImage.accession)) == [("A1",)]


def test_columns_of_other_names_are_told_to_the_stage(database, ingest, tmp_path, states):
    put(tmp_path / "e", {"a": dicom("a"), "befunde.csv": "Fall;Befund\nA1;Kein Erguß\n".encode("cp1252")})
    ingest(database, tmp_path / "e")
    assert states(database)["befunde.csv"] == ("quarantined", "no_columns")
    ingest(database, tmp_path / "e", columns="accession=Fall,text=Befund", language="de")
    assert states(database)["befunde.csv"] == ("ingested", "")
    query = select(VaultReport.text, Report.language, Report.match).join(Report)
    assert values(database, query) == [("Kein Erguß", "de", "matched")]
    for wrong in ("accession", "fall=accession", "text="):
        with pytest.raises(Refused, match="columns"):
            run_stage(Ingest(columns=wrong), database, tmp_path / "home")


def test_nobody_is_taken_for_somebody_else(database, ingest, tmp_path):
    blank = {"PatientID": None, "AccessionNumber": None, "StudyInstanceUID": None, "SeriesInstanceUID": None}
    files = {
        "1": dicom("1", 1, **blank),
        "2": dicom("2", 2, **blank),
        "3": dicom("3", 3, PatientID="7", IssuerOfPatientID="north", AccessionNumber="N"),
        "4": dicom("4", 4, PatientID="7", IssuerOfPatientID="south", AccessionNumber="S"),
        "5": dicom("5", 5, PatientID="7", IssuerOfPatientID="south", AccessionNumber="T"),
        **{f"ct{i}": ct_slice(i, "ct", **blank, FrameOfReferenceUID=uid("frame")) for i in range(3)},
    }
    ingest(database, put(tmp_path / "e", files))
    assert count(database, Patient) == 2 + 2 + 1
    assert count(database, VaultPatient, VaultPatient.record_number == "7") == 2
    assert count(database, Study) == 2 + 3 + 1 and count(database, Image, Image.kind == "volume") == 1


def test_which_study_a_report_belongs_to():
    def study(name: str, patient: str = "", *, uid: bool = True, here: bool = False) -> Candidate:
        return Candidate(name, uid, patient, here)

    assert choose("P1", []) == ("unmatched", None, "")
    assert (
        choose("", [study("a")])
        == choose("P1", [study("a")])
        == choose("P1", [study("a", "P1")])
        == ("matched", "a", "accession")
    )
    assert choose("P1", [study("a", "P2")]) == ("ambiguous", None, "")  # an accession number used again
    assert choose("", [study("a", "P1"), study("b", "P2")]) == ("ambiguous", None, "")
    assert choose("P2", [study("a", "P1"), study("b", "P2")]) == ("matched", "b", "accession")
    assert choose("", [study("a", here=True), study("b")]) == ("matched", "a", "accession")
    assert choose("P1", [study("a", "P1"), study("b", "P1")]) == ("ambiguous", None, "")
    assert choose("", [study("a", uid=False)]) == ("unmatched", None, "")
    assert choose("", [study("a", uid=False, here=True)]) == ("matched", "a", "accession")


def test_a_multiframe_is_a_volume_or_frames(database, ingest, tmp_path):
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def functional(i: int) -> Dataset:
        place, direction, measure, group = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, (7 * i % 4) * 3.0]
        direction.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        measure.PixelSpacing, measure.SliceThickness = [0.5, 0.6], 9
        group.PlanePositionSequence = Sequence([place])
        group.PlaneOrientationSequence = Sequence([direction])
        group.PixelMeasuresSequence = Sequence([measure])
        return group

    pixels = np.stack([np.full((8, 6), i, dtype=np.uint8) for i in range(4)]).tobytes()
    enhanced = dicom(
        "e",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.2.1",
        Modality="CT",
        NumberOfFrames=4,
        PixelData=pixels,
        PerFrameFunctionalGroupsSequence=Sequence([functional(i) for i in range(4)]),
    )
    cine = dicom("c", SOPClassUID=CT, Modality="US", NumberOfFrames=4, PixelData=pixels, SeriesInstanceUID=uid("cine"))
    ingest(database, put(tmp_path / "e", {"e": enhanced, "c": cine}))
    found = values(database, select(Image.kind, Image.slices, Image.spacing).order_by(Image.kind))
    assert found == [("frames", 4, None), ("volume", 4, [3.0, 0.5, 0.6])]
    picture = read_pixels([FileRef(str(tmp_path / "e" / "e"))])
    assert picture.spacing_mm == (3.0, 0.5, 0.6)
    assert picture.pixels[:, 0, 0].tolist() == [0, 3, 2, 1]


def test_registering_writes_down_before_anything_is_read(database, small_export):
    first = register(database, small_export)
    assert first.files == first.new == 17
    assert count(database, ExportFile, ExportFile.state == "found") == 17 and count(database, Instance) == 0
    assert register(database, small_export).new == 0
    put(small_export, {"new": b"x"})
    assert register(database, small_export).new == 1
    with pytest.raises(Refused, match="source"):
        register(database, small_export / "gone")
    with database.writing() as session:
        assert match_reports(session) == {"matched": 0, "unmatched": 0, "ambiguous": 0}


def test_only_vault_tables_have_columns_of_personal_data():
    suspicious = {"path", "member", "text", "accession", "record_number", "birth_date", "patient_number", "study_date"}
    suspicious |= {"study_uid", "series_uid", "sop_instance_uid", "description", "issuer"}
    for name, table_ in Base.metadata.tables.items():
        assert name.startswith("vault") or not suspicious & set(table_.columns.keys()), name


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a"), ("a", "b", "c")])
def test_two_people_under_one_number_are_two_patients(database, ingest, tmp_path, order):
    people = {
        "a": {"PatientBirthDate": "19410401", "PatientSex": "F", "AccessionNumber": "A1"},
        "b": {"PatientBirthDate": "19720115", "PatientSex": "M", "AccessionNumber": "A2"},
        "c": {"PatientBirthDate": "19140401", "PatientSex": "F", "AccessionNumber": "A3"},
    }
    for name in order:
        ingest(database, put(tmp_path / name, {f"{name}.dcm": dicom(name, **people[name])}))
    assert count(database, Patient) == 2 and count(database, Study) == len(order)
    query = select(VaultStudy.accession, Study.patient_id).join(Study, Study.id == VaultStudy.study_id)
    whose = dict(values(database, query))
    assert whose["A1"] != whose["A2"]
    assert whose.get("A3", whose["A1"]) == whose["A1"]  # one slip of the keyboard is no other person


def test_what_the_detector_measured_is_no_radiograph(database, ingest, tmp_path):
    raw = dicom("raw", SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1.1", Modality="DX")
    shown = dicom("shown", shade=2, SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1", Modality="DX")
    ingest(database, put(tmp_path / "e", {"a.dcm": raw, "b.dcm": shown}))
    assert sorted(values(database, select(Image.kind))) == [("frames",), ("radiograph",)]
