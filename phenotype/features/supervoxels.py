"""Regions that follow what is in an image instead of a grid, as `phenotype embed --regions supervoxels` has them.

A region is described by the patch model's code of the patch (or cube) around its centre, by its own pixels
(`imaging.supervoxels.describe`), and, as all regions are, by texture and place of that patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from phenotype.features.views import Floats, View
from phenotype.features.volumes import Volume
from phenotype.imaging import regions, supervoxels
from phenotype.models.base import ImageModel


@dataclass(frozen=True, slots=True)
class Divided:
    """Regions of an image: slices (n,), boxes (n, 4) around them as fractions, vectors (n, e), and their label map
    (slices, rows, columns) over the whole image, coarser than it: 0, or the number of the region from 1 on."""

    slices: NDArray[np.int32]
    boxes: Floats
    vectors: Floats
    labels: NDArray[np.int32]


def divide_views(views: Sequence[View], model: ImageModel, size: float) -> Divided:
    """Superpixels of about `size` pixels of each view, inside the body or what is looked at."""
    slices, boxes, vectors, planes = [], [], [], {}
    count = 0
    for view in views:
        labels = _divided(view.pixels, view.inside, size)
        own = supervoxels.boxes_of(labels)
        corners = view.to_fractions(own.reshape(-1, 2, 2).astype(np.float64)).reshape(-1, 4)
        around = _around(supervoxels.centres_of(labels), view.pixels.shape, model.recipe.size)
        slices.append(np.full(len(own), view.slice, np.int32))
        boxes.append(corners.astype(np.float32))
        vectors.append(
            _vectors(view.pixels, labels, view.inside, regions.cut(view.pixels, around), around, view.body, model)
        )
        planes[view.slice] = _over_image(view, labels, count)
        count += len(own)
    return Divided(np.concatenate(slices), np.concatenate(boxes), np.concatenate(vectors), _stack(planes))


def divide_volume(volume: Volume, model: ImageModel, size: float) -> Divided:
    """Supervoxels of about `size` voxels a side, inside the body or what is looked at."""
    labels = _divided(volume.pixels, volume.inside, size)
    centres = supervoxels.centres_of(labels)
    side = model.recipe.size
    corners = np.clip(np.rint(centres - side / 2), 0, np.array(volume.pixels.shape) - side).astype(np.int32)
    cubes = np.stack([volume.pixels[tuple(slice(c, c + side) for c in corner)] for corner in corners.tolist()])
    around = np.hstack([corners[:, 1:], corners[:, 1:] + side])
    body = regions.box_of(np.asarray(volume.inside.any(axis=0)))
    vectors = _vectors(volume.pixels, labels, volume.inside, cubes, around, body, model)
    middle = volume.plane(0)
    own = supervoxels.boxes_of(labels)[:, [1, 2, 4, 5]].reshape(-1, 2, 2).astype(np.float64)
    planes: dict[int, NDArray[np.int32]] = {}
    for z in range(len(labels)):
        planes[volume.slice_of(z)] = _over_image(volume.plane(z), labels[z], 0)
    slices = np.array([volume.slice_of(z) for z in centres[:, 0] - 0.5], np.int32)
    return Divided(slices, middle.to_fractions(own).reshape(-1, 4).astype(np.float32), vectors, _stack(planes))


def _divided(pixels: Floats, inside: NDArray[np.bool_], size: float) -> NDArray[np.int32]:
    there = inside if inside.any() else np.ones_like(inside)  # as with patches: all of it where nothing is inside
    return supervoxels.supervoxels(pixels, size, inside=there)


def _around(centres: NDArray[np.float64], shape: tuple[int, ...], side: int) -> NDArray[np.int32]:
    """Boxes (n, 4) of squares around centres, moved into the image where they reach out of it."""
    corners = np.clip(np.rint(centres - side / 2), 0, np.array(shape) - side).astype(np.int32)
    return np.hstack([corners, corners + side])


def _vectors(
    pixels: Floats,
    labels: NDArray[np.int32],
    inside: NDArray[np.bool_],
    patches: Floats,
    around: NDArray[np.int32],
    body: tuple[int, int, int, int],
    model: ImageModel,
) -> Floats:
    codes = model.embed(torch.from_numpy(np.ascontiguousarray(patches, np.float32))[:, None]).numpy()
    own = supervoxels.describe(pixels, labels, inside)[:, : -pixels.ndim]  # their place is told below
    flat = patches if patches.ndim == 3 else patches[:, patches.shape[1] // 2]
    return np.hstack([codes, own, regions.features(flat, around, body)]).astype(np.float32)


def _over_image(view: View, labels: NDArray[np.int32], before: int) -> NDArray[np.int32]:
    """A label map of a view as one of its slice; numbers go on after `before`."""
    seen = view.over_image(labels.astype(np.float32))  # placed, not resampled: whole numbers stay whole
    found = np.rint(seen).astype(np.int32)
    return np.where(found > 0, found + before, 0).astype(np.int32)


def _stack(planes: dict[int, NDArray[np.int32]]) -> NDArray[np.int32]:
    """Planes by slice as one array up to the last of them."""
    found = np.zeros((max(planes) + 1, *next(iter(planes.values())).shape), np.int32)
    for number, plane in planes.items():
        found[number] = plane
    return found
