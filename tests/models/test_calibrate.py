"""Calibration: what p-values and z-maps promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal
from scipy.stats import kstest

from phenotype.models import build
from phenotype.models.calibrate import Calibration, calibrate, data_hash
from phenotype.models.files import ModelFileError, load_calibration, load_model, read_training, save_model

SIZE = 16


def of_scores(scores) -> Calibration:
    one = np.ones((2, 2), np.float32)
    return Calibration(np.sort(np.asarray(scores, np.float64)), one, one, 0.0)


def test_p_values_of_exchangeable_normals_are_uniform():
    """Over many draws of held-out and new normals: never anti-conservative, and uniform up to the held-out number."""
    rng = np.random.default_rng(11)
    held_out = 99
    p = np.concatenate([of_scores(rng.gamma(2.0, size=held_out)).p_values(rng.gamma(2.0, size=20)) for _ in range(400)])
    for level in (0.01, 0.05, 0.1, 0.5):
        assert abs((p <= level).mean() - level) < 4 * np.sqrt(level * (1 - level) / 400), level
    assert kstest(p[::20], "uniform").pvalue > 0.001  # one of each draw: the others share their held-out images


def test_training_scores_would_not_do():
    """The negative control: against too low scores, as those of training images, p is too small."""
    rng = np.random.default_rng(12)
    p = np.concatenate([of_scores(0.7 * rng.gamma(2.0, size=99)).p_values(rng.gamma(2.0, size=20)) for _ in range(100)])
    assert (p <= 0.05).mean() > 0.08


def test_p_values_by_hand():
    p = of_scores([1.0, 2.0, 3.0, 3.0]).p_values([0.0, 3.0, 3.5])
    np.testing.assert_allclose(p, [5 / 5, 3 / 5, 1 / 5])
    with pytest.raises(ValueError, match="not finite"):
        of_scores([1.0, 2.0]).p_values([np.nan])


def test_calibration_is_of_the_held_out_images():
    model = build("cae", SIZE, seed=1)
    training, held_out = Images(normal(20, SIZE, seed=1)), Images(normal(25, SIZE, seed=2))
    calibration = calibrate(model, held_out, training, batch_size=7)
    scores, maps = model.score(torch.from_numpy(held_out.array))
    np.testing.assert_allclose(calibration.scores, np.sort(scores.numpy()), atol=1e-6)
    np.testing.assert_allclose(calibration.pixel_mean, maps.numpy().mean(0), atol=1e-6)
    np.testing.assert_allclose(calibration.pixel_std, maps.numpy().std(0, ddof=1), atol=1e-6)
    z = calibration.z_maps(maps.numpy())
    assert abs(z.mean()) < 1e-4 and abs(z.std() - 1) < 0.05 and z.dtype == np.float32


def test_training_images_do_not_calibrate():
    model = build("cae", SIZE, seed=1)
    training, held_out = normal(20, SIZE, seed=1), normal(10, SIZE, seed=2)
    with pytest.raises(ValueError, match="of 20 held out, 0 are"):
        calibrate(model, Images(training), Images(training))
    mixed = calibrate(model, Images(np.concatenate([held_out, training[3:6]])), Images(training))
    clean = calibrate(model, Images(held_out), Images(training))
    assert mixed.left_out == 3 and clean.left_out == 0
    np.testing.assert_allclose(mixed.scores, clean.scores, atol=1e-6)
    with pytest.raises(ValueError, match="at least two"):
        calibrate(model, Images(held_out[:1]), Images(training))


class Brightness(type(build("cae", SIZE))):
    """Scores by brightness, or by its opposite: what the alarm is for."""

    sign = 1.0

    def _score(self, x, inside):
        return self.sign * x.mean((1, 2, 3)), x.squeeze(1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_score_that_is_brightness_alarms(sign):
    model = Brightness(build("cae", SIZE).recipe)
    model.sign = sign
    calibration = calibrate(model, Images(normal(30, SIZE, seed=2)), Images(normal(5, SIZE, seed=1)))
    assert calibration.brightness_rho == pytest.approx(sign) and calibration.brightness_alarm
    assert not Calibration(calibration.scores, calibration.pixel_mean, calibration.pixel_std, 0.3).brightness_alarm


def test_calibration_is_kept_with_the_model(tmp_path):
    model = build("cae", SIZE, seed=1)
    training = Images(normal(20, SIZE, seed=1))
    save_model(model, tmp_path, {"data": data_hash(training)})
    assert load_calibration(tmp_path) is None
    weights = (tmp_path / "model.safetensors").stat().st_mtime_ns
    calibration = calibrate(model, Images(normal(25, SIZE, seed=2)), training)
    save_model(model, tmp_path, read_training(tmp_path), calibration)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == weights  # not written again: never half written
    again = load_calibration(tmp_path)
    for key, value in calibration.arrays().items():
        np.testing.assert_array_equal(again.arrays()[key], value)
    assert (again.brightness_rho, again.left_out) == (calibration.brightness_rho, 0)
    assert load_model(tmp_path).recipe == model.recipe
    content = (tmp_path / "calibration.safetensors").read_bytes()
    (tmp_path / "calibration.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(ModelFileError, match="calibration"):
        load_calibration(tmp_path)
