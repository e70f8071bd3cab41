"""Does the score rest on what the map marks, and is a finding seen at a place?"""

import numpy as np
import pytest

from phenotype.linking.evidence import image_score
from phenotype.linking.faithful import Deletion, deletion, locality

N = 200


def profile_of(kind, seed):
    """Scores of regions of an image with a finding: a small lesion, a large one, or a shift of everything."""
    rng = np.random.default_rng(seed)
    usual = rng.normal(0, 0.3, (N, 1))
    shift = {"small": 0.02, "large": 0.12, "everywhere": 1.0, "nothing": 0.0}[kind]
    profile = usual + 0.1 * rng.normal(size=(N, 1))
    profile[rng.permutation(N)[: round(shift * N)]] += 4
    return profile, usual


def deletions_of(kind, images=20):
    return [deletion(image_score, *profile_of(kind, seed), seed=seed)[0] for seed in range(images)]


@pytest.mark.parametrize(("kind", "verdict"), [("small", "local"), ("large", "local"), ("everywhere", "not local")])
def test_local_and_not_local_findings(kind, verdict):
    """What shows in all regions alike: no part of the image holds half of the evidence."""
    assert locality(deletions_of(kind)) == verdict


def test_the_highest_regions_carry_a_small_lesion_and_random_ones_do_not():
    tests = deletions_of("small")
    assert np.mean([t.ratio > 3 for t in tests]) > 0.9
    assert np.mean([t.half <= 0.05 for t in tests]) > 0.9
    everywhere = deletions_of("everywhere")
    assert np.median([t.top for t in everywhere]) < 0.3 * np.median([t.top for t in tests])


def test_a_map_of_chance_carries_no_more_than_random_regions():
    """An image score that is the mean of all regions, most of which the map ranks by chance."""
    rng = np.random.default_rng(0)
    tests = [
        deletion(lambda s: s.mean(axis=0), np.full((N, 1), 1.0) + 1e-9 * rng.normal(size=(N, 1)), np.zeros((N, 1)))[0]
        for _ in range(10)
    ]
    assert [t.ratio for t in tests] == pytest.approx([1.0] * 10, abs=0.01)
    assert locality(tests) == "not local"


def test_too_few_images_have_no_verdict_and_no_evidence_has_no_half():
    assert locality(deletions_of("small")[:4]) == ""
    below = deletion(image_score, np.zeros((N, 2)), np.ones((N, 2)))
    assert np.isnan(below[0].half)
    assert locality(below * 10) == ""
    assert Deletion(1.0, 0.0, 0.1).ratio == np.inf
    assert Deletion(-1.0, 0.5, 0.1).ratio == 0


def test_the_same_twice():
    profile, usual = profile_of("large", 3)
    assert deletion(image_score, profile, usual) == deletion(image_score, profile, usual)
