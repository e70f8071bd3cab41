"""GANs that are told a class: they make images of the class asked for.

`cgan`: Mirza and Osindero 2014, "Conditional generative adversarial nets": the class is given to both players. To the
generator beside z, as there; to the discriminator as a logit of its own beside the common one, after the projection of
Miyato and Koyama 2018, "cGANs with projection discriminator", here of maps that still have places. `ac-gan`: Odena et
al. 2017, "Conditional image synthesis with auxiliary classifier GANs": the discriminator is not told the class, it says
it. It learns the class from real images alone, while in the paper generated ones teach it too: with those, the two
players agreed on a sign of the class that no real image has.

Where a class is not known (-1) it is given as no class at all: such images still teach what is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from phenotype.models import base
from phenotype.models.gan import DCGAN, GANRecipe, Losses
from phenotype.models.networks import channels, decoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalRecipe(GANRecipe):
    """Parameters of `ConditionalGAN` and `AuxiliaryClassifierGAN`."""

    classes: int = 2  # numbered from 0

    def __post_init__(self) -> None:
        GANRecipe.__post_init__(self)
        if self.classes < 2:
            raise ValueError(f"classes must be at least 2, not {self.classes}")


class ConditionalGAN(DCGAN):
    """A GAN whose generator and discriminator are both told the class.

    As an anomaly scorer it says how little an image looks like a real one of whichever class it looks most like.
    """

    name: ClassVar[str] = "cgan"
    recipe_type: ClassVar[type[base.Recipe]] = ConditionalRecipe
    told: ClassVar[Literal["nothing", "classes", "images"]] = "classes"
    recipe: ConditionalRecipe

    def __init__(self, recipe: ConditionalRecipe) -> None:
        super().__init__(recipe)
        self.generator = decoder(recipe.size, recipe.width, recipe.latent + recipe.classes, dims=recipe.dims)
        places = channels(recipe.width, recipe.size)[-1] * 4**recipe.dims
        self.of_class = nn.Sequential(nn.Flatten(), nn.Linear(places, recipe.classes))

    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images (n, 1, *spatial) in [0, 1] of latent vectors (n, latent) and classes (n,); -1, or None: no class."""
        images: Tensor = self.generator(torch.cat([z, self._one_hot(y, z)], 1))
        return images

    def sample(self, n: int, random: Generator, y: Tensor | None = None) -> Tensor:
        """`n` new images (n, 1, *spatial) in [0, 1], of the classes `y` (n,) or of classes drawn evenly."""
        z = self.latents(n, random)
        if y is None:
            y = torch.randint(self.recipe.classes, (n,), generator=random).to(z.device)
        return self.generate(z, y)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (n,) of images as real ones of the classes `y` (-1: of any); None: of the class most like them."""
        maps = self.trunk(2.0 * x - 1.0)
        by_class: Tensor = self.of_class(maps)
        likeness = by_class.amax(1) if y is None else (by_class * self._one_hot(y, x)).sum(1)
        logits: Tensor = self.head(maps).squeeze(1) + likeness
        return logits

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        found = super().optimizers(learning_rate)
        found[self.adversary].add_param_group({"params": [*self.of_class.parameters()]})
        return found

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> Losses:
        if y is None or int(y.max()) >= self.recipe.classes or int(y.min()) < -1:
            given = "nothing" if y is None else f"classes from {int(y.min())} to {int(y.max())}"
            raise ValueError(
                f"{self.name} with classes={self.recipe.classes} must be told classes 0 to {self.recipe.classes - 1}, "
                f"or -1 where unknown, not {given}: number them so, or build it with more classes"
            )
        if update == "generator":
            return self._generator_losses(self.sample(len(x), random, y), y)
        with torch.no_grad():
            fake = self.sample(len(x), random, y)
        return self._adversary_losses(x, fake, y, random)

    def _generator_losses(self, fake: Tensor, y: Tensor) -> Losses:
        return {"loss": self.generator_loss(self.judge(fake, y))}

    def _adversary_losses(self, real: Tensor, fake: Tensor, y: Tensor, random: Generator) -> Losses:
        return self.adversary_losses(lambda images: self.judge(images, y), real, fake, random)

    def _one_hot(self, y: Tensor | None, like: Tensor) -> Tensor:
        """(n, classes): 0 throughout where the class is not known."""
        if y is None:
            return like.new_zeros(len(like), self.recipe.classes)
        return (y[:, None] == torch.arange(self.recipe.classes, device=y.device)).to(like)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        z = self.latents(len(x), random)
        of_class = {
            f"class {one}": self.generate(z, torch.full((len(x),), one, device=x.device)).squeeze(1)
            for one in range(self.recipe.classes)
        }
        return {"images": x.squeeze(1), **of_class}


class AuxiliaryClassifierGAN(ConditionalGAN):
    """A GAN whose discriminator also says the class, and whose generator makes images whose class is recognised.

    As an anomaly scorer it asks the discriminator alone, not its classifier.
    """

    name: ClassVar[str] = "ac-gan"

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Logits (n,) of images, the higher the more real, of whatever class."""
        return DCGAN.judge(self, x)

    def class_logits(self, x: Tensor) -> Tensor:
        """Logits (n, classes) of the classes of images in [0, 1]."""
        logits: Tensor = self.of_class(self.trunk(2.0 * x - 1.0))
        return logits

    @torch.no_grad()
    def class_probabilities(self, x: Tensor) -> Tensor:
        """Probabilities (n, classes) of the classes of images, in evaluation mode."""
        with self._evaluating(x):
            return self.class_logits(x).softmax(1)

    def _generator_losses(self, fake: Tensor, y: Tensor) -> Losses:
        real, of_class = self.generator_loss(self.judge(fake)), known_cross_entropy(self.class_logits(fake), y)
        return {"loss": real + of_class, "class": of_class}

    def _adversary_losses(self, real: Tensor, fake: Tensor, y: Tensor, random: Generator) -> Losses:
        losses = super()._adversary_losses(real, fake, y, random)
        of_class = known_cross_entropy(self.class_logits(real), y)
        return losses | {"loss": losses["loss"] + of_class, "class": of_class}


def known_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy of the samples whose class is known; 0 where none is."""
    total = functional.cross_entropy(logits, y, ignore_index=-1, reduction="sum")
    return total / (y >= 0).sum().clamp(min=1)
