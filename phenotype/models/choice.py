"""Choice among scores without labels: reductions, terms, checkpoints, families.

What a score is worth cannot be seen in its loss, and lesions pasted into normal images rank scores wrongly (they reward
a maximum where real disease is diffuse). What can be had without a label is a pool of images as they come, some of them
sick: the score that lifts the pool furthest above held-out normal images is chosen ("AUCp", TMI 2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from phenotype.models import alarms
from phenotype.models.base import ImageModel, Source
from phenotype.models.calibrate import score_source

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate with the highest AUCp, and the AUCp of each."""

    chosen: str
    aucp: dict[str, float]

    def regret(self, auroc: Mapping[str, float]) -> float:
        """How much AUROC the choice lost against the best candidate, where labels are known after all: 0 if nothing."""
        return max(auroc[name] for name in self.aucp) - auroc[self.chosen]


def choose(scores: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]) -> Choice:
    """Choose among candidates by name, each with its scores of held-out normal images (n,) and of the pool (m,).

    Of equals the first is chosen. ValueError where there is no candidate or a score is not finite.
    """
    if not scores:
        raise ValueError("there is nothing to choose from")
    found = {name: alarms.aucp(held_out, pool) for name, (held_out, pool) in scores.items()}
    return Choice(max(found, key=lambda name: found[name]), found)


def aucp(model: ImageModel, held_out: Source, pool: Source) -> float:
    """AUCp of a model: how far unlabelled images score above normal ones that it has not seen; 0.5 is not at all.

    Below 0.5 the score may be upside down (`alarms.inversion_alarm`).
    """
    return alarms.aucp(image_scores(model, held_out), image_scores(model, pool))


def choose_model(models: Mapping[str, ImageModel], held_out: Source, pool: Source) -> Choice:
    """Choose among models by name: checkpoints of one training, or what `variants` gives."""
    return choose({name: (image_scores(m, held_out), image_scores(m, pool)) for name, m in models.items()})


def variants(model: ImageModel, **values: tuple[Any, ...]) -> dict[str, ImageModel]:
    """The same trained weights scored otherwise: for each named field of the recipe, one model for each of its values.

    `variants(model, reduction=("mean", "max"))` gives "reduction=mean" and "reduction=max". Several fields are varied
    one at a time. ValueError for a field that says nothing of how the model scores, and for a value it does not take.
    """
    return {
        f"{field}={value}": model.scored_by(**{field: value}) for field, options in values.items() for value in options
    }


def image_scores(model: ImageModel, images: Source) -> Scores:
    """Scores (n,) of all images of a source, in order."""
    found = [scores for _, scores, _ in score_source(model, images)]
    return np.concatenate(found) if found else np.empty(0)
