"""`phenotype score --model a+b`: several trained models as one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sqlalchemy import select, text

from db.session import open_database
from db.tables import Anomaly, Run
from phenotype.demo.export import write_export
from phenotype.models.ensemble import standardized
from phenotype.models.files import load_calibration
from phenotype.pipeline import Step, make_stage, run_step
from phenotype.stage import Refused, model_folder

STEPS = (
    ("ingest", {}),
    ("assemble", {}),
    ("extract", {}),
    ("label", {}),
    ("cohort", {"holdout": 4}),
    ("train", {"model": "pca", "size": 16, "parameters": "components=4"}),
    ("train", {"size": 32, "steps": 5, "batch_size": 4}),
    ("train", {"called": "patches", "patch": 16, "resolution": 64, "patches": 4, "steps": 5, "batch_size": 4}),
    ("score", {"model": "pca-image"}),
    ("score", {"model": "cae-image"}),
    ("score", {"model": "pca-image+cae-image"}),
)


def step(database, home, name, values, sources=()):
    return run_step(Step(make_stage(name, values), sources), database, home, executor="here", progress=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    write_export(folder / "export", studies=16, volumes=0, seed=3)
    database = open_database(f"sqlite:///{folder / 'x.db'}")
    for name, values in STEPS:
        assert step(database, folder, name, values, (str(folder / "export"),) if name == "ingest" else ()).failed == 0
    return database, folder


def test_scores_of_several_models_are_their_standardised_mean(made):
    database, folder = made
    with database.reading() as session:
        runs = {run.label: run for run in session.scalars(select(Run).where(Run.stage == "score"))}
        rows = {
            label: {row.image_id: row for row in session.scalars(select(Anomaly).where(Anomaly.run_id == run.id))}
            for label, run in runs.items()
        }
        seen = session.execute(text("SELECT count(*) FROM anomaly_view WHERE model = 'pca-image+cae-image'")).scalar()
        trained = {run.label: run.id for run in session.scalars(select(Run).where(Run.stage == "train"))}
    both = rows.pop("pca-image+cae-image")
    assert seen == len(both) == len(rows["pca-image"]) > 12
    assert runs["pca-image+cae-image"].recipe["model"] == f"{trained['pca-image']}+{trained['cae-image']}"
    own = {label: load_calibration(model_folder(folder, trained[label])) for label in rows}
    assert all(len(calibration.scores) >= 3 for calibration in own.values())
    for image, row in both.items():
        z = [standardized(own[label], np.array([rows[label][image].score]))[0] for label in own]
        assert row.score == pytest.approx(np.mean(z), abs=1e-4)
        assert 1 / (1 + len(own["pca-image"].scores)) - 1e-9 <= row.p_value <= 1
    assert max(row.p_value for row in both.values()) > 0.5 > min(row.p_value for row in both.values())
    order = sorted(both.values(), key=lambda row: row.score)
    assert all(a.p_value >= b.p_value for a, b in pairwise(order))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("pca-image+", "write both"),
        ("pca-image+pca-image", "twice"),
        ("pca-image+patches", "patches"),
        ("pca-image+oracle", "oracle"),
    ],
)
def test_models_that_cannot_be_scored_together_are_refused(made, model, why):
    database, folder = made
    with pytest.raises(Refused, match=why):
        step(database, folder, "score", {"model": model})


def test_slices_are_those_that_the_model_was_calibrated_on(made):
    database, folder = made
    step(database, folder, "train", {"called": "three", "model": "pca", "size": 16, "slices": 3})
    step(database, folder, "score", {"model": "three"})
    with database.reading() as session:
        recipes = {run.label: run.recipe for run in session.scalars(select(Run).where(Run.stage == "score"))}
    assert (recipes["three"]["slices"], recipes["pca-image"]["slices"]) == (3, 8)
    with pytest.raises(Refused, match="--slices"):
        step(database, folder, "score", {"model": "three+pca-image"})


def test_a_score_that_is_upside_down_is_told(made):
    database, folder = made
    assert step(database, folder, "score", {"model": "pca-image"}).remarks == ()
    with database.writing() as session:
        session.execute(text("UPDATE anomaly SET score = -1e9 - score"))
    (told,) = step(database, folder, "score", {"model": "pca-image"}).remarks
    assert "upside down" in told


def test_models_of_other_cohorts_are_not_mixed(made):
    database, folder = made
    step(database, folder, "cohort", {"called": "other", "holdout": 0})
    step(database, folder, "train", {"model": "pca", "called": "other", "cohort": "other", "size": 16})
    with pytest.raises(Refused, match="same 'cohort'"):
        step(database, folder, "score", {"model": "cae-image+other"})
