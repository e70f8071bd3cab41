"""Probabilities and calls of image scores."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phenotype.linking.calibration import (
    Calibration,
    calibrate,
    calibration_error,
    curve,
    thresholds,
    through_reports,
)
from phenotype.linking.emission import Emission
from phenotype.linking.mapper import DENIED, POSSIBLE, PRESENT, UNMENTIONED


def scores_of(n, seed=0, apart=2.0, prevalence=0.3):
    rng = np.random.default_rng(seed)
    there = rng.random(n) < prevalence
    return rng.normal(size=n) + apart * there, there


@pytest.mark.parametrize("n", [80, 1000])
def test_probable_means_probable(n):
    scores, there = scores_of(n)
    new, truth = scores_of(4000, seed=1)
    probable = curve(3 * scores - 7, there)(3 * new - 7)
    assert calibration_error(probable, truth) < (0.08 if n == 80 else 0.04)
    assert calibration_error(np.clip(new, 0, 1), truth) > 0.1, "the control: scores are no probabilities"
    assert np.all(np.diff(curve(scores, there)(np.sort(new))) >= 0)
    assert roc_auc_score(truth, probable) > roc_auc_score(truth, new) - 0.02


def test_curves_of_one_kind_or_of_useless_scores():
    assert curve([1.0, 2.0], [False, False])(1.5) < 0.5
    assert curve([1.0, 1.0], [True, False])(1.0) == 0.5
    scores, there = scores_of(60)
    upside_down = curve(-scores, there)(np.array([-5.0, 0.0, 5.0]))
    assert np.ptp(upside_down) < 0.01, "scores that fall with the term say nothing"
    with pytest.raises(ValueError, match="finite"):
        curve([np.nan], [True])


def test_wrong_reports_are_seen_through():
    """A fifth of the reports say the contrary: agreeing with them is not to be right."""
    scores, there = scores_of(6000, apart=3.5)
    rng = np.random.default_rng(2)
    said = there ^ (rng.random(there.size) < 0.2)
    states = np.where(said, np.where(rng.random(said.size) < 0.3, POSSIBLE, PRESENT), DENIED)[:, None].astype(np.int8)
    known = Emission(np.array([[0.56, 0.24, 0.2, 0.0]]), np.array([[0.14, 0.06, 0.8, 0.0]]), np.array([0.3]))
    new, truth = scores_of(4000, seed=1, apart=3.5)
    seen_through = calibrate(scores, states[:, 0], known, 0).curve(new)
    taken_for_true = calibrate(scores, states[:, 0], None, 0).curve(new)
    assert calibration_error(seen_through, truth) < 0.05
    assert calibration_error(taken_for_true, truth) > 0.1
    blunt = curve(scores, said)
    assert through_reports(blunt, 0.3, 0.25) is blunt


def test_calls_err_no_more_often_than_promised():
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(200):
        low, high = thresholds(rng.normal(1.5, 1, 60), rng.normal(0, 1, 90), error=0.1)
        errors.append((np.mean(rng.normal(1.5, 1, 500) < low), np.mean(rng.normal(0, 1, 500) > high)))
    missed, invented = np.mean(errors, axis=0)
    assert 0.05 < missed < 0.12
    assert 0.05 < invented < 0.12


def test_few_images_promise_nothing_and_clear_ones_leave_no_doubt():
    low, high = thresholds([2.0, 3.0], [0.0, 1.0])
    assert (low, high) == (-np.inf, np.inf)
    low, high = thresholds(np.arange(100, 200), np.arange(0, 50))
    assert low == high
    assert 40 < low < 120
    scores, there = scores_of(400)
    states = np.where(there, PRESENT, DENIED).astype(np.int8)
    found = calibrate(scores, states, None, 0)
    assert (found.call(9.0), found.call(-9.0)) == ("here", "not here")
    assert found.call((found.here + found.not_here) / 2) == "undecided"
    again = Calibration.from_arrays(found.to_arrays())
    assert again.call(9.0) == "here"
    np.testing.assert_array_equal(again.curve(scores), found.curve(scores))


def test_where_nobody_denies_silence_is_the_contrast():
    scores, there = scores_of(400)
    states = np.where(there, PRESENT, UNMENTIONED).astype(np.int8)
    assert np.isfinite(calibrate(scores, states, None, 0).here)
