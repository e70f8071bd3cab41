"""Scores averaged with those around them."""

import numpy as np
import pytest

from phenotype.linking.neighbours import smoothed


def grid(side: int):
    at = (np.arange(side) + 0.5) / side
    return np.stack(np.meshgrid(at, at, indexing="ij"), axis=-1).reshape(-1, 2)


def test_weights_are_gaussian_and_sum_to_one():
    positions = np.array([[0.5, 0.5], [0.5, 0.6], [0.9, 0.9]])
    found = smoothed(np.array([[1.0], [0.0], [7.0]]), positions, reach=0.1)
    near = np.exp(-0.5)
    assert found[:, 0] == pytest.approx([1 / (1 + near), near / (1 + near), 7.0])  # the third is too far away


def test_a_lesion_is_found_in_noise_that_hides_its_single_regions():
    rng = np.random.default_rng(0)
    positions = grid(14)
    lesion = np.hypot(*(positions - 0.3).T) < 0.15
    scores = rng.normal(size=(196, 1)) + lesion[:, None]
    found = smoothed(scores, positions)

    def rank(values):
        return np.mean(values[lesion][:, None] > values[~lesion][None, :])

    assert rank(found[:, 0]) > rank(scores[:, 0]) + 0.1


def test_what_is_the_same_everywhere_stays_and_no_reach_changes_nothing():
    positions = np.random.default_rng(1).random((50, 3))
    assert smoothed(np.full((50, 2), 3.0), positions) == pytest.approx(np.full((50, 2), 3.0))
    scores = np.random.default_rng(2).normal(size=(50, 2))
    assert np.array_equal(smoothed(scores, positions, reach=0), scores)
    assert smoothed(np.zeros((0, 2)), np.zeros((0, 3))).shape == (0, 2)


def test_the_order_of_regions_plays_no_part():
    rng = np.random.default_rng(3)
    positions, scores, order = rng.random((40, 2)), rng.normal(size=(40, 1)), rng.permutation(40)
    assert smoothed(scores[order], positions[order]) == pytest.approx(smoothed(scores, positions)[order])
