"""The standardized view, and the way back."""

import numpy as np
import pytest

from phenotype.imaging.window import LUNG_WINDOW, resample, resize, slices, standardize, window_of


def test_a_spot_is_found_again_in_the_original():
    image = np.zeros((300, 200), dtype=np.float32)
    image[210:220, 40:50] = 1.0
    view, frame = standardize(image, "CR", 128, (0.0, 1.0))
    weight = view / view.sum()
    centre = (weight.sum(axis=1) @ (np.arange(128) + 0.5), weight.sum(axis=0) @ (np.arange(128) + 0.5))
    assert frame.to_original(centre) == pytest.approx((215.0, 45.0), abs=0.1)  # of pixels of 2.3
    assert frame.to_view(frame.to_original((3.0, 77.0))) == pytest.approx((3.0, 77.0))


@pytest.mark.parametrize("shape", [(300, 200), (200, 300), (50, 64), (129, 128), (7, 1000)])
def test_the_aspect_is_kept_and_the_border_is_black(shape):
    view, frame = standardize(np.ones(shape, dtype=np.float32), "CR", 128, (0.0, 1.0))
    assert view.shape == (128, 128) and view.dtype == np.float32
    inside = frame.to_view([(0, 0), shape])
    (top, left), (bottom, right) = inside.round().astype(int)
    assert view[top:bottom, left:right].min() == pytest.approx(1.0)
    assert view.sum() == pytest.approx((bottom - top) * (right - left), rel=1e-6)
    assert max(bottom - top, right - left) == 128
    assert frame.scale[0] == pytest.approx(frame.scale[1], rel=0.5 / min(bottom - top, right - left) + 1e-9)


def test_resizing_is_the_mean_over_the_area():
    image = np.random.default_rng(0).random((60, 90))
    assert np.allclose(resize(image, 20, 30), image.reshape(20, 3, 30, 3).mean(axis=(1, 3)))
    for height, width in ((17, 31), (59, 89), (100, 200)):
        assert resize(image, height, width).mean() == pytest.approx(image.mean())
    stripes = np.tile([0.0, 1.0], (64, 128))  # the finest there are: nothing of them may turn into coarse ones
    assert np.abs(resize(stripes, 16, 16) - 0.5).max() < 1e-9


def test_windows():
    ct = np.full((8, 8), -600.0, dtype=np.float32)
    assert standardize(ct, "CT", 8)[0] == pytest.approx((-600 - LUNG_WINDOW[0]) / 1500)
    assert standardize(ct, "CT", 8, (-700.0, -500.0))[0] == pytest.approx(0.5)
    image = np.random.default_rng(1).normal(1000, 50, (100, 100)).astype(np.float32)
    marker = image.copy()
    marker[:5, :5] = 60000.0  # a lead letter must not take the window for itself
    plain, marked = standardize(image, "DX", 50)[0], standardize(marker, "DX", 50)[0]
    assert np.abs(plain - marked)[5:, 5:].max() < 0.05
    assert standardize(np.zeros((4, 4), dtype=np.float32), "CR", 4)[0].max() == 0.0


def test_the_same_input_gives_the_same_bits():
    image = np.random.default_rng(2).random((333, 222)).astype(np.float32)
    assert standardize(image, "CR", 64)[0].tobytes() == standardize(image.copy(order="F"), "CR", 64)[0].tobytes()


def test_slices_are_central_and_even():
    assert slices(20, 4).tolist() == [2, 7, 12, 17]
    assert slices(20, 1).tolist() == [10]
    assert slices(20, 20).tolist() == slices(20, 99).tolist() == list(range(20))


def test_what_is_no_image_is_refused():
    for wrong in (np.zeros((3, 4, 4), dtype=np.float32), np.zeros((0, 4), dtype=np.float32)):
        with pytest.raises(ValueError, match="rows x columns"):
            standardize(wrong, "CR", 8)


def test_windows_by_name():
    slices_ = [np.linspace(0, 100, 101, dtype=np.float32), np.linspace(900, 1000, 101, dtype=np.float32)]
    assert window_of("", "CT", []) == LUNG_WINDOW
    assert window_of("brain", "CT", []) == (0.0, 80.0)
    low, high = window_of("brain", "MR", slices_)  # no unit: percentiles, of all slices together
    assert 0 < low < 10 and 990 < high < 1000
    assert window_of("percentile", "CT", slices_) == (low, high)
    with pytest.raises(ValueError, match="'bones' is no window"):
        window_of("bones", "CT", [])


def test_resampling_a_volume():
    volume = np.random.default_rng(3).random((6, 20, 30)).astype(np.float32)
    fewer = resample(volume, (3, 10, 10))
    assert fewer == pytest.approx(volume.reshape(3, 2, 10, 2, 10, 3).mean(axis=(1, 3, 5)), abs=1e-5)
    assert (resample(volume, volume.shape) == volume).all()
    ramp = np.repeat(np.arange(5, dtype=np.float32)[:, None, None], 4, axis=1).repeat(4, axis=2)
    more = resample(ramp, (20, 4, 4))[:, 0, 0]
    assert np.diff(more).min() >= 0 and more[2:-2] == pytest.approx((np.arange(20)[2:-2] + 0.5) / 4 - 0.5, abs=1e-5)
