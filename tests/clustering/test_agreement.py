"""Agreement of groupings."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from phenotype.clustering.agreement import agreement


def test_agreement_of_the_same_of_chance_and_of_some():
    rng = np.random.default_rng(0)
    given = rng.integers(0, 4, 500)
    same = agreement((given + 1) % 4, given)
    assert (same.cases, same.adjusted_rand, same.mutual_information) == (500, 1.0, pytest.approx(1.0))
    chance = agreement(rng.integers(0, 4, 500), given)
    assert abs(chance.adjusted_rand) < 0.02
    known = np.arange(500) < 300
    found = np.where(rng.random(500) < 0.7, given, -1)
    some = agreement(found, given, known=known)
    assert some.cases == 300
    assert some.adjusted_rand == pytest.approx(adjusted_rand_score(given[:300], found[:300]))
    assert some.mutual_information == pytest.approx(normalized_mutual_info_score(given[:300], found[:300]))


def test_refuses_groupings_of_other_cases():
    with pytest.raises(ValueError, match="same cases"):
        agreement(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="known group"):
        agreement(np.zeros(3), np.zeros(3), known=np.zeros(3, bool))
