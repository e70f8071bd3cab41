"""Scores of images never learned from, and what they say of a term."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phenotype.linking.evidence import cross_fit, evidence, image_score
from phenotype.linking.ferns import FernMapper


def test_cross_fitting_equals_leaving_the_fold_out(images):
    learn = images(40, noise=0, seed=0)
    bags = [(i.regions, i.reported) for i in learn]
    folds = [i % 3 for i in range(40)]
    asked = FernMapper(ferns=10, depth=4).prepare(np.concatenate([b[0] for b in bags]))
    fitted = cross_fit(asked, iter(bags), iter(folds))
    assert sorted(fitted) == [0, 1, 2]
    for fold, mapper in fitted.items():
        without = asked.empty().partial_fit(b for b, f in zip(bags, folds, strict=True) if f != fold)
        assert np.array_equal(mapper.counts_, without.counts_)
        assert np.array_equal(mapper.positives_, without.positives_)
    with pytest.raises(ValueError, match="two folds"):
        cross_fit(asked, bags, [0] * 40)


def test_a_planted_term_has_evidence_and_a_random_one_has_none(images):
    learn = images(250, noise=0.1, seed=0)
    rng = np.random.default_rng(3)
    folds = rng.integers(0, 5, len(learn)).tolist()
    invented = (rng.random((len(learn), 20)) < 0.2).astype(float)  # 20 terms that have nothing to do with the images
    labels = np.hstack([np.stack([i.reported for i in learn]), invented])
    bags = [(i.regions, row) for i, row in zip(learn, labels, strict=True)]
    asked = FernMapper(ferns=64, depth=7).prepare(np.concatenate([b[0] for b in bags]))
    fitted = cross_fit(asked, bags, folds)
    scores = np.stack([image_score(fitted[f].score(b[0])) for b, f in zip(bags, folds, strict=True)])
    judged = [evidence(scores[:, t], labels[:, t]) for t in range(labels.shape[1])]
    assert [e.verdict for e in judged[:4]] == ["evidence"] * 4
    # 2.5 % of the invented terms may pass by the width of the interval.
    assert sum(e.verdict == "evidence" for e in judged[4:]) <= 2
    # The control: scores of images learned from show "evidence" for what was invented.
    all_in = asked.empty().partial_fit(bags)
    inside = np.stack([image_score(all_in.score(b[0])) for b in bags])
    assert sum(evidence(inside[:, t], labels[:, t]).verdict == "evidence" for t in range(4, 24)) > 10


def test_auroc_is_that_of_the_textbook_with_ties():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 6, 200).astype(float)
    labels = (rng.random(200) < 0.3 + 0.05 * scores).astype(float)
    labels[::7] = np.nan
    known = ~np.isnan(labels)
    judged = evidence(scores, labels, resamples=200)
    assert judged.auroc == pytest.approx(roc_auc_score(labels[known], scores[known]), abs=1e-12)
    assert (judged.positives, judged.images) == (int(labels[known].sum()), int(known.sum()))
    drawn = []
    for _ in range(400):
        rows = rng.choice(np.flatnonzero(known), known.sum())
        drawn.append(roc_auc_score(labels[rows], scores[rows]))
    assert (judged.low, judged.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.03)
    assert evidence(scores, labels, resamples=200) == judged


def test_images_of_a_patient_do_not_count_as_independent():
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(40), 10)
    labels = np.repeat(rng.random(40) < 0.5, 10).astype(float)
    scores = labels + 3 * np.repeat(rng.normal(size=40), 10) + 0.1 * rng.normal(size=400)
    alone, together = evidence(scores, labels), evidence(scores, labels, patients)
    assert alone.auroc == together.auroc
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_too_few_and_refusals():
    labels = np.array([1.0] * 9 + [0.0] * 50 + [np.nan] * 5)
    judged = evidence(np.arange(64.0), labels)
    assert (judged.verdict, judged.auroc, judged.positives, judged.images) == ("too few", None, 9, 59)
    with pytest.raises(ValueError, match="finite"):
        evidence(np.full(64, np.nan), labels)
    with pytest.raises(ValueError, match="same length"):
        evidence(np.zeros(3), labels)


def test_image_score_is_the_mean_of_the_highest():
    profile = np.array([[1.0, 9.0], [5.0, 8.0], [3.0, -1.0]])
    assert image_score(profile, top=2).tolist() == [4.0, 8.5]
    assert image_score(profile, top=10).tolist() == pytest.approx([3.0, 16 / 3])
    with pytest.raises(ValueError, match="at least one region"):
        image_score(np.empty((0, 2)))
