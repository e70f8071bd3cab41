"""The thorax of the common space, and its window in an image."""

import numpy as np
import pytest

from phenotype.imaging import grids, thorax
from phenotype.imaging.window import standardize


def test_the_window_of_an_image_that_is_the_thorax_is_that_around_its_lungs():
    backward = grids.nodes((5, 5)).astype(np.float32)
    top, left, bottom, right = thorax.window_of(backward)
    rows, columns = np.nonzero(thorax.lungs())
    around = thorax.MARGIN * np.array(thorax.LUNGS[2:])
    expected = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    found = np.array([top + around[0], left + around[1], bottom - around[0], right - around[1]]) * thorax.SIDE
    np.testing.assert_allclose(found, expected, atol=5)  # the tips of the outline lie a little below the top


def test_the_window_moves_with_the_image_and_may_reach_out_of_it():
    at = grids.nodes((4, 4))
    shifted = thorax.window_of((at * [0.5, 0.8] + [0.1, 0.3]).astype(np.float32))
    plain = np.array(thorax.window_of(at.astype(np.float32))).reshape(2, 2)
    np.testing.assert_allclose(np.reshape(shifted, (2, 2)), plain * [0.5, 0.8] + [0.1, 0.3], atol=1e-6)
    assert shifted[3] > 1.0


def test_what_of_a_box_lies_outside_repeats_the_border():
    image = np.repeat(np.linspace(0, 1, 40, dtype=np.float32)[None], 40, axis=0)
    view, frame = standardize(image, "CR", 60, (0.0, 1.0), (-10, -20, 50, 40))
    np.testing.assert_allclose(view[:, 20:], np.repeat(image[:1], 60, axis=0), atol=1e-6)
    assert (view[:, :20] == 0).all()
    np.testing.assert_allclose(frame.to_original([[10.5, 20.5]]), [[0.5, 0.5]])
    with pytest.raises(ValueError, match="nothing of the image"):
        standardize(image, "CR", 60, (0.0, 1.0), (0, 45, 40, 60))
