"""Which volume is the reference, and which are templates: by what their headers say, before any pixel is read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Described:
    """A volume: its modality, its extent and the distance of its voxels along slices, rows and columns, mm."""

    image_id: str
    modality: str
    extent: tuple[float, float, float]
    spacing: tuple[float, float, float]


def most_complete(volumes: Sequence[Described]) -> Described:
    """Of the most frequent modality, the volume that shows most: the longest, to 2 cm, and of those the finest.

    ValueError where there is none.
    """
    counted = Counter(v.modality for v in volumes)
    return min(
        volumes,
        key=lambda v: (-counted[v.modality], v.modality, -round(v.extent[0] / 20), np.prod(v.spacing), v.image_id),
    )


def unlike(volumes: Sequence[Described], reference: Described, count: int) -> list[str]:
    """The ids of `count` volumes as unlike the reference and each other as can be: each next one is the furthest from
    all chosen (Gonzalez 1985), another modality being as far as a field of view of a quarter of the length."""
    left = sorted((v for v in volumes if v.image_id != reference.image_id), key=lambda v: v.image_id)
    chosen = [reference]
    while left and len(chosen) <= count:
        far = [min(_distance(v, c) for c in chosen) for v in left]
        chosen.append(left.pop(int(np.argmax(far))))
    return [v.image_id for v in chosen[1:]]


def _distance(one: Described, other: Described) -> float:
    size = np.log2(np.array(one.extent) / other.extent)
    fine = 0.5 * np.log2(np.array(one.spacing) / other.spacing)
    return float(np.sqrt(np.square(size).sum() + np.square(fine).sum()) + 2.0 * (one.modality != other.modality))
