"""Radiographs in a common space, by statistics and by small networks trained on planted changes, as one score.

What is healthy is described twice: by distances of plain descriptors (`texture`), and by networks that learn to see
what was planted into healthy images (`changes`). The former knows no disease at all, the latter only invented ones;
they err on different images. Sum of standardised scores: Aggarwal and Sathe 2015, "Theoretical foundations and
algorithms for outlier ensembles". Several networks, since a single short training is a matter of luck: Lakshminarayanan
et al. 2017, "Simple and scalable predictive uncertainty estimation using deep ensembles".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.optim import AdamW, Optimizer

from phenotype.models import base
from phenotype.models.aligned import drawn
from phenotype.models.augment import one_cycle
from phenotype.models.base import Source, one_of
from phenotype.models.changes import change, nuisance
from phenotype.models.ssim import blur
from phenotype.models.texture import FINE, TERMS, Texture, descriptors, equalised

Term = Literal["asymmetry", "energy", "pixels", "gradients", "max", "networks"]
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiographRecipe(base.Recipe):
    """Parameters of `Radiograph`."""

    term: Term = "max"  # the distance that is added to what the networks say; networks: nothing
    networks: int = 4
    width: int = 12  # channels of their first layer

    def __post_init__(self) -> None:
        base.Recipe.__post_init__(self)
        one_of(self.term, (*TERMS, "networks"), "term")
        if self.networks < 1 or self.width < 1:
            raise ValueError(f"networks and width must be at least 1, not {self.networks} and {self.width}")


class Network(nn.Module):
    """Equalised crops (n, 1, side, side) -> logits that something was changed: of places (n, 1, h, w), of images (n,).

    A place is 8 pixels a side, and knows where in the crop it is.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

        def layer(before: int, after: int, stride: int) -> nn.Sequential:
            # Batch norm: its means are those of the training when images are scored.
            convolution = nn.Conv2d(before, after, 3, stride, 1, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())

        w = width
        self.features = nn.Sequential(
            layer(1, w, 2), layer(w, w, 1), layer(w, 2 * w, 2), layer(2 * w, 2 * w, 1), layer(2 * w, 4 * w, 2)
        )
        self.head = nn.Sequential(layer(4 * w + 2, 4 * w, 1), layer(4 * w, 4 * w, 1), nn.Dropout2d(0.1))
        self.places = nn.Conv2d(4 * w, 1, 1)
        self.image = nn.Linear(8 * w, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.features(x)
        down, across = (torch.linspace(-1.0, 1.0, side).to(x) for side in found.shape[2:])
        where = torch.stack(torch.meshgrid(down, across, indexing="ij"))[None].expand(len(x), -1, -1, -1)
        found = self.head(torch.cat([found, where], 1))
        return self.places(found), self.image(torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1))[:, 0]


