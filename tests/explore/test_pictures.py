"""Arrays to pictures, and numbers to charts."""

import base64
import io
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from gallery_world import World, fill
from PIL import Image as Pillow

from db.queries import gallery
from db.session import open_database
from db.tables import Run
from db.write import insert_rows
from phenotype.explore import charts, films, pictures
from phenotype.explore.films import Films, Unseen
from phenotype.explore.pictures import Scale, View
from phenotype.explore.sections import Sections, in_short
from phenotype.imaging.window import standardize

SCALE = Scale(2.0, 8.0)


@pytest.fixture
def view() -> View:
    """A wide image: 40 x 80 pixels in the middle of a square view of 64."""
    pixels = np.random.default_rng(3).random((40, 80), dtype=np.float32)
    seen, frame = standardize(pixels, "CR", 64)
    return View(seen, frame, (40, 80))


def test_a_map_lies_over_the_image_and_not_over_the_border(view: View) -> None:
    assert view.area == (16, 0, 32, 64)
    drawn = pictures.overlay(view, np.full((8, 8), 9.0, np.float16), SCALE)
    plain = pictures.grey(view.pixels)
    assert np.array_equal(drawn[:16], np.repeat(plain[:16, :, None], 3, axis=2))
    assert np.array_equal(drawn[48:], np.repeat(plain[48:, :, None], 3, axis=2))
    colourful = np.ptp(drawn[16:48].astype(int), axis=2)
    assert colourful.min() > 30


def test_what_is_at_the_low_end_or_has_no_value_stays_as_it_is(view: View) -> None:
    plain = np.repeat(pictures.grey(view.pixels)[..., None], 3, axis=2)
    for value in (2.0, -5.0, np.nan):
        assert np.array_equal(pictures.overlay(view, np.full((8, 8), value), SCALE), plain)


def test_more_is_brighter_and_hides_more() -> None:
    bar = pictures.colour_bar(60, 2).astype(int)[0].sum(axis=1)
    assert np.all(np.diff(bar[10:]) >= -3)
    assert bar[-1] > bar[0] + 200


def test_a_quarter_of_a_map_colours_that_quarter(view: View) -> None:
    values = np.zeros((8, 8))
    values[:4, 4:] = 9.0  # upper right
    changed = (pictures.overlay(view, values, SCALE).astype(int) - pictures.grey(view.pixels)[..., None]).any(axis=2)
    inside = changed[16:48]
    assert inside[:14, 36:].all()
    assert not inside[20:].any()
    assert not inside[:, :28].any()


def test_a_ring_is_around_its_place_and_leaves_the_place_to_be_seen(view: View) -> None:
    plain = pictures.grey(view.pixels)
    drawn = pictures.ring(plain, view, 0.5, 0.75)
    rows, columns = np.nonzero((drawn.astype(int) - plain[..., None]).any(axis=2))
    assert abs(rows.mean() - (16 + 0.5 * 32)) < 1
    assert abs(columns.mean() - 0.75 * 64) < 1
    assert np.array_equal(drawn[32, 48], [plain[32, 48]] * 3)
    edge = pictures.ring(plain, view, 0.0, 1.0)  # half of it is outside
    assert edge.shape == (64, 64, 3)


def test_region_map_is_the_mean_of_the_regions_that_cover_a_pixel() -> None:
    boxes = np.array([[0, 0, 0.5, 0.5], [0, 0.25, 0.5, 0.75]], np.float32)
    values = pictures.region_map(np.array([1.0, 3.0]), boxes, (8, 8))
    assert np.allclose(values[:4, :2], 1.0)
    assert np.allclose(values[:4, 4:6], 3.0)
    assert np.all((values[:4, 2:4] > 1.0) & (values[:4, 2:4] < 3.0))
    assert np.all(np.diff(values[0, 1:5]) > 0)  # from the one to the other without a step
    assert np.isnan(values[4:]).all()
    assert np.isnan(values[:, 6:]).all()
    tiny = pictures.region_map(np.array([5.0]), np.array([[0.999, 0.999, 1.0, 1.0]]), (8, 8))
    assert tiny[7, 7] == pytest.approx(5.0)
    assert np.isfinite(tiny).sum() == 1


