"""Regions that follow what is in the image: SLIC superpixels of a slice or radiograph, supervoxels of a volume.

R. Achanta et al. 2012, "SLIC superpixels compared to state-of-the-art superpixel methods"; inside a mask after
B. Irving 2016, "maskSLIC: regional superpixel generation with application to local pathology characterisation in
medical images". Described by `descriptors`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging import descriptors

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]


def supervoxels(
    image: Floats,
    size: float,
    *,
    inside: NDArray[np.bool_] | None = None,
    spacing: Sequence[float] | None = None,
    compactness: float = 0.1,
    smoothing: float = 1.0,
) -> Labels:
    """Label map (*shape) of an image or volume with values in [0, 1]: regions 1 to n, each of one piece; 0 outside.

    size         side that a region would have as a square or cube, in units of `spacing` (mm; pixels where none is
                 given)
    inside       mask of what is divided, as of the lungs or the body; nothing is where it is empty
    compactness  how much nearness counts against likeness: high, and regions are squares
    smoothing    standard deviation of a Gaussian beforehand, in units of `spacing`
    """
    from skimage.segmentation import slic

    there = np.ones(image.shape, np.bool_) if inside is None else np.asarray(inside, np.bool_)
    steps = np.ones(image.ndim) if spacing is None else np.asarray(spacing, np.float64)
    if there.shape != image.shape or steps.shape != (image.ndim,) or not (steps > 0).all() or size <= 0:
        raise ValueError("needs a mask of the image's shape, a spacing for each axis, and a size above 0")
    if not there.any():
        return np.zeros(image.shape, np.int32)
    count = max(1, round(int(there.sum()) * float(steps.prod()) / size**image.ndim))
    found = slic(
        image.astype(np.float64),
        n_segments=count,
        compactness=compactness,
        sigma=list(smoothing / steps),
        spacing=list(steps / steps.min()),
        mask=None if there.all() else there,
        start_label=1,
        channel_axis=None,
        enforce_connectivity=True,
    )
    return _numbered(found, there)


def _numbered(found: NDArray[np.integer], there: NDArray[np.bool_]) -> Labels:
    """Regions from 1 on, without gaps. What was left without a label is of the nearest region."""
    from scipy import ndimage

    labels = np.where(there, found, 0)
    left = there & (labels == 0)
    if left.any() and labels.any():
        nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
        labels = np.where(left, labels[tuple(nearest)], labels)
    elif left.any():
        labels = there.astype(np.int64)
    names, numbers = np.unique(labels, return_inverse=True)
    first = 0 if names[0] == 0 else 1
    return (numbers.reshape(labels.shape) + first).astype(np.int32)


def boxes_of(labels: Labels) -> NDArray[np.int32]:
    """The smallest box (n, 2 * axes) around each region 1 to n: first corner, then last, exclusive."""
    from scipy import ndimage

    found = ndimage.find_objects(labels)
    if any(one is None for one in found):
        raise ValueError("a region is missing: labels count from 1 on without gaps")
    corners = [[s.start for s in one] + [s.stop for s in one] for one in found]
    return np.asarray(corners, np.int32).reshape(-1, 2 * labels.ndim)


def centres_of(labels: Labels) -> NDArray[np.float64]:
    """The mean place (n, axes) of each region's pixels, in pixels: their middles are at halves."""
    places = np.indices(labels.shape, dtype=np.float32) + np.float32(0.5)
    return np.asarray(descriptors.over_labels(places, labels), np.float64)


def columns(axes: int) -> tuple[str, ...]:
    """Names of the columns of `describe`, of regions of 2 or 3 axes."""
    texture = (*descriptors.MOMENTS, *descriptors.HARALICK, *descriptors.CHANNELS[1:])
    return (*texture, "size", *("slice", "row", "column")[-axes:])


def describe(image: Floats, labels: Labels, body: NDArray[np.bool_]) -> Floats:
    """Describe regions 1 to n of an image in [0, 1], 2-D or 3-D, by (n, len(columns(axes))) float32.

    Moments and co-occurrences of grey values, means of what filters see (of a volume slice by slice: slices are often
    many times as far apart as pixels), the logarithm of the number of pixels, and the centre in the box around `body`,
    0 to 1.
    """
    count = int(labels.max(initial=0))
    if count == 0:
        return np.zeros((0, len(columns(image.ndim))), np.float32)
    planes, marked = (image, labels) if image.ndim == 3 else (image[None], labels[None])
    sums = np.zeros((count, len(descriptors.CHANNELS)))
    for plane, mark in zip(planes, marked, strict=True):
        if mark.any():
            inside = np.bincount(mark.ravel(), minlength=count + 1)[1:]
            means = descriptors.over_labels(descriptors.channels(plane), mark)
            sums[: len(means)] += means * inside[: len(means), None]
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    seen = descriptors.in_logarithms((sums / np.maximum(sizes, 1)[:, None]).astype(np.float32))
    edges = [
        np.flatnonzero(body.any(axis=tuple(a for a in range(body.ndim) if a != axis))) for axis in range(body.ndim)
    ]
    low = np.array([edge[0] if edge.size else 0 for edge in edges])
    high = np.array([edge[-1] + 1 if edge.size else n for edge, n in zip(edges, body.shape, strict=True)])
    places = np.clip((centres_of(labels) - low) / (high - low), 0.0, 1.0)
    parts = (
        descriptors.moments(image, labels),
        descriptors.haralick(image, labels),
        seen[:, 1:],
        np.log(np.maximum(sizes, 1))[:, None],
        places,
    )
    return np.hstack(parts).astype(np.float32)
