"""Cases described by texture in each zone of the body."""

import numpy as np

from phenotype.clustering.zones import ZONES, describe
from phenotype.imaging.regions import FEATURES


def regions(rng, bright=None):
    """Vectors of 400 regions: three numbers of a model, then texture and place; `bright` is a zone that is brighter."""
    vectors = rng.normal(size=(400, 3 + len(FEATURES))).astype(np.float32)
    place = rng.random((400, 2)).astype(np.float32)
    vectors[:, -2:] = place
    if bright is not None:
        inside = (np.floor(place * ZONES) == bright).all(axis=1)
        vectors[inside, 3 + FEATURES.index("mean")] += 3
    return vectors


def test_a_bright_zone_is_seen_as_such():
    plain, bright = describe(regions(np.random.default_rng(0))), describe(regions(np.random.default_rng(0), (2, 1)))
    assert plain.shape == (ZONES[0] * ZONES[1] * 4,)
    changed = (bright - plain).reshape(-1, 4)
    assert changed[:, 0].argmax() == 2 * ZONES[1] + 1


def test_exposure_does_not_matter():
    vectors = regions(np.random.default_rng(1), (0, 0))
    other = vectors.copy()
    for name in ("mean", "std", "gradient"):
        other[:, 3 + FEATURES.index(name)] = other[:, 3 + FEATURES.index(name)] * 2 + 5
    np.testing.assert_allclose(describe(other), describe(vectors), atol=1e-4)


def test_a_zone_without_regions_is_as_the_whole():
    vectors = regions(np.random.default_rng(2))
    vectors[:, -2] = 0.1  # all of them in the upper third
    found = describe(vectors).reshape(-1, 4)
    np.testing.assert_array_equal(found[ZONES[1] :], np.tile([0, 0, 0, 1], (2 * ZONES[1], 1)))
