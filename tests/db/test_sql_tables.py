"""Rows and column types: bulk inserts, deletions and what goes with them, times, arrays, views."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sample import IMAGE, REPORT, RUN_ID, STUDY, UNMATCHED
from sample_cases import CASES, NORMAL, SCORED, positive
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from db.queries import findings, images, labels, overview
from db.tables import (
    Base,
    Embedding,
    Export,
    Finding,
    Image,
    Label,
    Modifier,
    Patient,
    Reading,
    Region,
    Report,
    Run,
    Section,
    Sentence,
    Study,
    Task,
    TextScore,
    VaultReport,
    VaultStudy,
)
from db.views import VIEWS
from db.write import CHUNK, delete_rows, insert_rows


def count(session, table, **equal):
    conditions = [getattr(table, name) == value for name, value in equal.items()]
    return session.scalar(select(func.count()).select_from(table).where(*conditions))


# ---------------------------------------------------------------- rows


def test_insert_rows_counts_what_is_new_and_keeps_what_is_there(empty):
    rows = [{"id": f"p{n:05d}", "fold": n % 10} for n in range(2 * CHUNK + 7)]
    with empty.writing() as session:
        assert insert_rows(session, Patient, iter(rows[:5])) == 5
        assert insert_rows(session, Patient, [row | {"fold": 9} for row in rows]) == len(rows) - 5
        assert insert_rows(session, Patient, rows) == 0
        assert insert_rows(session, Patient, []) == 0
    with empty.reading() as session:
        assert count(session, Patient) == len(rows)
        assert [session.get_one(Patient, f"p{n:05d}").fold for n in range(7)] == [0, 1, 2, 3, 4, 9, 9]


def test_insert_rows_fills_in_defaults(empty):
    with empty.writing() as session:
        insert_rows(session, Patient, [{"id": "p", "fold": 1}])
    with empty.reading() as session:
        assert session.get_one(Patient, "p").sex == ""


@pytest.mark.parametrize("second", [{"id": "b", "fold": 1, "sex": "F"}, {"id": "b"}])
def test_insert_rows_refuses_rows_of_different_columns(empty, second):
    with empty.writing() as session, pytest.raises(ValueError, match="rows of patient have different columns"):
        insert_rows(session, Patient, [{"id": "a", "fold": 1}, second])


@pytest.mark.parametrize(
    ("table", "row", "why"),
    [
        (Study, {"id": "s", "patient_id": "nobody"}, "FOREIGN KEY"),
        (Patient, {"id": "p", "fold": None}, "NOT NULL"),
        (Report, {"id": "r", "study_id": None, "file_id": "f", "match": "perhaps", "thread": "", "length": 1}, "CHECK"),
    ],
)
def test_insert_rows_forgives_a_known_key_and_nothing_else(empty, table, row, why):
    with pytest.raises(IntegrityError, match=why), empty.writing() as session:
        insert_rows(session, table, [row])


def test_delete_rows_by_value_and_by_list(empty):
    with empty.writing() as session:
        insert_rows(session, Patient, [{"id": f"p{n}", "fold": n % 2} for n in range(6)])
        delete_rows(session, Patient, id=["p0", "p1", "p2"], fold=0)
    with empty.reading() as session:
        assert sorted(session.scalars(select(Patient.id))) == ["p1", "p3", "p4", "p5"]


# ---------------------------------------------------------------- what goes with what


def test_a_report_goes_with_its_words_and_what_was_read_in_them(filled):
    report = REPORT[1, 0]
    of_report = (Reading, Section, Sentence, Finding, Modifier, TextScore, VaultReport)
    with filled.reading() as session:
        before = {table: count(session, table) for table in Base.__subclasses__()}
        own = {table: count(session, table, report_id=report) for table in of_report}
    assert all(own.values())
    with filled.writing() as session:
        delete_rows(session, Report, id=report)
    with filled.reading() as session:
        after = {table: count(session, table) for table in Base.__subclasses__()}
    assert {table: before[table] - after[table] for table in before} == dict.fromkeys(before, 0) | own | {Report: 1}


def test_the_words_of_a_deleted_report_are_wiped_from_the_file(filled):
    words = b"Quastenflosser, Adelheid by Dr. Wimmelbach"
    with filled.engine.connect() as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    assert words in filled.path.read_bytes()
    with filled.writing() as session:
        delete_rows(session, Report, id=[REPORT[1, 0], REPORT[2, 0]])
    filled.close()
    assert words not in filled.path.read_bytes()


@pytest.mark.parametrize("name", ["extract", "label", "cohort all", "embed", "score", "link", "map", "cluster"])
def test_a_run_goes_with_its_results(filled, name):
    run = RUN_ID[name]
    with_run = [table for table in Base.__subclasses__() if hasattr(table, "run_id")]
    with filled.reading() as session:
        before = {table: count(session, table, run_id=run) for table in with_run}
        others = {table: count(session, table) - before[table] for table in with_run}
    with filled.writing() as session:
        delete_rows(session, Run, id=run)
    with filled.reading() as session:
        assert {table: count(session, table) for table in with_run} == others
        assert not session.scalar(text("SELECT count(*) FROM cohort_study WHERE cohort_id = :r"), {"r": run})
    assert name == "cohort all" or sum(before.values()) > 0


def test_a_patient_goes_with_everything_of_theirs(filled):
    patient, study = "SELECT id FROM patient ORDER BY id LIMIT 1", "SELECT id FROM study WHERE patient_id = :p"
    with filled.writing() as session:
        who = session.scalar(text(patient))
        studies = list(session.scalars(text(study), {"p": who}))
        delete_rows(session, Patient, id=who)
    with filled.reading() as session:
        for table in (VaultStudy, Label, Image, Report):
            assert not session.scalar(select(func.count()).where(table.study_id.in_(studies)))
        assert not session.execute(text("PRAGMA foreign_key_check")).all()


# ---------------------------------------------------------------- times


def register(database, when):
    with database.writing() as session:
        insert_rows(session, Export, [{"id": "e", "kind": "folder", "registered_at": when}])
    with database.reading() as session:
        return session.get_one(Export, "e").registered_at


@pytest.mark.parametrize("hours", [0, 2, -7])
def test_times_come_back_in_utc(empty, hours):
    when = datetime(2026, 1, 31, 23, 30, 15, 123456, tzinfo=timezone(timedelta(hours=hours)))
    back = register(empty, when)
    assert back == when
    assert back.tzinfo is UTC


def test_a_time_without_a_zone_is_refused(empty):
    with pytest.raises(StatementError, match="a time without a zone cannot be stored"):
        register(empty, datetime(2026, 1, 31))


# ---------------------------------------------------------------- arrays


def store(database, **arrays):
    """Write two arrays into the embedding of an image and read them back."""
    row = {"run_id": RUN_ID["embed"], "image_id": IMAGE[6]}
    with database.writing() as session:
        delete_rows(session, Embedding, **row)
        insert_rows(session, Embedding, [row | arrays])
    with database.reading() as session:
        found = session.get_one(Embedding, (RUN_ID["embed"], IMAGE[6]))
        return found.whole, found.regions


ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::2, ::-1],
    np.array([np.nan, np.inf, -0.0], np.float16),
    np.array([True, False]),
    np.zeros((0, 4), np.float32),
    np.array(3.5, np.float32),
    np.array([1, 2], ">u4"),
    np.array(["a", "bc"]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype.str}{a.shape}")
def test_arrays_come_back_as_they_were(filled, array):
    for back in store(filled, whole=array, regions=array):
        assert back.dtype == array.dtype
        assert back.shape == array.shape
        np.testing.assert_array_equal(back, array)


def test_equal_arrays_are_stored_as_equal_bytes(filled):
    rows = np.arange(6.0).reshape(2, 3)
    store(filled, whole=rows, regions=np.asfortranarray(rows))
    with filled.reading() as session:
        where = {"run": RUN_ID["embed"], "image": IMAGE[6]}
        query = "SELECT whole = regions FROM embedding WHERE run_id = :run AND image_id = :image"
        assert session.scalar(text(query), where) == 1


def test_arrays_of_objects_are_refused(filled):
    with pytest.raises(StatementError, match="Object arrays cannot be saved"):
        store(filled, whole=np.array([{"a": 1}], object), regions=np.zeros(1))


def test_bytes_that_would_need_pickle_are_not_read(filled):
    import io

    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    with filled.writing() as session:
        session.execute(text("UPDATE region SET boxes = :b"), {"b": stream.getvalue()})
    with filled.reading() as session, pytest.raises(ValueError, match="allow_pickle"):
        session.scalars(select(Region.boxes)).first()


def test_nothing_is_null_and_not_the_text_null(filled):
    with filled.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM instance WHERE position IS NULL")) == 19
        assert session.scalar(text("SELECT count(*) FROM instance WHERE position = 'null'")) == 0


# ---------------------------------------------------------------- views and queries


def ask(database, query):
    with database.reading() as session:
        return [tuple(row) for row in session.execute(text(query))]


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_rows(filled, view):
    assert ask(filled, f"SELECT * FROM {view}")


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_can_be_asked_while_empty(empty, view):
    assert ask(empty, f"SELECT * FROM {view}") == []


def test_views_show_the_current_run_only(filled):
    asserted = "SELECT finding, assertion FROM finding_view WHERE report = '{}' ORDER BY text_start"
    shown = ask(filled, asserted.format(REPORT[1, 0]))
    assert shown == [("Cardiomegaly", "present"), ("Pleural effusion", "present"), ("Pneumothorax", "absent")]
    assert ask(filled, "SELECT count(*) FROM finding WHERE report_id = '" + REPORT[1, 0] + "'") == [(4,)]
    assert ask(filled, "SELECT count(*) FROM failure_view WHERE reason = 'ValueError'") == [(0,)]
    current = ask(filled, "SELECT stage, label, run FROM run_view WHERE is_current")
    assert sorted(run for _, _, run in current) == sorted(RUN_ID.values())


def test_opening_an_older_run_again_makes_it_current(filled):
    with filled.writing() as session:
        session.execute(text("UPDATE run SET opened_at = '2027-01-01 00:00:00.000000' WHERE state = 'interrupted'"))
    assert ask(filled, "SELECT finding, assertion FROM finding_view") == [("Nodule", "uncertain")]


def test_a_term_map_knows_the_evidence_of_the_run_that_it_was_learned_in(filled):
    """The evidence belongs to the run of `link`, the maps to that of `map`."""
    query = "SELECT DISTINCT finding, verdict, auroc FROM term_map_view ORDER BY finding"
    expected = [("Cardiomegaly", "no evidence", 0.62), ("Pleural effusion", "evidence", 0.91)]
    assert ask(filled, query) == expected
    with filled.writing() as session:  # the terms are learned anew, but nothing is mapped yet
        session.execute(
            text("""
