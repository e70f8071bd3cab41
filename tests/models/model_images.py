"""Images of the tests' own making: soft blobs on a gradient with noise, and a bright spot where asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Images:
    """A `Source` over an array."""

    def __init__(self, array: npt.NDArray[np.float32]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def take(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.array[indices]


class ToldImages(Images):
    """With a class for each (whether it is brighter than most), or an image that it is to become (its negative)."""

    def __init__(self, array: npt.NDArray[np.float32], told: str) -> None:
        super().__init__(array)
        bright = array.mean(axis=(1, 2, 3))
        self.told = (bright > np.median(bright)).astype(np.int64) if told == "classes" else 1 - array

    def targets(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | npt.NDArray[np.float32]:
        return self.told[indices]


def images_for(told: str, array: npt.NDArray[np.float32]) -> Images:
    """The source that a family with this `told` learns from."""
    return Images(array) if told == "nothing" else ToldImages(array, told)


def normal(count: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """Two soft dark "lungs" of varied place, width and depth on a vertical gradient, with noise: (n, 1, size, size)."""
    rng = np.random.default_rng([seed, size])
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    images = np.empty((count, 1, size, size), dtype=np.float32)
    for image in images:
        image[0] = 0.65 + rng.uniform(-0.15, 0.15) * (y - 0.5)
        for side in (0.3, 0.7):
            cx, cy = side + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.03)
            distance = ((x - cx) / rng.uniform(0.12, 0.18)) ** 2 + ((y - cy) / rng.uniform(0.28, 0.36)) ** 2
            image[0] -= rng.uniform(0.3, 0.4) * np.exp(-distance)
        image[0] += rng.normal(0, 0.02, (size, size))
    return images.clip(0, 1)


def with_spot(images: npt.NDArray[np.float32], seed: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """The images with a bright spot each, and its place (n, 2) as row and column."""
    rng = np.random.default_rng([seed, 1])
    size = images.shape[-1]
    rows, columns = np.mgrid[:size, :size]
    at = rng.integers(size // 4, 3 * size // 4, (len(images), 2))
    spots = [0.4 * np.exp(-((rows - r) ** 2 + (columns - c) ** 2) / (2 * (size / 16) ** 2)) for r, c in at]
    return (images + np.stack(spots)[:, None]).clip(0, 1).astype(np.float32), at


def blobs(count: int, size: int, seed: int) -> npt.NDArray[np.float32]:
    """A bright blob each on black, of varied place and width: (n, 1, size, size). Their mean says little of any."""
    rng = np.random.default_rng([seed, size, 2])
    y, x = (np.mgrid[:size, :size] + 0.5) / size
    at, width = rng.uniform(0.25, 0.75, (count, 2, 1, 1)), rng.uniform(0.1, 0.2, (count, 1, 1))
    distance = ((x - at[:, 0]) ** 2 + (y - at[:, 1]) ** 2) / (2 * width**2)
    return np.exp(-distance)[:, None].astype(np.float32)


def opaque(images: np.ndarray) -> np.ndarray:
    """With an opacity in the middle of the left lung of the image."""
    side = images.shape[-1]
    down, across = (np.mgrid[:side, :side] + 0.5) / side
    spot = 0.35 * np.exp(-((across - 0.3) ** 2 + (down - 0.5) ** 2) / (2 * 0.07**2))
    return (images + spot).clip(0, 1).astype(np.float32)
