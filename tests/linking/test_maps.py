"""Maps, peaks, pointing and sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phenotype.linking.maps import (
    SIDES,
    ZONES,
    Peak,
    field_scores,
    peak,
    pixel_boxes,
    pixel_map,
    pointing_hit,
    side_contrast,
    side_of,
)


def patches(rows, columns, size, stride):
    tops, lefts = range(0, rows - size + 1, stride), range(0, columns - size + 1, stride)
    return np.array([(t, left, t + size, left + size) for t in tops for left in lefts])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_pixel_is_the_mean_of_the_regions_over_it(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 8))
    corner, extent = rng.integers(-4, 18, (n, 2)), rng.integers(1, 9, (n, 2))
    boxes, scores = np.hstack([corner, corner + extent]), rng.normal(size=n)
    found = pixel_map(scores, boxes, (17, 13))
    for row in range(17):
        for column in range(13):
            over = [s for s, (t, le, b, r) in zip(scores, boxes, strict=True) if t <= row < b and le <= column < r]
            assert (
                found[row, column] == pytest.approx(np.mean(over), rel=1e-5) if over else np.isnan(found[row, column])
            )


def test_the_peak_lies_in_the_middle_of_the_highest_patch():
    boxes = patches(64, 48, 16, 16)
    scores = np.zeros(len(boxes))
    scores[7] = 2.5
    top, left, bottom, right = boxes[7]
    found = peak(pixel_map(scores, boxes, (64, 48)))
    assert found.value == 2.5
    assert abs(found.row - (top + bottom - 1) / 2) <= 0.5
    assert abs(found.column - (left + right - 1) / 2) <= 0.5


def test_overlapping_patches_point_at_the_lesion():
    boxes = patches(96, 96, 24, 8)
    mask = np.zeros((96, 96), bool)
    mask[50:66, 20:36] = True
    share = np.array([mask[t:b, left:r].mean() for t, left, b, r in boxes])
    found = peak(pixel_map(share + 0.01 * np.random.default_rng(0).normal(size=len(boxes)), boxes, (96, 96)))
    assert pointing_hit(found, mask)
    assert side_of(found.column, 96) == "right"


def test_the_peak_is_a_pixel_of_its_plateau_also_where_that_is_hollow():
    ring = np.zeros((7, 7))
    ring[1:6, 1:6] = 1
    ring[2:5, 2:5] = 0.5
    found = peak(ring)
    assert ring[found.row, found.column] == 1
    with pytest.raises(ValueError, match="empty"):
        peak(np.full((3, 3), np.nan))


def test_pointing_with_and_without_tolerance():
    mask = np.zeros((20, 20), bool)
    mask[10, 10] = True
    assert pointing_hit(Peak(10, 10, 1.0), mask)
    assert not pointing_hit(Peak(13, 14, 1.0), mask)
    assert pointing_hit(Peak(13, 14, 1.0), mask, tolerance=5)
    assert not pointing_hit(Peak(13, 14, 1.0), mask, tolerance=4.99)
    with pytest.raises(ValueError, match="nothing to point at"):
        pointing_hit(Peak(0, 0, 1.0), np.zeros((5, 5), bool))


def test_the_patients_right_is_on_the_left_of_the_image():
    assert [side_of(c, 101, margin=2) for c in (0, 47, 48, 50, 52, 53, 100)] == [
        "right", "right", "midline", "midline", "midline", "left", "left",
    ]  # fmt: skip
    assert side_of(60, 101, midline=70) == "right"
    values = np.zeros((10, 10))
    values[2:5, 1:3] = 1
    assert side_contrast(values) > 0.5
    assert side_contrast(values[:, ::-1]) == -side_contrast(values)
    values[:, 5:] = np.nan
    with pytest.raises(ValueError, match="half"):
        side_contrast(values)


def test_fields_are_thirds_of_either_lung():
    rows, columns = (g.ravel() for g in np.meshgrid(np.linspace(0.05, 0.95, 10), np.linspace(0.05, 0.95, 10)))
    places = np.stack([columns, rows], axis=1)
    scores = np.where((places[:, 0] < 0.36) & (places[:, 1] > 0.5), 3.0, 0.0) + places[:, 0]
    fields = field_scores(scores, places, (0.1, 0.9), share=0.05)
    assert fields.shape == (len(ZONES), len(SIDES))
    right, left = fields.T
    assert left[0] - right[0] == pytest.approx(3)
    assert left[1] == right[1]
    assert left[2] == right[2] == pytest.approx(0.95)  # below the lungs counts to the lower zone
    both = field_scores(scores, places, (0.1, 0.9), zones=1, share=0.05)
    assert both.shape == (1, 2)
    assert both[0] == pytest.approx([0.95, fields[0, 1]])
    nothing = field_scores(scores[:0], places[:0], (0.1, 0.9))
    assert np.isnan(nothing).all()


def test_fractions_become_pixels():
    boxes = pixel_boxes(np.array([[0, 0, 1, 1], [0.25, 0.5, 0.5, 0.75], [0.999, 0.999, 1, 1]]), (40, 20))
    assert boxes.tolist() == [[0, 0, 40, 20], [10, 10, 20, 15], [39, 19, 40, 20]]


def test_refuses_boxes_that_are_none():
    with pytest.raises(ValueError, match="is empty"):
        pixel_map(np.ones(1), np.array([[3, 3, 3, 5]]), (9, 9))
    with pytest.raises(ValueError, match=r"\(n, 4\)"):
        pixel_map(np.ones(2), np.array([[0, 0, 3, 5]]), (9, 9))
