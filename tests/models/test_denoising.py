"""What is taken away, and that it is learnt to be restored."""

from __future__ import annotations

import pytest
import torch
from model_images import Images, blobs

from phenotype.models import build
from phenotype.models.train import train

SIZE = 16


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def test_masking_sets_a_share_of_the_pixels_to_0_and_leaves_the_others():
    x = torch.full((40, 1, SIZE, SIZE), 0.5)
    corrupted = build("dae", SIZE, level=0.3).corrupt(x, chance())
    assert set(corrupted.unique().tolist()) == {0.0, 0.5}
    assert float((corrupted == 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert not torch.equal(corrupted[0], corrupted[1])


def test_gaussian_noise_has_the_level_asked_for():
    noise = build("dae", SIZE, corruption="gaussian", level=0.1).corrupt(torch.full((40, 1, SIZE, SIZE), 0.5), chance())
    assert float(noise.std()) == pytest.approx(0.1, rel=0.05)
    assert float(noise.mean()) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("wrong", [{"level": 0.0}, {"level": 1.0}, {"corruption": "blur"}])
def test_no_corruption_and_nothing_left_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        build("dae", SIZE, **wrong)


def test_it_restores_better_than_an_autoencoder_that_never_saw_corruption(tmp_path):
    training, x = Images(blobs(160, SIZE, seed=1)), torch.from_numpy(blobs(60, SIZE, seed=2))
    corrupted = build("dae", SIZE, level=0.5).corrupt(x, chance(1))
    errors = {}
    for name, level in (("cae", {}), ("dae", {"level": 0.5})):
        model = build(name, SIZE, seed=1, width=8, ssim_weight=0.0, **level)
        train(
            model,
            training,
            folder=tmp_path / name,
            steps=150,
            batch_size=16,
            seed=1,
            learning_rate=5e-3,
            checkpoint_every=1000,
        )
        with torch.no_grad():
            errors[name] = float((model.reconstruct(corrupted) - x).pow(2).mean())
    print(errors)
    assert errors["dae"] < 0.6 * errors["cae"]
