"""What models of aligned radiographs share: a common space, and training images kept aside to standardise scores on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from phenotype.models import base
from phenotype.models.alignment import Alignment
from phenotype.models.base import Source
from phenotype.models.calibrate import batches

HELD = 0.2  # share of the training images that scores are standardised on, and nothing else
FEWEST = 10  # training images
MEMORY = 2000  # images that `fit` looks at, at most


class Aligned(base.ImageModel):
    """Images are laid onto each other and cropped to the lungs before anything is computed of them.

    A fifth of the training images, drawn by their own pixels, is kept from all that is learned to standardise scores.
    """

    cut: Tensor

    def __init__(self, recipe: base.Recipe) -> None:
        super().__init__(recipe)
        self.alignment = Alignment(recipe.size, max(16, 3 * recipe.size // 4))
        self.register_buffer("cut", torch.zeros(()).double())  # images drawn below it are held out

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {}

    def prepare(self, images: Source, seed: int) -> None:
        if len(images) < FEWEST:
            raise ValueError(f"{self.name} needs at least {FEWEST} images, not {len(images)}")
        self.alignment.fit(images, seed)
        numbers = np.sort(np.concatenate([drawn(torch.from_numpy(batch)) for batch in batches(images)]))
        self.cut = torch.tensor(numbers[max(2, round(HELD * len(numbers)))]).to(self.cut)

    def held_out(self, x: Tensor) -> Tensor:
        """Which images (n,) are kept to standardise scores, if they are among those of the training."""
        return torch.from_numpy(drawn(x)).to(self.cut) < self.cut

    def sample(self, images: Source, seed: int) -> Iterator[Tensor]:
        """Up to 2000 of the images in order, about 64 at a time (n, 1, size, size)."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:MEMORY])
        for some in np.array_split(chosen, max(1, len(chosen) // 64)):
            yield torch.from_numpy(np.ascontiguousarray(images.take(some), np.float32)).to(self.device)


def drawn(x: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """A number from 0 to 1 for each image, a function of its pixels."""
    arrays = x.cpu().numpy()
    return np.array([int.from_bytes(hashlib.sha256(one.tobytes()).digest()[:6], "big") / 2**48 for one in arrays])
