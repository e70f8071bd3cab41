"""Term maps from end to end on images whose places differ, as those of a body do."""

import numpy as np
import pytest

from phenotype.linking.learning import Regions, learn, load, said, save, usual_look
from phenotype.linking.mappers import MAPPERS
from phenotype.linking.places import Usual
from phenotype.models.files import ModelFileError

SIDE = 8


def cohort(seed, images=120, planted=True):
    """Images of SIDE x SIDE regions whose brightness depends on the place more than on the disease in a corner."""
    rng = np.random.default_rng(seed)
    centre = (np.arange(SIDE) + 0.5) / SIDE
    rows, columns = (grid.ravel() for grid in np.meshgrid(centre, centre, indexing="ij"))
    boxes = np.stack([rows - 0.5 / SIDE, columns - 0.5 / SIDE, rows + 0.5 / SIDE, columns + 0.5 / SIDE], axis=1)
    corner = (rows > 0.7) & (columns < 0.3)
    bags, patients = [], []
    for n in range(images):
        sick = bool(rng.random() < 0.4)
        bright = 10 * rows + rng.normal(scale=0.5, size=rows.size) + 2 * (corner & sick & planted)
        noise = rng.normal(size=(rows.size, 2))
        vectors = np.column_stack([bright, noise, rows, columns]).astype(np.float32)
        places = np.zeros(rows.size, np.int32)
        bags.append((Regions(vectors, places, boxes.astype(np.float32), n % 10, True), said(np.array([float(sick)]))))
        patients.append(str(n))
    return bags, np.array(patients)


def learned(bags, patients, mapper="ferns", **settings):
    settings = settings or {"ferns": 64, "depth": 5}
    return learn(
        lambda: MAPPERS[mapper](**settings),
        bags,
        patients,
        concepts=["corner"],
        mapper=mapper,
        groups=5,
        seed=0,
    )


def test_the_term_is_found_where_it_is_though_places_differ_more_than_disease():
    bags, patients = cohort(0)
    found = learned(bags, patients)
    terms, (evidence,) = found.terms, found.evidence
    assert evidence.verdict == "evidence"
    assert evidence.auroc > 0.9
    sick = [terms.map(regions)[0] for regions, told in bags if told.probabilities[0] == 1]
    hits = np.mean([term.row > 0.7 and term.column < 0.3 for term in sick])
    assert hits > 0.8
    assert np.mean([term.side == "right" for term in sick]) > 0.8, "the left of the image is the patient's right"


def test_nothing_is_found_where_nothing_is():
    found = [learned(*cohort(seed, planted=False)).evidence[0] for seed in range(10)]
    assert sum(evidence.verdict == "evidence" for evidence in found) <= 2  # a 95 % interval errs now and then
    assert np.mean([evidence.auroc for evidence in found]) == pytest.approx(0.5, abs=0.07)


def test_an_image_is_scored_without_its_patient():
    """Changing an image and its label changes nothing that is used to score it."""
    bags, patients = cohort(2)
    one = learned(bags, patients).terms
    regions, told = bags[0]
    changed = [(regions, said(1 - told.probabilities)), *bags[1:]]
    other = learned(changed, patients).terms
    np.testing.assert_array_equal(one.profile(regions), other.profile(regions))
    elsewhere = bags[1][0]
    assert not np.array_equal(one.profile(elsewhere), other.profile(elsewhere)), "the control: the others do notice"


def test_what_is_usual_is_told_by_images_of_which_no_term_is_asserted():
    bags, patients = cohort(5, images=100)
    terms = learned(bags, patients).terms
    group = np.array([regions.fold % 5 for regions, _ in bags])
    for g, look in terms.looks.items():
        plain = [r for (r, told), own in zip(bags, group, strict=True) if own != g and told.probabilities[0] < 0.5]
        expected = Usual.of(((r.places, r.vectors) for r in plain), 5)
        np.testing.assert_array_equal(look.mean, expected.mean)
    all_sick = [(regions, said(np.array([1.0]))) for regions, _ in bags]
    everything = Usual.of(((r.places, r.vectors) for r, _ in bags), 5)
    np.testing.assert_array_equal(usual_look(all_sick).mean, everything.mean)  # else nothing would be usual


def test_kept_and_verified(tmp_path):
    bags, patients = cohort(3, images=40)
    terms = learned(bags, patients).terms
    save(terms, tmp_path)
    again = load(tmp_path)
    np.testing.assert_array_equal(again.profile(bags[0][0]), terms.profile(bags[0][0]))
    assert again.concepts == ("corner",)
    content = bytearray((tmp_path / "terms.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "terms.safetensors").write_bytes(content)
    load.cache_clear()
    with pytest.raises(ModelFileError, match="damaged"):
        load(tmp_path)
