"""Volumes registered to each other, where every point of the one is known in the other."""

from functools import cache

import numpy as np
import pytest

from phenotype.demo.torso import EXTENT, ORGANS, T1, draw_torso, draw_warp
from phenotype.imaging import grids
from phenotype.normalization.volumes import Registration, Volume, prepare, quality, register

SHAPE = (48, 40, 50)
SPACING = tuple(mm / n for mm, n in zip(EXTENT, SHAPE, strict=True))
COARSE = 8.0  # mm


@cache
def reference():
    values, labels, _ = draw_torso(None, SHAPE, 0)
    return prepare(values, SPACING, None, "CT", COARSE), labels


def subject(seed, *, view=(0.0, 1.0), contrast="CT"):
    shape = (round(SHAPE[0] * (view[1] - view[0])), *SHAPE[1:])
    kind = {"values": T1, "noise": 3.0} if contrast != "CT" else {}
    values, labels, places = draw_torso(draw_warp(np.random.default_rng(seed)), shape, seed, view=view, **kind)
    return prepare(values, SPACING, None, contrast, COARSE), labels, places


@cache
def registered(seed, view=(0.0, 1.0), contrast="CT") -> tuple[Registration, float, float]:
    """The registration, the median error of all points of the body (mm), and the mean Dice of the organs in view."""
    image, labels, places = subject(seed, view=view, contrast=contrast)
    found = register(image, reference()[0])
    off = np.linalg.norm((grids.apply(found.forward, grids.centres(labels.shape)) - places) * EXTENT, axis=-1)
    warped = grids.warp_labels(reference()[1], found.forward, labels.shape)
    return found, float(np.median(off[labels > 0])), organ_dice(warped, labels)


def organ_dice(one, other):
    kinds = [k for k in range(2, len(ORGANS) + 1) if (other == k).sum() > 50]
    both = [2 * ((one == k) & (other == k)).sum() / ((one == k).sum() + (other == k).sum()) for k in kinds]
    return float(np.mean(both))


def before(seed):
    _, labels, places = subject(seed)
    off = np.linalg.norm((grids.centres(labels.shape) - places) * EXTENT, axis=-1)
    return float(np.median(off[labels > 0])), organ_dice(reference()[1], labels)


def test_a_known_warp_is_found():
    found, off, dice = registered(1)
    assert before(1)[0] > 15 and before(1)[1] < 0.7
    assert off < 8.0  # of voxels of 8 mm
    assert dice > 0.87
    assert found.folded == 0.0


@pytest.mark.parametrize("view", [(0.5, 0.9), (0.1, 0.45)])
def test_a_fragment_finds_its_place_along_the_body(view):
    found, off, dice = registered(1, view)
    assert off < 9.0 and dice > 0.85
    low, high = grids.in_view(found.forward)
    assert low[0] == pytest.approx(view[0], abs=0.1) and high[0] == pytest.approx(view[1], abs=0.1)


def test_another_modality_is_registered_too():
    _, off, dice = registered(2, contrast="MR")
    assert off < 12.0 and dice > 0.8


def test_the_orientation_of_the_slices_does_not_matter():
    """The same patient in coronal slices: rows go down from the head, slices to the back."""
    image, _, places = subject(1)
    values = np.transpose(image.values, (1, 0, 2))[:, ::-1]
    hounsfield = np.interp(values, [0.0, 0.35, 0.8, 1.0], [-1000.0, -150.0, 250.0, 1000.0])
    extent = (EXTENT[1], EXTENT[0], EXTENT[2])
    spacing = [mm / n for mm, n in zip(extent, values.shape, strict=True)]
    coronal = prepare(hounsfield.astype(np.float32), spacing, (1, 0, 0, 0, 0, -1), "CT", COARSE)
    assert np.allclose(coronal.to_mm(np.array([0.2, 0.3, 0.4])), image.to_mm(np.array([0.7, 0.2, 0.4])))
    found = register(coronal, reference()[0])
    wanted = np.transpose(places, (1, 0, 2, 3))[:, ::-1]
    there = grids.apply(found.forward, grids.centres(wanted.shape[:-1]))
    off = np.linalg.norm((there - wanted) * EXTENT, axis=-1)
    assert np.median(off[8:-8, 8:-8, 8:-8]) < 10.0


def test_quality_tells_a_good_registration_from_a_bad_one():
    image, _, _ = subject(1)
    found, _, _ = registered(1)
    assert found.quality > 0.7
    shifted = found.forward + np.float32([0.1, 0.0, 0.0])
    assert quality(image, reference()[0], shifted) < found.quality - 0.2
    assert quality(image, reference()[0], found.forward + 5) == 0.0
    assert quality(image, image, np.asarray(grids.nodes((4, 4, 4)), np.float32)) == pytest.approx(1.0, abs=0.02)


def test_the_same_volumes_give_the_same_bits():
    again = register(subject(1)[0], reference()[0])
    assert again.forward.tobytes() == registered(1)[0].forward.tobytes()
    assert again.quality == registered(1)[0].quality


def test_a_volume_of_nothing_is_refused():
    nothing = Volume(np.zeros((12, 12, 12), np.float32), EXTENT, np.eye(3)[::-1], "CT")
    with pytest.raises(ValueError, match="nothing in common"):
        register(nothing, reference()[0])
