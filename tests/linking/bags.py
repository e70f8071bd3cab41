"""Bags with planted terms, for the tests of mappers and of what is made of them."""

import numpy as np

from phenotype.linking.mapper import DENIED, POSSIBLE, PRESENT, UNMENTIONED, Bag

GRID = 8
SIDE = 8  # of the patches that the patch network takes
PROBABLE = np.array([0.95, 0.6, 0.03, 0.1])  # of a term whose report says so


def planted(n, *, noise=0.0, seed=0, patches=False):
    """Images of GRID x GRID regions with two planted terms, the first small, and a third that nobody mentions.

    Returns bags, what is there (n, 3) and where (n, GRID * GRID, 3). Of the reports `noise` say the contrary; those are
    more often in doubt. Features are a look and the place, or (patches) two patches and the place.
    """
    fixed = np.random.default_rng(7)
    looks = fixed.normal(size=(2, 10))
    looks *= 2.5 / np.linalg.norm(looks, axis=1, keepdims=True)
    rows, columns = (g.ravel() for g in np.indices((GRID, GRID)))
    tissue = fixed.normal(size=(2, 10))
    rng = np.random.default_rng(seed)
    bags, there, where = [], [], []
    for number in range(n):
        has = np.array([*(rng.random(2) < (0.3, 0.35)), False])
        shows = np.zeros((GRID * GRID, 3), bool)
        x = tissue[(columns > 3).astype(int)] + rng.normal(size=(GRID * GRID, 10))
        patch = rng.normal(size=(GRID * GRID, 2, SIDE, SIDE))
        for term, (middle, radius) in enumerate([((2, 2), 1.1), ((5, 5), 2.0)]):
            if has[term]:
                at = np.array(middle) + rng.integers(-1, 2, 2)
                shows[:, term] = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 < radius**2
                x[shows[:, term]] += looks[term]
                if term == 0:
                    patch[shows[:, term], :, 2:6, 2:6] += 2.5
                else:
                    patch[shows[:, term], :, ::2] += 1.5
        said = has[:2] ^ (rng.random(2) < noise)
        doubt = rng.random(2) < np.where(said != has[:2], 0.6, 0.1)
        states = np.where(said, np.where(doubt, POSSIBLE, PRESENT), np.where(doubt, UNMENTIONED, DENIED))
        states = np.array([*states, UNMENTIONED], np.int8)
        place = np.stack([rows + 0.5, columns + 0.5], axis=1) / GRID
        looked = patch.reshape(GRID * GRID, -1) if patches else x
        regions = np.hstack([looked, place]).astype(np.float32)
        bags.append(Bag(regions, states, PROBABLE[states].astype(np.float32), patient=number // 2))
        there.append(has)
        where.append(shows)
    return bags, np.array(there), np.array(where)
