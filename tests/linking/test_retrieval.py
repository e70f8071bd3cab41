"""Search: exact against brute force, blocks that change nothing, patients left out, figures worked out by hand."""

import math

import numpy as np
import pytest

from phenotype.linking import retrieval
from phenotype.linking.retrieval import (
    Exact,
    Inverted,
    Space,
    Standard,
    average_precision_at,
    highest,
    ndcg_at,
    nearest,
    precision_at,
)


@pytest.fixture
def gallery():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(3000, 16)).astype(np.float32)
    return vectors, rng.integers(0, 40, 3000), vectors[:20] + rng.normal(0, 0.3, (20, 16)).astype(np.float32)


def brute(vectors, queries, top, groups=None, own=None):
    far = ((queries[:, None, :].astype(np.float64) - vectors[None]) ** 2).sum(axis=2)
    if own is not None:
        far[own[:, None] == groups[None, :]] = np.inf
    return np.argsort(far, axis=1, kind="stable")[:, :top], np.sort(far, axis=1)[:, :top]


@pytest.mark.parametrize("rows", [1 << 15, 7])
def test_exact_search_is_brute_force_whatever_the_blocks(gallery, rows, monkeypatch):
    monkeypatch.setattr(retrieval, "_ROWS", rows)
    vectors, groups, queries = gallery
    own = groups[:20]
    pieces = [(vectors[i : i + 11], groups[i : i + 11]) for i in range(0, 3000, 11)]
    for asked in (None, own):
        found = nearest(queries, pieces, 10, asked)
        rows_expected, far = brute(vectors, queries, 10, groups, asked)
        np.testing.assert_array_equal(found.rows, rows_expected)
        np.testing.assert_allclose(found.distances, far, rtol=1e-5)
    assert not (groups[nearest(queries, pieces, 10, own).rows] == own[:, None]).any()


def test_fewer_than_asked_for_leaves_places_empty():
    found = nearest(np.zeros((1, 2)), [(np.eye(2, dtype=np.float32), np.array([0, 1]))], 5, [1])
    assert found.rows.tolist() == [[0, -1, -1, -1, -1]]
    assert found.distances.tolist() == [[1.0, *[math.inf] * 4]]


def test_equals_come_in_their_order():
    found = nearest(np.zeros((1, 1)), [(np.ones((1, 1), np.float32), np.zeros(1, np.int64))] * 4, 3)
    assert found.rows.tolist() == [[0, 1, 2]]


def test_inverted_file_finds_nearly_all_and_never_the_own_patient(gallery, tmp_path):
    pytest.importorskip("faiss", reason="the extra search is not installed")
    vectors, groups, queries = gallery
    index = Inverted(vectors[:2000], len(vectors), cells=16, probes=6)
    index.add(vectors[:1500], groups[:1500])
    index.add(vectors[1500:], groups[1500:])
    own = groups[:20]
    exact = Exact()
    exact.add(vectors, groups)
    wanted = exact.search(queries, 5, own)
    got = index.search(queries, 5, own)
    shared = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(wanted.rows.tolist(), got.rows.tolist(), strict=True)])
    assert shared > 0.8  # six of sixteen cells at random would find 0.37
    assert not (groups[got.rows] == own[:, None]).any()
    index.write(tmp_path / "x.ivf")
    again = Inverted.read(tmp_path / "x.ivf", groups, probes=6).search(queries, 5, own)
    np.testing.assert_array_equal(again.rows, got.rows)
    with pytest.raises(ValueError, match="other regions"):
        Inverted.read(tmp_path / "x.ivf", groups[:-1])


def test_weight_turns_from_look_to_meaning():
    rng = np.random.default_rng(2)
    features, profiles = rng.normal(3, 5, (500, 8)), rng.normal(-1, 0.1, (500, 3))
    looks, means = Standard.of([features[:100], features[100:]]), Standard.of([profiles])
    zf, zp = (features - features.mean(0)) / features.std(0), (profiles - profiles.mean(0)) / profiles.std(0)
    for weight in (0.0, 0.3, 1.0):
        vectors = Space(looks, means, weight).vectors(features, profiles)
        expected = (1 - weight) * ((zf[0] - zf[1]) ** 2).mean() + weight * ((zp[0] - zp[1]) ** 2).mean()
        assert ((vectors[0] - vectors[1]) ** 2).sum() == pytest.approx(expected, rel=1e-4)


def test_both_together_find_what_neither_finds():
    # two kinds that only the profile tells apart, in two places that only the features tell apart
    rng = np.random.default_rng(3)
    place, kind = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    features = np.column_stack([3.0 * place, *rng.normal(size=(3, 400))])
    profiles = np.column_stack([3.0 * kind, *rng.normal(size=(1, 400))])
    looks, means, groups = Standard.of([features]), Standard.of([profiles]), np.arange(400)

    def right(weight):
        vectors = Space(looks, means, weight).vectors(features, profiles)
        found = nearest(vectors, [(vectors, groups)], 10, groups).rows
        return np.mean((place[found] == place[:, None]) & (kind[found] == kind[:, None]))

    both = right(0.5)
    assert both > 0.85
    assert both > 1.4 * max(right(0.0), right(1.0))


def test_a_constant_column_says_nothing():
    standard = Standard.of([np.full((10, 1), 1e6), np.full((5, 1), 1e6)])
    assert standard(np.full((2, 1), 1e6)).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize("weight", [-0.1, 1.5])
def test_weights_out_of_range_are_refused(weight):
    with pytest.raises(ValueError, match="between 0"):
        Space(Standard.of([np.eye(2)]), Standard.of([np.eye(2)]), weight)


def test_without_terms_only_looks_can_be_compared():
    none = Standard.of([np.zeros((3, 0))])
    with pytest.raises(ValueError, match="no term was mapped"):
        Space(Standard.of([np.eye(3)]), none, 0.5)
    assert Space(Standard.of([np.eye(3)]), none, 0.0).vectors(np.eye(3), np.zeros((3, 0))).shape == (3, 3)


def test_highest_scores_of_a_stream():
    rng = np.random.default_rng(4)
    scores, groups = rng.normal(size=1000).astype(np.float32), np.repeat(np.arange(10), 100)
    pieces = [(scores[i : i + 64], groups[i : i + 64]) for i in range(0, 1000, 64)]
    rows, values = highest(pieces, 7, own=3)
    expected = [i for i in np.argsort(-scores, kind="stable") if groups[i] != 3][:7]
    assert rows.tolist() == expected
    assert values.tolist() == scores[expected].tolist()


def test_figures_by_hand():
    relevant = [[True, False, True, False]]
    assert precision_at(relevant, 4).tolist() == [0.5]
    assert average_precision_at(relevant, 4, [3])[0] == pytest.approx((1 + 2 / 3) / 3)
    assert ndcg_at(relevant, 4, [2])[0] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))
    assert np.isnan(ndcg_at([[False]], 1, [0]))[0]
    assert average_precision_at([[True] * 50], 50, [400])[0] == 1.0
