"""Samples with what a model is told beside them: the class that reports give a study, or a mask that it is to draw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from phenotype.features.samples import Samples

TARGETS = ("lung", "body")  # masks that an image can be told to become


class ClassedSamples:
    """Samples, and the class of the image that each is of."""

    def __init__(self, samples: Samples, classes: Sequence[int]) -> None:
        self.samples = samples
        self._classes = np.asarray(classes, np.int64)[samples.owners]

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples (n, 1, *spatial) in [0, 1]."""
        return self.samples.take(indices)

    def targets(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes (n,), -1 where the reports do not say."""
        return self._classes[indices]


class MaskedSamples:
    """Samples, and the mask of the lungs or the body in each, found in the sample itself and kept in `path`."""

    def __init__(self, samples: Samples, what: str, path: Path) -> None:
        self.samples = samples
        shape = (len(samples), *samples.take(np.arange(1)).shape[2:])
        self._masks = np.memmap(path, np.uint8, "w+", shape=shape)
        for place in range(len(samples)):
            self._masks[place] = mask_of(samples.take(np.array([place]))[0, 0], what)

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Samples (n, 1, *spatial) in [0, 1]."""
        return self.samples.take(indices)

    def targets(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Masks (n, 1, *spatial), 1 inside and 0 outside."""
        return np.asarray(self._masks[indices], np.float32)[:, None]


def mask_of(image: NDArray[np.float32], what: str) -> NDArray[np.bool_]:
    """Where the 'lung' or the 'body' is in an image with values in [0, 1]."""
    from phenotype.imaging import masks

    return masks.body_mask(image) if what == "body" else masks.lung_mask(image).labels > 0
