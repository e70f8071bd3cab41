"""Lungs and bodies, against those that were drawn, those that people outlined, and pictures that have none."""

import numpy as np
import pytest
from PIL import Image

from phenotype.demo import volume
from phenotype.demo.thorax import Thorax, attenuation, draw_build, draw_view, expose
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.imaging.masks import body_mask, ct_lung_mask, lung_mask
from phenotype.imaging.window import resize, standardize


def dice(found, truth):
    return 2 * (found & truth).sum() / max(1, found.sum() + truth.sum())


def phantom(seed):
    rng = np.random.default_rng(seed)
    thorax = Thorax(draw_build(rng), draw_view(rng))
    seen, _ = standardize(expose(attenuation(thorax), thorax.view), "CR", 128)
    lungs, _ = standardize((thorax.open_lung > 0.5).astype(np.float32), "CR", 128, (0.0, 1.0))
    return seen, lungs > 0.5


def test_lungs_of_phantom_radiographs():
    reached = []
    for seed in range(5):
        seen, truth = phantom(seed)
        lungs = lung_mask(seen)
        assert lungs.found and lungs.mask.shape == seen.shape
        reached.append(dice(lungs.mask, truth))
        sides = [np.nonzero(lungs.labels == side)[1].mean() for side in (1, 2)]
        assert sides[0] < 64 < sides[1]
        assert (lungs.mask & ~lungs.body).sum() == 0
    assert np.median(reached) > 0.87 and min(reached) > 0.83
    turned = dice(lung_mask(phantom(0)[0]).mask, phantom(0)[1][::-1])
    assert turned < min(reached) - 0.05  # the figure means something


def test_what_has_no_lungs_says_so_and_gives_the_body():
    rng = np.random.default_rng(0)
    noise = rng.random((100, 120)).astype(np.float32)
    ramp = np.tile(np.linspace(0, 1, 128, dtype=np.float32), (128, 1))
    upside_down = phantom(1)[0][::-1]
    for nothing in (noise, ramp, np.zeros((64, 64), np.float32), np.rot90(phantom(2)[0]), upside_down):
        lungs = lung_mask(np.ascontiguousarray(nothing))
        assert not lungs.found and (lungs.mask == lungs.body).all() and lungs.mask.any()


def test_lungs_do_not_depend_on_brightness_or_size():
    seen, _ = phantom(3)
    first = lung_mask(seen)
    assert dice(lung_mask(0.2 + 0.5 * seen).labels > 0, first.labels > 0) > 0.93
    larger = lung_mask(resize(seen, 256, 256).astype(np.float32))
    assert larger.mask.shape == (256, 256) and dice(larger.mask[::2, ::2], first.mask) > 0.97


@pytest.mark.parametrize("seed", range(3))
def test_lungs_of_phantom_volumes(seed, monkeypatch):
    drawn, chest = [], volume._chest
    monkeypatch.setattr(volume, "_chest", lambda *given: drawn.append(chest(*given)) or drawn[-1])
    hu, _, _ = volume.draw_volume(draw_build(np.random.default_rng(seed)), [], seed)
    truth = drawn[0][1] > 0.5
    lungs = ct_lung_mask(hu.astype(np.float32))
    assert lungs.found and dice(lungs.mask, truth) > 0.95
    assert np.nonzero(lungs.labels == 1)[2].mean() < 48 < np.nonzero(lungs.labels == 2)[2].mean()
    middle = len(hu) // 2
    assert dice(ct_lung_mask(hu[middle].astype(np.float32)).mask, truth[middle]) > 0.95
    without = np.where(truth, 40, hu).astype(np.float32)
    assert not ct_lung_mask(without).found


def test_lungs_that_touch_are_parted_at_the_midline():
    body = np.full((5, 60, 80), -1000.0, np.float32)
    body[:, 10:50, 10:70] = 40
    body[:, 20:40, 20:60] = -850
    lungs = ct_lung_mask(body)
    assert lungs.found and (lungs.labels == 1).sum() == (lungs.labels == 2).sum() > 0


def test_a_body_in_three_dimensions():
    image = np.full((12, 40, 40), 0.02, np.float32)
    image[2:10, 8:32, 10:30] = 0.7
    image[3:9, 12:20, 14:20] = 0.03
    expected = np.zeros(image.shape, bool)
    expected[2:10, 8:32, 10:30] = True
    assert (body_mask(image) == expected).all()


def test_real_lungs_as_people_outlined_them(shared_data):
    reached, believed = [], []
    for path in sorted((shared_data / "shenzhen" / "lung_masks").iterdir())[::24]:
        truth = resize((np.asarray(Image.open(path)) > 0).astype(np.float32), 128, 128) > 0.5
        pixels = np.asarray(Image.open(shared_data / "shenzhen" / "images" / path.name).convert("L"), np.float32) / 255
        lungs = lung_mask(resize(pixels, 128, 128).astype(np.float32))
        reached.append(dice(lungs.labels > 0, truth))
        believed.append(lungs.found)
    assert np.median(reached) > 0.9 and np.quantile(reached, 0.1) > 0.8 and np.mean(believed) > 0.9


def test_a_real_pelvis_has_no_lungs(shared_data):
    files = sorted((shared_data / "ct_series" / "dicom").iterdir())[::4]
    slices = [resize(read_pixels([FileRef(str(file))]).pixels, 128, 128) for file in files]
    assert not any(ct_lung_mask(one.astype(np.float32)).found for one in slices)
