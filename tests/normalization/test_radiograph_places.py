"""Radiographs laid onto the thorax by their lungs, and what is done where a lung is white."""

from functools import cache

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from phenotype.demo.lesions import radiograph
from phenotype.demo.thorax import Thorax, View, draw_build
from phenotype.imaging import grids
from phenotype.imaging.thorax import LUNGS, lungs
from phenotype.normalization.radiographs import Placed, landmarks, place, place_by_body


@cache
def phantom(seed, *, rotation=0.0, shift=(0.0, 0.0)):
    """A radiograph with the places of five points of the body in it, as fractions: the same points for everybody."""
    build = draw_build(np.random.default_rng(seed))
    view = View(256, 256, rotation, shift, 2.1, 0.85, 0.8, seed)
    pixels, _ = radiograph(build, view, ())
    half, top, foot = 0.6 * build.half_width, build.apex, build.dome
    x = np.array([-half, half, 0.0, -half, half])
    y = np.array([0.4, 0.4, 0.5, 0.8, 0.8]) * (foot - top) + top
    row, column = Thorax(build, view).to_pixel(x, y)
    return pixels.astype(np.float32), np.stack([row, column], 1) / 256


def whitened(pixels, side):
    """The same with one lung, by the columns of its half, as bright as what is around it."""
    from phenotype.imaging.masks import lung_mask

    lung = lung_mask(pixels).labels == side
    ring = ndimage.binary_dilation(lung, iterations=6) & ~lung
    soft = ndimage.gaussian_filter(lung.astype(float), 3)
    flat = np.quantile(pixels[ring], 0.7) + 0.3 * (pixels - pixels[lung].mean())
    return (pixels * (1 - soft) + soft * flat).astype(np.float32)


def spread(points):
    """How far the same point of several people lies from where it usually does, as a fraction of the image."""
    points = np.asarray(points)
    return float(np.linalg.norm(points - np.median(points, axis=0), axis=-1).mean())


def test_the_same_points_of_several_people_come_together():
    views = [(seed, 3.0 * (seed % 3 - 1), (18.0 * (seed % 2) - 9, 12.0 * (seed % 3) - 12)) for seed in range(6)]
    before, after = [], []
    for seed, rotation, shift in views:
        pixels, points = phantom(seed, rotation=rotation, shift=shift)
        placed = place(pixels)
        assert placed.route == "lungs" and placed.quality > 0.6
        assert grids.folded(placed.forward) == 0.0
        before.append(points)
        after.append(grids.apply(placed.forward, points))
    assert spread(after) < 0.5 * spread(before)
    assert spread(after) < 0.02


@pytest.mark.parametrize("side", [1, 2])
def test_a_white_lung_is_recorded_and_the_other_one_stands_for_it(side):
    pixels, points = phantom(3)
    usual, placed = place(pixels), place(whitened(pixels, side))
    assert placed.route == "one lung"
    assert ("right" if side == 1 else "left") in placed.reason
    assert placed.quality < usual.quality - 0.1
    away = np.linalg.norm(grids.apply(placed.forward, points) - grids.apply(usual.forward, points), axis=1)
    assert away.max() < 0.08


def test_without_lungs_the_body_has_to_do():
    rows, columns = np.mgrid[:200, :160]
    body = ((rows > 40) & (rows < 180) & (np.abs(columns - 80) < 50)).astype(np.float32)
    placed = place(body)
    assert placed.route == "body" and placed.reason and placed.quality < 0.3
    corners = grids.apply(placed.forward, np.array([[41 / 200, 31 / 160], [180 / 200, 130 / 160]]))
    assert np.allclose(corners, [[0, 0], [1, 1]], atol=0.03)
    lateral = place_by_body(phantom(3)[0], "no frontal view")
    assert (lateral.route, lateral.quality, lateral.reason) == ("body", 0.0, "no frontal view")


def test_the_thorax_is_where_it_says():
    labels = lungs()
    rows, columns = np.nonzero(labels)
    top, left, height, width = LUNGS
    box = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]) / 256
    assert box == pytest.approx([top, left, top + height, left + width], abs=0.02)
    right, other = landmarks(labels == 1, 1), landmarks(labels == 2, 2)
    assert (right[:8, 1] < right[8:16, 1]).all() and right[:16, 1].max() < 0.5  # outer border, inner border, middle
    assert (other[:8, 1] > other[8:16, 1]).all() and other[:16, 1].min() > 0.5


def test_the_same_radiograph_gives_the_same_bits():
    pixels, _ = phantom(5)
    assert place(pixels).forward.tobytes() == place(pixels.copy()).forward.tobytes()


def test_lungs_of_real_radiographs_overlap_in_the_thorax(shared_data):
    """Lungs that people outlined, laid onto the thorax: their Dice with each other, before and after."""
    folder = shared_data / "shenzhen"
    raw, laid = [], []
    for path in sorted((folder / "lung_masks").iterdir())[3::58]:
        pixels = np.asarray(Image.open(folder / "images" / path.name).convert("L"), np.float32)
        outlined = (np.asarray(Image.open(path).convert("L")) > 0).astype(np.uint8)
        placed: Placed = place(pixels)
        raw.append(np.asarray(Image.fromarray(outlined).resize((256, 256), Image.Resampling.NEAREST)))
        laid.append(grids.warp_labels(outlined, grids.invert(placed.forward, (24, 24)), (256, 256)))

    def agreement(lungs):
        pairs = [(a, b) for n, a in enumerate(lungs) for b in lungs[:n]]
        return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]))

    assert len(laid) >= 6
    assert agreement(laid) > 0.84 > agreement(raw) + 0.05
