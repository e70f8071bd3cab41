"""Scores are chosen without labels, and nearly as well as with them."""

from __future__ import annotations

import numpy as np
import pytest
from model_images import Images, normal, with_spot
from sklearn.metrics import roc_auc_score

from phenotype.models import build
from phenotype.models.choice import aucp, choose, choose_model, image_scores, variants
from phenotype.models.train import train

SIZE = 32


def candidates(rng, share, strengths):
    """Scores of a pool with a share of sick images, that candidates tell apart differently well, or upside down."""
    sick = rng.random(300) < share
    return sick, {str(s): (rng.normal(size=150), rng.normal(size=300) + s * sick) for s in strengths}


def test_the_choice_has_little_regret():
    rng = np.random.default_rng(2)
    regrets, of_a_guess = [], []
    for _ in range(100):
        sick, scores = candidates(rng, 0.4, (-1.0, 0.0, 0.5, 1.0, 2.0))
        truth = {name: roc_auc_score(sick, pool) for name, (_, pool) in scores.items()}
        regrets.append(choose(scores).regret(truth))
        of_a_guess.append(max(truth.values()) - np.mean(list(truth.values())))
    assert np.mean(regrets) < 0.01 and np.mean(of_a_guess) > 0.2


def test_without_disease_in_the_pool_there_is_nothing_to_choose_by():
    """The control: then all AUCp are 0.5 but for chance."""
    rng = np.random.default_rng(3)
    _, scores = candidates(rng, 0.0, (0.5, 2.0))
    assert all(abs(value - 0.5) < 0.1 for value in choose(scores).aucp.values())


def test_choice_by_hand():
    found = choose({"a": ([0, 1], [0.5, 0.5]), "b": ([0, 1], [2, 3]), "c": ([0, 1], [2, 2])})
    assert found.chosen == "b" and found.aucp == {"a": 0.5, "b": 1.0, "c": 1.0}
    assert found.regret({"a": 0.9, "b": 0.7, "c": 0.6}) == pytest.approx(0.2)
    with pytest.raises(ValueError, match="nothing to choose"):
        choose({})
    with pytest.raises(ValueError, match="finite"):
        choose({"a": ([0, np.nan], [1, 2])})


def test_a_trained_model_is_chosen_over_an_untrained_one(tmp_path):
    training = Images(normal(120, SIZE, seed=1))
    trained = build("cae", SIZE, seed=1, width=8)
    settings = {"batch_size": 16, "seed": 1, "learning_rate": 2e-3, "checkpoint_every": 1000}
    train(trained, training, folder=tmp_path, steps=150, **settings)
    held_out = Images(normal(60, SIZE, seed=2))
    pool = Images(np.concatenate([normal(30, SIZE, seed=3), with_spot(normal(30, SIZE, seed=4), 5)[0]]))
    models = {"untrained": build("cae", SIZE, seed=1, width=8), "trained": trained} | variants(
        trained, reduction=("max",), term=("residual", "both")
    )
    found = choose_model(models, held_out, pool)
    truth = np.repeat([0, 1], 30)
    auroc = {name: roc_auc_score(truth, image_scores(model, pool)) for name, model in models.items()}
    print(found, auroc)
    assert found.chosen != "untrained" and found.regret(auroc) <= 0.03
    assert found.aucp["trained"] == pytest.approx(aucp(trained, held_out, pool))


def test_variants_share_weights_and_nothing_else():
    model = build("cae", SIZE, seed=1, width=8)
    images = Images(normal(6, SIZE, seed=1))
    highest = variants(model, reduction=("max",))["reduction=max"]
    assert (image_scores(highest, images) > image_scores(model, images)).all()
    assert model.recipe.reduction == "mean" and highest.recipe.reduction == "max"
    with pytest.raises(ValueError, match="not 'colour'"):
        variants(model, colour=(3,))
    with pytest.raises(ValueError, match="reduction"):
        variants(model, reduction=("best",))
    with pytest.raises(ValueError, match="not 'latent'"):
        variants(model, latent=(8,))
