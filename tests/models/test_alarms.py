"""Alarms fire on scores made to deserve them, and on no good one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from phenotype.models import build
from phenotype.models.alarms import RHO, drift_alarm, inversion_alarm, shortcut_alarms, smoothness, spearman
from phenotype.models.calibrate import calibrate
from phenotype.models.choice import aucp, image_scores

SIZE = 32
KERMANY = Path(__file__).resolve().parents[3] / "shared" / "data" / "kermany"


class Detail(type(build("cae", SIZE))):
    """An inverted scorer: what it calls anomalous is detail, and disease here blurs. `sign` -1 puts it right."""

    sign = 1.0

    def _score(self, x, inside):
        detail = x.diff(dim=2).square().mean((1, 2, 3)) + x.diff(dim=3).square().mean((1, 2, 3))
        return self.sign * detail, x.squeeze(1)


class Lungs(Detail):
    """A good score: how far the brightest place of the middle stands out of what is around it."""

    def _score(self, x, inside):
        fine, coarse = (torch.nn.functional.avg_pool2d(x, side, 1, side // 2) for side in (5, 11))
        return (fine - coarse)[..., 8:24, 8:24].amax((1, 2, 3)), x.squeeze(1)


def grained(count, seed):
    """Normal images whose grain differs from one to the next."""
    rng = np.random.default_rng([seed, 9])
    grain = rng.normal(size=(count, 1, SIZE, SIZE)) * rng.uniform(0.01, 0.06, (count, 1, 1, 1))
    return (normal(count, SIZE, seed) + grain).clip(0, 1).astype(np.float32)


def blurred(images):
    """A disease that veils the detail of what it covers."""
    return gaussian_filter(images, (0, 0, 1.0, 1.0)).astype(np.float32)


def model_of(kind, sign=1.0):
    model = kind(build("cae", SIZE).recipe)
    model.sign = sign
    return model


def test_an_inverted_score_sets_off_the_alarms():
    model = model_of(Detail)
    held_out, healthy, sick = grained(80, 2), grained(80, 3), blurred(grained(80, 4))
    truth = np.repeat([0, 1], 80)
    scores = image_scores(model, Images(np.concatenate([healthy, sick])))
    assert roc_auc_score(truth, scores) < 0.2  # it is upside down
    alarms = {alarm.name: alarm for alarm in calibrate(model, Images(held_out), Images(grained(5, 1))).alarms}
    assert alarms["smoothness"].fired and alarms["smoothness"].value < -0.9
    assert "smoother would score as less than normal" in alarms["smoothness"].text
    assert not alarms["brightness"].fired
    inverted = inversion_alarm(image_scores(model, Images(held_out)), scores)
    assert inverted.fired and inverted.value < 0.4 and "upside down" in inverted.text


def test_the_other_direction_is_told():
    alarms = {
        a.name: a for a in calibrate(model_of(Detail, -1.0), Images(grained(80, 2)), Images(grained(5, 1))).alarms
    }
    assert alarms["smoothness"].fired and "rougher would score as less than normal" in alarms["smoothness"].text


def test_a_good_score_sets_off_none():
    model = model_of(Lungs)
    held_out = grained(80, 2)
    pool = np.concatenate([grained(80, 3), with_spot(grained(80, 4), 5)[0]])
    calibration = calibrate(model, Images(held_out), Images(grained(5, 1)))
    assert [alarm.fired for alarm in calibration.alarms] == [False, False]
    scores = image_scores(model, Images(pool))
    found = inversion_alarm(calibration.scores, scores)
    assert not found.fired and found.value > 0.6
    assert found.value == pytest.approx(aucp(model, Images(held_out), Images(pool)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_score_that_is_brightness_alarms(sign):
    images = normal(60, SIZE, seed=2)
    alarm, _ = shortcut_alarms(sign * images.mean((1, 2, 3)), images)
    assert alarm.name == "brightness" and alarm.value == pytest.approx(sign) and alarm.fired
    assert ("darker" if sign > 0 else "brighter") + " would score as less" in alarm.text
    alarm, _ = shortcut_alarms(np.random.default_rng(1).normal(size=60), images)
    assert abs(alarm.value) < RHO and not alarm.fired


def test_a_pool_without_disease_is_no_inversion_and_no_drift():
    rng = np.random.default_rng(4)
    same = [(rng.normal(size=100), rng.normal(size=100)) for _ in range(200)]
    assert np.mean([inversion_alarm(*pair).fired for pair in same]) <= 0.03
    assert np.mean([drift_alarm(*pair).fired for pair in same]) <= 0.03


def test_drift_fires_on_another_scanner():
    rng = np.random.default_rng(4)
    held_out = rng.normal(size=200)
    moved, wider = drift_alarm(held_out, rng.normal(0.6, size=150)), drift_alarm(held_out, rng.normal(0, 2, size=300))
    assert moved.fired and wider.fired and "p-values do not hold" in moved.text
    tiny = drift_alarm(rng.normal(size=20000), rng.normal(0.08, size=20000))
    assert not tiny.fired and tiny.value < 0.1  # certain, and too small to matter


def test_traits():
    assert spearman([1, 2, 3], [3, 3, 3]) == 0 and spearman([1, 2, 3], [1, 5, 6]) == pytest.approx(1)
    images = grained(5, 1)
    assert (smoothness(blurred(images)) > smoothness(images)).all()
    assert np.isfinite(smoothness(np.zeros((1, 1, 8, 8, 8), np.float32))).all()


def films(part, count):
    """The first `count` of a part, in the order of their names: (n, 1, 64, 64)."""
    paths = sorted((KERMANY / part).iterdir())[:count]
    views = [np.asarray(Image.open(path).convert("L").resize((64, 64), Image.Resampling.BOX)) for path in paths]
    return np.stack(views).astype(np.float32)[:, None] / 255


@pytest.mark.skipif(not KERMANY.exists(), reason=f"no real radiographs at {KERMANY}")
def test_on_real_radiographs():
    """Pneumonia veils the detail of lungs: as a score that is upside down, and what PCA leaves over is not."""
    training, held_out = films("train/NORMAL", 400)[::2], films("train/NORMAL", 400)[1::2]
    healthy, sick = films("test/NORMAL", 100), films("test/PNEUMONIA", 100)
    truth = np.repeat([0, 1], [len(healthy), len(sick)])
    pca = build("pca", 64, term="residual")
    pca.fit(Images(training), 0)
    for model, upside_down in ((Detail(build("cae", 64).recipe), True), (pca, False)):
        calibration = calibrate(model, Images(held_out), Images(training))
        scores = image_scores(model, Images(np.concatenate([healthy, sick])))
        found = {alarm.name: alarm for alarm in (*calibration.alarms, inversion_alarm(calibration.scores, scores))}
        area = roc_auc_score(truth, scores)
        print(f"{model.name}: AUROC {area:.2f}", {name: round(alarm.value, 2) for name, alarm in found.items()})
        assert (area < 0.4) if upside_down else (area > 0.5)
        assert found["smoothness"].fired == upside_down and found["inversion"].fired == upside_down
        drift = drift_alarm(calibration.scores, scores[: len(healthy)])
        assert drift.fired or upside_down  # the healthy of the test part are not those of the training part
