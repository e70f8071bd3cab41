"""Phenotypes: planted groups are found, none are found where there are none, and stability tells the two apart."""

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.datasets import load_iris
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from phenotype.clustering.models import Mixture, from_arrays
from phenotype.clustering.phenotypes import _bic, find_phenotypes


def planted(n, k, *, apart, seed, dimensions=20):
    """Cases of k groups at this distance from the origin in unit noise, mixed into columns of very different scale."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, dimensions))
    centers *= apart / np.linalg.norm(centers, axis=1, keepdims=True)
    groups = rng.choice(k, n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    return (centers[groups] + rng.normal(size=(n, dimensions))) * np.geomspace(1e-3, 1e3, dimensions) + 7, groups


@pytest.mark.parametrize("seed", range(3))
def test_separated_groups_are_recovered_and_stable(seed):
    cases, groups = planted(300, 4, apart=6, seed=seed)
    found = find_phenotypes(cases, resamples=20, halves=4)
    assert found.model.k == 4  # chosen by BIC among 1 to 10
    assert adjusted_rand_score(groups, found.labels) > 0.95
    assert found.stable.all()
    assert found.split_half_ari > 0.9
    assert found.sizes.tolist() == sorted(np.bincount(groups), reverse=True)
    assert np.array_equal(found.responsibilities.argmax(axis=1), found.labels)
    assert np.allclose(found.responsibilities.sum(axis=1), 1)


@pytest.mark.parametrize("seed", range(3))
def test_where_there_is_no_structure_none_is_claimed(seed):
    cases = np.random.default_rng(seed).normal(size=(300, 20))
    found = find_phenotypes(cases, resamples=5, halves=2)
    assert found.model.k == 1
    assert found.stability.tolist() == [0.0]
    assert found.split_half_ari is None
    forced = find_phenotypes(cases, k_range=(4, 4), resamples=20, halves=4)
    assert forced.model.k == 4
    assert forced.stability.max() < 0.6
    assert not forced.stable.any()
    assert forced.split_half_ari < 0.2


def test_the_number_of_groups_by_stability():
    cases, groups = planted(300, 3, apart=6, seed=1)
    found = find_phenotypes(cases, choose="stability", k_range=(1, 6), resamples=10, halves=2)
    assert found.model.k == 3
    assert adjusted_rand_score(groups, found.labels) > 0.95
    assert [c.k for c in found.candidates] == [2, 3, 4, 5, 6]
    # Two groups may be as stable as the three (the two nearest taken as one): BIC decides between equals.
    assert found.candidates[1].stability == max(c.stability for c in found.candidates) > 0.95


def test_dense_groups_and_cases_of_none():
    cases, groups = planted(300, 3, apart=10, seed=0, dimensions=4)
    far = np.random.default_rng(1).uniform(-60, 60, size=(30, 4)) * np.geomspace(1e-3, 1e3, 4) + 7
    everything = np.vstack([cases, far])
    found = find_phenotypes(everything, method="density", resamples=10, halves=2)
    assert found.model.k == 3
    assert adjusted_rand_score(groups, found.labels[:300]) > 0.9
    assert (found.labels[300:] == -1).mean() > 0.8
    assert (found.responsibilities[found.labels == -1] == 0).all()
    nothing = find_phenotypes(np.random.default_rng(0).normal(size=(200, 10)), method="density", resamples=3)
    assert nothing.model.k == 0
    assert (nothing.labels == -1).all()
    assert nothing.responsibilities.shape == (200, 0)


@pytest.mark.parametrize("method", ["mixture", "density"])
def test_a_found_model_is_kept_and_applied_to_new_cases(method):
    cases, groups = planted(600, 3, apart=10, seed=2, dimensions=4)
    found = find_phenotypes(cases[:400], method=method, resamples=3, halves=2)
    model = from_arrays(load(save(found.model.to_arrays())))
    old, new = model.assign(cases[:400]), model.assign(cases[400:])
    assert np.array_equal(old.labels, found.labels)
    assert np.array_equal(old.responsibilities, found.responsibilities)
    assert adjusted_rand_score(groups[400:], new.labels) > 0.85
    # Case by case as in company: to the last bit it may differ, the phenotype may not.
    assert np.array_equal(np.concatenate([model.assign(case[None]).labels for case in cases[400:]]), new.labels)


def test_responsibilities_and_bic_are_those_of_the_mixture():
    cases, _ = planted(200, 3, apart=4, seed=0)
    found = find_phenotypes(cases, k_range=(3, 3), resamples=1, halves=1)
    model = found.model
    assert isinstance(model, Mixture)
    points = model.space.place(cases)
    assert np.allclose(np.cov(points.T, bias=True), np.eye(points.shape[1]), atol=1e-8)
    mixture = GaussianMixture(3, covariance_type="full")
    mixture.weights_, mixture.means_, mixture.precisions_cholesky_ = model.weights, model.means, model.roots
    mixture.covariances_ = mixture.precisions_cholesky_
    assert np.allclose(mixture.predict_proba(points), found.responsibilities)
    assert _bic(model, cases, "full") == pytest.approx(mixture.bic(points))


def test_same_seed_same_result():
    cases, _ = planted(200, 4, apart=3, seed=0)
    one, two = (find_phenotypes(cases, k_range=(3, 4), resamples=5, halves=2, seed=9) for _ in range(2))
    assert one.candidates == two.candidates
    assert np.array_equal(one.labels, two.labels)
    assert np.array_equal(one.stability, two.stability)
    assert one.split_half_ari == two.split_half_ari
    other = find_phenotypes(cases, k_range=(3, 4), resamples=5, halves=2, seed=10)
    assert not np.array_equal(one.stability, other.stability)


def test_cases_of_a_patient_are_drawn_together():
    # 30 patients with 10 like cases each: the cases make tight groups, and would be "stable" if they were drawn alone.
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(30), 10)
    cases = np.repeat(rng.normal(size=(30, 6)), 10, axis=0) + 0.05 * rng.normal(size=(300, 6))
    alone = find_phenotypes(cases, k_range=(8, 8), min_cases=3, resamples=10, halves=4)
    together = find_phenotypes(cases, patients, k_range=(8, 8), min_cases=3, resamples=10, halves=4)
    assert np.array_equal(alone.labels, together.labels)
    assert together.split_half_ari < alone.split_half_ari - 0.2


def test_real_flowers():
    cases, species = load_iris(return_X_y=True)
    found = find_phenotypes(cases, resamples=20, halves=4)
    assert adjusted_rand_score(species, found.labels) > 0.5
    setosa = found.labels[species == 0]
    assert len(set(setosa.tolist())) == 1  # the species that is truly apart
    assert found.stability[setosa[0]] > 0.9


def test_refuses_what_it_cannot_cluster():
    cases, _ = planted(100, 2, apart=5, seed=0)
    with pytest.raises(ValueError, match="min_cases patients"):
        find_phenotypes(cases[:15])
    with pytest.raises(ValueError, match="min_cases patients"):
        find_phenotypes(cases, np.arange(100) % 5)
    with pytest.raises(ValueError, match="one entry for each case"):
        find_phenotypes(cases, np.arange(99))
    with pytest.raises(ValueError, match="finite"):
        find_phenotypes(np.where(cases > 7, np.nan, cases))
    with pytest.raises(ValueError, match="no descriptor varies"):
        find_phenotypes(np.ones((100, 3)))
    found = find_phenotypes(cases, k_range=(2, 2), resamples=1, halves=1)
    with pytest.raises(ValueError, match="20"):
        found.model.assign(cases[:, :5])
    with pytest.raises(ValueError, match="weights"):
        from_arrays({k: v for k, v in found.model.to_arrays().items() if k != "weights"})
    # A column that never varied among the old cases says nothing of new ones.
    constant = find_phenotypes(np.hstack([cases, np.ones((100, 1))]), k_range=(2, 2), resamples=1, halves=1).model
    moved = np.hstack([cases, np.full((100, 1), 50.0)])
    assert np.array_equal(constant.assign(moved).labels, found.labels)
