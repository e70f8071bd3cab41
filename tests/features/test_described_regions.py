"""What regions are described by beside the code of a model."""

import numpy as np
import pytest
import torch
from PIL import Image

from phenotype.features.inference import embed_image
from phenotype.features.views import Look, Source
from phenotype.imaging.descriptors import columns
from phenotype.imaging.regions import FEATURES


class Means:
    """A model whose code is the mean grey value."""

    def __init__(self, size):
        self.recipe = type("Recipe", (), {"size": size})

    def embed(self, images):
        return images.mean(dim=(1, 2, 3))[:, None] * torch.ones(1, 2)


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
    return {
        kind: embed_image(
            source, Means(32), Means(16), look=Look(), resolution=128, stride=8, slices=1, descriptors=kind
        )
        for kind in ("plain", "texture", "paired")
    }


def test_descriptors_stand_between_the_code_and_the_place(described):
    plain, texture, paired = (described[kind].regions for kind in ("plain", "texture", "paired"))
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
    paired = described["paired"].regions
    apart = np.abs(paired[:, 2 + added : 2 + 2 * added]).mean(axis=1)
    column, row = paired[:, -1], paired[:, -2]
    strange = apart > np.quantile(apart, 0.9)
    assert np.abs(column[strange] - 0.5).mean() == pytest.approx(0.19, abs=0.08)  # the spot's place, or its mirror
    assert np.abs(row[strange] - 0.45).mean() < 0.15
    brighter = paired[:, 2 + added]  # the mean's difference: signed, so that the two sides are told apart
    assert column[brighter.argmax()] > 0.6
    assert column[brighter.argmin()] < 0.4
