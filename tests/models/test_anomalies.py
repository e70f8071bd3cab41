"""Models trained on normal images find a planted bright spot, and where it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal, with_spot
from sklearn.metrics import roc_auc_score

from phenotype.models import MODELS, build
from phenotype.models.calibrate import calibrate
from phenotype.models.train import train

SIZE = 32
TRAINING = {  # steps, learning rate; AUROC, peaks found
    "cae": (400, 2e-3, 0.9, 0.9),
    "dae": (400, 2e-3, 0.9, 0.9),
    "vae": (400, 2e-3, 0.9, 0.9),
    "stacked": (400, 2e-3, 0.85, 0.85),
    "feature-ae": (500, 3e-3, 0.9, 0.75),
    "pca": (0, 1e-3, 0.95, 0.9),
    "gmm": (0, 1e-3, 0.95, 0.9),
    "anogan": (400, 2e-3, 0.75, 0.8),
    "adversarial-cae": (300, 2e-3, 0.7, 0.8),
    "f-anogan": (600, 1e-3, 0.8, 0.8),
    "dcgan": (300, 1e-3, 0.8, 0.0),  # a discriminator's slope says little of where
    "wgan": (600, 1e-3, 0.7, 0.0),
    "healthy": (200, 2e-3, 0.95, 0.8),
}
PARAMETERS = {"pca": {}, "gmm": {}, "stacked": {"hidden": "200-100-50", "latent": 8}}  # the others: a width of 8
LEFT_OUT = {  # no detectors of their own, or shown elsewhere
    "classifier": "is told classes",
    "cgan": "is told classes",
    "ac-gan": "is told classes",
    "pix2pix": "is told images",
    **dict.fromkeys(("coarse-dae", "planted", "fused"), "test_fused has it"),
    **dict.fromkeys(("patchcore", "patchcore-lite0", "padim", "padim-lite0"), "test_patch_models has it"),
    **dict.fromkeys(("texture", "radiograph"), "test_radiograph has it"),
    "texture": "scores places of a common space: test_radiograph.py",
    "radiograph": "scores places of a common space: test_radiograph.py",
    "symmetry": "scores places of a common space: test_symmetry.py",
}


@pytest.mark.parametrize("name", sorted(set(MODELS) - set(LEFT_OUT)))
def test_planted_spots_are_found(name, tmp_path):
    steps, learning_rate, auroc, hits = TRAINING[name]
    training = Images(normal(160, SIZE, seed=1))
    model = build(name, SIZE, seed=1, **PARAMETERS.get(name, {"width": 8}))
    train(
        model,
        training,
        folder=tmp_path,
        steps=steps,
        batch_size=16,
        seed=1,
        learning_rate=learning_rate,
        checkpoint_every=1000,
    )
    calibration = calibrate(model, Images(normal(60, SIZE, seed=2)), training)
    healthy = normal(60, SIZE, seed=3)
    spotted, places = with_spot(normal(60, SIZE, seed=4), seed=5)
    of_healthy, _ = model.score(torch.from_numpy(healthy))
    of_spotted, maps = model.score(torch.from_numpy(spotted))

    truth = np.repeat([0, 1], 60)
    found = roc_auc_score(truth, np.concatenate([of_healthy, of_spotted]))
    peaks = np.array([np.unravel_index(one.argmax(), one.shape) for one in calibration.z_maps(maps.numpy())])
    hit = float((np.linalg.norm(peaks - places, axis=1) <= SIZE / 10).mean())
    print(f"{name}: AUROC {found:.3f}, peaks at the spot {hit:.2f}, brightness rho {calibration.brightness_rho:.2f}")
    assert found > auroc
    assert hit > hits
    # New normal images are not called anomalous more often than the level says (60 against 60: three deviations).
    assert (calibration.p_values(of_healthy.numpy()) <= 0.1).mean() < 0.1 + 3 * np.sqrt(2 * 0.09 / 60)
