"""The stages normalize and follow on a small export, and the question where a place is in other images."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import SimpleITK as sitk
from sqlalchemy import select
from support import contents, differences

from db.queries.positions import followed, geometries, lying
from db.session import open_database
from db.tables import Alignment, Concept, FollowUp, Image, Organ, Region, Run, Study, Task, TermMap, Track
from db.write import insert_rows
from phenotype.demo.export import write_export
from phenotype.imaging import grids
from phenotype.normalization.places import elsewhere, kept_organs
from phenotype.pipeline import Step, make_stage, run_step
from phenotype.stage import Refused, model_folder

COARSE = {"spacing": 14.0, "steps": 8}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """8 radiographs, two of them of a patient who was there before, and 3 CT volumes, put together."""
    folder = tmp_path_factory.mktemp("space")
    write_export(folder / "export", studies=8, volumes=3, seed=4)
    database = open_database(f"sqlite:///{folder / 'x.db'}")
    for name in ("ingest", "assemble"):
        sources = (str(folder / "export"),) if name == "ingest" else ()
        run_step(Step(make_stage(name, {}), sources), database, folder / "home", executor="here", progress=None)
    yield folder, database
    database.close()


def done(world, name, **fields):
    folder, database = world
    stage = make_stage(name, fields)
    return run_step(Step(stage), database, folder / "home", executor="here", progress=None)


@pytest.fixture(scope="module")
def normalized(world):
    """With a box drawn around the right half of the reference as its only organ."""
    folder, database = world
    with database.reading() as session:
        reference = max(
            (v for v in geometries(session) if v.kind == "volume"), key=lambda v: round(v.shape[0] * v.spacing[0] / 20)
        )
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[:, :, :10] = 3
    image = sitk.GetImageFromArray(labels)
    size = np.array(reference.shape) * reference.spacing
    image.SetSpacing((size[::-1] / 20).tolist())
    image.SetOrigin((np.array(reference.origin) + (size[::-1] / 40) - np.array(reference.spacing)[::-1] / 2).tolist())
    sitk.WriteImage(image, str(folder / "organs.nii.gz"))
    (folder / "names.csv").write_text("3,right half\n", encoding="utf-8")
    options = {"organs": str(folder / "organs.nii.gz"), "organ_names": str(folder / "names.csv")}
    return done(world, "normalize", reference=reference.image_id, **options, **COARSE), reference


def test_every_image_lies_in_the_common_space(world, normalized):
    summary, _ = normalized
    assert (summary.done, summary.failed) == (len(geometries_of(world)), 0)
    with world[1].reading() as session:
        rows = session.scalars(select(Alignment).where(Alignment.run_id == summary.run_id)).all()
        kinds = dict(session.execute(select(Image.id, Image.kind)).all())
    volumes = [row for row in rows if kinds[row.image_id] == "volume"]
    assert {row.route for row in volumes} >= {"reference", "direct"}
    assert all(row.accepted and row.quality > 0.6 and row.forward.shape[-1] == 3 for row in volumes)
    radiographs = [row for row in rows if kinds[row.image_id] == "radiograph"]
    assert sum(row.accepted for row in radiographs) >= len(radiographs) - 2
    for row in rows:
        assert row.accepted or row.reason
        assert row.forward.dtype == row.backward.dtype == np.float32
        middle = np.full(row.forward.shape[-1], 0.5)
        assert np.abs(grids.apply(row.forward, grids.apply(row.backward, middle)) - middle).max() < 0.02


def geometries_of(world):
    with world[1].reading() as session:
        return geometries(session)


def test_organs_travel_with_their_volume(world, normalized):
    summary, reference = normalized
    with world[1].reading() as session:
        organs = {row.image_id: row for row in session.scalars(select(Organ))}
    volumes = {v.image_id: v for v in geometries_of(world) if v.kind == "volume"}
    assert set(organs) == set(volumes)
    own = volumes[reference.image_id]
    half = np.prod(np.array(own.shape) * own.spacing) / 2000
    assert organs[reference.image_id].volume_ml == pytest.approx(half, rel=0.03)
    for image, row in organs.items():
        whole = np.prod(np.array(volumes[image].shape) * volumes[image].spacing) / 1000
        assert row.organ == "right half" and row.share > 0.8
        assert row.volume_ml == pytest.approx(whole / 2, rel=0.15)  # people are symmetric, to about that
        assert row.low[2] == pytest.approx(0.0, abs=0.1) and row.high[2] == pytest.approx(0.5, abs=0.1)
    labels, names = kept_organs(model_folder(world[0] / "home", summary.run_id))
    assert names == {3: "right half"} and set(np.unique(labels)) == {0, 3}


def test_run_again_nothing_is_done_and_done_anew_it_is_the_same(world, normalized):
    summary, _ = normalized
    before = contents(world[1])
    with world[1].writing() as session:
        run = session.get_one(Run, summary.run_id)
        options = {k: v for k, v in run.recipe.items() if k in ("reference", "spacing", "steps")}
    options |= {"organs": str(world[0] / "organs.nii.gz"), "organ_names": str(world[0] / "names.csv")}
    assert done(world, "normalize", **options).done == 0
    with world[1].writing() as session:
        session.delete(session.get_one(Run, summary.run_id))
    assert done(world, "normalize", **options).done == summary.done
    assert differences(before, contents(world[1])) == {}


def test_what_cannot_be_a_reference_is_refused(world):
    for fields, word in (
        ({"reference": "nobody"}, "no volume"),
        ({"templates": "nobody"}, "no volume"),
        ({"kind": "cartoon"}, "no kind"),
        ({"organs": "/nowhere.nii"}, "cannot be read"),
    ):
        with pytest.raises(Refused, match=word):
            done(world, "normalize", **fields)


def test_where_is_this_place_in_other_images(world, normalized):
    """A place of a volume in all others and back; of a radiograph in other radiographs only."""
    summary, reference = normalized
    with world[1].reading() as session:
        all_of_them = lying(session, summary.run_id)
    volumes = [one for one in all_of_them if one.kind == "volume"]
    start = next(one for one in volumes if one.image_id != reference.image_id)
    voxel = (start.shape[0] // 2, start.shape[1] / 2, start.shape[2] / 3)
    places = elsewhere(start, [one for one in all_of_them if one is not start], voxel)
    assert {place.image for place in places} == {one.image_id for one in volumes if one is not start}
    for place in places:
        other = next(one for one in volumes if one.image_id == place.image)
        (back,) = elsewhere(other, [start], (place.slice, place.row, place.column))
        assert back.slice == pytest.approx(voxel[0], abs=1.1)
        assert (back.row, back.column) == pytest.approx(voxel[1:], abs=2.5)
    with pytest.raises(ValueError, match="voxels"):
        elsewhere(start, volumes, (500, 0.0, 0.0))


def test_the_command_where(world, normalized, command):
    _, reference = normalized
    folder, database = world
    known = [v.image_id for v in geometries_of(world) if v.kind == "volume" and v.image_id != reference.image_id]
    base = ["--db", str(database.engine.url), "--home", str(folder / "home"), "where", reference.image_id]
    asked = [*base, "--row", "48", "--column", "20", "--slice", "12", "--json"]
    rows = json.loads(command(*asked).stdout)
    assert {row["image"] for row in rows} == set(known)
    assert all(row["organ"] == "right half" and row["in_view"] and row["quality"] > 0.5 for row in rows)
    assert [row["image"] for row in json.loads(command(*asked, "--to", known[0]).stdout)] == known[:1]
    outside = command(*base, "--row", "900", "--column", "0")
    assert outside.returncode == 1 and "none there" in outside.stderr


def test_follow_ups_are_registered_and_places_tracked(world):
    """A nodule seen in the earlier image, at a known place of the body, is found in the later one, where it is larger;
    one that is new has none before."""
    _, database = world
    images = {image.image_id: image for image in geometries_of(world)}
    with database.reading() as session:
        (assembled,) = session.scalars(select(Image.run_id).distinct())
        pairs = dict(session.execute(followed(assembled)).all())
    assert len(pairs) == 2
    for later, earlier in pairs.items():
        assert images[later].patient_id == images[earlier].patient_id and images[later].day > images[earlier].day
    plant(database, pairs)
    summary = done(world, "follow", **COARSE)
    assert (summary.done, summary.failed) == (2, 0)
    with database.reading() as session:
        links = session.scalars(select(FollowUp)).all()
        tracks = session.scalars(select(Track).order_by(Track.image_id, Track.concept_id)).all()
        days = dict(session.execute(select(Image.id, Study.shifted_date).join(Study)).all())
    assert {row.image_id: row.earlier_id for row in links} == pairs
    for row in links:
        assert row.days == (days[row.image_id] - days[row.earlier_id]).days > 0
        assert row.accepted and row.quality > 0.4
    assert [row.concept_id for row in tracks] == ["new", "nodule"] * 2
    for row in tracks:
        if row.concept_id == "nodule":
            assert row.size_mm > 1.2 * row.earlier_size_mm > 0
            assert row.score > row.earlier_score > 0
            assert np.hypot(row.row - row.earlier_row, row.column - row.earlier_column) < 0.1
        else:
            assert row.earlier_size_mm is None and row.size_mm > 0 and row.earlier_score == 0.0


def plant(database, pairs):
    """Term maps as `map` would have made them: a nodule in both images, larger in the later; one that is new; one that
    is called on neither."""
    corners = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1).reshape(-1, 2) / 16
    boxes = np.hstack([corners, corners + 1 / 16]).astype(np.float32)
    middle = boxes[:, :2] + 1 / 32

    def blob(row, column, radius, height):
        away = np.linalg.norm(middle - [row, column], axis=1)
        return (height * np.exp(-0.5 * (away / radius) ** 2)).astype(np.float32)

    now = datetime.now(UTC)
    ids = {"embed": "e" * 16, "link": "f" * 16, "map": "a" * 16}
    recipes = {
        "embed": {},
        "link": {"embeddings": ids["embed"]},
        "map": {"link": ids["link"], "embeddings": ids["embed"]},
    }
    common = {"label": "", "software": {}, "state": "finished", "started_at": now, "opened_at": now, "finished_at": now}
    with database.writing() as session:
        insert_rows(session, Run, [{"id": ids[s], "stage": s, "recipe": recipes[s], **common} for s in ids])
        task = {"version": "", "state": "done", "reason": None, "traceback": None, "finished_at": now}
        insert_rows(session, Task, [{"run_id": ids["map"], "subject_id": i, **task} for i in pairs])
        empty = {"category": "", "region": "", "parent": "", "radlex": "", "mesh": "", "snomed": ""}
        names = ("nodule", "new", "neither")
        insert_rows(session, Concept, [{"id": name, "name": name, **empty} for name in names])
        for later, earlier in pairs.items():
            for image, first in ((earlier, True), (later, False)):
                places = {"run_id": ids["embed"], "image_id": image, "count": 256, "labels": None}
                insert_rows(session, Region, [places | {"slices": np.zeros(256, np.int32), "boxes": boxes}])
                seen = {
                    "nodule": ("here", blob(0.4, 0.3, 0.05 if first else 0.08, 2.0 if first else 3.0)),
                    "new": ("not here", np.zeros(256, np.float32)) if first else ("here", blob(0.6, 0.7, 0.06, 1.0)),
                    "neither": ("not here", blob(0.5, 0.5, 0.1, 1.0)),
                }
                rows = [
                    {
                        **{"run_id": ids["map"], "image_id": image, "concept_id": name, "score": 0.0, "side": ""},
                        **{"peak_slice": 0, "peak_row": 0.5, "peak_column": 0.5, "regions": values, "call": call},
                        **{"probability": None, "deletion": None, "deletion_random": None},
                    }
                    for name, (call, values) in seen.items()
                ]
                insert_rows(session, TermMap, rows)
