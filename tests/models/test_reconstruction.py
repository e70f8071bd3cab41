"""With the same 30 numbers a convolutional autoencoder reconstructs unseen images better than principal components.

Where what varies is no sum of fixed pictures: here, sharp discs of any place and size. On images that lie on each
other, such as radiographs in one position, and few of them, 30 components can be hard to beat.
"""

from __future__ import annotations

import numpy as np
import torch
from model_images import Images

from phenotype.models import build
from phenotype.models.train import train

SIZE = 32


def discs(count: int, seed: int) -> np.ndarray:
    """Two bright discs each on black, of varied place, size and brightness: (n, 1, size, size)."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[:SIZE, :SIZE] + 0.5) / SIZE
    images = np.zeros((count, 1, SIZE, SIZE), dtype=np.float32)
    for image in images:
        for side in (0.3, 0.7):
            cx, cy, radius = side + rng.uniform(-0.12, 0.12), rng.uniform(0.25, 0.75), rng.uniform(0.08, 0.18)
            edge = (radius - np.hypot(x - cx, y - cy)) * SIZE + 0.5  # soft over one pixel
            image[0] = np.maximum(image[0], rng.uniform(0.5, 1.0) * edge.clip(0, 1))
    return images


def trained(folder):
    """Principal components and an autoencoder of as many numbers, both of 1000 such images."""
    training = Images(discs(1000, seed=1))
    linear = build("pca", SIZE, components=30)
    linear.fit(training, seed=0)
    model = build("cae", SIZE, seed=1, latent=30, width=16, ssim_weight=0.0)
    train(
        model,
        training,
        folder=folder,
        steps=1000,
        batch_size=16,
        seed=1,
        learning_rate=4e-3,
        checkpoint_every=10**6,
    )
    return training, linear, model


def test_an_autoencoder_reconstructs_better_than_as_many_components(tmp_path):
    training, linear, model = trained(tmp_path)
    x = torch.from_numpy(discs(100, seed=2))
    with torch.no_grad():
        of_pca, of_cae = (float((one.reconstruct(x) - x).pow(2).mean()) for one in (linear, model))
    mean_image = float((x - torch.from_numpy(training.array).mean(0)).pow(2).mean())
    print(f"mean squared error: mean image {mean_image:.5f}, 30 components {of_pca:.5f}, autoencoder {of_cae:.5f}")
    assert of_cae < 0.75 * of_pca < 0.75 * mean_image
