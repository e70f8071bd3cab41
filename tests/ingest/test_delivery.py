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
