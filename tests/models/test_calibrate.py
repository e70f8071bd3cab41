"""Calibration: what p-values and z-maps promise."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from model_images import Images, normal
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.stats import false_discovery_control, kstest

from phenotype.models import build
from phenotype.models.calibrate import Calibration, calibrate, data_hash, discoveries
from phenotype.models.files import (
    ModelFileError,
    load_calibration,
    load_model,
    read_manifest,
    read_training,
    save_model,
    write_manifest,
)

SIZE = 16
KERMANY = Path(__file__).resolve().parents[3] / "shared" / "data" / "kermany" / "train" / "NORMAL"


def of_scores(scores) -> Calibration:
    one, scores = np.ones((2, 2), np.float32), np.asarray(scores, np.float64)
    return Calibration(scores, np.arange(len(scores)), one, one, one[None], np.ones(1), one.astype(np.int32))


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
    np.testing.assert_allclose(calibration.scores, scores.numpy(), atol=1e-6)
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
    assert (again.alarms, again.left_out) == (calibration.alarms, 0) and len(again.alarms) == 2
    manifest = json.loads((tmp_path / "model.json").read_text())
    assert [set(alarm) for alarm in manifest["calibration"]["alarms"]] == [{"name", "value", "fired", "text"}] * 2
    assert load_model(tmp_path).recipe == model.recipe
    content = (tmp_path / "calibration.safetensors").read_bytes()
    (tmp_path / "calibration.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 4]))
    with pytest.raises(ModelFileError, match="calibration"):
        load_calibration(tmp_path)


def test_images_of_one_patient_count_once():
    """30 patients with 20 almost equal images each are no 600 independent ones."""
    rng = np.random.default_rng(5)
    model = build("cae", SIZE, seed=1)
    each = normal(30, SIZE, seed=2)
    many = (np.repeat(each, 20, axis=0) + rng.normal(0, 1e-3, (600, 1, SIZE, SIZE))).clip(0, 1).astype(np.float32)
    patients = np.repeat([f"patient {n}" for n in range(30)], 20)
    order = rng.permutation(600)
    training = Images(normal(5, SIZE, seed=1))
    grouped = calibrate(model, Images(many[order]), training, groups=patients[order])
    assert len(grouped.scores) == 30 and list(grouped.patients) == list(range(30))
    assert grouped.p_values([1e9])[0] == pytest.approx(1 / 31)
    assert grouped.pixel_p_values(np.full((1, SIZE, SIZE), 1e9)).min() >= 1 / (9 * 30 + 1) - 1e-6
    np.testing.assert_allclose(grouped.pixel_mean, calibrate(model, Images(each), training).pixel_mean, atol=1e-3)
    assert calibrate(model, Images(many), training).p_values([1e9])[0] < 0.002  # the control: certainty out of copies

    highest = calibrate(model, Images(many), training, groups=patients, counted="highest")
    scores = model.score(torch.from_numpy(many))[0].numpy().reshape(30, 20)
    np.testing.assert_allclose(highest.scores, scores.max(1), atol=1e-6)
    again = calibrate(model, Images(many), training, groups=patients)
    chosen = again.scores[:, None]
    assert (np.abs(scores - chosen).min(1) < 1e-6).all() and (again.scores < highest.scores).mean() > 0.8
    with pytest.raises(ValueError, match="of 20 held out, 20 are, of 1"):
        calibrate(model, Images(many[:20]), training, groups=patients[:20])
    with pytest.raises(ValueError, match="whose it is"):
        calibrate(model, Images(many[:20]), training, groups=patients)


def test_highest_of_a_volume_needs_highest_to_compare_with():
    """Volumes scored by their highest slice are p <= 0.1 in a tenth, against slices one by one in far more."""
    rng = np.random.default_rng(7)
    p, wrong = [], []
    for _ in range(100):
        slices, new = rng.gamma(2.0, size=(39, 8)), rng.gamma(2.0, size=(40, 8)).max(1)
        p.append(of_scores(slices.max(1)).p_values(new))
        wrong.append(of_scores(slices.ravel()).p_values(new))
    assert abs(np.mean(np.concatenate(p) <= 0.1) - 0.1) < 0.02
    assert np.mean(np.concatenate(wrong) <= 0.1) > 0.4


class Map(type(build("cae", SIZE))):
    """Its map is the image, its score the image's highest value: what is calibrated is known."""

    def _score(self, x, inside):
        maps = x.squeeze(1)
        return (maps if inside is None else maps * inside).amax((1, 2)), maps


