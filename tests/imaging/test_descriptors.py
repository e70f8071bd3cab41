"""Descriptors tell apart what differs, and nothing else; what they say of shapes is known of drawn ones."""

import numpy as np
import pytest

from phenotype.imaging import descriptors as d
from phenotype.imaging.regions import grid

RNG = np.random.default_rng(0)
NAMES = d.columns((1, 2))


def column(found, name):
    return found[:, NAMES.index(name)]


def halves():
    """Vertical stripes on the left, horizontal ones on the right, and boxes on either."""
    rows, columns = np.indices((96, 192))
    image = 0.5 + 0.2 * np.sin(np.where(columns < 96, columns, rows) * 0.8)
    boxes = grid(image.shape, 32, 16)
    inner = boxes[(np.abs(boxes[:, [1, 3]] - 96).min(axis=1) >= 16) & ~((boxes[:, 1] < 96) & (boxes[:, 3] > 96))]
    return image.astype(np.float32), inner, inner[:, 3] <= 96


def test_columns_are_named_and_finite():
    image, boxes, _ = halves()
    found = d.texture(image, boxes)
    assert found.shape == (len(boxes), len(NAMES))
    assert found.dtype == np.float32
    assert len(set(NAMES)) == len(NAMES)
    assert np.isfinite(found).all()
    assert np.array_equal(found, d.texture(image, boxes))
    assert d.texture(image, boxes[:0]).shape == (0, len(NAMES))


def test_directions_of_stripes():
    image, boxes, vertical = halves()
    found = d.texture(image, boxes)
    more = column(found, "edge 1.5 across") - column(found, "edge 1.5 down")
    assert more[vertical].min() > 1
    assert more[~vertical].max() < -1


def test_size_and_sign_of_spots():
    rows, columns = np.indices((128, 128))

    def spot(radius, sign):
        away = ((rows - 64) ** 2 + (columns - 64) ** 2) / radius**2
        return (0.5 + sign * 0.3 * np.exp(-away)).astype(np.float32)

    box = np.array([[60, 60, 69, 69]])  # within the spot: around one, as much is lost as is gained
    small, large, dark = (d.texture(spot(r, s), box)[0] for r, s in ((3, 1), (14, 1), (3, -1)))
    at = {name: NAMES.index(name) for name in NAMES}
    fineness = [one[at["bright 2"]] - one[at["bright 16"]] for one in (small, large)]
    assert fineness[0] > fineness[1] + 0.5
    assert small[at["bright 2"]] > dark[at["bright 2"]] + 0.5
    assert dark[at["dark 2"]] > small[at["dark 2"]] + 0.5


def test_patterns_do_not_depend_on_brightness_and_contrast():
    image = RNG.uniform(0.2, 0.8, (64, 64)).astype(np.float32)
    box = np.array([[16, 16, 48, 48]])
    patterns = [n for n, name in enumerate(NAMES) if name.startswith("lbp 2") and "x2" not in name]
    one, other = d.texture(image, box)[0, patterns], d.texture(0.6 * image + 0.1, box)[0, patterns]
    assert one.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(one - other).max() < 0.05
    assert np.abs(one - d.texture(np.full_like(image, 0.5), box)[0, patterns]).max() > 0.2


def test_means_over_boxes_are_means():
    pictures = RNG.random((3, 20, 30)).astype(np.float32)
    boxes = np.array([[0, 0, 20, 30], [3, 4, 9, 5], [19, 29, 20, 30]])
    expected = [[one[top:bottom, left:right].mean() for one in pictures] for top, left, bottom, right in boxes]
    assert d.over_boxes(pictures, boxes) == pytest.approx(np.array(expected), abs=1e-5)
    with pytest.raises(ValueError, match="empty"):
        d.over_boxes(pictures, np.array([[3, 3, 3, 5]]))


@pytest.mark.parametrize("shape", [(24, 32), (8, 24, 32)])
def test_moments_and_cooccurrences_of_labelled_regions(shape):
    labels = np.zeros(shape, np.int32)
    labels[..., :8], labels[..., 8:16], labels[..., 16:24] = 1, 2, 3  # and 0, which is no region
    image = np.full(shape, 0.5, np.float32)
    image[..., 8:16] = RNG.normal(0.5, 0.1, (*shape[:-1], 8))
    image[..., 16:24] = np.indices((*shape[:-1], 8)).sum(axis=0) % 2  # a board: each neighbour is of the other colour
    flat, noise, board = d.moments(image, labels)
    assert flat == pytest.approx([0.5, 0, 0, 0], abs=1e-5)
    assert noise == pytest.approx([0.5, 0.1, 0, 0], abs=0.6)
    assert noise[:2] == pytest.approx([0.5, 0.1], abs=0.03)
    assert board == pytest.approx([0.5, 0.5, 0, -2], abs=1e-3)
    flat, noise, board = (dict(zip(d.HARALICK, found, strict=True)) for found in d.haralick(image, labels))
    assert flat == pytest.approx(
        {"contrast": 0, "homogeneity": 1, "energy": 1, "correlation": 1, "entropy": 0}, abs=1e-5
    )
    assert board["contrast"] == pytest.approx(49)  # from the lowest level to the highest
    assert board["correlation"] == pytest.approx(-1)
    assert abs(noise["correlation"]) < 0.2
    assert noise["entropy"] > board["entropy"] > flat["entropy"]


def test_contralateral_is_the_difference_from_the_mirrored_place():
    rows, columns = np.meshgrid([0.2, 0.5, 0.8], [0.1, 0.3, 0.7, 0.9], indexing="ij")
    places = np.stack([rows.ravel(), columns.ravel()], axis=1)
    vectors = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float32)
    found = d.contralateral(vectors, places)
    assert found[:, 0] == pytest.approx(0)  # at the same height
    assert found[:, 1] == pytest.approx(2 * columns.ravel() - 1, abs=1e-6)
    assert d.contralateral(vectors[:0], places[:0]).shape == (0, 2)
