"""The contract that every stage keeps, tried on a small export from beginning to end.

Killed with SIGKILL at random points and run again, the tables (and models) equal those of an uninterrupted run; each
executor gives the same; one bad subject fails alone, with its reason, and is the only one redone.

PHENOTYPE_KILLS=100 makes the test of SIGKILL the long one; its seed is printed.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from sqlalchemy import delete, select, text
from support import contents, differences, models, spoiled

from db.session import open_database
from db.tables import Image, Region, Run, Task
from phenotype.demo.export import write_export
from phenotype.ingest.stage import register
from phenotype.pipeline import STAGES, read_pipeline, run_step
from phenotype.stage import run_stage

KILLS = int(os.environ.get("PHENOTYPE_KILLS", "5"))

PIPELINE = """
stage = [
  {{run = "ingest", sources = ['{export}']}}, {{run = "assemble"}}, {{run = "extract"}},
  {{run = "classify", least = 4}}, {{run = "label"}},
  {{run = "cohort", called = "ct", images = "volume", holdout = 0}},
  {{run = "train", called = "ct", cohort = "ct", size = 16, slices = 2, steps = 5, batch_size = 2}},
  {{run = "train", called = "ct-patch", cohort = "ct", patch = 16, resolution = 64, steps = 5, batch_size = 2}},
  {{run = "embed", whole = "ct", patches = "ct-patch", resolution = 64, slices = 3}},
  {{run = "score", model = "ct", slices = 3}},
  {{run = "cohort", called = "normal", reports = "normal"}},
  {{run = "train", model = "f-anogan", cohort = "normal", size = 16, steps = 30, batch_size = 4, checkpoint_every = 5}},
  {{run = "score"}},
  {{run = "cohort"}},
  {{run = "train", size = 16, steps = 30, batch_size = 8, checkpoint_every = 5}},
  {{run = "train", patch = 16, resolution = 64, patches = 4, steps = 30, batch_size = 8, checkpoint_every = 5}},
  {{run = "embed", resolution = 64}},
  {{run = "normalize", steps = 3, spacing = 10, organs = '{organs}'}}, {{run = "weigh", least = 4}},
  {{run = "link", least = 4, ferns = 16, depth = 4}},
  {{run = "map"}}, {{run = "follow"}},
  {{run = "cluster", k_max = 3, min_cases = 5, resamples = 5}},
]
"""


@dataclass(frozen=True)
class Place:
    """A database with its folder, ready for the pipeline."""

    folder: Path
    pipeline: Path

    @property
    def url(self):
        return f"sqlite:///{self.folder / 'x.db'}"

    @property
    def home(self):
        return self.folder / "home"

    def run(self, executor="here"):
        database = open_database(self.url)
        for step in read_pipeline(self.pipeline):
            run_step(step, database, self.home, executor=executor, progress=None)
        database.close()

    def result(self):
        database = open_database(self.url)
        found = contents(database)
        database.close()
        return found, models(self.home)


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """A pipeline over a small export, and a database with its key and nothing else."""
    folder = tmp_path_factory.mktemp("contract")
    write_export(folder / "export", studies=48, volumes=2, seed=5)
    pipeline = folder / "pipeline.toml"
    everywhere = sitk.GetImageFromArray(np.ones((4, 4, 4), np.uint8))  # one organ, wherever the reference lies
    everywhere.SetSpacing((1000.0,) * 3)
    everywhere.SetOrigin((-1500.0,) * 3)
    sitk.WriteImage(everywhere, str(folder / "organs.nii.gz"))
    told = PIPELINE.format(export=folder / "export", organs=folder / "organs.nii.gz")
    pipeline.write_text(told, encoding="utf-8")
    open_database(f"sqlite:///{folder / 'x.db'}").close()
    return Place(folder, pipeline)


def copy_of(place, folder):
    folder.mkdir()
    shutil.copy(place.folder / "x.db", folder / "x.db")
    return Place(folder, place.pipeline)


@pytest.fixture(scope="module")
def finished(empty, tmp_path_factory):
    """The same after an uninterrupted run, with its tables and models as values."""
    place = copy_of(empty, tmp_path_factory.mktemp("finished") / "here")
    place.run()
    return place, *place.result()


def test_the_pipeline_has_every_stage_and_fills_its_tables(finished):
    place, tables, trained = finished
    assert {step.stage.name for step in read_pipeline(place.pipeline)} == set(STAGES)
    filled = {table.__tablename__ for step in read_pipeline(place.pipeline) for table in step.stage.results}
    assert {name for name in filled if not tables[name]} == set()
    assert len(trained) >= 10


def test_volumes_are_looked_at_slice_by_slice(finished):
    place, _, _ = finished
    database = open_database(place.url)
    with database.reading() as session:
        scored = session.execute(text("SELECT image, score, peak_slice FROM anomaly_view WHERE model = 'ct'")).all()
        kinds = dict(session.execute(text("SELECT image, kind FROM image_view")).all())
        rows = session.scalars(select(Region).join(Image).where(Image.kind == "volume")).all()
        slices = dict(session.execute(select(Image.id, Image.slices)).all())
    assert [kinds[row.image] for row in scored] == ["volume"] * 2
    assert all(0 <= row.peak_slice < slices[row.image] for row in scored)
    assert len(rows) == 2
    for row in rows:
        looked_at = set(row.slices.tolist())
        assert len(looked_at) == 3
        assert max(looked_at) < slices[row.image_id]
        assert len(row.slices) == len(row.boxes) == row.count
    database.close()


def test_running_it_again_changes_nothing(finished):
    place, tables, trained = finished
    place.run()
    again, trained_again = place.result()
    assert differences(tables, again) == {}
    assert trained == trained_again


def test_each_executor_gives_the_same(empty, finished, tmp_path):
    place = copy_of(empty, tmp_path / "processes")
    place.run("processes:2")
    tables, trained = place.result()
    assert differences(finished[1], tables) == {}
    assert trained == finished[2]


def test_killed_at_random_points_it_ends_the_same(empty, finished, tmp_path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    kills = rounds = 0
    while kills < KILLS:
        place = copy_of(empty, tmp_path / f"killed{rounds}")
        executor = rng.choice(["here", "processes:2"])
        command = [sys.executable, "-m", "phenotype", "--db", place.url, "--home", str(place.home)]
        command += ["--executor", executor, "--quiet", "run", str(place.pipeline)]
        while True:
            process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE)
            try:
                _, messages = process.communicate(timeout=rng.uniform(1, 12) if kills < KILLS else None)
                assert process.returncode in (0, 3), messages.decode()
                break
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                kills += 1
                time.sleep(0.05)
        tables, trained = place.result()
        assert differences(finished[1], tables) == {}, f"seed {seed}, round {rounds}"
        assert trained == finished[2], f"seed {seed}, round {rounds}"
        rounds += 1
    print(f"{kills} kills in {rounds} runs")


def test_the_comparison_sees_a_difference(finished, tmp_path):
    """The negative control of the tests above: one changed row is noticed."""
    place = copy_of(finished[0], tmp_path / "changed")
    database = open_database(place.url)
    with database.writing() as session:
        task = session.scalars(select(Task)).first()
        task.version = "changed"
    assert differences(finished[1], contents(database)) == {"task": (1, 1)}
    database.close()


@pytest.mark.parametrize("name", STAGES)
def test_one_bad_subject_fails_alone_and_is_the_only_one_redone(name, empty, finished, tmp_path):
    """Each stage is done anew on a finished database, once with a subject that fails, once without."""
    place = Place(tmp_path / "bad", empty.pipeline)
    shutil.copytree((empty if name == "ingest" else finished[0]).folder, place.folder)
    step = next(step for step in read_pipeline(place.pipeline) if step.stage.name == name)
    database = open_database(place.url)
    if name == "ingest":
        register(database, empty.folder / "export")
    with database.writing() as session:
        stage = step.stage.resolve(session, place.home)
        session.execute(delete(Run).where(Run.id == stage.run_id))
        subject, total = session.execute(stage.subjects()).all()[-1][0], len(session.execute(stage.subjects()).all())
    summary = run_stage(spoiled(stage, subject), database, place.home)
    assert (summary.done, summary.failed) == (total - 1, 1)
    with database.reading() as session:
        failed = session.execute(select(Task.subject_id, Task.reason).where(Task.state == "failed")).all()
    assert [tuple(row) for row in failed] == [(subject, "spoiled: by the test")]
    again = run_stage(stage, database, place.home)
    assert (again.done, again.failed, again.before) == (1, 0, total - 1)
    if name not in ("ingest", "assemble"):  # on these all the rest is built, and went with them
        assert differences(finished[1], contents(database)) == {}
    database.close()
