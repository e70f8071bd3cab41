"""Several models as one: the mean of their scores and maps, each in its own standard deviations.

Families err on different images, and on different places of them: one misses what is smooth, another what is small. The
mean of standardised scores is the oldest way to combine detectors and hard to beat without labels (Aggarwal and Sathe
2015, "Theoretical foundations and algorithms for outlier ensembles").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from phenotype.models import base
from phenotype.models.alarms import Alarm
from phenotype.models.base import ImageModel
from phenotype.models.calibrate import Calibration

Member = tuple[ImageModel, Calibration]


class Ensemble(ImageModel):
    """A model made of trained and calibrated ones, which need not see images of the same size.

    It takes images of the largest member's size; the others see them averaged down, which for views is what they would
    have seen anyway. Its score is the mean of the members' scores, each in standard deviations from the mean of its
    held-out normal images; its map the mean of their maps, each so standardised at every pixel. It is not trained:
    `calibrate` it where the held-out images are at hand, or take `paired_calibration`.
    """

    name: ClassVar[str] = "ensemble"
    recipe_type: ClassVar[type[base.Recipe]] = base.Recipe
    dimensions: ClassVar[tuple[int, ...]] = (2, 3)

    def __init__(self, members: Sequence[Member]) -> None:
        recipes = [model.recipe for model, _ in members]
        if len(members) < 2 or len({recipe.dims for recipe in recipes}) > 1:
            raise ValueError("an ensemble is made of at least two models of the same number of dimensions")
        super().__init__(base.Recipe(size=max(recipe.size for recipe in recipes), dims=recipes[0].dims))
        self.members = nn.ModuleList([model for model, _ in members])
        self.calibrations = [calibration for _, calibration in members]
        self.eval()

    def optimizers(self, learning_rate: float) -> dict[str, Optimizer]:
        return {}

    def _embed(self, x: Tensor) -> Tensor:
        """The members' codes beside each other."""
        return torch.cat([member.embed(_resized(x, member.recipe.size)) for member in self._models()], dim=1)

    def _score(self, x: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
        scores, maps = [], []
        for member, calibration in zip(self._models(), self.calibrations, strict=True):
            counted = None if inside is None else _resized(inside[:, None].float(), member.recipe.size)[:, 0] >= 0.5
            own, where = member.score(_resized(x, member.recipe.size), counted)
            scores.append(torch.from_numpy(standardized(calibration, own.double().cpu().numpy())))
            z = torch.from_numpy(calibration.z_maps(where.cpu().numpy()))[:, None]
            maps.append(_resized(z, self.recipe.size)[:, 0])
        return torch.stack(scores).mean(0).to(x), torch.stack(maps).mean(0).to(x)

    def _models(self) -> list[ImageModel]:
        return [member for member in self.members if isinstance(member, ImageModel)]

    def paired_calibration(self) -> Calibration:
        """A calibration of the image scores out of the members' own, of the patients that all of them were held from.

        The members must have been calibrated on the same held-out images, in the same order; ValueError where fewer
        than two patients are common to all. It knows nothing of pixels.
        """
        common = np.array(sorted(set.intersection(*(set(c.patients.tolist()) for c in self.calibrations))), np.int64)
        if len(common) < 2:
            raise ValueError("the members of the ensemble were not calibrated on the same patients")
        own = [standardized(c, c.scores[_places(c.patients, common)]) for c in self.calibrations]
        shape = self.recipe.shape
        alarms = tuple(
            Alarm(a.name, a.value, a.fired, f"{model.name}: {a.text}")
            for model, calibration in zip(self._models(), self.calibrations, strict=True)
            for a in calibration.alarms
        )
        return Calibration(
            # In float32 first, as scores are: equal ones must compare as equal.
            scores=np.mean(own, axis=0).astype(np.float32).astype(np.float64),
            patients=common,
            pixel_mean=np.zeros(shape, np.float32),
            pixel_std=np.ones(shape, np.float32),
            pixel_grid=np.zeros((0, *shape), np.float32),
            pixel_shares=np.zeros(0),
            pixel_count=np.zeros(shape, np.int32),
            alarms=alarms,
        )


def standardized(calibration: Calibration, scores: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.float64]:
    """Scores (n,) in standard deviations from the mean of held-out normal images."""
    spread = float(calibration.scores.std(ddof=1))
    return np.asarray((scores - calibration.scores.mean()) / (spread if spread > 0 else 1.0), np.float64)


def _places(patients: np.typing.NDArray[np.int64], wanted: np.typing.NDArray[np.int64]) -> list[int]:
    place = {int(patient): at for at, patient in enumerate(patients)}
    return [place[int(patient)] for patient in wanted]


def _resized(x: Tensor, size: int) -> Tensor:
    """Images (n, 1, *spatial) at another size: averaged where that is smaller, interpolated where it is larger."""
    shape = (size,) * (x.ndim - 2)
    if tuple(x.shape[2:]) == shape:
        return x
    if x.shape[-1] > size:
        return functional.interpolate(x, size=shape, mode="area")
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return functional.interpolate(x, size=shape, mode=mode, align_corners=False)
