"""A delivery from beginning to end: knobs are said of the deliveries they were named with, and failures are retried."""

import pytest
from dicom_maker import dicom
from sqlalchemy import func, select

from db.tables import ExportFile, Report, Run, Task, VaultAccess, VaultReport
from phenotype.ingest.delivery import retry, take_in
from phenotype.ingest.stage import Ingest, conservation
from phenotype.stage import Refused

GERMAN = "Nummer;Befund\nA1;Kein Erguss.\n"
ENGLISH = "accession,text\nA2,No effusion.\n"


@pytest.fixture
def run(database, tmp_path):
    """`run(source..., knob=...)` takes deliveries in, as the command does."""

    def ingest(*sources, **knobs):
        return take_in(Ingest(**knobs), database, tmp_path / "home", sources=sources)

    return ingest


def folder(path, **files):
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.encode()
        (path / name.replace("_", ".")).write_bytes(data)
    return path


def states(database) -> dict[str, int]:
    with database.reading() as session:
        return conservation(session).states


def test_what_a_knob_says_is_said_of_the_deliveries_it_was_named_with(database, run, tmp_path):
    run(folder(tmp_path / "a", r_csv=GERMAN), columns="accession=Nummer,text=Befund", language="de")
    assert run(folder(tmp_path / "b", r_csv=ENGLISH)).done == 1  # not the other delivery, which these knobs would spoil
    with database.reading() as session:
        told = dict(session.execute(select(VaultReport.text, Report.language).join(Report)).all())
        assert told == {"Kein Erguss.": "de", "No effusion.": ""}
        assert session.scalar(select(func.count()).select_from(Run).where(Run.stage == "ingest")) == 2
    assert states(database) == {"ingested": 2}
    # named again with other knobs, it is read again
    assert run(tmp_path / "a", columns="accession=Nummer,text=Nummer").done == 1


def test_a_stage_without_deliveries_reads_what_was_never_read(database, run, tmp_path):
    run(folder(tmp_path / "a", r_csv=ENGLISH))
    assert run().done == 0


def test_what_came_back_is_read_again_with_the_knobs_it_was_read_with(database, run, tmp_path):
    source = folder(tmp_path / "a", r_csv=GERMAN, x_dcm=dicom()[:300])
    kept = source / "x.dcm"
    run(source, columns="accession=Nummer,text=Befund")
    assert states(database) == {"ingested": 1, "quarantined": 1}
    run(folder(tmp_path / "b", y_dcm=b"nothing that is DICOM"))
    home = tmp_path / "home"
    with database.reading() as session:
        reasons = set(session.scalars(select(ExportFile.reason).where(ExportFile.state == "quarantined")))
        before = set(session.scalars(select(Task.subject_id)))
    assert reasons == {"truncated", "not_dicom"}
    # the bytes of the same file, of the same size and time, come right: a disk that failed
    stat = kept.stat()
    kept.write_bytes(dicom())
    import os

    os.utime(kept, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    summaries = retry(database, home, reason="truncated")
    assert [s.done for s in summaries] == [1]
    assert states(database) == {"ingested": 2, "quarantined": 1}
    with database.reading() as session:
        run_id = session.scalar(select(Run.id).where(Run.stage == "ingest").order_by(Run.started_at))
        assert summaries[0].run_id == run_id
        assert set(session.scalars(select(Task.subject_id))) == before
    # for any reason: nothing has changed, so nothing changes
    assert [s.done for s in retry(database, home)] == [1]
    assert states(database) == {"ingested": 2, "quarantined": 1}


def test_a_reason_that_nothing_has_is_refused(database, run, tmp_path):
    run(folder(tmp_path / "a", r_csv=ENGLISH))
    assert retry(database, tmp_path / "home") == []
    with pytest.raises(Refused, match="no file that was read is quarantined for 'truncated'"):
        retry(database, tmp_path / "home", reason="truncated")


def test_who_looks_at_personal_data_is_written_down(database, run, tmp_path):
    from db.queries import vault

    run(folder(tmp_path / "quastenflosser", r_csv=ENGLISH, x_dcm=b"broken"))
    with database.writing() as session:
        (path,) = vault.file_paths(session, "somebody", state="quarantined")
        assert path.path.endswith("quastenflosser/x.dcm")
        report = session.scalars(select(Report.id)).one()
        assert vault.report_text(session, "somebody", report) == "No effusion."
        assert vault.report_text(session, "somebody", "nothing") is None
    with database.reading() as session:
        looks = session.execute(select(VaultAccess.who, VaultAccess.way, VaultAccess.what)).all()
    assert sorted(looks) == [
        ("somebody", "paths", "1 paths, state 'quarantined', reason ''"),
        ("somebody", "text", f"report {report}"),
    ]


def test_what_was_read_otherwise_goes_unless_another_file_says_it(database, run, tmp_path):
    wrong = {"columns": "accession=Nummer,text=Nummer"}
    run(folder(tmp_path / "a", r_csv=GERMAN, s_csv="Nummer;Befund\nA7;Erguss.\n"), **wrong)
    run(folder(tmp_path / "b", t_csv="accession,text\nA7,A7\n"))  # what the wrong columns made of one of them
    run(tmp_path / "a", columns="accession=Nummer,text=Befund")
    with database.reading() as session:
        assert set(session.scalars(select(VaultReport.text))) == {"Kein Erguss.", "Erguss.", "A7"}
    assert states(database) == {"ingested": 3}


def test_names_of_text_files_are_told_to_the_stage(database, run, tmp_path):
    source = tmp_path / "a" / "P9"
    source.mkdir(parents=True)
    (source / "ACC_17.txt").write_text("No effusion.")
    run(tmp_path / "a", names="{patient}/ACC_{accession}.txt")
    with database.reading() as session:
        assert session.execute(select(VaultReport.patient_number, VaultReport.accession)).all() == [("P9", "17")]
    with pytest.raises(Refused, match="write names as in"):
        run(tmp_path / "a", names="{doctor}.txt")


def test_the_database_is_not_part_of_the_delivery_it_lies_in(database, tmp_path):
    here = database.path.parent
    folder(here, r_csv=ENGLISH)
    home = here / "x.files"
    take_in(Ingest(), database, home, sources=[here])
    folder(home, left_csv=ENGLISH)
    take_in(Ingest(), database, home, sources=[here])
    assert states(database) == {"ingested": 1}
    take_in(Ingest(), database, home, sources=[home])  # named itself, it is one
    assert states(database) == {"duplicate": 1, "ingested": 1, "quarantined": 1}  # and the lock that lies in it
