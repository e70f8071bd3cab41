"""The phantoms: plausible pictures, and lesions that change them where the truth says and nowhere else."""

import numpy as np
import pytest

from phenotype.demo.cases import draw_studies
from phenotype.demo.lesions import DRAW, KINDS, Lesion, radiograph, reshape
from phenotype.demo.thorax import Thorax, draw_build, draw_view
from phenotype.demo.volume import draw_volume

SIZES = {"nodule": 18.0, "consolidation": 85.0, "pleural_effusion": 100.0, "pneumothorax": 24.0}
LOCAL = ("nodule", "consolidation", "pleural_effusion", "pneumothorax", "pacemaker", "central_line")


def body(seed: int):
    rng = np.random.default_rng(seed)
    return draw_build(rng), draw_view(rng)


@pytest.mark.parametrize("seed", range(12))
def test_a_chest_looks_like_one(seed: int):
    build, view = body(seed)
    picture, placed = radiograph(build, view, (), clutter=False)
    thorax = Thorax(build, view)
    assert placed == ()
    assert picture.shape == (view.rows, view.columns)
    assert picture.dtype == np.float32
    assert np.isfinite(picture).all()
    assert picture.min() >= 0
    assert picture.max() <= 1
    lungs, heart = thorax.open_lung > 0.9, thorax.heart < 0.8
    belly = (thorax.y > thorax.diaphragm + 60) & (thorax.lateral < build.half_width * 0.6)
    assert 0.08 < lungs.mean() < 0.4
    assert picture[lungs].mean() + 0.15 < picture[belly].mean()
    assert picture[lungs].mean() + 0.2 < picture[heart].mean()
    assert picture[lungs].mean() > 0.05  # not burnt out: vessels and ribs can be seen
    assert picture[lungs].std() > 0.02


def test_noise_is_the_same_only_for_the_same_view():
    build, view = body(1)
    first, again = radiograph(build, view, ())[0], radiograph(build, view, ())[0]
    other = radiograph(build, body(2)[1], ())[0]
    assert np.array_equal(first, again)
    assert other.shape != first.shape or not np.array_equal(first, other)


@pytest.mark.parametrize("finding", LOCAL)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("seed", range(4))
def test_a_lesion_changes_its_box_and_little_else(finding: str, side: str, seed: int):
    build, view = body(seed)
    plan = Lesion(finding, side, "upper", SIZES.get(finding, 0.0), 1.0, seed)
    without, _ = radiograph(build, view, (), clutter=False)
    picture, (placed,) = radiograph(build, view, (plan,), clutter=False)
    box = placed.box
    assert box is not None
    assert 0 <= box.top < box.bottom <= view.rows
    assert 0 <= box.left < box.right <= view.columns
    change = picture - without
    inside = np.zeros(change.shape, bool)
    inside[box.top : box.bottom, box.left : box.right] = True
    if finding == "pneumothorax":
        assert change[inside].mean() < -0.004
        assert change.min() < -0.05
    else:
        assert change[inside].mean() > (0.004 if finding == "central_line" else 0.01)  # a wire fills little of its box
        assert change.max() > 0.05
    if finding != "pacemaker":  # whose lead leaves the box
        strong = np.abs(change) > 0.6 * np.abs(change).max()
        assert inside[strong].mean() > 0.9
    row, column = placed.centre
    assert box.top <= row < box.bottom
    assert box.left <= column < box.right
    thorax = Thorax(reshape(build, (plan,)), view)
    if finding != "central_line":  # whose tip crosses the midline
        assert bool(thorax.left[round(row), round(column)]) == (side == "left")
    if finding in ("nodule", "consolidation"):
        part = thorax.lung[inside]
        assert part.mean() > 0.8
        assert thorax.lung[round(row), round(column)] > 0.9


