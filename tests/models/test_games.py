"""The adversarial game on numbers: what is learnt, and what a plain GAN loses that a Wasserstein GAN keeps."""

from __future__ import annotations

import pytest
import torch

from phenotype.models.games import Coverage, coverage, mixture, play, ring

SIGMA = 0.1


def last(*args, **settings):
    """Samples of the generator at the end of a game."""
    return play(*args, **settings)[-1].samples


def test_a_generator_learns_a_normal_distribution():
    reality = mixture(torch.tensor([[3.0]]), 0.5)
    game = play(reality, "non-saturating", steps=300, seed=1, width=32, grid=torch.tensor([[3.0], [0.0]]), watch=50)
    first, samples = game[0].samples, game[-1].samples
    assert samples.mean().item() == pytest.approx(3.0, abs=0.3)
    assert samples.std().item() == pytest.approx(0.5, abs=0.25)
    assert (first.mean() - 3.0).abs() > 2 * (samples.mean() - 3.0).abs()  # it was elsewhere to begin with
    # Early on the discriminator knows what is real; in the end it can hardly tell.
    assert game[0].judged[0] > game[0].judged[1]
    assert abs(game[-1].judged[0].item()) < 1.0
    assert [moment.step for moment in game] == [50, 100, 150, 200, 250, 300]


def test_the_same_seed_gives_the_same_game():
    games = [last(mixture(ring(), SIGMA), "wasserstein", steps=3, seed=seed, width=8) for seed in (1, 1, 2)]
    assert torch.equal(games[0], games[1]) and not torch.equal(games[0], games[2])


def test_a_plain_gan_loses_modes_of_the_ring_and_a_wasserstein_gan_keeps_all():
    """Networks, first weights, optimizers, numbers of updates and draws are the same: only the loss differs."""
    found = {
        loss: coverage(
            last(mixture(ring(), SIGMA), loss, steps=600, seed=0, critic_updates=5, learning_rate=2e-3, batch_size=64),
            ring(),
            SIGMA,
        )
        for loss in ("non-saturating", "wasserstein")
    }
    print(found)
    assert found["wasserstein"].modes == 8 and found["wasserstein"].close > 0.4
    assert found["non-saturating"].modes <= 4


def test_coverage_counts_what_is_near():
    real = mixture(ring(), SIGMA)(1000, torch.Generator().manual_seed(1))
    assert coverage(real, ring(), SIGMA).modes == 8 and coverage(real, ring(), SIGMA).close > 0.97
    assert coverage(ring()[:3].repeat(50, 1), ring(), SIGMA) == Coverage(3, 1.0)
    assert coverage(torch.zeros(100, 2), ring(), SIGMA) == Coverage(0, 0.0)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="hinge"):
        play(mixture(ring(), SIGMA), "hinge", steps=1, seed=0)