def noise(count, seed):
    """Images whose every pixel has a spread of its own, neighbours alike: (n, 1, SIZE, SIZE)."""
    rng = np.random.default_rng(seed)
    spread = 0.03 + 0.04 * (1 + np.sin(np.linspace(0, 3, SIZE)))[:, None] * np.ones(SIZE)
    field = gaussian_filter(rng.standard_normal((count, SIZE, SIZE)), (0, 1, 1), mode="wrap")
    return (0.5 + spread * field).clip(0, 1).astype(np.float32)[:, None]


def of_map(images, masks=None, **settings):
    source = Images(images)
    if masks is not None:
        source.inside = lambda indices: masks[indices]
    return calibrate(Map(build("cae", SIZE).recipe), source, Images(normal(2, SIZE, seed=1)), **settings)


@pytest.mark.parametrize("count", [40, 300])  # all order statistics kept, and a grid of them
def test_pixel_p_values_of_exchangeable_normals(count):
    p = np.concatenate([of_map(noise(count, 10 + n)).pixel_p_values(noise(50, 60 + n)[:, 0]) for n in range(5)])
    assert 0.03 <= (p <= 0.05).mean() <= 0.06
    assert (p <= 0.01).mean() <= 0.014
    assert ((p <= 0.05).mean(0) < 0.12).all()  # everywhere, not only on the whole
    too_low = np.concatenate(
        [of_map(noise(count, n) * 0.9 + 0.05).pixel_p_values(noise(50, 60 + n)[:, 0]) for n in range(3)]
    )
    assert (too_low <= 0.05).mean() > 0.06  # the control: maps of images that were trained on vary less


@pytest.mark.parametrize("count", [20, 200])
def test_pixel_p_values_by_hand(count):
    held_out, new = noise(count, 1), noise(3, 2)[:, 0]
    p = of_map(held_out).pixel_p_values(new)
    assert p.shape == new.shape and p.dtype == np.float32
    for n, row, column in ((0, 0, 0), (1, 5, 7), (2, SIZE - 1, 3)):
        beside = held_out[:, 0, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].ravel()
        exact = (1 + (beside >= new[n, row, column]).sum()) / (1 + len(beside))
        assert exact - 1e-6 <= p[n, row, column] <= exact * 1.15 + 0.01  # rounded up on the grid
    highest = of_map(held_out).pixel_p_values(np.full((1, SIZE, SIZE), 2.0))
    assert highest[0, 5, 5] == pytest.approx(1 / (1 + 9 * count)) and highest[0, 0, 0] == pytest.approx(
        1 / (1 + 4 * count)
    )
    assert (of_map(held_out).pixel_p_values(np.full((1, SIZE, SIZE), -1.0)) == 1).all()
    with pytest.raises(ValueError, match="not finite"):
        of_map(held_out).pixel_p_values(np.full((1, SIZE, SIZE), np.nan))


def test_what_is_outside_does_not_count():
    masks = np.zeros((60, SIZE, SIZE), np.bool_)
    masks[:, :, :10] = True
    masks[:30, :, 10:12] = True  # half of the patients reach further
    held_out, new = noise(60, 1), noise(200, 2)[:, 0]
    calibration = of_map(held_out, masks)
    np.testing.assert_allclose(calibration.scores, (held_out[:, 0] * masks).max((1, 2)), atol=1e-6)
    p = calibration.pixel_p_values(new)
    assert (p[:, :, 13:] == 1).all() and (p[:, :, :9] < 1).mean() > 0.9
    for columns in (slice(0, 10), slice(10, 12)):  # zeros outside would make those seen rarely look extreme
        assert 0.02 <= (p[:, :, columns] <= 0.05).mean() <= 0.08
    np.testing.assert_allclose(calibration.pixel_mean[:, 10:12], held_out[:30, 0, :, 10:12].mean(0), atol=1e-5)
    inside = np.zeros(new.shape, np.bool_)
    inside[:, 4:8, 4:8] = True
    assert (calibration.pixel_p_values(new, inside)[~inside] == 1).all()


