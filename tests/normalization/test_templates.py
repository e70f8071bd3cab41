"""The direct way first, templates where it fails, and of all ways the best by its quality."""

from functools import cache

import numpy as np
import pytest

from phenotype.demo.torso import EXTENT, ORGANS, draw_torso, draw_warp
from phenotype.imaging import grids
from phenotype.normalization.choice import Described, most_complete, unlike
from phenotype.normalization.templates import DIRECT, Template, normalize
from phenotype.normalization.volumes import prepare, register

SHAPE = (40, 34, 42)
SPACING = tuple(mm / n for mm, n in zip(EXTENT, SHAPE, strict=True))
COARSE = 10.0  # mm
LOST = ("left lung",)


def drawn(seed, *, view=(0.0, 1.0), without=(), strength=1.0):
    shape = (round(SHAPE[0] * (view[1] - view[0])), *SHAPE[1:])
    warp = draw_warp(np.random.default_rng(seed), strength, strength) if seed else None
    values, labels, places = draw_torso(warp, shape, seed, view=view, without=without)
    return prepare(values, SPACING, None, "CT", COARSE), labels, places


@cache
def reference():
    return drawn(0)


@cache
def templates():
    """A patient without a left lung, and one like the reference."""
    found = {}
    for name, volume in {"one lung": drawn(101, without=LOST, strength=0.3)[0], "usual": drawn(102)[0]}.items():
        found[name] = Template(volume, register(volume, reference()[0]))
    return found


def off(found, labels, places):
    """The median error of all points of the body, mm."""
    away = np.linalg.norm((grids.apply(found.forward, grids.centres(labels.shape)) - places) * EXTENT, axis=-1)
    return float(np.median(away[labels > 0]))


def test_where_the_direct_way_fails_a_template_finds_the_place():
    """The upper half of a patient without a left lung: nothing in the reference looks like it."""
    image, labels, places = drawn(2, view=(0.5, 0.95), without=LOST)
    alone = normalize(image, reference()[0], dict, gate=0.75, threshold=0.5)
    assert (alone.route, alone.accepted, alone.reason) == (DIRECT, False, "quality below 0.5")
    assert off(alone, labels, places) > 60
    found = normalize(image, reference()[0], templates, gate=0.75, threshold=0.5)
    assert found.route == "one lung" and found.accepted and found.reason == ""
    assert off(found, labels, places) < 14
    assert found.tried["one lung"] > found.tried[DIRECT] + 0.2
    organs = [k for k, name in enumerate(ORGANS, 1) if name in ("right lung", "heart", "spine")]
    warped = grids.warp_labels(reference()[1], found.forward, labels.shape)
    for k in organs:
        assert 2 * ((warped == k) & (labels == k)).sum() / ((warped == k).sum() + (labels == k).sum()) > 0.7


def test_templates_are_not_asked_for_where_the_direct_way_is_good():
    def never():
        raise AssertionError("asked for")

    image, labels, places = drawn(2)
    found = normalize(image, reference()[0], never, gate=0.6, threshold=0.5)
    assert (found.route, list(found.tried)) == (DIRECT, [DIRECT])
    assert off(found, labels, places) < 10


def test_of_several_ways_the_best_is_kept_though_all_were_tried():
    """A gate that nothing passes: on a usual patient the chain is tried, is worse, and is left."""
    image, _, _ = drawn(2)
    found = normalize(image, reference()[0], templates, gate=1.1, threshold=0.5)
    assert set(found.tried) == {DIRECT, "one lung", "usual"}
    assert found.route == DIRECT == max(found.tried, key=found.tried.__getitem__)


def test_the_reference_shows_most_and_templates_are_unlike_it():
    def volume(name, modality="CT", length=300.0, spacing=2.0):
        return Described(name, modality, (length, 300.0, 400.0), (spacing, 0.8, 0.8))

    volumes = [
        *(volume("a", spacing=5.0), volume("b"), volume("c", length=120.0), volume("d", "MR", length=600.0)),
        *(volume("e", length=302.0), volume("f", spacing=2.5)),
    ]
    chosen = most_complete(volumes)
    assert chosen.image_id == "b"  # the longest CT to 2 cm, of the thinnest slices
    assert unlike(volumes, chosen, 2) == ["d", "c"]
    assert unlike(volumes[::-1], chosen, 9) == unlike(volumes, chosen, 9)
    assert len(unlike(volumes, chosen, 9)) == 5
    with pytest.raises(ValueError, match="empty"):
        most_complete([])
