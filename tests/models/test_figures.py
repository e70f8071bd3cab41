"""Figures against slow references, and what their intervals promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.stats import norm
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from phenotype.models.figures import PixelFigures, auroc, average_precision


def drawn(sick, healthy, distance, seed, rounded=None):
    rng = np.random.default_rng(seed)
    truth = np.repeat([1, 0], [sick, healthy])
    scores = rng.normal(size=sick + healthy) + distance * truth
    return truth, scores if rounded is None else np.round(scores, rounded)


@pytest.mark.parametrize("rounded", [None, 0])  # without and with ties
def test_values_are_those_of_scikit_learn(rounded):
    truth, scores = drawn(40, 60, 1.0, 1, rounded)
    assert auroc(truth, scores).value == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert average_precision(truth, scores, 2).value == pytest.approx(average_precision_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize(("figure", "draws"), [(auroc, 500), (lambda t, s: average_precision(t, s, 200), 150)])
def test_intervals_cover_the_truth(figure, draws):
    """95 % intervals hold the value of a very large sample nine times in ten at least, and are not too wide."""
    far = drawn(20000, 30000, 1.2, 0)
    true = auroc(*far).value if figure is auroc else average_precision(*far, 2).value
    found = [figure(*drawn(40, 60, 1.2, seed)) for seed in range(1, draws)]
    covered = np.mean([one.low <= true <= one.high for one in found])
    assert 0.9 <= covered <= 0.99
    spread = np.std([one.value for one in found])
    width = np.mean([one.high - one.low for one in found])
    assert 0.8 < width / (2 * norm.ppf(0.975) * spread) < 1.2


def test_intervals_at_the_ends():
    found = auroc([0] * 30 + [1] * 20, np.arange(50))
    assert (found.value, found.high) == (1.0, 1.0) and 0.7 < found.low < 0.9
    found = average_precision([0] * 30 + [1] * 20, np.arange(50))
    assert (found.value, found.high) == (1.0, 1.0) and 0.7 < found.low < 0.9
    nearly = average_precision([0] * 29 + [1, 0] + [1] * 19, np.arange(50))
    assert 0.8 < nearly.low < nearly.value <= nearly.high < 1
    same = auroc([0, 0, 1, 1], [1, 1, 1, 1])
    assert same.value == 0.5 and same.low < 0.5 < same.high
    with pytest.raises(ValueError, match="not 1 of 3 sick"):
        auroc([0, 0, 1], [1, 2, 3])
    with pytest.raises(ValueError, match="finite"):
        average_precision([0, 0, 1, 1], [1, 2, 3, np.nan])


def slow_aupro(maps, masks, limit):
    """Threshold by threshold and region by region, as Bergmann et al. 2021 describe it."""
    false_rate, overlap = [0.0], [0.0]
    labels = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        false_rate.append(found[~masks].mean())
        overlap.append(
            np.mean([f[of == r].mean() for f, (of, n) in zip(found, labels, strict=True) for r in range(1, n + 1)])
        )
    fine = np.linspace(0, limit, 200001)
    return np.trapezoid(np.interp(fine, *last_of_equals(false_rate, overlap)), fine) / limit


def last_of_equals(x, y):
    """np.interp wants one y for an x; a vertical step is kept by a tiny shift."""
    x = np.asarray(x) + np.arange(len(x)) * 1e-12
    return x, y


@pytest.mark.parametrize("seed", range(4))
def test_pixel_figures_are_exact(seed):
    rng = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(rng.normal(size=(4, 12, 12)), (0, 2, 2)) > 0.12
    masks[0] = False
    maps = (0.8 * masks + rng.normal(size=masks.shape)).astype(np.float32)
    if seed % 2:
        maps = np.round(maps * 2) / 2
    found = PixelFigures(maps, masks)()
    truth, scores = masks.ravel(), maps.ravel()
    assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert found["ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    assert found["dice"] == pytest.approx(max(f1_score(truth, scores >= t) for t in np.unique(scores)), abs=1e-9)
    assert found["aupro"] == pytest.approx(slow_aupro(maps, masks, 0.3), abs=1e-5)


def test_bootstrap_by_weights_is_that_by_repetition():
    rng = np.random.default_rng(1)
    masks = ndimage.gaussian_filter(rng.normal(size=(8, 16, 16)), (0, 2, 2)) > 0.12
    maps = 0.8 * masks + rng.normal(size=masks.shape)
    figures = PixelFigures(maps, masks)
    again = rng.integers(8, size=8)
    weighted = figures(np.bincount(again, minlength=8).astype(float))
    repeated = PixelFigures(maps[again], masks[again])()
    assert weighted == pytest.approx(repeated, abs=1e-9)
    for name, one in figures.intervals(100).items():
        assert one.low < one.value < one.high, name
    with pytest.raises(ValueError, match="with 0 pixels marked"):
        PixelFigures(maps, np.zeros_like(masks))


def test_small_regions_count_as_much_as_large_ones():
    """The control of AUPRO: a map that finds the large region only has half of it, and nearly all of pixel AUROC."""
    masks = np.zeros((1, 32, 32), np.bool_)
    masks[0, 2:22, 2:22] = True
    masks[0, 28, 28] = True
    maps = masks.astype(np.float32)
    assert PixelFigures(maps, masks)()["aupro"] == pytest.approx(1.0)
    maps[0, 28, 28] = -1
    found = PixelFigures(maps, masks)()
    assert found["auroc"] > 0.99 and found["aupro"] < 0.66
