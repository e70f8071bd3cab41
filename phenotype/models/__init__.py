"""Image models: they know tensors, not rows.

One training loop (`train.py`), one file a model family, one file format (`files.py`), one contract test
(`tests/models/test_contract.py`) that every entry of `MODELS` passes. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phenotype.models.base import ImageModel


@dataclass(frozen=True, slots=True)
class Family:
    """A row of `MODELS`: where the class is, what it is, and the training that suits it by default.

    The defaults are for some hundred to some thousand images of 64 x 64 pixels on two CPU cores. A family that is
    computed from all images at once takes 0 steps.
    """

    where: str  # module:Class
    what: str
    steps: int
    batch_size: int
    learning_rate: float


MODELS: dict[str, Family] = {
    "cae": Family(
        "phenotype.models.autoencoder:Autoencoder",
        "convolutional autoencoder, scored by what it cannot reconstruct",
        steps=1000,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "f-anogan": Family(
        "phenotype.models.anogan:FAnoGAN",
        "Wasserstein GAN of the normal and an encoder into its latent space (f-AnoGAN)",
        steps=1500,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "dcgan": Family(
        "phenotype.models.gan:DCGAN",
        "deep convolutional GAN, scored by how little an image looks real to its discriminator",
        steps=1500,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "wgan": Family(
        "phenotype.models.gan:WGAN",
        "Wasserstein GAN with gradient penalty, scored by how little an image looks real to its critic",
        steps=1500,
        batch_size=32,
        learning_rate=1e-3,
    ),
}


def family(name: str) -> Family:
    """The row of `MODELS` called `name`; ValueError names the known ones."""
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; known are {', '.join(sorted(MODELS))}")
    return MODELS[name]


def model_class(name: str) -> type[ImageModel]:
    """The class of the family `name`; ValueError names the known ones."""
    module, _, cls = family(name).where.partition(":")
    found: type[ImageModel] = getattr(importlib.import_module(module), cls)
    return found


def build(name: str, size: int, seed: int = 0, **parameters: Any) -> ImageModel:
    """A new model of the family `name` for images of `size` x `size` pixels, its weights drawn from `seed`.

    `parameters` are the fields of the family's recipe (`latent=32`, `width=16`, ...); what is left out has its
    default. The same arguments give the same weights, bit for bit, and the caller's random state is left as it was.
    Raises ValueError for an unknown name, parameter or size.
    """
    import torch

    kind = model_class(name)
    try:
        recipe = kind.recipe_type(size=size, **parameters)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(recipe).eval()
