"""How reports speak of what is there, estimated from the data."""

import numpy as np
import pytest
import torch
from bags import PROBABLE, planted

from phenotype.linking.emission import Emission, anchored, estimate, table
from phenotype.linking.mapper import DENIED, PRESENT, STATES, UNMENTIONED
from phenotype.linking.mil import NoisyOr
from phenotype.linking.training import _unlikely

THERE = np.array([[0.55, 0.2, 0.05, 0.2]])
NOT_THERE = np.array([[0.06, 0.14, 0.5, 0.3]])


def reports(n, seed=0, prevalence=0.2):
    """States (n, 1) of reports, what is there (n, 1), and a fair image model's probabilities."""
    rng = np.random.default_rng(seed)
    there = rng.random((n, 1)) < prevalence
    states = np.array([rng.choice(4, p=(THERE if y else NOT_THERE)[0]) for y in there[:, 0]], np.int8)[:, None]
    score = rng.normal(size=(n, 1)) + 2.5 * there
    odds = np.log(prevalence / (1 - prevalence)) + 2.5 * (score - 1.25)
    return states, there, 1 / (1 + np.exp(-odds))


def test_the_table_is_found_with_an_image_model():
    states, _, image = reports(3000)
    anchor = table(states, PROBABLE[states])
    found = estimate(states, anchor, image, weight=0.1, steps=100)
    np.testing.assert_allclose(found.if_present, THERE, atol=0.06)
    np.testing.assert_allclose(found.if_absent, NOT_THERE, atol=0.04)
    assert found.prevalence[0] == pytest.approx(0.2, abs=0.04)
    # what labellers hold at first is further off
    assert np.abs(anchor.if_present - THERE).max() > 2 * np.abs(found.if_present - THERE).max()


@pytest.mark.parametrize("image", ["level", "chance", "contrary"])
def test_a_bad_image_model_neither_turns_nor_empties_the_table(image):
    states, there, good = reports(400, seed=1)
    rng = np.random.default_rng(2)
    bad = {"level": np.full(states.shape, 0.2), "chance": rng.permutation(good), "contrary": 1 - good}[image]
    found = estimate(states, table(states, PROBABLE[states]), bad, steps=200)
    for rows in (found.if_present, found.if_absent):
        np.testing.assert_allclose(rows.sum(axis=1), 1)
        assert rows.min() > 0
    assert found.if_present[0, PRESENT] >= found.if_absent[0, PRESENT]
    assert found.if_present[0, DENIED] <= found.if_absent[0, DENIED]
    assert there.any()


def test_a_term_that_is_never_mentioned_says_nothing():
    states = np.full((30, 1), UNMENTIONED, np.int8)
    found = estimate(states, table(states, PROBABLE[states]), np.full((30, 1), 0.3))
    there, not_there = found.likelihood(states)
    np.testing.assert_allclose(there, not_there, atol=0.05)
    np.testing.assert_allclose(found.posterior(states, np.full((30, 1), 0.3)), 0.3, atol=0.01)


def test_posterior_is_bayes_and_not_to_mention_is_not_to_deny():
    known = Emission(THERE, NOT_THERE, np.array([0.2]))
    states = np.arange(4, dtype=np.int8)[:, None]
    found = known.posterior(states)[:, 0]
    by_hand = THERE[0] * 0.2 / (THERE[0] * 0.2 + NOT_THERE[0] * 0.8)
    np.testing.assert_allclose(found, by_hand)
    assert found[PRESENT] > found[UNMENTIONED] > found[DENIED]
    informed = known.posterior(states, np.full((4, 1), 0.9))[:, 0]
    assert (informed > found).all()


def test_rows_and_arrays():
    known = Emission(THERE, NOT_THERE, np.array([0.2]))
    assert known.rows(["nodule"])[2] == ("nodule", "denied", 0.05, 0.5)
    assert [row[1] for row in known.rows(["nodule"])] == list(STATES)
    again = Emission.from_arrays(known.to_arrays())
    np.testing.assert_array_equal(again.if_absent, NOT_THERE)


def test_the_loss_is_the_likelihood_of_what_is_said():
    known = Emission(THERE, NOT_THERE, np.array([0.2]))
    states = np.arange(4, dtype=np.int8)[:, None]
    image = np.array([[0.1], [0.5], [0.7], [0.99]])
    logs = [torch.from_numpy(np.log(p)) for p in known.likelihood(states)]
    loss = _unlikely(torch.logit(torch.from_numpy(image)), *logs).numpy()
    np.testing.assert_allclose(-loss, known.log_likelihood(states, image), rtol=1e-9)


def test_learned_along_with_a_network_it_tells_reports_that_invent_from_those_that_do_not():
    invented, missed = [], []
    for noise in (0.0, 0.2):
        bags, there, _ = planted(300, noise=noise, seed=4)
        found = NoisyOr().fit(bags).emission_
        truth = table(np.stack([bag.states for bag in bags]), there.astype(float))
        invented.append(found.if_absent[:2, :2].sum(axis=1))
        missed.append(found.if_present[:2, 2:].sum(axis=1))
        np.testing.assert_allclose(found.if_present[:2], truth.if_present[:2], atol=0.17)
        np.testing.assert_allclose(found.if_absent[:2], truth.if_absent[:2], atol=0.17)
    assert (invented[1] > invented[0] + 0.06).all()
    assert (invented[0] < 0.08).all()
    assert (missed[1] > missed[0]).all()


def test_a_rare_finding_is_not_made_of_reports_that_do_not_mention_it():
    """Ten of a thousand assert it; one in ten of the others would be a hundred that have it."""
    states = np.full((1000, 1), UNMENTIONED, np.int8)
    states[:10] = PRESENT
    found = anchored(states, PROBABLE[states])
    assert found.prevalence[0] < 0.02
    assert found.if_present[0, PRESENT] > 0.5
