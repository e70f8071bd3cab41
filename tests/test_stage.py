"""What every stage gets from run_stage: resuming, failing alone, executors, provenance."""

from datetime import UTC, datetime, timedelta

import pytest
from filelock import FileLock
from sqlalchemy import func, select
from support import Shout, contents, differences

from db.session import open_database
from db.tables import Concept, Label, Patient, Run, Study, Task
from db.write import insert_rows
from phenotype.executors import workers
from phenotype.stage import Refused, find_run, run_stage

STUDIES = [f"study{n:02d}" for n in range(18)]


@pytest.fixture
def database(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.writing() as session:
        insert_rows(session, Patient, [{"id": "p", "fold": 1}])
        insert_rows(session, Study, [{"id": s, "patient_id": "p"} for s in STUDIES])
        insert_rows(session, Concept, [{"id": "noise", "name": "noise", "category": "finding"}])
    yield database
    database.close()


def labels(database):
    with database.reading() as session:
        return dict(session.execute(select(Label.study_id, Label.side)).all())


def tasks(database, state):
    with database.reading() as session:
        return {t.subject_id: t for t in session.scalars(select(Task).where(Task.state == state))}


def test_does_all_and_then_nothing(database, tmp_path):
    first = run_stage(Shout(), database, tmp_path / "home")
    again = run_stage(Shout(), database, tmp_path / "home")
    assert (first.done, first.failed, first.before) == (18, 0, 0)
    assert (again.done, again.failed, again.before) == (0, 0, 18)
    assert labels(database) == {s: s for s in STUDIES}


@pytest.mark.parametrize("executor", ["here", "processes:2"])
def test_one_bad_subject_fails_alone_and_is_the_only_one_redone(database, tmp_path, executor):
    stage = Shout(bad="study05", crash="study06")
    summary = run_stage(stage, database, tmp_path / "home", executor=executor)
    assert (summary.done, summary.failed) == (16, 2)
    failed = tasks(database, "failed")
    assert failed["study05"].reason == "bad: this study is bad"
    assert failed["study06"].reason == "RuntimeError"
    assert "compute" in failed["study06"].traceback
    assert "Secret" not in str(contents(database)["task"])
    mended = Shout(bad="study05", crash="")  # crash is not part of the recipe: the same run
    assert mended.run_id == stage.run_id
    summary = run_stage(mended, database, tmp_path / "home", executor=executor)
    assert (summary.done, summary.failed, summary.before) == (1, 1, 16)
    assert set(tasks(database, "failed")) == {"study05"}


def test_a_subject_that_kills_its_worker_is_the_only_one_to_fail(database, tmp_path):
    summary = run_stage(Shout(deadly="study09"), database, tmp_path / "home", executor="processes:2")
    assert (summary.done, summary.failed) == (17, 1)
    assert tasks(database, "failed")["study09"].reason.startswith("worker_died")
    assert set(labels(database)) == set(STUDIES) - {"study09"}


def test_the_same_rows_from_each_executor(database, tmp_path):
    run_stage(Shout(), database, tmp_path / "home")
    one = contents(database)
    with database.writing() as session:
        session.delete(session.get(Run, Shout().run_id))
    assert labels(database) == {}, "results go with their run"
    run_stage(Shout(), database, tmp_path / "home", executor="processes:2")
    assert differences(one, contents(database)) == {}


def test_a_changed_subject_is_done_again_and_replaced(database, tmp_path):
    run_stage(Shout(), database, tmp_path / "home")
    summary = run_stage(Shout(version="!"), database, tmp_path / "home")
    assert (summary.done, summary.before) == (18, 0)
    assert labels(database) == {s: f"{s}!" for s in STUDIES}
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Task)) == 18


def test_another_recipe_is_another_run(database, tmp_path):
    run_stage(Shout(), database, tmp_path / "home")
    run_stage(Shout(bad="study01"), database, tmp_path / "home")
    with database.reading() as session:
        runs = list(session.scalars(select(Run).order_by(Run.opened_at)))
    assert [run.recipe["bad"] for run in runs] == ["", "study01"]
    assert all(run.state == "finished" and run.software["phenotype"] for run in runs)


def test_stopped_by_hand_it_says_so_and_continues(database, tmp_path):
    def stop(done, total, note):
        if done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(Shout(), database, tmp_path / "home", progress=stop)
    with database.reading() as session:
        assert session.scalars(select(Run.state)).all() == ["interrupted"]
    assert len(labels(database)) == 8
    assert run_stage(Shout(), database, tmp_path / "home").before == 8


def test_two_at_once_are_refused(database, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with FileLock(home / "working.lock"), pytest.raises(Refused, match="another phenotype process"):
        run_stage(Shout(), database, home)


def test_find_run_by_label_id_or_as_the_newest(database):
    now = datetime.now(UTC)
    common = {"stage": "train", "recipe": {}, "software": {}, "state": "finished", "finished_at": now}
    rows = [
        common | {"id": f"{label}{n}", "label": label, "started_at": now, "opened_at": now + timedelta(seconds=n)}
        for n, label in enumerate(["cae", "gan", "cae", "gan"])
    ]
    with database.writing() as session:
        insert_rows(session, Run, rows)
        done = {"version": "", "state": "done", "finished_at": now}
        insert_rows(session, Task, [done | {"run_id": row["id"], "subject_id": "x"} for row in rows])
        insert_rows(session, Run, [rows[0] | {"id": "fruitless", "label": "vae"}])
    with database.reading() as session:
        assert find_run(session, "train", "") == "gan3"
        assert find_run(session, "train", "cae") == "cae2"
        assert find_run(session, "train", "cae0") == "cae0"
        with pytest.raises(Refused, match="phenotype train"):
            find_run(session, "train", "vae")
        with pytest.raises(Refused, match="beginning of 2 runs"):
            find_run(session, "train", "ca")


@pytest.mark.parametrize("spec", ["processes:0", "processes", "cloud", "processes:x", ""])
def test_executors_that_do_not_exist(spec):
    with pytest.raises(Refused, match="no executor"):
        workers(spec)
