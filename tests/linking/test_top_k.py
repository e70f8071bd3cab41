"""Top-k multiple-instance learning: rare findings, images of any size, and passes that see some of the regions."""

import numpy as np
import pytest
import torch
from bags import planted
from sklearn.metrics import roc_auc_score

from phenotype.linking.mapper import CannotLearn
from phenotype.linking.mil import TopK


def test_a_rare_finding_scores_high_where_it_is():
    """A loss that gives up on reports which it cannot agree with says "absent" of every image, where few have the term;
    on the way it pushes down what is highest at the start, the strangest regions: the finding."""
    bags, there, _ = planted(700)
    rare = np.flatnonzero(~there.any(axis=1) | (np.random.default_rng(0).random(len(bags)) < 0.1))
    assert 0.03 < there[rare, :2].mean() < 0.1
    mapper = TopK(epochs=12, rate=0.01, batch=16).fit([bags[i] for i in rare])
    new, has, shows = planted(80, seed=1)
    scores, truth = np.concatenate([mapper.score(bag.regions) for bag in new]), np.concatenate(list(shows))
    images = np.stack([mapper.image_score(bag.regions) for bag in new])
    for term in range(2):
        assert roc_auc_score(truth[:, term], scores[:, term]) > 0.85
        assert roc_auc_score(has[:, term], images[:, term]) > 0.85


def test_mean_of_the_highest_fifth_of_the_regions_there_are():
    scores = torch.tensor([[5.0, 1, 4, 2, 3, 0, 9, 8, 7, 6], [3.0, 2, 1, 0, 4] + [-torch.inf] * 5])[..., None]
    assert TopK().pool(scores)[:, 0].tolist() == [8.5, 4.0]
    assert TopK().pool(scores[:, :1])[:, 0].tolist() == [5.0, 3.0]


def test_the_highest_of_some_regions_stand_for_the_highest_of_all():
    """Else the network would learn in a pass, which sees a tenth of the regions, another image than it scores."""
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(400, 200, 1)))
    some = TopK().pool(scores[:, :20]).mean()
    assert float(some) == pytest.approx(float(TopK().pool(scores).mean()), abs=0.1)


def test_an_unknown_loss_is_refused():
    with pytest.raises(CannotLearn, match="assertion or bce"):
        TopK(loss="gce")
