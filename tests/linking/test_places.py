"""What is usual at a place of the body."""

import numpy as np
import pytest

from phenotype.linking.places import GRID, LEAST, Usual, cells


def test_cells_cover_the_body():
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0.55, 0.31]], np.float32)
    assert cells(corners).tolist() == [0, GRID - 1, GRID * (GRID - 1), GRID * GRID - 1, 5 * GRID + 3]


def test_deviations_are_from_what_is_usual_at_the_place():
    rng = np.random.default_rng(0)
    where = np.repeat([3, 40], 500)
    what = rng.normal(np.where(where == 3, 10, -5)[:, None], np.where(where == 3, 1, 3)[:, None], (1000, 2))
    usual = Usual.of([(where[:600], what[:600]), (where[600:], what[600:])], 2)
    np.testing.assert_allclose(usual.mean[[3, 40]], [[10, 10], [-5, -5]], atol=0.5)
    np.testing.assert_allclose(usual.deviation[[3, 40]], [[1, 1], [3, 3]], rtol=0.15)
    found = usual.deviations(np.array([3, 40]), np.array([[12.0, 10], [-5, 1]]))
    np.testing.assert_allclose(found, [[2, 0], [0, 2]], atol=0.35)


def test_a_place_seldom_seen_is_taken_as_the_whole():
    rng = np.random.default_rng(0)
    where = np.array([1] * 200 + [2] * (LEAST - 1))
    what = rng.normal(size=(len(where), 1))
    usual = Usual.of([(where, what)], 1)
    np.testing.assert_allclose(usual.mean[[2, 99]], what.mean(), rtol=1e-5)
    np.testing.assert_allclose(usual.deviation[[2, 99]], what.std(), rtol=1e-5)


def test_what_never_varies_is_no_great_deviation():
    usual = Usual.of([(np.zeros(50, np.int64), np.ones((50, 1)))], 1)
    assert np.isfinite(usual.deviations(np.array([0]), np.array([[1.0]]))).all()
    usual = Usual.of([(np.repeat([0, 1], 50), np.concatenate([np.ones(50), np.arange(50)])[:, None])], 1)
    assert abs(usual.deviations(np.array([0]), np.array([[2.0]]))[0, 0]) < 1


def test_kept_as_arrays():
    usual = Usual.of([(np.zeros(50, np.int64), np.arange(50.0)[:, None])], 1)
    again = Usual.from_arrays(usual.to_arrays("x"), "x")
    np.testing.assert_array_equal(again.mean, usual.mean)
    np.testing.assert_array_equal(again.deviation, usual.deviation)


@pytest.mark.parametrize("parts", [1, 7])
def test_streaming_gives_the_same(parts):
    rng = np.random.default_rng(1)
    where, what = rng.integers(0, 100, 5000), rng.normal(size=(5000, 3))
    usual = Usual.of(zip(np.array_split(where, parts), np.array_split(what, parts), strict=True), 3)
    np.testing.assert_allclose(usual.mean[7], what[where == 7].mean(axis=0), rtol=1e-5)
