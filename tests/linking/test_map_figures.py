"""Figures of maps against scikit-learn, against a bootstrap done the long way, and on cases known by hand."""

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from phenotype.linking import figures

IMAGES, REGIONS = 60, 30


@pytest.fixture
def regions():
    """Scores with ties, truth in a third of the images, and the image of each region."""
    rng = np.random.default_rng(3)
    image = np.repeat(np.arange(IMAGES), REGIONS)
    truth = (rng.random(image.size) < 0.2) & (image % 3 == 0)
    scores = np.round(rng.normal(size=image.size) + truth + rng.normal(size=IMAGES)[image], 1)
    return scores, truth, image


def test_areas_are_those_of_scikit_learn(regions):
    scores, truth, image = regions
    ranking, once = figures.rank(scores, truth, image, IMAGES), np.ones((1, IMAGES))
    assert figures.auroc(ranking, once)[0] == pytest.approx(roc_auc_score(truth, scores))
    assert figures.average_precision(ranking, once)[0] == pytest.approx(average_precision_score(truth, scores))


def test_a_resample_takes_the_regions_of_an_image_as_often_as_the_image(regions):
    scores, truth, image = regions
    times = figures.draws(IMAGES, 5, seed=1)
    taken = times[3].astype(int)
    rows = np.concatenate([np.flatnonzero(image == i) for i in np.repeat(np.arange(IMAGES), taken)])
    ranking = figures.rank(scores, truth, image, IMAGES)
    assert figures.auroc(ranking, times)[3] == pytest.approx(roc_auc_score(truth[rows], scores[rows]))
    expected = average_precision_score(truth[rows], scores[rows])
    assert figures.average_precision(ranking, times)[3] == pytest.approx(expected)


def test_many_different_scores_are_told_apart_well_enough():
    rng = np.random.default_rng(0)
    truth = rng.random(40_000) < 0.3
    scores = rng.normal(size=truth.size) + truth
    ranking, once = figures.rank(scores, truth, np.zeros(truth.size, int), 1), np.ones((1, 1))
    assert ranking.there.shape[1] <= 2 * figures.LEVELS + 1
    assert figures.auroc(ranking, once)[0] == pytest.approx(roc_auc_score(truth, scores), abs=1e-4)
    expected = average_precision_score(truth, scores)
    assert figures.average_precision(ranking, once)[0] == pytest.approx(expected, abs=1e-3)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = rng.random(400) < 0.5
        scores = rng.normal(size=400) + truth  # two normals one apart: the area is Phi(1 / sqrt 2)
        times = figures.draws(400, 200, seed)
        found = figures.figure(figures.auroc(figures.rank(scores, truth, np.arange(400), 400), times))
        covered.append(found.low <= 0.5 * (1 + math.erf(0.5)) <= found.high)
    assert 0.85 <= np.mean(covered) <= 1.0


def test_images_of_one_kind_give_no_area_and_no_interval():
    ranking = figures.rank([0.1, 0.2, 0.3], [False, False, False], [0, 1, 1], 2)
    found = figures.figure(figures.auroc(ranking, figures.draws(2, 10)))
    assert all(math.isnan(v) for v in (found.value, found.low, found.high))


@pytest.mark.parametrize("scores", [[0.0, np.nan], [0.0, np.inf], [0.0]])
def test_scores_that_are_none_are_refused(scores):
    with pytest.raises(ValueError):
        figures.rank(scores, [True, False], [0, 0], 1)


def test_pointing_counts_the_highest_region_and_shares_ties():
    assert figures.pointing([1.0, 3.0, 2.0], [False, True, False]) == 1
    assert figures.pointing([1.0, 3.0, 2.0], [True, False, True]) == 0
    assert figures.pointing([1.0, 1.0, 1.0, 1.0], [True, False, False, False]) == 0.25
    assert math.isnan(figures.pointing([1.0, 2.0], [False, False]))


def test_the_tuned_threshold_cuts_where_the_finding_begins():
    rng = np.random.default_rng(0)
    truth = [rng.random(200) < (0.1 if n < 20 else 0.0) for n in range(30)]
    scores = [rng.uniform(0, 1, 200) + 2 * there for there in truth]
    threshold = figures.tune_threshold(scores, truth)
    assert 0.9 < threshold <= 2.1
    assert np.nanmean([figures.overlap(s, t, threshold) for s, t in zip(scores, truth, strict=True)]) > 0.85
    assert figures.tune_threshold(scores[20:], truth[20:]) == math.inf
    assert figures.overlap([1.0, 2.0, 3.0], [False, True, False], 2.0) == 0.5


def test_kappa_is_that_of_scikit_learn():
    rng = np.random.default_rng(5)
    a = rng.random(80) < 0.4
    b = np.where(rng.random(80) < 0.8, a, ~a)
    assert figures.kappa(a, b, np.ones((1, 80)))[0] == pytest.approx(cohen_kappa_score(a, b))
    assert math.isnan(figures.kappa([True, True], [True, True], np.ones((1, 2)))[0])


def test_means_leave_out_what_is_not_known():
    times = np.array([[1.0, 1.0, 1.0], [2.0, 0.0, 5.0]])
    assert figures.mean([1.0, 0.0, np.nan], times).tolist() == [0.5, 1.0]
    assert figures.macro([np.array([0.2, np.nan]), np.array([0.4, 0.6])]).tolist() == pytest.approx([0.3, 0.6])
