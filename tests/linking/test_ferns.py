"""Random-fern semantic profiles: what they find in planted images, and the promises of counting."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save
from sklearn.metrics import roc_auc_score

from phenotype.linking.ferns import FernMapper, Incompatible, NotPrepared


def region_auroc(mapper, images):
    profile = np.concatenate([mapper.score(image.regions) for image in images])
    where = np.concatenate([image.where for image in images])
    return np.array([roc_auc_score(where[:, t], profile[:, t]) for t in range(where.shape[1])])


def small(**parameters):
    return FernMapper(ferns=7, depth=3, seed=3, **parameters)


def random_bags(rng, n, terms=3):
    """Bags of 0 to 12 regions, labels of every kind: denied, uncertain, present, not mentioned."""
    states = np.array([0.0, 0.3, 0.77, 1.0, np.nan])
    return [(rng.normal(size=(rng.integers(0, 13), 4)).astype(np.float32), rng.choice(states, terms)) for _ in range(n)]


def same(one, other):
    return np.array_equal(one.counts_, other.counts_) and np.array_equal(one.positives_, other.positives_)


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.90), (0.2, 0.80)])
def test_finds_the_regions_from_labels_of_whole_images(images, noise, least):
    learn, look = images(300, noise=noise, seed=0), images(100, noise=0, seed=1)
    mapper = FernMapper().fit((image.regions, image.reported) for image in learn)
    found = region_auroc(mapper, look)
    assert found.mean() > least
    assert found.min() > 0.75
    # The same reports dealt out to other images: nothing to learn, nothing found.
    deal = np.random.default_rng(5).permutation(len(learn))
    chance = [
        FernMapper().fit((a.regions, learn[b].reported) for a, b in zip(learn, order, strict=True))
        for order in (deal, deal[::-1], np.roll(deal, 50))
    ]
    by_chance = np.mean([region_auroc(mapper, look) for mapper in chance])
    assert abs(by_chance - 0.5) < 0.08
    assert found.min() > by_chance + 0.15


def test_not_mentioned_is_not_denied(images):
    learn, look = images(300, noise=0, seed=0), images(100, noise=0, seed=1)
    rng = np.random.default_rng(2)
    unsaid = rng.random((len(learn), 4)) < 0.6
    bags = [(i.regions, np.where(u, np.nan, i.reported)) for i, u in zip(learn, unsaid, strict=True)]
    left_out = FernMapper().fit(bags)
    as_denial = FernMapper(unmentioned_weight=1.0).fit(bags)
    known = ~unsaid
    reported = np.stack([i.reported for i in learn])
    assert np.allclose(left_out.prior(), (reported * known).sum(0) / known.sum(0))
    assert np.allclose(as_denial.prior(), (reported * known).sum(0) / len(learn))
    assert region_auroc(left_out, look).mean() > region_auroc(as_denial, look).mean() > 0.8
    # Reports that never deny: no contrast, hence silence, until silence itself is given a weight.
    only_present = [(i.regions, np.where(i.reported > 0, 1.0, np.nan)) for i in learn]
    assert not FernMapper().fit(only_present).score(look[0].regions).any()
    assert region_auroc(FernMapper(unmentioned_weight=0.5).fit(only_present), look).mean() > 0.9


def test_uncertain_labels_count_by_their_probability():
    rng = np.random.default_rng(0)
    regions = rng.normal(size=(50, 4)).astype(np.float32)
    mapper = small(unmentioned_weight=0.25, unmentioned_probability=0.5).fit(
        [(regions, np.array([1.0, 0.25, 0.0, np.nan]))]
    )
    cells = mapper.cells(regions)
    in_first = cells[:, 0] == cells[0, 0]
    traces = [mapper.traces(regions[0], term)[0] for term in range(4)]
    assert [t.n for t in traces] == [in_first.sum()] * 3 + [0.25 * in_first.sum()]
    assert [t.n_positive for t in traces] == [in_first.sum() * p for p in (1, 0.25, 0, 0.125)]


def test_a_term_without_a_positive_or_a_known_label_scores_nothing():
    rng = np.random.default_rng(0)
    labels = np.array([0.0, np.nan, 1.0])
    mapper = small().fit([(rng.normal(size=(30, 4)), labels) for _ in range(5)])
    assert not mapper.score(rng.normal(size=(9, 4))).any()
    assert np.array_equal(mapper.prior(), [0.0, np.nan, 1.0], equal_nan=True)


def test_traces_add_up_to_the_score(images):
    learn = images(60, noise=0.2, seed=0)
    mapper = FernMapper(ferns=40, depth=5, smoothing=7).fit((i.regions, i.reported) for i in learn)
    regions = images(1, noise=0, seed=1)[0].regions
    score, cells, prior = mapper.score(regions), mapper.cells(regions), mapper.prior()
    for region, term in [(0, 0), (17, 3), (99, 2)]:
        traces = mapper.traces(regions[region], term)
        assert [t.cell for t in traces] == cells[region].tolist()
        assert sum(t.contribution for t in traces) == pytest.approx(score[region, term], rel=1e-12)
        for t in traces:
            rate = (t.n_positive + 7 * prior[term]) / (t.n + 7)
            assert t.contribution == pytest.approx(np.log(rate / prior[term]) / 40, rel=1e-12)
    # The numbers in a trace are those of the training regions that fell into its cell.
    t = mapper.traces(regions[17], 3)[11]
    fell = [(mapper.cells(i.regions)[:, 11] == t.cell).sum() for i in learn]
    assert t.n == sum(fell)
    assert t.n_positive == sum(n * i.reported[3] for n, i in zip(fell, learn, strict=True))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(12)), cuts=st.sets(st.integers(1, 11), max_size=5))
def test_merging_is_exact_in_any_order_and_grouping(seed, order, cuts):
    bags = random_bags(np.random.default_rng(seed), 12)
    asked = small(unmentioned_weight=0.1, unmentioned_probability=0.3)
    asked.prepare(np.random.default_rng(1).normal(size=(100, 4)))
    whole = asked.empty().partial_fit(bags)
    parts = [asked.empty().partial_fit(bags[i] for i in order[a:b]) for a, b in pairwise([0, *sorted(cuts), len(bags)])]
    left = asked.empty()
    for part in parts:
        left = left.merge(part)
    right = asked.empty()
    for part in parts:
        right = part.merge(right)
    regions = np.random.default_rng(2).normal(size=(20, 4))
    for merged in (left, right):
        assert same(whole, merged)
        assert np.array_equal(whole.score(regions), merged.score(regions))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_streaming_equals_batch(seed):
    rng = np.random.default_rng(seed)
    bags = [*random_bags(rng, 30), (rng.normal(size=(9000, 4)), np.array([1.0, 0.2, np.nan]))]  # one above a block
    batch = small().fit(bags, sample=100)
    assert same(batch, small().fit(iter(bags), sample=100))
    streamed = batch.empty()
    for bag in bags:
        streamed.partial_fit(iter([bag]))
    assert same(batch, streamed)
    # Also in scoring, a region's cells do not hang on its company.
    regions = bags[-1][0][4090:4110]
    assert np.array_equal(batch.score(bags[-1][0])[4090:4110], np.vstack([batch.score(r[None]) for r in regions]))


def test_a_merged_table_does_not_change_with_its_parts():
    rng = np.random.default_rng(0)
    part = small().prepare(rng.normal(size=(50, 4)))
    merged = part.partial_fit(random_bags(rng, 5)).merge(part.empty())
    before = merged.counts_.copy()
    part.partial_fit(random_bags(rng, 5))
    assert np.array_equal(merged.counts_, before)


def test_cells_are_balanced_on_skewed_features():
    rng = np.random.default_rng(0)
    regions = np.exp(3 * rng.normal(size=(5000, 6)))
    mapper = FernMapper(ferns=20, depth=4).prepare(regions)
    cells = mapper.cells(regions)
    largest = [np.bincount(cells[:, f], minlength=16).max() / len(cells) for f in range(20)]
    assert np.median(largest) < 0.5  # with thresholds spread evenly over the range, nearly all fall into one cell


def test_same_seed_same_table_other_seed_other_questions():
    bags = random_bags(np.random.default_rng(0), 20)
    assert same(small().fit(bags), small().fit(bags))
    assert not np.array_equal(small().fit(bags).features_, FernMapper(ferns=7, depth=3, seed=4).fit(bags).features_)


def test_keeps_through_safetensors():
    rng = np.random.default_rng(0)
    mapper = small(unmentioned_weight=0.1).fit(random_bags(rng, 20))
    again = FernMapper.from_arrays(load(save(mapper.to_arrays())))
    regions = rng.normal(size=(20, 4))
    assert np.array_equal(mapper.score(regions), again.score(regions))
    assert same(mapper.merge(again), mapper.merge(mapper))
    arrays = mapper.to_arrays()
    with pytest.raises(Incompatible, match="thresholds"):
        FernMapper.from_arrays({k: v for k, v in arrays.items() if k != "thresholds"})
    with pytest.raises(Incompatible, match="fit each other"):
        FernMapper.from_arrays({**arrays, "counts": arrays["counts"][:-1]})


def test_refuses_what_it_cannot_count():
    rng = np.random.default_rng(0)
    bags = random_bags(rng, 20)
    mapper = small().fit(bags)
    with pytest.raises(NotPrepared):
        small().partial_fit(bags)
    with pytest.raises(NotPrepared):
        small().prepare(rng.normal(size=(10, 4))).score(rng.normal(size=(10, 4)))
    with pytest.raises(NotPrepared):
        small().fit([])
    with pytest.raises(Incompatible, match="features"):
        mapper.score(np.zeros((1, 5)))
    with pytest.raises(Incompatible, match="finite"):
        mapper.score(np.full((1, 4), np.nan))
    with pytest.raises(Incompatible, match="between 0 and 1"):
        mapper.partial_fit([(np.zeros((1, 4)), np.array([0, 1, 1.5]))])
    with pytest.raises(Incompatible, match="terms"):
        mapper.partial_fit([(np.zeros((1, 4)), np.array([0, 1]))])
    with pytest.raises(Incompatible, match="questions"):
        mapper.merge(FernMapper(ferns=7, depth=3, seed=4).fit(bags))
    with pytest.raises(Incompatible, match="varies"):
        small().prepare(np.ones((10, 4)))
