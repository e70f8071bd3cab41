"""Soft lesions planted into healthy radiographs, each known to the pixel: what maps are measured against.

They are blobs, and real disease often is not: they measure whether a map finds a small soft change, and nothing else. A
score must not be chosen by them, since they reward a maximum where real disease is diffuse.
"""

import numpy as np
from scipy import ndimage


def plant(image, rng):
    """One lesion in an image (rows, columns) in [0, 1]: the new image, and the mask of what changed by over half.

    A super-Gaussian blob exp(-(d^2 / 2)^p), its width a standard deviation of 3 to 12 % of the image; three in ten are
    elongated, two in ten are clusters of two to four smaller ones. It changes the grey values by 0.10 to 0.35 of the
    image's range, seven in ten times upwards, and its centre is on the body, where there is room for that change.
    """
    low, high = np.percentile(image, (1, 99))
    contrast = rng.uniform(0.10, 0.35) * (high - low) * (1 if rng.uniform() < 0.7 else -1)
    smooth = ndimage.uniform_filter(image, [max(3, side // 10) for side in image.shape])
    allowed = _centres(smooth, low, high)
    room = allowed & (smooth + contrast > low) & (smooth + contrast < high)
    places = np.argwhere(room if room.any() else allowed)
    centre = (places[rng.integers(len(places))] + 0.5) / image.shape
    sigma, power, kind = rng.uniform(0.03, 0.12), rng.uniform(1, 2.5), rng.uniform()
    if kind < 0.2:
        field = np.zeros(image.shape)
        for _ in range(rng.integers(2, 5)):
            one = _blob(image.shape, centre + rng.normal(0, 1.2 * sigma, 2), max(0.5 * sigma, 0.025))
            field = np.maximum(field, one * rng.uniform(0.8, 1))
    else:
        ratio = rng.uniform(1.5, 3) if kind < 0.5 else 1.0
        field = _blob(image.shape, centre, sigma, ratio, rng.uniform(0, np.pi), power)
    planted = np.clip(image + contrast * field, 0, 1)
    change = np.abs(planted - image)
    return planted.astype(np.float32), change > 0.5 * max(change.max(), 1e-6)


def _centres(smooth, low, high):
    """Where a lesion may be centred: away from the border, neither in the air around the body nor on a marker."""
    inner = np.zeros(smooth.shape, dtype=bool)
    rows, columns = (round(0.12 * side) for side in smooth.shape)
    inner[rows : smooth.shape[0] - rows, columns : smooth.shape[1] - columns] = True
    on_body = inner & (smooth > low + 0.12 * (high - low)) & (smooth < low + 0.95 * (high - low))
    return on_body if on_body.any() else inner


def _blob(shape, centre, sigma, ratio=1.0, angle=0.0, power=1.0):
    """A blob in fractions of the image's sides; `ratio` of its axes, of the same area whatever that is."""
    y, x = ((np.arange(side) + 0.5) / side - at for side, at in zip(shape, centre, strict=True))
    y, x = y[:, None], x[None]
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    squared = (along**2 / ratio + across**2 * ratio) / sigma**2
    return np.exp(-((squared / 2) ** power))
