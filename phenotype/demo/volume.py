"""Phantom CT volumes of the chest in Hounsfield units, with nodules and effusions planted.

Coordinates are the patient's, as DICOM has them, in mm: x to the patient's left, y to the back, z to the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from phenotype.demo.lesions import ZONES, Lesion
from phenotype.demo.thorax import Array, Build

AIR, LUNG, FAT, TISSUE, FLUID, BONE = -1000, -850, -90, 45, 10, 500  # HU
SIZE = 96  # rows and columns


@dataclass(frozen=True, slots=True)
class Space:
    """Where the voxels of a volume are: `origin` is the centre of voxel (0, 0, 0), `spacing` goes (z, y, x)."""

    origin: tuple[float, float, float]  # z, y, x
    spacing: tuple[float, float, float]
    slices: int


@dataclass(frozen=True, slots=True)
class PlacedVolume:
    """A lesion in a volume: centre and the two corners of its box, each (x, y, z) in mm."""

    lesion: Lesion
    centre: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]


def draw_volume(
    build: Build, lesions: Sequence[Lesion], seed: int
) -> tuple[NDArray[np.int16], Space, tuple[PlacedVolume, ...]]:
    """HU values (slices from feet to head, rows, columns), where they are, and where the lesions lie.

    Noise and anatomy depend on the seed alone: without a lesion the volume differs only there.
    """
    rng = np.random.default_rng(seed)
    slices = int(rng.integers(24, 33))
    pixel = (2 * (build.half_width + build.wall) + 50) / SIZE
    thick = round(265 / slices, 1)
    origin = (round(float(rng.uniform(-400, -200)), 1), -SIZE / 2 * pixel, -SIZE / 2 * pixel)
    space = Space(origin, (thick, round(pixel, 4), round(pixel, 4)), slices)
    z, y, x = (
        (np.arange(n, dtype=np.float32) * s + (o if axis else 0)).reshape([-1 if a == axis else 1 for a in range(3)])
        for axis, (n, s, o) in enumerate(zip((slices, SIZE, SIZE), space.spacing, origin, strict=True))
    )
    up = z / (thick * slices)  # 0 the lowest slice, 1 the highest
    hu, lung = _chest(build, x, y, up, rng)
    placed = []
    for lesion in lesions:
        grow = np.random.default_rng(lesion.seed)
        shape, value, found = (_nodule if lesion.finding == "nodule" else _effusion)(
            build, lesion, lung, x, y, z, up, grow
        )
        hu = hu * (1 - shape) + value * shape
        placed.append(_place(found, shape, space))
    hu = gaussian_filter(hu, (0, 0.5, 0.5)) + rng.normal(0, 18, hu.shape)
    return np.clip(np.rint(hu), -1024, 3000).astype(np.int16), space, tuple(placed)


def _edge(distance: Array, width: float = 2.5) -> Array:
    return np.clip(distance / width + 0.5, 0, 1).astype(np.float32)


def _ellipse(x: Array, y: Array, a: Array | float, b: Array | float) -> Array:
    """Roughly the distance (mm) inside an ellipse around 0, negative outside."""
    return ((1 - np.hypot(x / a, y / b)) * np.minimum(a, b)).astype(np.float32)


def _chest(build: Build, x: Array, y: Array, up: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """HU values, and the lungs (1 inside)."""
    wide = build.half_width * (0.72 + 0.28 * np.clip((1 - up) / 0.6, 0, 1))
    deep = 0.72 * build.half_width
    body = _edge(_ellipse(x, y, wide + 14 + build.wall, deep + 12 + 0.7 * build.wall))
    cage = _ellipse(x, y, wide + 8, deep + 6)
    hu = AIR + body * (FAT - AIR)
    hu = hu + _edge(cage + 0.35 * build.wall) * body * (TISSUE - FAT)
    # ribs: oblique rings, cut by each slice where they pass
    ring = _edge(4.5 - np.abs(cage - 1), 3)
    angle = np.arctan2(y, np.abs(x))
    ribs = ring * _edge(np.cos(6.28 * (9 * up + 0.9 * angle)) - 0.1, 0.5) * (up > 0.08)
    hu = hu + ribs * (BONE - hu)
    # lungs: each an ellipse in every slice, smaller at the apex, domed at the base
    taper = np.sqrt(np.clip((0.99 - up) / 0.3, 0, 1)).clip(0, 1)
    half = wide * 0.45 * (0.35 + 0.65 * taper)
    side = np.where(x > 0, 1.0, -1.0).astype(np.float32)
    across = x - side * (wide * 0.53)
    dome = 0.24 - 0.20 * np.clip((across / (0.48 * wide)) ** 2 + ((y - 10) / (0.9 * deep)) ** 2, 0, 1.4)
    lung = _edge(_ellipse(across, y - 4, half, deep * (0.45 + 0.5 * taper)))
    lung = lung * _edge((up - dome) * 260, 8) * (taper > 0)
    off = np.abs(up - 0.38)  # from the level of the heart's middle
    heart = _edge(_ellipse(x - 20, y + 24, build.heart * build.half_width * np.sqrt(1 - off), 48 - 60 * off)) * (
        off < 0.26
    )
    lung = lung * (1 - heart)
    hu = hu + lung * (LUNG - hu)
    hu = hu + heart * (TISSUE - hu)
    hu = _vessels(hu, lung, rng)
    spine = _edge(_ellipse(x, y - deep * 0.72, 17, 15))
    canal = _edge(_ellipse(x, y - deep * 0.72 - 22, 8, 8))
    hu = (
        hu
        + spine * (BONE * 0.5 - hu)
        + _edge(_ellipse(x, y - deep * 0.72 - 24, 15, 14)) * (1 - canal) * (BONE - TISSUE) * 0.6
    )
    hu = hu + _edge(_ellipse(x, y + deep * 0.96, 14, 5)) * (BONE * 0.7 - hu) * (up > 0.35)
    trachea = _edge(_ellipse(x, y - 8, 9, 9)) * (up > 0.6)
    hu = hu + trachea * (AIR - hu)
    aorta = _edge(_ellipse(x - 16, y - deep * 0.42, 12, 12)) * (up < 0.72)
    return hu + aorta * (TISSUE - hu), lung


def _vessels(hu: Array, lung: Array, rng: np.random.Generator) -> Array:
    """Vessels as the bright ridges of smooth noise, thicker towards the middle."""
    noise = gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), (0.6, 1.3, 1.3))
    ridge = np.clip((noise / noise.std() - 1.7) / 0.5, 0, 1)
    return np.asarray(hu + 0.75 * ridge * lung * (TISSUE - hu), np.float32)


def _nodule(
    build: Build, lesion: Lesion, lung: Array, x: Array, y: Array, z: Array, up: Array, rng: np.random.Generator
) -> tuple[Array, float, Lesion]:
    radius = lesion.size / 2
    core = gaussian_filter((lung > 0.99).astype(np.float32), (0.7, 2, 2)) > 0.985  # away from walls
    mine = core & ((x > 0) == (lesion.side == "left"))
    heights = up[mine.any((1, 2))]
    zone = np.clip(3 * (up - heights.min()) / (np.ptp(heights) + 1e-6), 0, 2.99).astype(int)  # from the base up
    wanted = mine & (zone == 2 - ZONES.index(lesion.zone))
    choices = np.argwhere(wanted if wanted.any() else mine)
    k, i, j = choices[int(rng.integers(len(choices)))]
    distance = np.sqrt((x - x.flat[j]) ** 2 + (y - y.flat[i]) ** 2 + (z - z.flat[k]) ** 2)
    return _edge(radius - distance, 3) * lung, float(TISSUE), replace(lesion, zone=ZONES[2 - int(zone.flat[k])])


def _effusion(
    build: Build, lesion: Lesion, lung: Array, x: Array, y: Array, z: Array, up: Array, rng: np.random.Generator
) -> tuple[Array, float, Lesion]:
    back = build.half_width * 0.72  # the patient lies on the back: fluid gathers there, most at the base
    level = back - lesion.size * np.clip(1.35 - 1.3 * up, 0, 1) - 0.0012 * (np.abs(x) - 60) ** 2
    mine = ((x > 0) == (lesion.side == "left")).astype(np.float32)
    return _edge(y - level, 4) * lung * mine * (up < 0.8), float(FLUID), replace(lesion, zone="lower")


def _place(lesion: Lesion, shape: Array, space: Space) -> PlacedVolume:
    at = np.argwhere(shape > 0.5)
    spacing, origin = np.array(space.spacing), np.array(space.origin)

    def mm(index: NDArray[np.float64]) -> tuple[float, float, float]:
        zz, yy, xx = np.round(index * spacing + origin, 1)
        return float(xx), float(yy), float(zz)

    return PlacedVolume(lesion, mm(at.mean(0)), mm(at.min(0) - 0.5), mm(at.max(0) + 0.5))
