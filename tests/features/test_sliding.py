"""Models of patches at work on whole views and volumes, from training to rows."""

import numpy as np
import pytest
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.session import open_database
from db.tables import Anomaly, Embedding, Image, Region, Run, Task
from phenotype.demo.export import write_export
from phenotype.models import base
from phenotype.models.sliding import Sliding, slide
from phenotype.pipeline import Step, make_stage, run_step
from phenotype.stage import Refused, model_folder


class Brightness(base.ImageModel):
    """Scores each pixel by its value: what sliding does to a map is then known."""

    name = "brightness"
    recipe_type = base.Recipe
    dimensions = (2, 3)

    def __init__(self, recipe):
        super().__init__(recipe)
        self.register_buffer("one", torch.ones(1))
        self.largest = 0

    def optimizers(self, learning_rate):
        return {}

    def forward(self, update, x, random, y=None):
        return {}

    def _embed(self, x):
        return x.flatten(1)

    def _score(self, x, inside):
        self.largest = max(self.largest, x.numel())
        maps = x[:, 0]
        return base.reduce_map(maps, "mean", inside), maps


@pytest.mark.parametrize("shape", [(40, 27), (16, 16), (21, 33, 18)])
def test_blended_maps_are_those_of_the_patches_without_seams(shape):
    model = Brightness(base.Recipe(size=16, dims=len(shape)))
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    scores, seen = slide(model, image)
    torch.testing.assert_close(seen, image, atol=1e-5, rtol=0)
    again = slide(model, image)
    assert torch.equal(scores, again[0]) and torch.equal(seen, again[1])


def test_what_is_outside_counts_for_nothing():
    model, image = Brightness(base.Recipe(size=8)), torch.rand((32, 32), generator=torch.Generator().manual_seed(1))
    inside = torch.zeros((32, 32), dtype=torch.bool)
    inside[:, :12] = True
    changed = torch.where(inside, image, 1 - image)
    (scores, seen), (other, seen_too) = slide(model, image, inside), slide(model, changed, inside)
    assert torch.equal(scores, other) and torch.equal(seen, seen_too)
    assert (seen[~inside] == 0).all() and len(scores) < len(slide(model, image)[0])
    assert len(slide(model, image, torch.zeros_like(inside))[0]) > 0  # nothing inside: all of it


def test_a_volume_is_looked_at_in_parts():
    model = Brightness(base.Recipe(size=16, dims=3))
    slide(model, torch.rand((64, 64, 64)))
    assert model.largest <= 1 << 18


def test_views_are_scored_one_by_one_and_by_the_reduction():
    views = torch.rand((3, 1, 32, 32), generator=torch.Generator().manual_seed(2))
    views[1, 0, 4:12, 4:12] = 1.0
    patches = Brightness(base.Recipe(size=8))
    scored = {name: Sliding(patches, 32, name).score(views) for name in base.REDUCTIONS}
    assert all(scored["mean"][0] < scored["top10"][0]) and all(scored["top10"][0] <= scored["max"][0])
    assert scored["max"][0][1] == pytest.approx(1.0) and int(scored["max"][0].argmax()) == 1
    for n in range(3):
        assert Sliding(patches, 32, "max").score(views[n : n + 1])[0] == scored["max"][0][n]
    with pytest.raises(ValueError, match="no patch of 8"):
        Sliding(patches, 4)
    with pytest.raises(ValueError, match="cannot slide"):
        slide(patches, views[0, 0, :4])


STEPS = (
    ("ingest", {}),
    ("assemble", {}),
    ("extract", {}),
    ("label", {}),
    ("cohort", {"called": "ct", "images": "volume", "holdout": 3}),
    ("cohort", {"called": "cr", "images": "radiograph", "holdout": 3}),
    ("train", {"called": "cube", "cohort": "ct", "patch": 16, "dims": 3, "spacing": 10.0, "within": "lung"}),
    ("train", {"called": "ct", "cohort": "ct", "size": 16, "slices": 2, "within": "lung"}),
    ("train", {"called": "patch", "cohort": "cr", "patch": 16, "resolution": 48, "patches": 4, "within": "lung"}),
    ("train", {"called": "cr", "cohort": "cr", "size": 32, "within": "lung"}),
    ("score", {"model": "cube"}),
    ("score", {"model": "ct"}),
    ("score", {"model": "patch"}),
    ("score", {"model": "cr"}),
    ("embed", {"whole": "ct", "patches": "cube", "slices": 2}),
)


