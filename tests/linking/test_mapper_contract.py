"""What every term mapper promises."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from bags import SIDE, planted
from safetensors.numpy import load, save
from sklearn.metrics import roc_auc_score

from phenotype.linking.mapper import CannotLearn, TermMapper
from phenotype.linking.mappers import DEFAULT, MAPPERS

# Fewer passes than by default: what is planted is easy, and the tests are many.
NETWORK = {"epochs": 9, "rate": 0.01, "batch": 16}
SETTINGS = {
    "patch-cnn": {"side": SIDE, "patches": 2500, "epochs": 4},
    "combined": {"epochs": 8, "ferns": 64},
    **dict.fromkeys(("noisy-or", "log-sum-exp", "top-k", "attention"), NETWORK),
}
# Labels inherited by a linear model, and the place alone, see less of what is planted: they are there to be beaten.
LEAST = {"inherited-logistic": (0.75, 0.65), "location": (0.8, 0.7), "attention": (0.8, 0.6)}

IMAGES = 150

every = pytest.mark.parametrize("name", sorted(MAPPERS))


def new(name):
    return MAPPERS[name](**SETTINGS.get(name, {}))


def bags_for(name, n, **more):
    return planted(n, patches=name == "patch-cnn", **more)


@cache
def learned(name, noise=0.0):
    return new(name).fit(bags_for(name, IMAGES, noise=noise)[0])


def region_aurocs(mapper, bags, where):
    scores = np.concatenate([mapper.score(bag.regions) for bag in bags])
    truth = np.concatenate(list(where))
    return np.array([roc_auc_score(truth[:, t], scores[:, t]) for t in range(2)])


@every
def test_shapes_and_silence(name):
    mapper: TermMapper = learned(name)
    bags, _, _ = bags_for(name, 2, seed=5)
    scores = mapper.score(bags[0].regions)
    assert scores.shape == (len(bags[0].regions), 3)
    assert scores.dtype == np.float64
    assert mapper.image_score(bags[0].regions).shape == (3,)
    assert mapper.score(bags[0].regions[:0]).shape == (0, 3)
    assert np.ptp(scores[:, 1]) > 0
    assert not scores[:, 2].any(), "of a term that nobody mentions nothing is known"
    assert mapper.image_score(bags[0].regions)[2] == 0
    with pytest.raises(ValueError, match="region"):
        mapper.image_score(bags[0].regions[:0])


@every
def test_finds_what_is_planted_also_where_reports_err(name):
    bags, _, where = bags_for(name, 60, seed=1)
    clean, noisy = (region_aurocs(learned(name, noise), bags, where) for noise in (0.0, 0.2))
    least, despite = LEAST.get(name, (0.85, 0.75))
    assert clean.mean() > least
    assert noisy.mean() > despite
    # Reports dealt out to other images: what is seen then does not point at the lesions.
    own, _, _ = bags_for(name, IMAGES)
    turn = np.random.default_rng(0).permutation(len(own))
    dealt = [
        replace(bag, states=own[i].states, probabilities=own[i].probabilities) for bag, i in zip(own, turn, strict=True)
    ]
    by_chance = region_aurocs(new(name).fit(dealt), bags, where)
    assert clean.mean() > by_chance.mean() + 0.1


@every
def test_the_same_twice_and_through_a_file(name):
    bags, _, _ = bags_for(name, 30, seed=2)
    one, other = new(name).fit(bags), new(name).fit(bags)
    arrays = one.to_arrays()
    assert arrays.keys() == other.to_arrays().keys()
    for key, value in other.to_arrays().items():
        np.testing.assert_array_equal(arrays[key], value, err_msg=key)
    again = MAPPERS[name].from_arrays(load(save({key: np.ascontiguousarray(v) for key, v in arrays.items()})))
    regions = bags[3].regions
    np.testing.assert_array_equal(again.score(regions), one.score(regions))
    np.testing.assert_array_equal(again.image_score(regions), one.image_score(regions))
    with pytest.raises(CannotLearn, match="missing"):
        MAPPERS[name].from_arrays({})


@every
def test_images_of_any_size_and_in_any_order(name):
    bags, _, where = bags_for(name, 80, seed=3)
    rng = np.random.default_rng(0)
    cut = []
    for bag in bags:
        kept = np.sort(rng.permutation(len(bag.regions))[: rng.integers(40, 65)])
        cut.append(replace(bag, regions=bag.regions[kept]))
    one = new(name).fit(cut)
    turned = new(name).fit(cut[::-1])
    assert region_aurocs(one, bags, where).mean() > 0.65
    if name in ("ferns", "location"):
        regions = bags[0].regions
        np.testing.assert_allclose(one.score(regions), turned.score(regions), atol=1e-9)
    # A region's score does not hang on its company, but for attention, which is shared out.
    if name not in ("attention", "combined"):
        regions = bags[0].regions
        np.testing.assert_allclose(one.score(regions)[5:9], one.score(regions[5:9]), atol=1e-4)


@every
def test_refuses_what_it_cannot_use(name):
    bags, _, _ = bags_for(name, 6)
    mapper = new(name)
    regions = bags[0].regions
    with pytest.raises(CannotLearn, match="fit"):
        mapper.score(regions)
    with pytest.raises(CannotLearn, match="no bags"):
        mapper.fit([])
    with pytest.raises(CannotLearn, match="finite"):
        mapper.fit([*bags[1:], replace(bags[0], regions=np.full_like(regions, np.nan))])
    with pytest.raises(CannotLearn, match="features"):
        mapper.fit([*bags[1:], replace(bags[0], regions=regions[:, 1:])])
    with pytest.raises(CannotLearn, match="between 0 and 1"):
        mapper.fit([*bags[1:], replace(bags[0], probabilities=np.array([0.1, np.nan, 0.2], np.float32))])
    with pytest.raises(CannotLearn, match="state"):
        mapper.fit([*bags[1:], replace(bags[0], states=np.array([0, 1, 4], np.int8))])
    with pytest.raises(CannotLearn, match="where"):
        mapper.fit([*bags[1:], replace(bags[0], where=np.ones((2, 2), bool))])
    fitted = learned(name)
    with pytest.raises(CannotLearn, match="features"):
        fitted.score(regions[:, 1:])
    with pytest.raises(CannotLearn, match="finite"):
        fitted.score(np.full_like(regions, np.inf))


def test_the_default_is_one_of_them():
    assert DEFAULT in MAPPERS
