"""Images become what they are paired with; lesions are taken away, and healthy images left alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot

from phenotype.models import build
from phenotype.models.ssim import blur
from phenotype.models.train import train
from phenotype.models.translation import clouds, plant

SIZE = 32


class WithLungs(Images):
    """Each with the mask of its lungs: what is dark, without the noise."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(normal(count, SIZE, seed))
        self.masks = (blur(torch.from_numpy(self.array)) < 0.45).float().numpy()

    def targets(self, indices):
        return self.masks[indices]


def trained(name, source, folder, steps):
    model = build(name, SIZE, seed=1, width=8)
    train(model, source, folder=folder, steps=steps, batch_size=16, seed=1, learning_rate=2e-3, checkpoint_every=1000)
    return model


def dice(a, b) -> float:
    """Overlap of two masks."""
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_an_image_becomes_its_lung_mask(tmp_path):
    model, new = trained("pix2pix", WithLungs(120, seed=1), tmp_path, steps=120), WithLungs(60, seed=2)
    truth = new.masks > 0.5
    found = dice(model.translate(torch.from_numpy(new.array)).numpy() > 0.5, truth)
    usual = dice(np.broadcast_to(truth.mean(0) > 0.5, truth.shape), truth)  # one mask for all
    print(f"Dice {found:.3f}, one mask for all {usual:.3f}")
    assert found > 0.9
    assert found > usual + 0.05


def test_a_mask_becomes_an_image(tmp_path):
    class Turned(WithLungs):
        def __init__(self, count: int, seed: int) -> None:
            super().__init__(count, seed)
            self.array, self.masks = self.masks, self.array

    model, new = trained("pix2pix", Turned(120, seed=1), tmp_path, steps=120), Turned(60, seed=2)
    made, lungs = model.translate(torch.from_numpy(new.array)), new.array > 0.5
    dark, bright = made.numpy()[lungs].mean(), made.numpy()[~lungs].mean()
    real_dark, real_bright = new.masks[lungs].mean(), new.masks[~lungs].mean()
    assert dark == pytest.approx(real_dark, abs=0.05) and bright == pytest.approx(real_bright, abs=0.05)


def test_a_healthy_counterpart_has_no_spot(tmp_path):
    model = trained("healthy", Images(normal(160, SIZE, seed=1)), tmp_path, steps=300)
    healthy = normal(60, SIZE, seed=4)
    spotted, _ = with_spot(healthy, seed=5)
    truth, x = torch.from_numpy(healthy), torch.from_numpy(spotted)
    spot = (x - truth) > 0.1
    left = float((model.translate(x) - truth).abs()[spot].mean() / (x - truth)[spot].mean())
    changed = float((model.translate(truth) - truth).abs().mean())
    print(f"{left:.2f} of the spot is left; healthy images change by {changed:.3f}")
    assert left < 0.4
    assert changed < 0.04  # their noise has a deviation of 0.02
    assert torch.equal(model.translate(x), model.translate(x))
    alone = torch.cat([model.translate(one[None]) for one in x[:4]])
    torch.testing.assert_close(alone, model.translate(x)[:4], atol=1e-6, rtol=1e-6)


def test_what_is_planted_depends_on_the_draws_alone():
    x = torch.from_numpy(normal(200, SIZE, seed=1))
    planted, again, other = (plant(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(planted, again) and not torch.equal(planted, other)
    assert planted.min() >= 0 and planted.max() <= 1
    change = planted - x
    untouched = (change == 0).flatten(1).all(1).float().mean()
    assert 0.15 < untouched < 0.4
    touched = change[~(change == 0).flatten(1).all(1)].abs().flatten(1)
    assert touched.amax(1).median() > 0.1  # to be seen
    assert ((touched > 0.02).float().mean(1) < 0.6).all()  # and never everywhere
    assert (change > 0.1).any() and (change < -0.1).any()


def test_volumes_are_planted_too():
    x = torch.rand(3, 1, 16, 16, 16)
    assert plant(x, torch.Generator().manual_seed(1)).shape == x.shape
    model = build("healthy", 16, width=8, dims=3)
    assert model.translate(x).shape == x.shape


def test_clouds_are_smooth_and_vary():
    texture = clouds(50, (SIZE, SIZE), torch.Generator().manual_seed(1))
    assert abs(texture.mean().item()) < 0.1 and 0.5 < texture.std().item() < 1.2
    step = (texture[..., 1:] - texture[..., :-1]).std().item()
    assert step < 0.5 * texture.std().item()


def test_pix2pix_must_be_told_images_of_the_same_shape():
    model, x = build("pix2pix", SIZE, width=8), torch.rand(2, 1, SIZE, SIZE)
    for wrong in (None, torch.tensor([0, 1]), torch.rand(2, 1, SIZE, SIZE // 2)):
        with pytest.raises(ValueError, match="told an image"):
            model("translator", x, torch.Generator().manual_seed(1), wrong)
