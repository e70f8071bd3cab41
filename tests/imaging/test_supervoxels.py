"""Supervoxels follow what is in the image, and their descriptors tell textures apart."""

import numpy as np
import pytest
from scipy import ndimage

from phenotype.imaging.descriptors import moments
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.imaging.masks import body_mask
from phenotype.imaging.supervoxels import boxes_of, centres_of, columns, describe, supervoxels

RNG = np.random.default_rng(0)


def disc(side=96):
    """A bright disc on a dark ground, and where it is."""
    rows, columns_ = np.indices((side, side))
    there = (rows - 50) ** 2 + (columns_ - 40) ** 2 < 22**2
    return np.where(there, 0.8, 0.2).astype(np.float32), there


@pytest.mark.parametrize("depth", [0, 6])
def test_regions_do_not_cross_what_the_image_shows(depth):
    image, there = disc()
    if depth:
        image, there = np.stack([image] * depth), np.stack([there] * depth)
    image = image + RNG.normal(0, 0.02, image.shape).astype(np.float32)
    labels = supervoxels(image, 12, spacing=(3.0, 1.0, 1.0) if depth else None)
    assert labels.shape == image.shape
    assert labels.min() == 1
    n = labels.max()
    assert np.array_equal(np.unique(labels), np.arange(1, n + 1))
    size = 12**image.ndim / (3.0 if depth else 1.0)
    assert 0.5 < image.size / n / size < 2
    share = ndimage.mean(there, labels, np.arange(1, n + 1))
    pure = np.bincount(labels.ravel())[1:][(share < 0.1) | (share > 0.9)].sum()
    rows, across = np.indices(image.shape)[-2:]
    squares = ndimage.mean(there, rows // 12 * 8 + across // 12, np.arange(64))
    assert pure / labels.size > max(0.9, np.mean((squares < 0.1) | (squares > 0.9)) + 0.05)
    assert np.array_equal(labels, supervoxels(image, 12, spacing=(3.0, 1.0, 1.0) if depth else None))


def test_only_what_is_inside_is_divided():
    image, there = disc()
    labels = supervoxels(image, 8, inside=there)
    assert np.array_equal(labels > 0, there)
    assert not supervoxels(image, 8, inside=np.zeros_like(there)).any()
    speck = np.zeros_like(there)
    speck[3, 3] = True
    assert np.array_equal(supervoxels(image, 8, inside=speck), speck)
    for wrong in ({"size": 0}, {"size": 8, "inside": there[1:]}, {"size": 8, "spacing": (1.0, 0.0)}):
        with pytest.raises(ValueError, match="size above 0"):
            supervoxels(image, **wrong)


def test_boxes_and_centres():
    labels = np.zeros((4, 10, 12), np.int32)
    labels[1:3, 2:5, 3:9], labels[3, 9, 11] = 1, 2
    assert boxes_of(labels).tolist() == [[1, 2, 3, 3, 5, 9], [3, 9, 11, 4, 10, 12]]
    assert centres_of(labels) == pytest.approx(np.array([[2, 3.5, 6], [3.5, 9.5, 11.5]]))
    assert boxes_of(np.zeros((3, 3), np.int32)).shape == (0, 4)
    with pytest.raises(ValueError, match="missing"):
        boxes_of(labels * 2)


@pytest.mark.parametrize("depth", [0, 3])
def test_descriptors_tell_textures_apart(depth):
    """Smooth, fine and coarse noise of one mean and deviation: neighbours that are told which, by all but place."""
    shape = (depth, 96, 192) if depth else (96, 192)
    image, kind = np.empty(shape, np.float32), np.empty(shape, np.int32)
    for number, scale in enumerate((0.0, 1.0, 3.0)):
        part = np.s_[..., number * 64 : (number + 1) * 64]
        noise = RNG.normal(size=(*shape[:-1], 64))
        noise = ndimage.gaussian_filter(noise, [0] * (len(shape) - 2) + [scale] * 2)
        image[part], kind[part] = 0.5 + 0.1 * (noise - noise.mean()) / noise.std(), number
    rows, across = np.indices(shape)[-2:]
    labels = (1 + (rows // 16) * 12 + across // 16).astype(np.int32)
    names = columns(len(shape))
    found = describe(image, labels, np.ones(shape, bool))
    assert found.shape == (72, len(names))
    assert np.isfinite(found).all()
    truth = ndimage.maximum(kind, labels, np.arange(1, 73))
    seen = found[:, : names.index("size")]
    seen = (seen - seen.mean(axis=0)) / (seen.std(axis=0) + 1e-6)
    apart = np.linalg.norm(seen[:, None] - seen, axis=2) + 1e9 * np.eye(72)
    assert np.mean(truth[apart.argmin(axis=1)] == truth) > 0.95
    by_mean = np.abs(found[:, None, 0] - found[:, 0]) + 1e9 * np.eye(72)
    assert np.mean(truth[by_mean.argmin(axis=1)] == truth) < 0.8  # brightness alone does not
    assert found[:, names.index("row")].reshape(6, 12) == pytest.approx(
        np.repeat(np.arange(8, 96, 16)[:, None], 12, 1) / 96
    )


def test_no_regions_no_descriptors():
    image, there = disc()
    assert describe(image, np.zeros(image.shape, np.int32), there).shape == (0, len(columns(2)))


def test_a_real_slice(shared_data):
    """Grey values differ less within regions than within about as many squares."""
    file = sorted((shared_data / "ct_series" / "dicom").iterdir())[10]
    hounsfield = read_pixels([FileRef(str(file))]).pixels.astype(np.float32)
    image = np.clip((hounsfield + 160) / 400, 0, 1)
    body = body_mask(np.clip((hounsfield + 1000) / 1400, 0, 1))
    labels = supervoxels(image, 24, inside=body)
    assert np.array_equal(labels > 0, body)
    rows, across = np.indices(image.shape)
    squares = np.zeros_like(labels)
    squares[body] = 1 + np.unique((rows // 24 * 100 + across // 24)[body], return_inverse=True)[1]
    within = [float((moments(image, own)[:, 1] ** 2 * np.bincount(own[body])[1:]).sum()) for own in (labels, squares)]
    assert abs(int(labels.max()) - int(squares.max())) < 0.4 * labels.max()
    assert within[0] < 0.75 * within[1]
    found = describe(image, labels, body)
    assert found.shape == (labels.max(), len(columns(2)))
    assert np.isfinite(found).all()