class Radiograph(Texture):
    """`Texture`, and networks that see crops of half the images' size; the score is the sum of both.

    The score of the networks is the mean over them of the image's logit and of the mean of its places' logits, each in
    standard deviations of the held-out fifth of the training images, which no network learns from.
    """

    name: ClassVar[str] = "radiograph"
    recipe_type: ClassVar[type[base.Recipe]] = RadiographRecipe
    clip: ClassVar[float | None] = 5.0
    recipe: RadiographRecipe  # type: ignore[assignment]
    middle: Tensor
    spread: Tensor
    levels: Tensor

    def __init__(self, recipe: RadiographRecipe) -> None:
        super().__init__(recipe)  # type: ignore[arg-type]
        self.side = max(16, recipe.size // 2)
        self.networks = nn.ModuleList([Network(recipe.width) for _ in range(recipe.networks)])
        self.register_buffer("middle", torch.zeros(recipe.networks, 2).double())
        self.register_buffer("spread", torch.ones(recipe.networks, 2).double())
        self.register_buffer("levels", torch.tensor([[0.0, 1.0], [0.0, 1.0]]).double())  # of both maps
        self._placed: dict[float, Tensor] = {}  # of training images: each is placed once

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {"networks": AdamW(self.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)}

    def rate(self, step: int, steps: int) -> float:
        return one_cycle(step, steps)

    def forward(self, update: str, x: Tensor, random: Generator, y: Tensor | None = None) -> dict[str, Tensor]:
        known = x[~self.held_out(x)]
        half = len(known) // 2
        if not half:  # by chance a batch of held-out images alone
            return {"loss": 0.0 * torch.stack([parameter.sum() for parameter in self.parameters()]).sum()}
        healthy, planted, truth, lungs = self._planted(known, random)
        shown = self._shown(torch.cat([healthy, planted]))
        truth = torch.cat([torch.zeros_like(truth), truth])
        image = (torch.arange(2 * half) >= half).to(shown)
        places, whole = torch.zeros(()).to(x), torch.zeros(()).to(x)
        for network in self.networks:
            logits, logit = network(shown)
            wanted = functional.adaptive_avg_pool2d(truth, logits.shape[2:])
            weight = functional.adaptive_avg_pool2d(lungs, logits.shape[2:]).clamp(min=0.1)
            errors = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
            places = places + (errors * weight).sum() / weight.sum() / len(shown)
            whole = whole + functional.binary_cross_entropy_with_logits(logit, image)
        return {
            "loss": places + 0.5 * whole,
            "places": places / len(self.networks),
            "images": whole / len(self.networks),
        }

    def _planted(self, x: Tensor, random: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Crops of half of the images as they are, of the other half with changes; where these are, and the lungs."""
        crops = nuisance(self._stretched(self.alignment.crops(x, self._remembered(x))).float(), random)
        half = len(crops) // 2
        healthy, others = crops[:half], crops[half : 2 * half]
        lungs = functional.interpolate(self.alignment.lungs, size=(self.side,) * 2, mode="area")
        reach = max(1, self.side // 24)
        lungs = blur(functional.max_pool2d(lungs, 2 * reach + 1, 1, reach), self.side / 64)
        planted, truth = change(others, healthy, lungs, random)
        return healthy, planted, truth, lungs

    def _remembered(self, x: Tensor) -> Tensor:
        """Where the crops of training images lie, as `Alignment.place` says."""
        keys = drawn(x).tolist()
        new = [n for n, key in enumerate(keys) if key not in self._placed]
        if new:
            self._placed |= dict(zip([keys[n] for n in new], self.alignment.place(x[new]).cpu(), strict=True))
        return torch.stack([self._placed[key] for key in keys]).to(self.alignment.box)

    def _stretched(self, crops: Tensor) -> Tensor:
        """Crops (n, 1, side, side), their grey values from 0 to 1 between the 1st and the 99th percentile."""
        small = functional.interpolate(crops, size=(self.side,) * 2, mode="area")
        ranked = small.flatten(1).sort(dim=1).values
        end = ranked.shape[1] // 100
        low, high = ranked[:, end, None, None, None], ranked[:, -1 - end, None, None, None]
        stretched: Tensor = ((small - low) / (high - low).clamp(min=1e-6)).clamp(0.0, 1.0)
        return stretched

    def _shown(self, crops: Tensor) -> Tensor:
        """What the networks are shown."""
        return 2.0 * equalised(crops) - 1.0

    def _logits(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Of aligned crops the image's logit and its places' mean (n, networks, 2), and the mean of places; 64 bits."""
        shown = self._shown(self._stretched(crops)).double()
        # In 64 bits: in 32 it would show in a score whether an image was scored among others.
        found = [
            functional_call(network, {name: value.double() for name, value in network.state_dict().items()}, shown)
            for network in self.networks
        ]
        logits = torch.stack([torch.stack([image, places.mean((1, 2, 3))], 1) for places, image in found], 1)
        return logits, torch.stack([places for places, _ in found]).mean(0)

    def fit(self, images: Source, seed: int) -> None:
        super().fit(images, seed)
        self._placed.clear()
        logits, sums = [], []
        for batch in self.sample(images, seed):
            x = batch[self.held_out(batch)]
            if len(x):
                crops = self.alignment.crops(x, self.alignment.place(x))
                found, places = self._logits(crops)
                texture = self.where(descriptors(crops), "max")
                logits.append(found)
                sums.append(
                    torch.stack(
                        [
                            places.mean((1, 2, 3)),
                            places.square().mean((1, 2, 3)),
                            texture.mean((1, 2, 3)),
                            texture.square().mean((1, 2, 3)),
                        ],
                        1,
                    )
                )
        found, moments = torch.cat(logits), torch.cat(sums).mean(0).view(2, 2)
        self.middle, self.spread = found.mean(0), found.std(0).clamp(min=1e-6)
        deviation = (moments[:, 1] - moments[:, 0].square()).clamp(min=1e-12).sqrt()
        self.levels = torch.stack([moments[:, 0], deviation], 1)

    def pictures(self, x: Tensor, random: Generator) -> dict[str, Tensor]:
        healthy, planted, truth, _ = self._planted(torch.cat([x, x]), random)
        found = torch.stack([network(self._shown(planted))[0] for network in self.networks]).mean(0).sigmoid()
        rows = {"healthy": healthy, "planted": planted, "truth": truth, "found": found}
        shown = {name: functional.interpolate(images, size=x.shape[2:]) for name, images in rows.items()}
        return {name: images.squeeze(1).clamp(0.0, 1.0) for name, images in shown.items()}

    def network_score(self, logits: Tensor) -> Tensor:
        """Scores (n,) of what `_logits` says, in standard deviations of a single network's, about."""
        return ((logits - self.middle) / self.spread).mean((1, 2))

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        placed = self.alignment.place(x)
        crops = self.alignment.crops(x, placed)
        logits, places = self._logits(crops)
        score = self.network_score(logits)
        (middle, deviation), (usual, spread) = self.levels
        maps = (functional.interpolate(places, size=(FINE, FINE), mode="bilinear") - middle) / deviation
        if self.recipe.term != "networks":
            found = descriptors(crops)
            score = score + self.parts(found)[self.recipe.term]
            maps = maps + (self.where(found, self.recipe.term) - usual) / spread
        # Outside of the crop nothing is known, which is 0; inside, what is more usual than usual is no less than that.
        return score.to(x.dtype), self.alignment.back(functional.softplus(maps), placed).squeeze(1).to(x.dtype)
