"""The stage `train` and its knobs on a small export; what reports tell a model; what leaves of it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sample import RUN_ID, STUDY, fill
from sqlalchemy import select

from db.queries.labels import concept_ids, study_classes
from db.session import Database, open_database
from db.tables import Alignment, Image, Label, Region, Task
from phenotype.demo.export import write_export
from phenotype.imaging.thorax import window_of
from phenotype.models.files import load_calibration, load_model, read_training
from phenotype.pipeline import Step, make_stage, run_step
from phenotype.stage import Refused

SMALL = {"size": 16, "steps": 6, "batch_size": 4, "threads": 1, "checkpoint_every": 2}


@dataclass(frozen=True)
class Place:
    """A database with studies, their labels and two cohorts."""

    database: Database
    home: Path

    def train(self, **values) -> Path:
        """Train; the folder of the model."""
        summary = self.run("train", **(SMALL | values))
        assert summary.failed == 0, self.reasons()
        return self.home / "models" / summary.run_id

    def run(self, name: str, **values):
        sources = tuple(values.pop("sources", ()))
        step = Step(make_stage(name, values), sources)
        return run_step(step, self.database, self.home, executor="here", progress=None)

    def reasons(self) -> list[str]:
        with self.database.reading() as session:
            return list(session.scalars(select(Task.reason).where(Task.state == "failed")))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write_export(folder / "export", studies=30, volumes=0, seed=5)
    place = Place(open_database(f"sqlite:///{folder / 'x.db'}"), folder / "home")
    place.run("ingest", sources=[str(folder / "export")])
    for stage, values in (
        ("assemble", {}),
        ("extract", {}),
        ("label", {}),
        ("cohort", {"called": "all", "holdout": 4}),
        ("cohort", {"called": "normal", "reports": "normal", "holdout": 4}),
    ):
        place.run(stage, **values)
    yield place
    place.database.close()


def test_a_model_is_trained_as_it_is_told(place):
    folder = place.train(
        cohort="all",
        parameters="latent=7,term=both",
        accumulate=2,
        watch="loss",
        watch_every=2,
        patience=9,
        sheets=3,
        collapse_every=0,
    )
    model, training = load_model(folder), read_training(folder)
    assert (model.recipe.latent, model.recipe.term) == (7, "both")
    assert (training["accumulate"], training["kept"]["figure"]) == (2, "held-out loss")
    assert [path.name for path in sorted((folder / "sheets").iterdir())] == ["00000003.png", "00000006.png"]
    assert not list(folder.glob("*.samples*"))
    unwatched = place.train(cohort="all")
    aside, half = (len(load_calibration(one).scores) for one in (unwatched, folder))
    assert half == aside // 2 > 2  # what was watched does not calibrate
    card = (folder / "model-card.md").read_text()
    assert training["about"]["cohort"] in card and "framing | body" in card and f"patients | {half} |" in card
    assert not (unwatched / "sheets").exists()  # pictures of patients only where they are asked for


def test_pixels_are_written_into_the_models_folder_and_nowhere_else(place):
    place.train(cohort="all", sheets=3, seed=7)
    pictures = {path.parent.parent.parent for path in place.home.parent.rglob("*.png")}
    assert pictures == {place.home / "models"}


def test_a_pool_chooses(place):
    folder = place.train(cohort="normal", watch="aucp", pool="all", watch_every=2, patience=9)
    training = read_training(folder)
    assert training["kept"]["figure"] == "aucp" and training["watch"]["higher_is_better"]
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    values = {line["step"] + 1: line["watch/aucp"] for line in lines if "watch/aucp" in line}
    assert list(values) == [2, 4, 6] and training["kept"]["value"] == max(values.values())
    assert values[training["kept"]["step"]] == max(values.values())


def test_reports_give_a_model_its_classes(place):
    with place.database.reading() as session:
        rows = session.execute(select(Label.concept_id, Label.value)).all()
    denied = {concept for concept, value in rows if value == "absent"}
    present = [concept for concept, value in rows if value == "present" and concept in denied]
    common = max(set(present), key=present.count)
    folder = place.train(model="classifier", cohort="all", condition=common)
    assert load_model(folder).recipe.classes == 2
    assert read_training(folder)["about"]["classes"] == ["none of these", common]
    assert f"classes | none of these, {common} |" in (folder / "model-card.md").read_text()


def test_a_mask_is_drawn(place):
    folder = place.train(model="pix2pix", cohort="all", target="body")
    assert load_model(folder).name == "pix2pix" and read_training(folder)["about"]["target"] == "body"


def test_models_see_the_thorax_once_radiographs_lie_in_the_common_space(place, monkeypatch):
    monkeypatch.setattr("phenotype.normalization.mean.LEAST", 20)
    with pytest.raises(Refused, match="`phenotype normalize` first"):
        place.run("train", cohort="all", framing="thorax", **SMALL)
    run = place.run("normalize").run_id
    folder = place.train(cohort="all", framing="thorax", called="whole")
    assert "framing | thorax" in (folder / "model-card.md").read_text()
    place.train(cohort="all", framing="thorax", called="parts", patch=16, resolution=32)
    place.train(cohort="all", called="of-the-body", patch=16, resolution=32)
    with pytest.raises(Refused, match="differ in kind of image or 'framing'"):
        place.run("embed", whole="whole", patches="of-the-body", resolution=32)
    with place.database.writing() as session:
        placed = list(session.scalars(select(Alignment).where(Alignment.run_id == run, Alignment.accepted)))
        images = len(list(session.scalars(select(Image.id).where(Image.kind == "radiograph"))))
        assert len(placed) > 0.8 * images
        assert {row.route for row in placed} == {"mean"}
        strange = placed[0].image_id
        placed[0].accepted = False
    embedded = place.run("embed", whole="whole", patches="parts", resolution=32)
    assert (embedded.done, embedded.failed) == (len(placed) - 1, 0)  # what has no place is no subject
    with place.database.reading() as session:
        rows = list(session.scalars(select(Region).where(Region.run_id == embedded.run_id)))
        places = dict(session.execute(select(Alignment.image_id, Alignment.backward)).all())
    assert strange not in {row.image_id for row in rows}
    for row in rows:
        top, left, bottom, right = window_of(places[row.image_id])
        low, high = np.array([top, left]), np.array([bottom, right])
        assert (row.boxes[:, :2] >= np.clip(low, 0, 1) - 0.02).all() and (row.boxes[:, 2:] <= high + 0.02).all()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"framing": "heart"}, "'heart' is no framing"),
        ({"space": "abc"}, "framing 'body' needs no common space"),
        ({"model": "vgg"}, "no model is called 'vgg'"),
        ({"parameters": "latnet=3"}, r"'latnet=3' is no parameter of cae; .*latent=32"),
        ({"parameters": "latent=x"}, "'latent' must be a whole number"),
        ({"watch": "auroc"}, "'auroc' is nothing to watch"),
        ({"condition": "pleural_effusion, dragon"}, "no finding is called 'dragon'"),
        ({"condition": "pleural_effusion"}, "cae is told nothing, so 'condition' must stay empty"),
        ({"model": "pix2pix", "target": "heart"}, "'heart' is no target; use one of lung, body"),
        ({"watch": "aucp", "pool": "nobody"}, "no run of 'cohort' .* is called 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_refused_at_once(values, told, place):
    with pytest.raises(Refused, match=told):
        place.run("train", cohort="all", **(SMALL | values))


def test_a_model_that_must_be_told_something_says_what(place):
    assert place.run("train", cohort="all", model="classifier", **SMALL).failed == 1
    (told,) = place.reasons()
    assert told == "told: classifier must be told classes beside the images: --condition names the findings"


def test_classes_are_what_the_labels_say(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    with database.writing() as session:
        fill(session)
        known = concept_ids(session, ["Pleural effusion", "pneumothorax", "no such thing"])
        assert known == {"Pleural effusion": "pleural_effusion", "pneumothorax": "pneumothorax"}
        concepts = list(known.values())
        classes = study_classes(session, RUN_ID["label"], concepts)
        labels: dict[str, dict[str, str]] = {}
        for row in session.execute(select(Label.study_id, Label.concept_id, Label.value)):
            labels.setdefault(row.study_id, {})[row.concept_id] = row.value
    assert set(classes) == set(labels) <= set(STUDY.values())
    for study, own in labels.items():
        values = [own.get(concept) for concept in concepts]
        if "present" in values:
            assert classes[study] == values.index("present") + 1
        elif "uncertain" in values:
            assert classes[study] == -1
        elif values == ["absent", "absent"]:
            assert classes[study] == 0
    assert {-1, 0, 1} <= set(classes.values())
    with database.reading() as session:
        reverse = study_classes(session, RUN_ID["label"], concepts[::-1])
    database.close()
    swapped = {1: 2, 2: 1}
    both = {study for study, own in labels.items() if all(own.get(concept) == "present" for concept in concepts)}
    assert all(reverse[s] == (1 if s in both else swapped.get(c, c)) for s, c in classes.items())


def test_a_trained_model_can_be_taken_away(place, command, tmp_path):
    folder = place.train(cohort="all", called="to-go")
    options = ("--db", str(place.database.engine.url), "--home", str(place.home))
    done = command(*options, "export", "model", "to-go", str(tmp_path / "away"), "--no-onnx")
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "away").iterdir()}
    assert names == {"model.safetensors", "model.json", "model-card.md", "calibration.safetensors"}
    assert load_model(tmp_path / "away").recipe == load_model(folder).recipe
    assert "can remember the images" in done.stderr
    wrong = command(*options, "export", "model", "nobody", str(tmp_path / "away"))
    assert wrong.returncode == 1 and "is called 'nobody'" in wrong.stderr


def test_families_are_listed(command):
    listed = json.loads(command("models", "--json").stdout)
    by_name = {row["model"]: row for row in listed}
    assert by_name["cae"]["told"] == "nothing" and by_name["cae"]["dims"] == "2, 3"
    assert by_name["classifier"]["told"] == "classes" and "latent=32" in by_name["cae"]["parameters"]
    told = command("train", "--help").stdout
    assert all(f"{name}:" in told for name in by_name)


def test_sigterm_leaves_a_checkpoint_and_143(place):
    """The command line, asked to stop while it trains; the same command continues."""
    stage = make_stage("train", SMALL | {"cohort": "all", "steps": 10**6, "checkpoint_every": 10**6, "seed": 3})
    with place.database.reading() as session:
        folder = place.home / "models" / replace(stage, images="").resolve(session, place.home).run_id
    command = [sys.executable, "-m", "phenotype", "--quiet", "--db", str(place.database.engine.url), "--home"]
    command += [str(place.home), "train", "--cohort", "all", "--size", "16", "--steps", "1000000", "--batch-size", "4"]
    command += ["--threads", "1", "--checkpoint-every", "1000000", "--seed", "3"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not (folder / "log.jsonl").is_file():
        time.sleep(0.05)
        assert process.poll() is None, process.communicate()[1]
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert (process.returncode, said.strip()) == (143, "stopped; the same command continues")
    assert len(list((folder / "checkpoints").glob("*.json"))) == 1