def test_region_map_is_highest_where_the_highest_region_is() -> None:
    edge = np.arange(15) / 16
    top, left = (v.ravel() for v in np.meshgrid(edge, edge, indexing="ij"))
    boxes = np.stack([top, left, top + 2 / 16, left + 2 / 16], axis=1)
    scores = -((boxes[:, 0] - 4 / 16) ** 2 + (boxes[:, 1] - 11 / 16) ** 2)
    values = pictures.region_map(scores, boxes, (64, 64))
    row, column = np.unravel_index(np.nanargmax(values), values.shape)
    assert abs(row - 5 * 4) <= 2
    assert abs(column - 12 * 4) <= 2


def test_grey_pictures_keep_every_value_and_carry_nothing_else() -> None:
    plain = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    data = base64.b64decode(pictures.data_uri(plain).partition(",")[2])
    assert np.array_equal(np.asarray(Pillow.open(io.BytesIO(data))), plain)
    coloured = base64.b64decode(pictures.data_uri(np.stack([plain, plain // 2, plain // 3], axis=2)).partition(",")[2])
    for found in (data, coloured):
        assert set(re.findall(rb"IHDR|PLTE|IDAT|IEND|tEXt|iTXt|zTXt|eXIf|tIME", found)) <= {
            b"IHDR",
            b"PLTE",
            b"IDAT",
            b"IEND",
        }


def test_a_histogram_counts_everything_and_says_when_it_is_cut() -> None:
    values = [*np.linspace(0, 10, 500), 1000.0, 1001.0, 1002.0, 1003.0]
    found = charts.histogram([("normal", values), ("ill", [10.0] * 5), ("none", [])])
    assert [(row.name, row.count) for row in found.rows] == [("normal", 504), ("ill", 5)]
    assert found.ticks[0][1] == "0"
    assert found.ticks[-1][1].startswith("≥ ")
    assert len(found.rows[1].bars) == 1
    heights = [bar.height for bar in found.rows[0].bars]
    assert sum(heights) / max(heights) == pytest.approx(504 / max(np.histogram(values, 36, (0, 20))[0]), rel=0.1)
    assert found.rows[0].bars[-1].x > found.width * 35 / 36  # those beyond the axis
    assert found.rows[1].median == 10.0
    assert charts.histogram([]).rows == ()
    flat = charts.histogram([("one", [3.0])])
    assert len(flat.rows[0].bars) == 1
    assert not flat.ticks[-1][1].startswith("≥")


def test_principal_axes_find_the_direction_of_most_variance() -> None:
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=200)
    vectors = np.stack([hidden, -hidden + 0.1 * rng.normal(size=200), rng.normal(size=200), np.ones(200)], axis=1)
    placed, shares = charts.principal_axes(vectors)
    assert abs(np.corrcoef(placed[:, 0], hidden)[0, 1]) > 0.99
    assert shares[0] == pytest.approx(2 / 3, abs=0.02)
    assert shares[1] == pytest.approx(1 / 3, abs=0.02)
    again, _ = charts.principal_axes(vectors * [100, 0.01, 1, 5] + 7)  # units do not matter
    assert np.allclose(placed, again)
    alike = np.stack([hidden, 2 * hidden + rng.normal(size=200), rng.normal(size=200)], axis=1)
    for vectors in (alike, -alike):  # an axis points to where its largest loading is positive
        assert np.corrcoef(charts.principal_axes(vectors)[0][:, 0], vectors[:, 0])[0, 1] > 0.9
    assert charts.principal_axes(np.ones((4, 3)))[1] == (0.0, 0.0)
    assert charts.principal_axes(np.arange(4.0)[:, None])[0].shape == (4, 2)


def test_clouds_differ_by_shape_and_colour_and_hold_every_point() -> None:
    vectors = np.random.default_rng(2).normal(size=(60, 5))
    groups = [("a", "b", "")[i % 3] for i in range(60)]
    found = charts.scatter(vectors, groups, [("a", "1", "x"), ("b", "2", "y"), ("", "", "none"), ("c", "3", "z")])
    assert [cloud.count for cloud in found.clouds] == [20, 20, 20, 0]
    assert [cloud.path.count("M") for cloud in found.clouds] == [20, 20, 20, 0]
    assert len({cloud.mark for cloud in found.clouds}) == len({cloud.colour for cloud in found.clouds}) == 4
    numbers = [float(n) for n in re.findall(r"M(-?[\d.]+)", found.clouds[0].path)]
    assert min(numbers) >= 0
    assert max(numbers) <= found.width
    many = charts.scatter(np.random.default_rng(2).normal(size=(5000, 2)), ["a"] * 5000, [("a", "1", "x")])
    assert (many.drawn, many.total, many.clouds[0].path.count("M")) == (charts.POINTS, 5000, charts.POINTS)


def test_a_damaged_file_costs_its_picture_only(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    fill(database, tmp_path / "files", {})
    damaged, cut = sorted((tmp_path / "files").glob("*.png"))[:2]
    damaged.write_bytes(b"not an image at all")
    cut.write_bytes(cut.read_bytes()[:200])
    with database.reading() as session:
        reader = Films(session)
        (run,) = gallery.current_runs(session, "cluster")
        seen = [reader.view(one.image) for one in gallery.described_images(session, run)]
        nobody = reader.view(gallery.ShownImage("nobody", "s", "radiograph", "", 0, 0.5, 0.5))
    database.close()
    reasons = sorted(one.reason for one in seen if isinstance(one, Unseen))
    assert len(reasons) == 3
    assert "missing" in reasons
    assert not any("/" in reason or "private" in reason for reason in reasons)
    assert nobody == Unseen("no files")


def test_a_reader_that_fails_says_nothing_of_the_file(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("Mr Secret, born 1950")

    monkeypatch.setattr(films, "read_cached", fails)
    with world.database.reading() as session:
        (run,) = gallery.current_runs(session, "score")
        top = gallery.top_anomalies(session, run.id, 1)
        assert Films(session).view(top[0].image) == Unseen("unreadable (RuntimeError)")


def test_recipes_in_short() -> None:
    recipe = {"model": "f-anogan", "patch": 0, "cohort": "0123456789abcdef", "upstream": "ff", "rate": 0.5, "name": ""}
    assert in_short(recipe) == "model f-anogan, cohort 01234567, rate 0.5"


def test_the_gallery_answers_as_the_tables_say(world: World) -> None:
    with world.database.reading() as session:
        (score,) = gallery.current_runs(session, "score")
        top = gallery.top_anomalies(session, score.id, 3)
        assert [one.score for one in top] == [23.0, 22.0, 21.0]
        scores = gallery.anomaly_scores(session, score)
        assert len(scores) == 24
        assert sum(one.normal is True for one in scores) == 12
        # fold 8 and 9 of ten are kept aside: studies 8, 9, 18 and 19
        assert sum(one.learned for one in scores) == 20
        assert gallery.current_runs(session, "nothing") == []
        assert [row.present for row in gallery.finding_counts(session, 5)] == [12]
        assert gallery.said(session, ["study00", "study01", "nobody"]) == {
            "study00": gallery.Said(("effusion",), (), False),
            "study01": gallery.Said((), (), True),
        }


def test_only_current_runs_are_shown_but_maps_with_what_they_were_learned_from(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'x.db'}")
    fill(database, tmp_path / "files", {})
    later = {"state": "finished", "software": {}, "finished_at": None, "label": ""}
    when = datetime(2021, 1, 1, tzinfo=UTC)
    newer = [
        {"id": f"new{s}", "stage": s, "recipe": {}, "started_at": when, "opened_at": when} for s in ("label", "link")
    ]
    with database.writing() as session:
        insert_rows(session, Run, [later | run for run in newer])
    with database.reading() as session:
        assert gallery.finding_counts(session, 5) == []
        assert gallery.said(session, ["study00"]) == {}
        assert [run.id for run in gallery.current_runs(session, "link")] == ["newlink"]
        terms = Sections(session, 2).terms()
        (maps,), link = gallery.current_runs(session, "map"), gallery.run_recipe(session, "link")
        assert link is not None
        mapped = gallery.top_mapped(session, maps, link, "effusion", 2)
    database.close()
    assert [one.scores.shape for one in mapped] == [(49,), (49,)]  # of the slice with the peak alone
    assert float(mapped[0].scores.max()) == pytest.approx(0.5, abs=0.01)
    assert [term.evidence.name for term in terms.shown] == ["effusion"]
    assert [card.study for card in terms.shown[0].cards] == ["study23", "study20"]
