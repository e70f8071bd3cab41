"""Grids of places: applied, concatenated, inverted."""

import numpy as np
import pytest

from phenotype.imaging import grids


def bent(shape, seed, strength=0.05):
    """A smooth grid that is no affine map, with a known formula."""
    rng = np.random.default_rng(seed)
    d = len(shape)
    matrix = np.eye(d) + rng.normal(0, 0.1, (d, d))
    shift = rng.normal(0, 0.1, d)
    phase = rng.uniform(0, 6, d)

    def formula(points):
        return points @ matrix.T + shift + strength * np.sin(3 * np.roll(points, 1, -1) + phase)

    return grids.nodes(shape) @ np.eye(d), formula, np.asarray(formula(grids.nodes(shape)), np.float32)


@pytest.mark.parametrize("shape", [(20, 17), (14, 12, 16)])
def test_points_between_nodes_follow_the_formula_that_made_the_grid(shape):
    _, formula, grid = bent(shape, 1)
    points = np.random.default_rng(2).uniform(0, 1, (500, len(shape)))
    assert np.abs(grids.apply(grid, points) - formula(points)).max() < 2e-3
    at_nodes = grids.nodes(shape)
    assert np.abs(grids.apply(grid, at_nodes) - grid).max() < 1e-6


def test_beyond_the_field_of_view_an_affine_map_goes_on():
    matrix = np.array([[0.5, 0.1, 0.0], [0.0, 0.8, 0.1], [0.1, 0.0, 1.2]])
    grid = np.asarray(grids.nodes((3, 4, 5)) @ matrix.T + 0.2, np.float32)
    far = np.array([[-1.0, 2.0, 0.5], [3.0, -2.0, 1.5]])
    assert np.allclose(grids.apply(grid, far), far @ matrix.T + 0.2, atol=1e-5)
    found, shift = grids.affine_part(grid)
    assert np.allclose(found, matrix, atol=1e-6) and np.allclose(shift, 0.2, atol=1e-6)


@pytest.mark.parametrize("shape", [(20, 17), (14, 12, 16)])
def test_there_and_back_is_nowhere(shape):
    _, _, grid = bent(shape, 3)
    back = grids.invert(grid, tuple(24 for _ in shape))
    assert np.abs(grids.apply(grid, back) - grids.nodes(back.shape[:-1])).max() < 1e-5
    points = np.random.default_rng(4).uniform(0, 1, (2000, len(shape)))
    there = grids.apply(grid, points)
    seen = np.all((there > 0) & (there < 1), axis=-1)  # beyond, both go on as affine maps
    assert seen.sum() > 500
    assert np.abs(grids.apply(back, there) - points)[seen].max() < 5e-3
    forth = grids.apply(grids.compose(grid, back), points)
    assert np.median(np.abs(forth - points)[seen]) < 2e-3


def test_concatenated_grids_are_their_maps_one_after_the_other():
    _, one, first = bent((16, 16, 16), 5)
    _, two, second = bent((16, 16, 16), 6)
    points = np.random.default_rng(7).uniform(0.3, 0.7, (200, 3))
    assert np.abs(grids.apply(grids.compose(first, second), points) - two(one(points))).max() < 5e-3


def test_a_fold_is_seen_and_a_mirrored_array_is_none():
    grid = np.asarray(grids.nodes((10, 10)), np.float32)
    assert grids.folded(grid) == grids.folded(np.ascontiguousarray(grid[::-1])) == 0.0
    grid[4, :, 0], grid[5, :, 0] = grid[5, :, 0].copy(), grid[4, :, 0].copy()
    assert grids.folded(grid) == pytest.approx(1 / 9)


def test_labels_travel_to_a_fragment():
    """The reference has an organ in each half; the image shows its upper part only, and more than all of its rows."""
    labels = np.zeros((10, 8, 8), np.uint8)
    labels[:5, 2:6, 2:6], labels[5:, 2:6, 2:6] = 1, 2
    scale, shift = np.array([0.5, 2.0, 1.0]), np.array([0.5, -0.5, 0.0])
    forward = np.asarray(grids.nodes((3, 3, 3)) * scale + shift, np.float32)
    found = grids.warp_labels(labels, forward, (6, 16, 8))
    assert set(np.unique(found)) == {0, 2}
    assert (found == 2).sum() == 6 * 4 * 4  # 4 of 8 rows of the reference are 4 of 16 here
    low, high = grids.in_view(forward)
    assert low == pytest.approx((0.5, 0, 0)) and high == pytest.approx((1, 1, 1))
    assert grids.in_view(forward + 2) is None
