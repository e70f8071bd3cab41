"""Texture in a common space, networks that saw planted changes, and their sum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal, opaque
from sklearn.metrics import roc_auc_score

from phenotype.models import build
from phenotype.models.changes import KINDS, _changed, change, nuisance, regions
from phenotype.models.texture import equalised
from phenotype.models.train import train

SIZE = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    model = build("radiograph", SIZE, seed=1, networks=2, width=8)
    train(
        model,
        Images(normal(80, SIZE, seed=1)),
        folder=tmp_path_factory.mktemp("radiograph"),
        steps=60,
        batch_size=16,
        seed=1,
        learning_rate=2e-3,
        checkpoint_every=1000,
    )
    return model


@pytest.mark.parametrize("term", ["asymmetry", "energy", "pixels", "gradients", "max", "networks"])
def test_an_opacity_in_one_lung_is_found(trained, term):
    healthy = normal(40, SIZE, seed=2)
    model = trained.scored_by(term=term)
    of_healthy, _ = model.score(torch.from_numpy(healthy))
    of_sick, maps = model.score(torch.from_numpy(opaque(normal(40, SIZE, seed=3))))
    found = roc_auc_score(np.repeat([0, 1], 40), torch.cat([of_healthy, of_sick]))
    print(f"{term}: AUROC {found:.3f}")
    assert found > 0.9
    if term not in ("asymmetry", "networks"):  # one says only that two sides differ, the other sees places of 8 pixels
        assert maps[:, 10:22, 6:14].mean() > maps[:, 10:22, 18:26].mean()


def test_asymmetry_rises_with_a_lesion_of_one_side_and_more_than_with_one_of_both(trained):
    healthy = normal(40, SIZE, seed=4)
    one = opaque(healthy)
    both = opaque(one[..., ::-1])
    scores = [
        trained.parts(trained._described(torch.from_numpy(x.copy()))[0])["asymmetry"].median()
        for x in (healthy, one, both)
    ]
    assert scores[1] > scores[0] + 2
    assert scores[2] < scores[1] - 0.5


def test_the_score_does_not_follow_exposure(trained):
    """A gamma of 0.8 moves scores by less than half of what healthy images differ by."""
    x = torch.from_numpy(normal(40, SIZE, seed=5))
    scores, other = (trained.scored_by(term="asymmetry").score(images)[0] for images in (x, x**0.8))
    assert (scores - other).abs().median() < 0.5 * scores.std()


def test_images_that_scores_are_standardised_on_are_a_fifth_and_always_the_same(trained):
    x = torch.from_numpy(normal(80, SIZE, seed=1))
    held = trained.held_out(x)
    assert int(held.sum()) == 16
    assert torch.equal(held, torch.cat([trained.held_out(one[None]) for one in x]))
    assert trained.memory.shape[0] == 64


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="at least 10 images, not 4"):
        build("texture", SIZE).prepare(Images(normal(4, SIZE, seed=1)), 0)


def test_equalised_values_are_shares_of_darker_pixels():
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    ranks = (x.flatten(1)[:, :, None] > x.flatten(1)[:, None]).double().mean(2).view_as(x)
    torch.testing.assert_close(equalised(x), ranks, atol=0.01, rtol=0)
    torch.testing.assert_close(equalised(x**2), ranks, atol=0.04, rtol=0)


@pytest.mark.parametrize("kind", sorted(set(KINDS)))
def test_each_change_stays_in_its_region(kind):
    random = torch.Generator().manual_seed(3)
    x, other = torch.from_numpy(normal(2, SIZE, seed=6)).split(1)
    where = torch.zeros(1, 1, SIZE, SIZE)
    where[..., 8:20, 8:20] = 1.0
    changed = _changed(kind, x, other, where, torch.tensor(0.3), torch.tensor(0.05), random)
    away = (changed - x).abs()
    assert away[where > 0].mean() > 5e-4
    torch.testing.assert_close(changed[where == 0], x[where == 0], atol=1e-5, rtol=0)


def test_regions_lie_in_the_lungs_and_chance_comes_from_the_generator_alone():
    lungs = torch.zeros(1, 1, SIZE, SIZE)
    lungs[..., 6:26, 4:14] = 1.0
    made = [regions(8, lungs, torch.Generator().manual_seed(5)) for _ in range(2)]
    assert torch.equal(*made)
    assert made[0].min() >= 0 and made[0].max() <= 1 and not made[0][:, lungs[0] == 0].any()
    x = torch.from_numpy(normal(8, SIZE, seed=7))
    for seed in (1, 2):
        one, two = (change(x, x.flip(0), lungs, torch.Generator().manual_seed(seed))[0] for _ in range(2))
        assert torch.equal(one, two)
        assert ((one - x).abs().amax((1, 2, 3)) > 0.01).float().mean() > 0.7
    varied = nuisance(x, torch.Generator().manual_seed(1))
    assert varied.min() >= 0 and varied.max() <= 1 and not torch.equal(varied, x)
