"""Two images of one body: where the places of the later one lie in the earlier one, and spots of term maps."""

import numpy as np
import pytest

from phenotype.demo.lesions import radiograph
from phenotype.demo.thorax import Thorax, View, draw_build
from phenotype.imaging import grids
from phenotype.normalization.follow import Link, Viewed, follow, link_radiographs
from phenotype.normalization.images import Source
from phenotype.normalization.spots import Places, TermSeen, raster, score_at, spots

CORNERS = np.stack(np.meshgrid(np.arange(32), np.arange(32), indexing="ij"), -1).reshape(-1, 2) / 32
BOXES = np.hstack([CORNERS, CORNERS + 1 / 32]).astype(np.float32)
PLACES = Places(np.zeros(1024, np.int32), BOXES)


def discs(*wanted):
    """Scores of 32 x 32 regions: discs of (row, column, radius, height), 0 elsewhere."""
    scores = np.zeros(1024, np.float32)
    for row, column, radius, height in wanted:
        scores[np.linalg.norm(CORNERS + 1 / 64 - [row, column], axis=1) <= radius] = height
    return scores


def source(name, kind="radiograph", shape=(400, 300), spacing=(1.0, 1.0)):
    return Source(name, kind, "CR", "PA", (), shape=shape, spacing=spacing)


def test_spots_have_place_size_and_value():
    """In a slice of 400 x 400 mm a disc of a tenth of the side has 80 mm across."""
    term = TermSeen("nodule", True, discs((0.3, 0.2, 0.1, 2.0), (0.7, 0.7, 0.05, 3.0), (0.2, 0.8, 0.1, 1.0)), 0)
    higher, lower = spots(term, PLACES, (400.0, 400.0))  # the third is below half of the highest
    assert (higher.row, higher.column) == pytest.approx((0.7, 0.7), abs=0.02) and higher.score == 3.0
    assert (lower.row, lower.column) == pytest.approx((0.3, 0.2), abs=0.02) and lower.score == 2.0
    assert lower.size_mm == pytest.approx(80, rel=0.08) and higher.size_mm == pytest.approx(40, rel=0.15)
    assert spots(term, PLACES, None)[0].size_mm is None
    assert spots(TermSeen("nodule", True, -discs((0.3, 0.2, 0.1, 2.0)), 0), PLACES, None) == []


def test_spots_of_supervoxels_and_of_slices():
    labels = np.zeros((2, 40, 40), np.int32)
    labels[0], labels[1], labels[1, 10:20, 20:30] = 1, 2, 3
    voxels = Places(np.array([0, 1, 1]), np.zeros((3, 4)), labels)
    (spot,) = spots(TermSeen("x", True, np.array([5.0, 0.0, 2.0]), 1), voxels, (80.0, 80.0))
    assert (spot.slice, spot.row, spot.column) == (1, 0.375, 0.625)
    assert spot.size_mm == pytest.approx(2 * np.sqrt(400 / np.pi))
    assert score_at(np.array([5.0, 0.0, 2.0]), voxels, 1, 0.4, 0.6) == 2.0
    two = Places(np.repeat(np.array([3, 9], np.int32), 1024), np.vstack([BOXES, BOXES]))
    scores = np.concatenate([discs((0.5, 0.5, 0.1, 1.0)), discs((0.5, 0.5, 0.1, 2.0))])
    assert score_at(scores, two, 8, 0.5, 0.5) == 2.0  # of the nearest slice that was looked at
    half = Places(np.zeros(512, np.int32), BOXES[:512])
    assert score_at(scores[:512], half, 0, 0.9, 0.5) is None
    assert np.isnan(raster(scores[:512], half, 0)).mean() == 0.5


def test_spots_that_come_to_lie_on_each_other_are_one():
    """The later image shows the body shifted by a tenth of its rows, a spot that is larger now, and one that is new;
    of the earlier image's third nothing is left."""
    forward = np.asarray(grids.nodes((4, 4)) - [0.1, 0.0], np.float32)
    link = Link("lungs", 0.8, forward, grids.invert(forward, (4, 4)))
    new = TermSeen("nodule", True, discs((0.5, 0.3, 0.1, 2.0), (0.8, 0.75, 0.06, 1.5)), 0)
    old = TermSeen("nodule", False, discs((0.4, 0.3, 0.06, 1.0), (0.2, 0.8, 0.06, 0.9)), 0)
    unseen = TermSeen("other", False, discs((0.4, 0.3, 0.06, 1.0)), 0)
    later = Viewed(source("b"), {"nodule": new, "other": unseen}, PLACES)
    earlier = Viewed(source("a"), {"nodule": old, "other": unseen}, PLACES)
    grown, fresh, gone = follow(later, earlier, link)
    assert [t.number for t in (grown, fresh, gone)] == [1, 2, 3] and {grown.concept, gone.concept} == {"nodule"}
    assert grown.size_mm > 1.4 * grown.earlier_size_mm and (grown.score, grown.earlier_score) == (2.0, 1.0)
    assert (fresh.earlier.row, fresh.earlier.column) == pytest.approx((0.7, 0.75), abs=0.02)
    assert (fresh.earlier_size_mm, fresh.earlier_score) == (None, 0.0)
    assert (gone.later.row, gone.later.column) == pytest.approx((0.3, 0.8), abs=0.02)
    assert (gone.size_mm, gone.score) == (None, 0.0) and gone.earlier_score == pytest.approx(0.9)
    assert follow(later, Viewed(source("a"), {"nodule": old}, None), link) == []


@pytest.mark.parametrize("seed", [3, 8])
def test_points_of_the_lungs_are_found_again_in_another_radiograph_of_the_same_person(seed):
    """To 3 mm, where positioning alone had moved them by more than a centimetre."""
    build = draw_build(np.random.default_rng(seed))
    views = View(256, 256, 2.5, (9.0, -6.0), 2.1, 0.85, 0.8, 1), View(248, 264, -2.0, (-6.0, 5.0), 2.3, 0.75, 1.2, 2)
    (later, _), (earlier, _) = (radiograph(build, view, ()) for view in views)
    found = link_radiographs(later.astype(np.float32), earlier.astype(np.float32))
    x = np.tile([-0.7, -0.35, 0.35, 0.7], 4) * build.half_width
    y = build.apex + np.repeat([0.2, 0.4, 0.6, 0.8], 4) * (build.dome - build.apex)
    here, there = (np.stack(Thorax(build, v).to_pixel(x, y), 1) / [v.rows, v.columns] for v in views)
    size = np.array([views[1].rows, views[1].columns]) * views[1].spacing
    before = np.linalg.norm((here - there) * size, axis=1)
    after = np.linalg.norm((grids.apply(found.forward, here) - there) * size, axis=1)
    assert before.mean() > 10
    assert after.mean() < 3.5 and after.max() < 9
    assert np.abs(grids.apply(found.backward, grids.apply(found.forward, here)) - here).max() < 0.01
