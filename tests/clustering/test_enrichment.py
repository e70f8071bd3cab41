"""Over-representation: the test by hand, planted pairs found, nothing found where there is nothing."""

from math import comb

import numpy as np
import pytest
from scipy.stats import false_discovery_control, fisher_exact, hypergeom

from phenotype.clustering.enrichment import NO_TERM, Cases, enrich, name_cluster


def some_cases(n, seed, *, k=5, terms=12, planted=(), said=0.8):
    """Clusters and reported terms independent of each other, but for the planted pairs (cluster, term)."""
    rng = np.random.default_rng(seed)
    clusters = rng.integers(0, k, n)
    chance = np.full((n, terms), 0.2)
    for cluster, term in planted:
        chance[clusters == cluster, term] = 0.6
    states = (rng.random((n, terms)) < chance).astype(float)
    states[rng.random((n, terms)) > said] = np.nan
    return Cases(clusters, states)


def test_against_scipy_by_hand():
    # One term: 20 known cases, 8 with it; cluster 0 has 6 known cases, 5 with it.
    clusters = np.array([0] * 6 + [1] * 9 + [-1] * 5 + [0] * 4)
    states = np.array([[1.0] * 5 + [0.0] + [1.0] * 3 + [0.0] * 11 + [np.nan] * 4]).T
    row = enrich(Cases(clusters, states), descriptors_saw_reports=False)[0]
    assert (row.cluster, row.term, row.cases, row.cluster_known, row.present, row.known) == (0, 0, 5, 6, 8, 20)
    by_hand = sum(comb(8, x) * comb(12, 6 - x) for x in (5, 6)) / comb(20, 6)
    assert row.p_value == pytest.approx(by_hand)
    assert row.p_value == pytest.approx(hypergeom.sf(4, 20, 8, 6))
    assert row.p_value == pytest.approx(fisher_exact([[5, 1], [3, 11]], alternative="greater").pvalue)
    assert row.expected == pytest.approx(6 * 8 / 20)
    assert row.fold == pytest.approx(5 / 2.4)
    assert row.odds_ratio == pytest.approx(5.5 * 11.5 / (1.5 * 3.5))
    assert (row.held_out_fold, row.held_out_p, row.replicated) == (None, None, None)
    # Silence as denial: the four cases of cluster 0 that say nothing join in.
    row = enrich(Cases(clusters, states), descriptors_saw_reports=False, unmentioned="absent")[0]
    assert (row.cases, row.cluster_known, row.present, row.known) == (5, 10, 8, 24)
    assert row.p_value == pytest.approx(hypergeom.sf(4, 24, 8, 10))


def test_q_values_are_benjamini_hochberg_over_all_pairs():
    rows = enrich(some_cases(300, 0, planted=[(1, 2)]), descriptors_saw_reports=False)
    assert len(rows) == 5 * 12
    assert [r.q_value for r in rows] == pytest.approx(false_discovery_control([r.p_value for r in rows]))
    assert [(r.cluster, r.p_value) for r in rows] == sorted((r.cluster, r.p_value) for r in rows)


def test_independent_labels_make_about_no_discoveries():
    seeds = range(40)
    with_any = pairs = small = 0
    for seed in seeds:
        rows = enrich(some_cases(400, seed), some_cases(200, 1000 + seed), descriptors_saw_reports=False)
        with_any += any(r.q_value <= 0.05 for r in rows)
        pairs += len(rows)
        small += sum(r.p_value <= 0.05 for r in rows)
        assert sum(r.q_value <= 0.05 and bool(r.replicated) for r in rows) == 0
    assert with_any <= 5  # expected: at most 5 % of 40; more than 5 has a chance of 1.4 %
    assert 0.01 < small / pairs < 0.06  # p-values are neither too small nor asleep (they are discrete: below 0.05)


def test_planted_pairs_are_found_named_and_replicated():
    planted = [(0, 3), (2, 7), (2, 8)]
    for seed in range(10):
        found, aside = some_cases(400, seed, planted=planted), some_cases(200, 1000 + seed, planted=planted)
        rows = enrich(found, aside, descriptors_saw_reports=False)
        discovered = {(r.cluster, r.term) for r in rows if r.q_value <= 0.01}
        assert discovered >= set(planted)
        assert len(discovered) <= len(planted) + 1
        again = {(r.cluster, r.term): r for r in rows}
        assert all(again[pair].replicated and again[pair].held_out_fold > 1.5 for pair in planted)
    names = [f"term {t}" for t in range(12)]
    assert set(name_cluster(rows, 2, names).split(", ")) == {"term 7", "term 8"}
    assert name_cluster(rows, 2, names, most=1) in {"term 7", "term 8"}
    assert name_cluster(rows, 1, names) == NO_TERM


def test_what_held_out_patients_refute_gives_no_name():
    found = some_cases(400, 0, planted=[(0, 3)])
    rows = enrich(found, some_cases(200, 1), descriptors_saw_reports=False)
    row = next(r for r in rows if (r.cluster, r.term) == (0, 3))
    assert row.q_value < 0.01
    assert row.replicated is False
    assert name_cluster(rows, 0, [str(t) for t in range(12)]) == NO_TERM
    # Held out, but too few to tell: not refuted.
    rows = enrich(found, some_cases(15, 1), descriptors_saw_reports=False)
    assert next(r for r in rows if (r.cluster, r.term) == (0, 3)).replicated is None
    assert name_cluster(rows, 0, [str(t) for t in range(12)]) == "3"


def test_descriptors_that_saw_the_reports_are_tested_in_held_out_patients_only():
    # Reports invented at random; the descriptors of the first cases have learned them by heart, as an overfitted mapper
    # does, and cannot know those of the others.
    false_inside = false_outside = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        states = (rng.random((600, 8)) < 0.25).astype(float)
        leak = np.where(np.arange(600)[:, None] < 400, states, rng.random((600, 8)) < 0.25)
        clusters = (leak + 0.5 * rng.normal(size=(600, 8))).argmax(axis=1)
        found, aside = Cases(clusters[:400], states[:400]), Cases(clusters[400:], states[400:])
        false_inside += sum(r.q_value <= 0.05 for r in enrich(found, descriptors_saw_reports=False))
        rows = enrich(found, aside, descriptors_saw_reports=True)
        assert {r.known for r in rows} == {200}
        assert all(r.replicated is None for r in rows)
        false_outside += sum(r.q_value <= 0.05 for r in rows)
    assert false_inside > 100  # what the refusal guards against
    assert false_outside <= 3
    with pytest.raises(ValueError, match="held-out patients"):
        enrich(found, descriptors_saw_reports=True)


def test_pairs_with_too_few_cases_are_not_tested():
    cases = some_cases(200, 0)
    states = cases.states.copy()
    states[:, 0] = np.nan  # never mentioned
    states[:, 1] = np.where(np.isnan(states[:, 1]), np.nan, 1.0)  # never denied
    states[:, 2] = 0.0  # never there
    clusters = cases.clusters.copy()
    clusters[:4] = 77  # a cluster of four
    rows = enrich(Cases(clusters, states), descriptors_saw_reports=False)
    assert {r.term for r in rows} == set(range(3, 12))
    assert 77 not in {r.cluster for r in rows}
    assert enrich(Cases(clusters, states[:, :1]), descriptors_saw_reports=False) == []
    with pytest.raises(ValueError, match="states"):
        enrich(Cases(clusters[:-1], states), descriptors_saw_reports=False)
