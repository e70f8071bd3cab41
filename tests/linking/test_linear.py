"""The linear mapper: which side a finding is on, where only the reports of whole images say that it is there."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from phenotype.imaging.descriptors import contralateral
from phenotype.linking.combined import Combined
from phenotype.linking.linear import Linear
from phenotype.linking.mapper import DENIED, PRESENT, Bag, CannotLearn

SIDE = 12  # regions of either lung
PLACES = np.stack([np.tile(np.arange(SIDE) / SIDE, 2), np.repeat([0.25, 0.75], SIDE)], axis=1)


def lungs(n, seed):
    """Images whose lungs are alike but for noise and, in half of them, three regions of one lung; its side (n,)."""
    rng = np.random.default_rng(seed)
    bags, sides = [], []
    for number in range(n):
        sick, side = number % 2 == 0, int(rng.integers(2))
        build = rng.normal(0, 1.5, (SIDE, 4))  # of a person, the same on both sides
        regions = np.tile(build, (2, 1)) + rng.normal(0, 0.5, (2 * SIDE, 4))
        if sick:
            regions[side * SIDE + rng.permutation(SIDE)[:3]] += [2.0, 0, 0, -1.5]
        regions = regions.astype(np.float32)
        vectors = np.hstack([regions, contralateral(regions, PLACES)])
        state = PRESENT if sick else DENIED
        bags.append(Bag(vectors, np.array([state], np.int8), np.array([0.95 if sick else 0.05], np.float32)))
        sides.append(side if sick else -1)
    return bags, np.array(sides)


def side_auroc(mapper, bags, sides):
    scores = np.stack([mapper.score(bag.regions)[:, 0] for bag in bags])
    contrast = scores[:, SIDE:].max(axis=1) - scores[:, :SIDE].max(axis=1)
    return roc_auc_score(sides[sides >= 0], contrast[sides >= 0])


def test_the_other_side_helps_once_it_is_known_which_side_is_strange():
    (bags, _), (others, sides) = lungs(200, 0), lungs(120, 1)
    plain = [Bag(bag.regions[:, :4], bag.states, bag.probabilities) for bag in bags]
    alone = side_auroc(Linear().fit(plain), [Bag(b.regions[:, :4], b.states, b.probabilities) for b in others], sides)
    with_late = Linear(late=4).fit(bags)
    assert side_auroc(with_late, others, sides) > max(0.9, alone + 0.05)
    weights = np.mean([network["weight"][0] for network in with_late.networks_], axis=0)
    assert weights[4] > 0.2 and weights[7] < -0.2  # the signs are those of the finding
    again = Linear.from_arrays(with_late.to_arrays())
    np.testing.assert_array_equal(again.score(others[0].regions), with_late.score(others[0].regions))


def test_ferns_and_a_network_do_not_see_it_and_a_linear_mapper_joins_them():
    (bags, _), (others, sides) = lungs(200, 0), lungs(120, 1)
    settings = {"epochs": 8, "ferns": 64, "depth": 5, "place": 1, "repeat": 1}
    both_strange = side_auroc(Combined(**settings).fit(bags), others, sides)
    joined = Combined(late=4, **settings).fit(bags)
    assert side_auroc(joined, others, sides) > max(0.85, both_strange + 0.05)
    again = Combined.from_arrays(joined.to_arrays())
    np.testing.assert_array_equal(again.score(others[0].regions), joined.score(others[0].regions))
    np.testing.assert_array_equal(again.image_score(others[0].regions), joined.image_score(others[0].regions))


def test_other_features_may_come_after_the_late_ones():
    (bags, _), (others, _) = lungs(60, 0), lungs(4, 1)
    first, last = (
        [0, 1, 4, 5, 6, 7, 2, 3],
        [0, 1, 6, 7, 2, 3, 4, 5],
    )  # of the four and their differences: two, then rest
    turned = [Bag(b.regions[:, first], b.states, b.probabilities) for b in bags]
    plain = [Bag(b.regions[:, first][:, last], b.states, b.probabilities) for b in bags]
    here = Linear(late=4, after=2, seed=1).fit(turned)
    there = Linear(late=4, seed=1).fit(plain)
    for other in others:
        own = other.regions[:, first]
        np.testing.assert_allclose(here.score(own), there.score(own[:, last]), atol=1e-5)
    again = Linear.from_arrays(here.to_arrays())
    assert (again.late, again.after) == (4, 2)


def test_something_must_be_known_first():
    bags, _ = lungs(12, 0)
    with pytest.raises(CannotLearn, match="late"):
        Linear(late=8).fit(bags)
    with pytest.raises(CannotLearn, match="number"):
        Linear(late=-1)
