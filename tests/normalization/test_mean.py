"""Radiographs laid onto the thorax by way of their mean, which is learned without a landmark."""

from functools import cache

import numpy as np
import pytest
from PIL import Image

from phenotype.demo.lesions import radiograph
from phenotype.demo.thorax import Thorax, View, draw_build
from phenotype.imaging import grids, thorax
from phenotype.imaging.window import resize
from phenotype.normalization.mean import LEAST, from_arrays, learn, place, to_arrays


@cache
def phantom(seed):
    """A radiograph of somebody, somehow placed, with the places of five points of the body in it, as fractions."""
    rng = np.random.default_rng(seed)
    build = draw_build(rng)
    view = View(160, 160, float(rng.uniform(-4, 4)), tuple(rng.uniform(-10, 10, 2)), 2.1, 0.85, 0.8, seed)
    pixels, _ = radiograph(build, view, ())
    half, top, foot = 0.6 * build.half_width, build.apex, build.dome
    x = np.array([-half, half, 0.0, -half, half])
    y = np.array([0.4, 0.4, 0.5, 0.8, 0.8]) * (foot - top) + top
    return pixels.astype(np.float32), np.stack(Thorax(build, view).to_pixel(x, y), 1) / 160


@pytest.fixture(scope="module")
def mean():
    return learn([phantom(seed)[0] for seed in range(LEAST)])


def spread(points):
    """How far the same point of several people lies from where it usually does, as a fraction of the image."""
    points = np.asarray(points)
    return float(np.linalg.norm(points - np.median(points, axis=0), axis=-1).mean())


def test_the_same_points_of_people_it_was_not_learned_from_come_together(mean):
    others = [phantom(seed) for seed in range(100, 112)]
    placed = [place(pixels, mean) for pixels, _ in others]
    assert all(one.route == "mean" and one.quality > 0.6 for one in placed)
    before = [points for _, points in others]
    after = [grids.apply(one.forward, points) for one, (_, points) in zip(placed, others, strict=True)]
    assert spread(after) < 0.5 * spread(before)
    # and there they lie in the lungs of the thorax: the first two and the last two points, not the heart
    where = np.floor(np.median(after, axis=0)[[0, 1, 3, 4]] * thorax.SIDE).astype(int)
    assert thorax.lungs()[where[:, 0], where[:, 1]].tolist() == [1, 2, 1, 2]


def test_what_is_no_upright_chest_does_not_resemble_it(mean):
    pixels, _ = phantom(100)
    usual = place(pixels, mean).quality
    for strange in (pixels[::-1], np.rot90(pixels), pixels.max() - pixels):
        assert place(np.ascontiguousarray(strange), mean).quality < 0.4 < usual


def test_kept_it_is_the_same(mean):
    pixels, _ = phantom(101)
    again = from_arrays({name: value.copy() for name, value in to_arrays(mean).items()})
    np.testing.assert_array_equal(place(pixels, again).forward, place(pixels, mean).forward)


def test_few_images_make_no_mean_and_neither_do_images_without_lungs():
    pixels = [phantom(seed)[0] for seed in range(LEAST - 1)]
    assert learn(pixels) is None
    rng = np.random.default_rng(0)
    assert learn([rng.random((64, 64)).astype(np.float32) for _ in range(LEAST)]) is None


def test_lungs_of_real_radiographs_come_to_lie_over_each_other(shared_data):
    folder = shared_data / "shenzhen"
    if not folder.is_dir():
        pytest.skip("no ../shared/data/shenzhen: real radiographs are absent")
    masks = sorted((folder / "lung_masks").iterdir())[::8][:40]
    images = [np.asarray(Image.open(folder / "images" / path.name).convert("L"), np.float32) for path in masks]
    mean = learn(images)
    lungs = []
    for path, pixels in zip(masks, images, strict=True):
        placed = place(pixels, mean)
        assert placed.quality > 0.4
        drawn = np.asarray(Image.open(path).convert("L")) > 127
        there = grids.apply(grids.invert(placed.forward, (24, 24)), grids.centres((64, 64)))
        at = np.clip(np.floor(there * drawn.shape).astype(int), 0, np.array(drawn.shape) - 1)
        lungs.append((drawn[at[..., 0], at[..., 1]], resize(drawn.astype(float), 64, 64) > 0.5))
    after, before = (np.stack(one) for one in zip(*lungs, strict=True))
    assert _overlap(after) > _overlap(before) + 0.08
    assert _overlap(after) > 0.88


def _overlap(masks):
    """Mean Dice of masks with what most of them cover."""
    most = masks.mean(axis=0) > 0.5
    return float(np.mean([2 * (one & most).sum() / (one.sum() + most.sum()) for one in masks]))
