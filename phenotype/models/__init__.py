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
    "dae": Family(
        "phenotype.models.denoising:DenoisingAutoencoder",
        "denoising autoencoder, trained to restore pixels that were taken away",
        steps=1000,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "vae": Family(
        "phenotype.models.variational:VariationalAutoencoder",
        "variational autoencoder: codes are distributions, new images can be drawn",
        steps=1500,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "stacked": Family(
        "phenotype.models.stacked:StackedAutoencoder",
        "deep autoencoder of fully connected layers, pretrained layer by layer, to a code of two numbers",
        steps=1000,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "feature-ae": Family(
        "phenotype.models.feature_autoencoder:FeatureAutoencoder",
        "autoencoder of the feature maps of an encoder that was trained to reconstruct (DFR)",
        steps=1500,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "pca": Family(
        "phenotype.models.pca:PrincipalComponents",
        "principal components, scored by what they leave over",
        steps=0,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "coarse-dae": Family(
        "phenotype.models.coarse:CoarseDenoiser",
        "U-Net trained to take away noise as coarse as lesions, scored by what it takes away",
        steps=1200,
        batch_size=16,
        learning_rate=2e-3,
    ),
    "planted": Family(
        "phenotype.models.planted:PlantedDetector",
        "U-Net trained to mark regions that were planted into healthy images",
        steps=1200,
        batch_size=16,
        learning_rate=2e-3,
    ),
    "fused": Family(
        "phenotype.models.fused:Fused",
        "pca, coarse-dae and planted as one map of where",
        steps=1200,
        batch_size=16,
        learning_rate=2e-3,
    ),
    "texture": Family(
        "phenotype.models.texture:Texture",
        "asymmetry, bands and gradients of radiographs laid onto each other, and their distances",
        steps=0,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "symmetry": Family(
        "phenotype.models.symmetry:Symmetry",
        "radiographs against their own mirror image, and how sharp they are",
        steps=0,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "radiograph": Family(
        "phenotype.models.radiograph:Radiograph",
        "radiographs laid onto each other, by their texture and by networks that saw changes planted",
        steps=400,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "gmm": Family(
        "phenotype.models.mixture:GaussianMixture",
        "Gaussian mixture over principal components, scored by how improbable an image is",
        steps=0,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "patchcore": Family(
        "phenotype.models.patchcore:PatchCore",
        "memory of patches of healthy images, in features of an own denoising encoder (PatchCore)",
        steps=1000,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "patchcore-lite0": Family(
        "phenotype.models.patchcore:PatchCoreLite0",
        "memory of patches of healthy images, in features of a small ImageNet network (PatchCore)",
        steps=0,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "padim": Family(
        "phenotype.models.padim:PaDiM",
        "a Gaussian of patch features at each place, in features of an own denoising encoder (PaDiM)",
        steps=1000,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "padim-lite0": Family(
        "phenotype.models.padim:PaDiMLite0",
        "a Gaussian of patch features at each place, in features of a small ImageNet network (PaDiM)",
        steps=0,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "classifier": Family(
        "phenotype.models.classifier:Classifier",
        "classifier told the classes of images, which can start from a pretrained autoencoder",
        steps=300,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "anogan": Family(
        "phenotype.models.anogan:AnoGAN",
        "DCGAN of the normal, searched for the image nearest to the one in question (AnoGAN)",
        steps=1200,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "adversarial-cae": Family(
        "phenotype.models.adversarial_cae:AdversarialAutoencoder",
        "convolutional autoencoder against a discriminator of its reconstructions",
        steps=1000,
        batch_size=32,
        learning_rate=2e-3,
    ),
    "f-anogan": Family(
        "phenotype.models.fanogan:FAnoGAN",
        "Wasserstein GAN of the normal and an encoder into its latent space (f-AnoGAN)",
        steps=1500,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "dcgan": Family(
        "phenotype.models.gan:DCGAN",
        "deep convolutional GAN, scored by how little an image looks real to its discriminator",
        steps=900,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "wgan": Family(
        "phenotype.models.gan:WGAN",
        "Wasserstein GAN with gradient penalty, scored by how little an image looks real to its critic",
        steps=1000,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "cgan": Family(
        "phenotype.models.conditional:ConditionalGAN",
        "GAN that makes images of the class asked for, both players being told the class",
        steps=900,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "ac-gan": Family(
        "phenotype.models.conditional:AuxiliaryClassifierGAN",
        "GAN that makes images of the class asked for, its discriminator saying the class",
        steps=900,
        batch_size=32,
        learning_rate=1e-3,
    ),
    "pix2pix": Family(
        "phenotype.models.translation:Pix2Pix",
        "image to image (to a lung mask, from a mask), U-Net and discriminator of patches",
        steps=600,
        batch_size=16,
        learning_rate=1e-3,
    ),
    "healthy": Family(
        "phenotype.models.translation:Healthy",
        "image to its healthy counterpart, learnt by undoing planted lesions; scored by what it changes",
        steps=600,
        batch_size=16,
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