def step(database, home, name, values, sources=()):
    if name == "train":
        values = {"steps": 4, "batch_size": 4, "threads": 1} | values
    return run_step(Step(make_stage(name, values), sources), database, home, executor="here", progress=None)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sliding")
    write_export(folder / "export", studies=8, volumes=8, seed=3)
    database = open_database(f"sqlite:///{folder / 'x.db'}")
    for name, values in STEPS:
        done = step(database, folder, name, values, (str(folder / "export"),) if name == "ingest" else ())
        assert done.failed == 0, (name, values)
    return database, folder


def anomalies(session: Session, label: str) -> list[Anomaly]:
    """The rows scored with a model."""
    run = session.scalars(select(Run.id).where(Run.stage == "score", Run.label == label)).one()
    return list(session.scalars(select(Anomaly).where(Anomaly.run_id == run).order_by(Anomaly.image_id)))


@pytest.mark.parametrize(("label", "count"), [("cube", 8), ("ct", 8), ("patch", 8), ("cr", 8)])
def test_every_kind_of_model_scores_images(made, label, count):
    database, home = made
    with database.reading() as session:
        rows = anomalies(session, label)
        model = session.get_one(Run, rows[0].run_id).recipe["model"]
        calibrated = (model_folder(home, model) / "calibration.safetensors").exists()  # unless chance kept few aside
        assert len(rows) == count and len({row.score for row in rows}) == count
        for row in rows:
            image = session.get_one(Image, row.image_id)
            assert 0 <= row.peak_slice < image.slices
            assert (row.p_value is not None) == calibrated and 0 < (row.p_value or 1) <= 1
            assert row.map.dtype == np.float16 and np.isfinite(row.map).all() and 0 < (row.map != 0).mean() < 0.6
            down, right = int(row.peak_row * row.map.shape[0]), int(row.peak_column * row.map.shape[1])
            assert row.map[max(0, down - 1) : down + 2, max(0, right - 1) : right + 2].any()  # the peak is inside


def test_regions_of_cubes_have_slices_and_boxes(made):
    database, _ = made
    with database.reading() as session:
        for region in session.scalars(select(Region)):
            image = session.get_one(Image, region.image_id)
            vectors = session.get_one(Embedding, (region.run_id, region.image_id)).regions
            assert len(vectors) == region.count == len(region.boxes) == len(region.slices) > 0
            assert region.slices.max() < image.slices
            sides = (region.boxes[:, 2:] - region.boxes[:, :2]) * (image.rows, image.columns) * image.spacing[1:]
            assert np.median(sides) == pytest.approx(160, rel=0.1)  # 16 voxels of 10 mm


def test_what_was_learned_is_recorded_and_scoring_is_repeatable(made):
    database, home = made
    with database.reading() as session:
        before = {row.image_id: (row.score, row.map.tobytes()) for row in anomalies(session, "cube")}
        run = session.scalars(select(Run).where(Run.stage == "score", Run.label == "cube")).one()
        assert '"within": "lung"' in run.recipe["look"] and '"spacing": 10.0' in run.recipe["look"]
        assert not list(model_folder(home, run.recipe["model"]).glob("*.samples"))
    with database.writing() as session:
        session.query(Task).where(Task.run_id == run.id).delete()
    step(database, home, "score", {"model": "cube"})
    with database.reading() as session:
        assert {row.image_id: (row.score, row.map.tobytes()) for row in anomalies(session, "cube")} == before


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dims": 3}, "patch 0"),
        ({"dims": 4, "patch": 16}, "dims 4"),
        ({"window": "bones"}, "'bones' is no window"),
        ({"within": "heart"}, "'heart' is no part"),
        ({"reduction": "median"}, "'median' is no reduction"),
        ({"spacing": 2.0}, "spacing is that of cubes"),
        ({"patch": 256}, "patches of 256 do not fit"),
        ({"dims": 3, "patch": 16, "parameters": "dims=2"}, "no parameter"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_starts(made, values, said):
    database, home = made
    with pytest.raises(Refused, match=said):
        step(database, home, "train", {"cohort": "ct"} | values)
