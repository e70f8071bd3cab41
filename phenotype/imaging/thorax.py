"""The thorax of the common space: a drawing, no patient. Lungs of average outline lie in a square, the body around.

Radiographs are laid onto it (`phenotype.normalization`), and may be looked at through its window (`window_of`): the
part of an image where lungs are, whatever the collimation, the distance and the build.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import masks
from phenotype.imaging.grids import apply

SIDE = 256  # pixels of the drawing
LUNGS = (0.12, 0.12, 0.68, 0.76)  # box of the lungs: top, left, height, width
BODY = (0.0, 0.0, 1.0, 1.0)  # box of the body
MARGIN = 0.06  # of the lungs' extent, around them, in the window

Box = tuple[float, float, float, float]


@cache
def lungs() -> NDArray[np.uint8]:
    """The lungs: labels (256, 256), 1 on the left of the picture, 2 on the right."""
    return masks.average_lungs(SIDE, LUNGS)


def window_of(backward: NDArray[Any]) -> Box:
    """Where lungs and a margin around them lie in an image: top, left, bottom, right as fractions of it.

    They may reach out of the image. `backward` is the grid over the thorax of places in the image; where it turns or
    bends, the box is upright all the same, through the middles of the four sides.
    """
    top, left, height, width = LUNGS
    low, high = np.array([top, left]), np.array([top + height, left + width])
    around = MARGIN * (high - low)
    (row0, col0), (row1, col1), (row, col) = low - around, high + around, (low + high) / 2
    sides = apply(backward, np.array([[row0, col], [row, col0], [row1, col], [row, col1]]))
    return float(sides[0, 0]), float(sides[1, 1]), float(sides[2, 0]), float(sides[3, 1])
