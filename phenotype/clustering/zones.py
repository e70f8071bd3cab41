"""A case described by how its images look in each zone of the body, from the texture of their regions.

Described by the code of a small autoencoder, images of routine data part by exposure, build and collimation. Texture by
zone, each image measured by its own spread, says less of these and more of where it looks how: 12 zones, as the lab's
phenotypes (Hofmanninger et al., MICCAI 2016) compare textures at corresponding anatomical places.
"""

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging.regions import FEATURES

ZONES = (3, 4)  # upper, middle and lower; the outer and inner half of each side
_TEXTURE = [FEATURES.index(name) - len(FEATURES) for name in ("mean", "std", "gradient")]
_PLACE = [FEATURES.index(name) - len(FEATURES) for name in ("row", "column")]


def describe(regions: NDArray[np.float32]) -> NDArray[np.float64]:
    """The descriptor (zones * 4,) of an image by the vectors of its regions (n, d), which end with FEATURES.

    For each zone the mean brightness, contrast and edge strength of its patches, and how much their brightness
    differs; all in standard deviations over the image. A zone without a region is as the whole image.
    """
    texture = regions[:, _TEXTURE].astype(np.float64)
    texture = (texture - texture.mean(axis=0)) / (texture.std(axis=0) + 1e-6)
    steps = np.clip((regions[:, _PLACE] * ZONES).astype(np.int64), 0, np.array(ZONES) - 1)
    zone = steps[:, 0] * ZONES[1] + steps[:, 1]
    found = np.tile([0.0, 0.0, 0.0, 1.0], (ZONES[0] * ZONES[1], 1))
    for number in np.unique(zone):
        inside = texture[zone == number]
        found[number] = [*inside.mean(axis=0), inside[:, 0].std()]
    return found.ravel()
