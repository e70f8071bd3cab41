"""What regions are described by beside the code of a model."""

import numpy as np
import pytest
import torch
from PIL import Image

from phenotype.features.inference import embed_image
from phenotype.features.supervoxels import divide_volume
from phenotype.features.views import Look, Source
from phenotype.features.volumes import Volume
from phenotype.imaging.descriptors import columns
from phenotype.imaging.regions import FEATURES


class Means:
    """A model whose code is the mean grey value."""

    def __init__(self, size):
        self.recipe = type("Recipe", (), {"size": size})

    def embed(self, images):
        return images.flatten(1).mean(dim=1)[:, None] * torch.ones(1, 2)


@pytest.fixture(scope="module")
def described(tmp_path_factory):
    """A body that is its own mirror image but for a bright spot in its left lung, described in all ways."""
    rows, columns_ = np.mgrid[0:128, 0:128]
    picture = np.where(np.hypot((rows - 64) / 60, (columns_ - 63.5) / 55) < 1, 150.0, 0.0)
    for middle in (42.5, 84.5):
        picture[np.hypot((rows - 60) / 40, (columns_ - middle) / 16) < 1] = 60
    picture[np.hypot(rows - 60, columns_ - 84.5) < 6] = 200
    path = tmp_path_factory.mktemp("body") / "body.png"
    Image.fromarray(picture.astype(np.uint8)).save(path)
    source = Source("radiograph", "CR", ((str(path), ""),))
    return source, {
        kind: embed_image(
            source, Means(32), Means(16), look=Look(), resolution=128, stride=8, slices=1, descriptors=kind
        )
        for kind in ("plain", "texture", "paired")
    }


def test_descriptors_stand_between_the_code_and_the_place(described):
    plain, texture, paired = (described[1][kind].regions for kind in ("plain", "texture", "paired"))
    added = len(columns())
    assert plain.shape[1] == 2 + len(FEATURES)
    assert texture.shape[1] == plain.shape[1] + added
    assert paired.shape[1] == plain.shape[1] + 2 * added
    for more in (texture, paired):
        assert np.array_equal(more[:, :2], plain[:, :2])
        assert np.array_equal(more[:, -len(FEATURES) :], plain[:, -len(FEATURES) :])
    assert np.array_equal(paired[:, : 2 + added], texture[:, : 2 + added])


def test_what_differs_from_the_mirrored_place_is_where_the_spot_is(described):
    added = len(columns())
    paired = described[1]["paired"].regions
    apart = np.abs(paired[:, 2 + added : 2 + 2 * added]).mean(axis=1)
    column, row = paired[:, -1], paired[:, -2]
    strange = apart > np.quantile(apart, 0.9)
    assert np.abs(column[strange] - 0.5).mean() == pytest.approx(0.19, abs=0.08)  # the spot's place, or its mirror
    assert np.abs(row[strange] - 0.45).mean() < 0.15
    brighter = paired[:, 2 + added]  # the mean's difference: signed, so that the two sides are told apart
    assert column[brighter.argmax()] > 0.6
    assert column[brighter.argmin()] < 0.4


def test_superpixels_follow_the_spot_and_say_where_they_are(described):
    source, _ = described
    found = embed_image(
        source, Means(32), Means(16), look=Look(), resolution=128, stride=8, slices=1, regions="supervoxels"
    )
    count = len(found.slices)
    assert count > 50
    assert found.labels.shape == (1, *found.labels.shape[1:])
    assert np.array_equal(np.unique(found.labels), np.arange(count + 1))
    mean = found.regions[:, 2]  # the first column after the code: the mean of the region's own pixels
    number = int(mean.argmax()) + 1
    rows, columns_ = (
        axis / side for axis, side in zip(np.nonzero(found.labels[0] == number), found.labels.shape[1:], strict=True)
    )
    assert (rows.mean(), columns_.mean()) == pytest.approx((60 / 128, 84.5 / 128), abs=0.04)
    top, left, bottom, right = found.boxes[number - 1]
    assert (top, left) == pytest.approx((rows.min(), columns_.min()), abs=0.02)
    assert (bottom, right) == pytest.approx((rows.max(), columns_.max()), abs=0.02)


def test_supervoxels_of_a_volume_lie_in_its_slices():
    rng = np.random.default_rng(0)
    pixels = rng.normal(0.2, 0.02, (20, 24, 24)).astype(np.float32)
    pixels[8:14, 4:12, 12:20] = 0.9
    inside = np.zeros(pixels.shape, bool)
    inside[2:-2, 2:-2, 2:-2] = True
    volume = Volume(np.clip(pixels, 0, 1), inside, (2.0, 0.5, 0.5), (0.0, 0.0, 0.0), (10, 48, 48), False)
    found = divide_volume(volume, Means(8), 5)
    assert found.labels.shape == (10, 24, 24)
    bright = int(found.vectors[:, 2].argmax())
    assert 4 <= found.slices[bright] <= 7
    z, row, column = (axis.mean() for axis in np.nonzero(found.labels == bright + 1))
    assert 4 <= z < 7
    assert 4 <= row <= 12
    assert 12 <= column <= 20
    assert found.vectors[bright, 2] > 0.7 > np.median(found.vectors[:, 2])
