"""Phantom torsos with organs, each a known warp of one and the same body: to measure registration with.

Unlike the volumes of an export (`volume.py`), whose people differ in build, the same point of the body is known here in
every subject. Places are fractions along (slices from feet to head, rows from front to back, columns from the patient's
right to left) of the whole torso.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

Array = NDArray[np.float64]

EXTENT = (400.0, 260.0, 340.0)  # mm, of the whole torso
ORGANS = (
    "body",
    "right lung",
    "left lung",
    "heart",
    "liver",
    "spleen",
    "spine",
    "aorta",
    "right kidney",
    "left kidney",
)
HU = (-1000, 20, -820, -820, 45, 60, 50, 350, 140, 35, 35)  # of what is none of them, and of each
T1 = (
    0,
    120,
    5,
    5,
    60,
    90,
    70,
    25,
    10,
    65,
    65,
)  # a contrast as of another modality: fluid and bone are dark, fat bright
# centre and half axes as fractions: later ones lie over those before
_SHAPES: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...] = (
    ((0.5, 0.5, 0.5), (0.9, 0.44, 0.44)),
    ((0.70, 0.48, 0.27), (0.24, 0.33, 0.15)),
    ((0.70, 0.48, 0.73), (0.24, 0.33, 0.15)),
    ((0.60, 0.38, 0.56), (0.11, 0.17, 0.13)),
    ((0.42, 0.42, 0.33), (0.11, 0.28, 0.22)),
    ((0.42, 0.62, 0.78), (0.07, 0.11, 0.08)),
    ((0.5, 0.83, 0.5), (0.9, 0.075, 0.06)),
    ((0.5, 0.68, 0.56), (0.75, 0.045, 0.035)),
    ((0.24, 0.70, 0.30), (0.09, 0.09, 0.07)),
    ((0.26, 0.70, 0.70), (0.09, 0.09, 0.07)),
)


@dataclass(frozen=True, slots=True)
class Warp:
    """From a subject to the body that all share: an affine map and a smooth displacement on (n, n, n) nodes.

    A `strength` of 1 displaces a few centimetres at most, as between adults.
    """

    matrix: Array
    shift: Array
    bend: Array  # (n, n, n, 3)

    def __call__(self, points: Array) -> Array:
        """Places (..., 3) of the subject in the body."""
        at = np.moveaxis(np.clip(points, 0, 1), -1, 0) * (self.bend.shape[0] - 1)
        bent = np.stack([map_coordinates(self.bend[..., k], at, order=3, mode="nearest") for k in range(3)], -1)
        moved: Array = (points - 0.5) @ self.matrix.T + 0.5 + self.shift + bent
        return moved


def draw_warp(rng: np.random.Generator, strength: float = 1.0, tilt: float = 1.0) -> Warp:
    """A random subject; `tilt` is of the pose."""
    size = np.array(EXTENT)
    turn = rng.normal(0, 0.05 * tilt, 3)
    skew = np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    scale = np.diag(1 + strength * rng.uniform(-0.08, 0.08, 3))
    matrix = np.diag(1 / size) @ (np.eye(3) + skew) @ scale @ np.diag(size)
    bend = gaussian_filter(rng.normal(size=(7, 7, 7, 3)), (1, 1, 1, 0))
    bend *= strength * np.array([9.0, 7.0, 9.0]) / size / bend.std()
    return Warp(matrix, rng.normal(0, 6 * tilt, 3) / size, bend)


def draw_torso(
    warp: Warp | None,
    shape: Sequence[int],
    seed: int,
    *,
    view: tuple[float, float] = (0.0, 1.0),
    values: Sequence[float] = HU,
    noise: float = 15.0,
    without: Sequence[str] = (),
) -> tuple[NDArray[np.float32], NDArray[np.uint8], Array]:
    """Values and labels (`shape`; label k is the k-th of ORGANS, 0 none) of a subject, and where its voxels lie in the
    shared body: places (*shape, 3).

    view     the part of the torso, from below, that the slices show
    without  organs that this subject has not got
    """
    axes = [(np.arange(n) + 0.5) / n for n in shape]
    axes[0] = view[0] + axes[0] * (view[1] - view[0])
    own = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    places = own if warp is None else warp(own)
    labels = np.zeros(tuple(shape), np.uint8)
    for k, (name, (centre, half)) in enumerate(zip(ORGANS, _SHAPES, strict=True), 1):
        if name not in without:
            labels[_inside(name, places, centre, half)] = k
    labels[(labels > 1) & ~_inside("body", places, *_SHAPES[0])] = 0
    rng = np.random.default_rng(seed)
    found = np.asarray(values, np.float64)[labels]
    found += _inner(labels, places, float(np.ptp(values)), rng)
    found = gaussian_filter(found, 0.6) + rng.normal(0, noise, found.shape)
    return found.astype(np.float32), labels, places


def _inside(name: str, places: Array, centre: Sequence[float], half: Sequence[float]) -> NDArray[np.bool_]:
    away = np.abs((places - np.asarray(centre)) / np.asarray(half))
    if "lung" in name:  # flat at the base, pointed at the top
        low = (places[..., 0] - centre[0]) / half[0]
        dome = -0.55 - 0.35 * (away[..., 1] ** 2 + away[..., 2] ** 2)
        return np.asarray((np.square(away).sum(-1) < 1) & (low > dome))
    if name in ("body", "spine", "aorta"):
        return np.asarray((np.square(away[..., 1:]).sum(-1) < 1) & (away[..., 0] < 1))
    return np.asarray(np.square(away).sum(-1) < 1)


def _inner(labels: NDArray[np.uint8], places: Array, contrast: float, rng: np.random.Generator) -> Array:
    """Ribs and vertebrae, where they are in the shared body, and vessels, which each subject has its own of."""
    fine = gaussian_filter(rng.normal(size=labels.shape), 1.2)
    vessels = np.clip((fine / fine.std() - 1.5) / 0.5, 0, 1) * ((labels == 2) | (labels == 3)) * 0.4 * contrast
    z, y, x = np.moveaxis(places, -1, 0)
    ring = np.hypot((y - 0.5) / 0.385, (x - 0.5) / 0.385)
    ribs = (np.abs(ring - 1) < 0.06) & (np.cos(2 * np.pi * 13 * (z + 0.12 * y)) > 0.45) & (z > 0.42) & (labels == 1)
    discs = (np.cos(2 * np.pi * 15 * z) > 0.8) & (labels == 1 + ORGANS.index("spine"))
    return np.asarray(vessels + 0.25 * contrast * ribs - 0.15 * contrast * discs, np.float64)