INSERT INTO run SELECT 'newer', stage, label, recipe, software, state, started_at, '2027-01-01', NULL FROM run
WHERE stage = 'link'
""")
        )
        session.execute(
            text("""
INSERT INTO term_evidence (run_id, concept_id, positives, studies, auroc, auroc_low, auroc_high, verdict, local)
SELECT 'newer', concept_id, positives, studies, 0.5, 0.4, 0.6, 'no evidence', '' FROM term_evidence
""")
        )
    assert ask(filled, query) == expected
    assert ask(filled, "SELECT DISTINCT verdict FROM term_evidence_view") == [("no evidence",)]


def test_study_view_counts_images_and_reports(filled):
    found = {s: rest for s, *rest in ask(filled, "SELECT study, modality, images, reports FROM study_view")}
    assert found[STUDY[16]] == ["CT", 1, 2]
    assert found[STUDY[17]] == ["DX", 1, 0]
    assert len(found) == len(CASES)


def test_findings_by_concept_and_assertion(filled):
    with filled.reading() as session:
        by_name = findings.findings(session, concept="pleural EFFUSION", assertion="present")
        by_id = findings.findings(session, concept="pleural_effusion", assertion="present")
        one = findings.findings(session, study=STUDY[5])
        assert len(findings.findings(session, limit=3)) == 3
    assert by_name == by_id
    assert len(by_id) == 8
    assert [(f.finding, f.assertion, f.side, f.size_mm) for f in one] == [
        ("Nodule", "uncertain", "left", 8.0),
        ("Pleural effusion", "absent", "", None),
    ]


def test_disagreements_of_two_readers(filled):
    with filled.reading() as session:
        all_of_them = findings.disagreements(session)
        assert findings.disagreements(session, concept="Nodule") == findings.disagreements(session, concept="nodule")
        assert len(findings.disagreements(session, said="absent")) == 1
        assert findings.disagreements(session, limit=1) == all_of_them[:1]
    assert [(d.study, d.finding, d.said, d.probability) for d in all_of_them] == [
        (STUDY[13], "Cardiomegaly", "present", 0.04),
        (STUDY[7], "Nodule", "not mentioned", 0.81),
        (STUDY[12], "Pleural effusion", "absent", 0.62),
    ]


def test_images_of_a_cohort(filled):
    with filled.reading() as session:
        chosen = images.cohort_images(session, RUN_ID["cohort normal"], RUN_ID["assemble"])
        files = images.image_files(session, [IMAGE[6], "none", IMAGE[1]])
    assert sorted(image.study_id for image in chosen) == sorted(STUDY[case.number] for case in NORMAL)
    assert {image.split for image in chosen if image.fold >= 8} == {"holdout"}
    assert list(files) == [IMAGE[6], IMAGE[1]]
    assert files[IMAGE[1]].files == (("/archive/pacs/2025-11-quastenflosser/IM000001", ""),)


def test_states_of_the_labels_of_a_cohort(filled):
    with filled.reading() as session:
        states = labels.label_states(session, RUN_ID["label"], RUN_ID["cohort all"])
    assert states[STUDY[7]]["pleural_effusion"] == 0.0  # reported normal: nothing is mentioned, all is denied
    assert states[STUDY[19]] == {"pleural_effusion": 0.4}
    assert STUDY[17] not in states
    assert STUDY[6] not in states  # a CT


def test_counts_and_states(filled):
    with filled.reading() as session:
        counts = {row.table: row.rows for row in overview.counts(session)}
        files = {(f.kind, f.state, f.reason): f.count for f in overview.file_states(session) if f.what == "file"}
        runs = {(r.stage, r.label): (r.done, r.failed) for r in overview.run_states(session)}
        reasons = {(f.stage, f.reason): f.count for f in overview.failure_reasons(session)}
        assert sum(files.values()) == session.scalar(text("SELECT count(*) FROM export_file"))
        tasks = count(session, Task, run_id=RUN_ID["score"], state="done")
    assert (counts["patient"], counts["study"], counts["report"]) == (12, 20, 21)
    assert counts["anomaly"] == tasks == len(SCORED)
    states = {"found", "ingested", "duplicate", "conflict", "quarantined", "ignored"}
    assert {state for _, state, _ in files} == states
    assert files["dicom", "quarantined", "truncated"] == 1
    assert runs["score", "f-anogan-image"] == (len(SCORED), 2)
    assert reasons["score", "unreadable: the image cannot be decoded"] == 2


def test_the_sample_is_consistent(filled):
    """It is what other tests build upon: nothing refers to nothing, and sizes are what they say."""
    with filled.reading() as session:
        assert not session.execute(text("PRAGMA foreign_key_check")).all()
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
        for cohort, size in session.execute(text("SELECT id, size FROM cohort")):
            members = session.scalar(text("SELECT count(*) FROM cohort_study WHERE cohort_id = :c"), {"c": cohort})
            assert members == size
        texts = dict(session.execute(select(VaultReport.report_id, VaultReport.text)).all())
        for report in session.scalars(select(Report)):
            assert len(texts[report.id]) == report.length
        for finding in session.scalars(select(Finding).where(Finding.run_id == RUN_ID["extract"])):
            words = texts[finding.report_id]
            assert 0 <= finding.sentence_start <= finding.start < finding.end <= finding.sentence_end <= len(words)
            assert words[finding.sentence_end - 1] == "."
        assert "FINDINGS: Nothing is known" in texts[UNMATCHED]
    assert positive(CASES[6]) == []
