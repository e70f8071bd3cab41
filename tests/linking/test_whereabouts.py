"""Words for places, as supervision of where."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
from bags import GRID, planted
from sklearn.metrics import roc_auc_score

import nlp
from phenotype.linking.mapper import DENIED, PRESENT, UNMENTIONED, Bag
from phenotype.linking.mappers import build
from phenotype.linking.whereabouts import allowed, where_of, zones

ROWS, COLUMNS = (g.ravel() / 10 + 0.05 for g in np.indices((10, 10)))
PLACES = np.stack([ROWS, COLUMNS], axis=1).astype(np.float32)


def test_the_patients_right_is_at_the_low_columns():
    right, left = allowed("right", (), PLACES), allowed("left", (), PLACES)
    assert right[COLUMNS < 0.5].all()
    assert not right[COLUMNS > 0.6].any()
    np.testing.assert_array_equal(left.reshape(10, 10), right.reshape(10, 10)[:, ::-1])
    assert allowed("right", (), PLACES, frontal=False).all(), "a lateral view has no such side"
    assert allowed("bilateral", (), PLACES).all()
    assert allowed("", (), PLACES).all()


def test_zones_and_sides_together():
    found = allowed("left", ["upper_zone"], PLACES)
    assert found[(ROWS < 0.4) & (COLUMNS > 0.5)].all()
    assert not found[(ROWS > 0.55) | (COLUMNS < 0.4)].any()
    both = allowed("", ["upper_zone", "lower_zone"], PLACES)
    assert both.all(), "of several sites any will do"
    assert allowed("", ["elbow"], PLACES).all(), "a place that is not known excludes nothing"
    in_view = PLACES[ROWS > 0.8]
    assert allowed("", ["apex"], in_view).all(), "nor does one that is not in view"


def test_an_organ_of_the_reference_is_where_its_regions_are():
    organs = np.where(COLUMNS < 0.3, "right_lung", np.where(COLUMNS > 0.7, "left_lung", "")).tolist()
    np.testing.assert_array_equal(allowed("", ["lung"], PLACES, organs=organs), (COLUMNS < 0.3) | (COLUMNS > 0.7))
    np.testing.assert_array_equal(allowed("left", ["lung"], PLACES, organs=organs), COLUMNS > 0.7)


def test_all_zones_are_sites_that_the_reader_knows():
    table = Path(nlp.__file__).parent / "lexicons" / "sites" / "chest.tsv"
    lines = [line for line in table.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert set(zones()) <= {row["id"] for row in csv.DictReader(lines, delimiter="\t")}


def test_mentions_of_an_image_become_masks():
    assert where_of([], 2, PLACES) is None
    assert where_of([(0, "", ())], 2, PLACES) is None
    found = where_of([(1, "left", ()), (1, "right", ["apex"])], 2, PLACES)
    assert found[0].all()
    np.testing.assert_array_equal(found[1], allowed("left", (), PLACES) | allowed("right", ["apex"], PLACES))


def test_location_words_teach_what_images_alone_do_not():
    """Two looks always come together, one on each side; only the words tell which of them the term is."""
    bags, _, _ = planted(120, seed=0)
    rows, columns = (g.ravel() for g in np.indices((GRID, GRID)))
    rng = np.random.default_rng(1)
    plain, worded, truth = [], [], []
    for bag in bags:
        has = rng.random() < 0.4
        x = rng.normal(size=(GRID * GRID, 12)).astype(np.float32)
        x[:, -2:] = bag.regions[:, -2:]
        spot, other = (rows == 3) & (columns == 2), (rows == 3) & (columns == 5)
        x[spot, :3] += 4 * has
        x[other, 3:6] += 4 * has
        state = np.array([PRESENT if has else DENIED], np.int8)
        probable = np.array([0.95 if has else 0.03], np.float32)
        mask = (columns < GRID / 2)[None]
        plain.append(Bag(x, state, probable))
        worded.append(Bag(x, state, probable, mask if has else None))
        truth.append((spot & has, other & has))
    spots, others = (np.concatenate(t) for t in zip(*truth, strict=True))
    # attention is shared out among all regions and cannot be told where not to look: link takes the other partner
    for name in ("noisy-or", "ferns", "combined", "inherited-logistic"):
        new = partial(build, name, partner="noisy-or")
        with_words = new().fit(worded)
        scores = np.concatenate([with_words.score(bag.regions)[:, 0] for bag in worded])
        against = spots | others
        told = roc_auc_score(spots[against], scores[against])
        assert told > 0.9, name
        without = new().fit(plain)
        blind = np.concatenate([without.score(bag.regions)[:, 0] for bag in plain])
        assert told > roc_auc_score(spots[against], blind[against]) + 0.1, name
    assert UNMENTIONED not in {int(bag.states[0]) for bag in worded}