def test_few_maps_are_held_in_memory(monkeypatch):
    monkeypatch.setattr("phenotype.models.calibrate.REFERENCES", 50)
    calibration = of_map(noise(200, 1))
    assert len(calibration.scores) == 200 and calibration.pixel_count.max() == 9 * 50
    assert len(calibration.pixel_grid) <= 64


def test_discoveries_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(3)
    p = rng.uniform(size=(20, 8, 8)) ** rng.uniform(1, 8, (20, 1, 1))
    expected = [(false_discovery_control(one.ravel()) <= 0.2 + 1e-12).reshape(8, 8) for one in p]
    np.testing.assert_array_equal(discoveries(p, 0.2), expected)
    inside = rng.uniform(size=p.shape) < 0.5
    for one, found, mask in zip(p, discoveries(p, 0.2, inside), inside, strict=True):
        np.testing.assert_array_equal(found[mask], false_discovery_control(one[mask]) <= 0.2 + 1e-12)
        assert not found[~mask].any()
    with pytest.raises(ValueError, match="between 0 and 1"):
        discoveries(p, 1.0)


def test_discoveries_in_planted_images():
    """Of normal images few have a discovery; of planted squares most is found, and little else."""
    calibration = of_map(noise(300, 1))
    new = noise(200, 2)[:, 0]
    of_normal = discoveries(calibration.pixel_p_values(new), 0.1)
    assert of_normal.any((1, 2)).mean() < 0.2
    planted = new.copy()
    planted[:, 4:9, 4:9] += 0.3
    found = discoveries(calibration.pixel_p_values(planted), 0.1)
    wrong = found.copy()
    wrong[:, 4:9, 4:9] = False
    share = wrong.sum((1, 2)) / np.maximum(found.sum((1, 2)), 1)
    assert found[:, 4:9, 4:9].mean() > 0.9 and share.mean() < 0.12


def test_a_calibration_of_another_version_is_refused(tmp_path):
    model = build("cae", SIZE, seed=1)
    training = Images(normal(20, SIZE, seed=1))
    save_model(model, tmp_path, {}, calibrate(model, Images(normal(5, SIZE, seed=2)), training))
    manifest = read_manifest(tmp_path / "model.json")
    manifest["calibration"]["format"] = 1
    write_manifest(tmp_path / "model.json", manifest)
    with pytest.raises(ModelFileError, match="format 1, this version reads 2"):
        load_calibration(tmp_path)


@pytest.mark.skipif(not KERMANY.exists(), reason=f"no real radiographs at {KERMANY}")
def test_pixel_p_values_of_real_radiographs():
    """Healthy children, a patient each: 5 % of other patients' pixels, and more where trained-on images calibrate."""
    of_patient = {re.sub(r"-\d+.jpe?g$", "", path.name): path for path in sorted(KERMANY.iterdir())}
    paths = np.random.default_rng(1).permutation(sorted(of_patient.values()))[:450]
    views = [np.asarray(Image.open(path).convert("L").resize((32, 32), Image.Resampling.BOX)) for path in paths]
    images = np.stack(views).astype(np.float32)[:, None] / 255
    training, held_out, new = Images(images[:150]), Images(images[150:300]), images[300:]
    model = build("pca", 32, term="residual")
    model.fit(training, 0)
    maps = model.score(torch.from_numpy(new))[1].numpy()
    nobody = Images(images[:0])
    p = calibrate(model, held_out, training).pixel_p_values(maps)
    wrong = calibrate(model, training, nobody).pixel_p_values(maps)
    print(f"p <= 0.05: {(p <= 0.05).mean():.3f}, by training images {(wrong <= 0.05).mean():.3f}")
    print(f"p <= 0.01: {(p <= 0.01).mean():.4f}, by training images {(wrong <= 0.01).mean():.4f}")
    assert 0.03 <= (p <= 0.05).mean() <= 0.06 < (wrong <= 0.05).mean()
    assert (p <= 0.01).mean() < 0.015 < (wrong <= 0.01).mean()
    assert (discoveries(p, 0.1).mean((1, 2)) > 0.01).mean() < 0.1
