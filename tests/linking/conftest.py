"""Images as bags of regions, with planted term regions whose truth is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

GRID = 10
TERMS = 4


@dataclass(frozen=True, slots=True)
class Image:
    regions: NDArray[np.float32]  # (100, 18): 16 features and the place
    reported: NDArray[np.float64]  # (4,) what the report says, wrong in a share of cases
    shown: NDArray[np.bool_]  # (4,) what is there
    where: NDArray[np.bool_]  # (100, 4) regions that show it: about 7 of 100


def make_images(n: int, *, noise: float, seed: int) -> list[Image]:
    """Bodies of several tissues, varied from image to image. A term, in every fifth image, adds its own look near its
    own place; half of the images carry a device that no report mentions. `noise` of the labels are flipped."""
    fixed = np.random.default_rng(99)
    looks = fixed.normal(size=(TERMS + 1, 16))
    looks /= np.linalg.norm(looks, axis=1, keepdims=True)
    places = fixed.uniform(2, GRID - 3, size=(TERMS, 2))
    tissue = fixed.normal(size=(5, 16))
    rows, columns = np.divmod(np.arange(GRID * GRID), GRID)
    kind = (np.abs(columns - GRID / 2) < 1.5).astype(int) + 2 * (rows > 0.7 * GRID)
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(n):
        shown = rng.random(TERMS) < 0.2
        x = tissue[kind] + rng.normal(size=(GRID * GRID, 16)) + 0.5 * rng.normal(size=16)
        where = np.zeros((GRID * GRID, TERMS), bool)
        for term in np.flatnonzero(shown):
            row, column = places[term] + rng.normal(size=2)
            where[:, term] = (rows - row) ** 2 + (columns - column) ** 2 < 1.5**2
            x[where[:, term]] += 4 * looks[term]
        if rng.random() < 0.5:
            x[np.abs(rows - rng.uniform(0, GRID)) < 1] += 4 * looks[TERMS]
        reported = (shown ^ (rng.random(TERMS) < noise)).astype(np.float64)
        regions = np.hstack([x, np.stack([rows, columns], 1) / GRID]).astype(np.float32)
        images.append(Image(regions, reported, shown, where))
    return images


@pytest.fixture(scope="session")
def images() -> Callable[..., list[Image]]:
    return make_images