@pytest.mark.parametrize("zone", ["upper", "middle", "lower"])
def test_a_nodule_lies_in_its_third_and_has_its_size(zone: str):
    for seed in range(6):
        build, view = body(seed)
        lesion = Lesion("nodule", "right", zone, 24.0, 1.0, seed)
        _, (placed,) = radiograph(build, view, (lesion,))
        assert placed.lesion.zone == zone
        assert placed.box is not None
        for extent in (placed.box.bottom - placed.box.top, placed.box.right - placed.box.left):
            assert 0.75 * 24 < extent * view.spacing < 1.25 * 24


def test_a_lesion_keeps_its_place_from_study_to_study():
    build, _ = body(4)
    lesion = Lesion("nodule", "left", "middle", 16.0, 1.0, 9)
    places = []
    for n in range(3):
        seen = draw_view(np.random.default_rng(n))
        _, (placed,) = radiograph(build, seen, (lesion,))
        thorax = Thorax(build, seen)
        row, column = (round(c) for c in placed.centre)
        places.append((thorax.x[row, column], thorax.y[row, column]))
    assert np.ptp(np.array(places), axis=0).max() < 4  # mm


def test_a_large_heart_is_wider_and_inflated_lungs_are_longer_and_darker():
    for seed in range(4):
        build, view = body(seed)
        large = Lesion("cardiomegaly", size=2 * build.half_width * 0.6)
        small = Thorax(build, view).heart < 1
        _, (placed,) = radiograph(build, view, (large,))
        columns = np.flatnonzero(small.any(0))
        assert placed.box.right - placed.box.left > 1.15 * (columns[-1] - columns[0])
        inflated = (Lesion("hyperinflation"),)
        before, after = Thorax(build, view), Thorax(reshape(build, inflated), view)
        assert after.height > before.height + 10
        lungs = (before.open_lung > 0.9) & (after.open_lung > 0.9)
        difference = radiograph(build, view, inflated)[0] - radiograph(build, view, ())[0]
        assert difference[lungs].mean() < -0.02


def test_interstitial_lines_roughen_the_bases():
    build, view = body(2)
    plan = tuple(Lesion("fibrosis_ild", side, "", 0.0, 1.0, n) for n, side in enumerate(("right", "left")))
    picture, placed = radiograph(build, view, plan, clutter=False)
    smooth, _ = radiograph(reshape(build, plan), view, (), clutter=False)
    for p in placed:
        part = (slice(p.box.top, p.box.bottom), slice(p.box.left, p.box.right))
        assert np.abs(np.diff(picture[part], axis=1)).mean() > 1.15 * np.abs(np.diff(smooth[part], axis=1)).mean()
        assert picture[part].mean() > smooth[part].mean()


def test_every_kind_can_be_drawn_in_every_case():
    assert set(KINDS) == set(DRAW)
    seen = set()
    for study in draw_studies(120, 0, 11):
        _, placed = radiograph(study.person.build, study.view, study.lesions)
        for p in placed:
            seen.add(p.lesion.finding)
            if p.box:
                assert 0 <= p.box.top < p.box.bottom <= study.view.rows
                assert 0 <= p.box.left < p.box.right <= study.view.columns
    assert seen == set(KINDS)


@pytest.mark.parametrize("finding", ["nodule", "pleural_effusion"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_volume_differs_only_at_its_lesion(finding: str, side: str):
    build, _ = body(3)
    lesion = Lesion(finding, side, "middle", 26.0 if finding == "nodule" else 40.0, 1.0, 1)
    hu, space, (placed,) = draw_volume(build, (lesion,), 8)
    plain, _, _ = draw_volume(build, (), 8)
    changed = np.argwhere(hu.astype(int) - plain > 200)
    zyx = changed * np.array(space.spacing) + np.array(space.origin)
    low, high = np.array(placed.low)[::-1], np.array(placed.high)[::-1]
    assert len(changed) > 20
    assert ((zyx >= low - 5) & (zyx <= high + 5)).all()
    assert (placed.centre[0] > 0) == (side == "left")
    assert (hu - plain.astype(int))[np.abs(hu - plain.astype(int)) > 60].mean() > 200
