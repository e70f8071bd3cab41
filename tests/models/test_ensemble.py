"""Several models scored as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal

from phenotype.models import build
from phenotype.models.calibrate import calibrate
from phenotype.models.choice import image_scores
from phenotype.models.ensemble import Ensemble


def halved(images):
    return images.reshape(len(images), 1, images.shape[2] // 2, 2, -1, 2).mean((3, 5))


@pytest.fixture(scope="module")
def made():
    """Two untrained models of sizes 16 and 8, calibrated on the same 40 images, one of which the second has seen."""
    large, small = build("cae", 16, seed=1, width=8), build("cae", 8, seed=2, width=8, term="residual")
    held_out, training = normal(40, 16, seed=2), normal(20, 16, seed=1)
    seen = np.concatenate([halved(training), halved(held_out[7:8])])
    members = [
        (large, calibrate(large, Images(held_out), Images(training))),
        (small, calibrate(small, Images(halved(held_out)), Images(seen))),
    ]
    return Ensemble(members), members, held_out


def test_score_and_map_are_means_of_standardised_ones(made):
    ensemble, ((large, of_large), (small, of_small)), _ = made
    images = normal(12, 16, seed=3)
    scores, maps = ensemble.score(torch.from_numpy(images))
    one, map_one = large.score(torch.from_numpy(images))
    two, _ = small.score(torch.from_numpy(halved(images)))
    z = [(s.numpy() - c.scores.mean()) / c.scores.std(ddof=1) for s, c in ((one, of_large), (two, of_small))]
    np.testing.assert_allclose(scores, np.mean(z, 0), atol=1e-5)
    assert maps.shape == map_one.shape and scores.dtype == maps.dtype == torch.float32
    alone = torch.cat([ensemble.score(torch.from_numpy(images[n : n + 1]))[0] for n in range(12)])
    np.testing.assert_allclose(alone, scores, atol=1e-5)
    assert torch.equal(ensemble.score(torch.from_numpy(images))[1], maps)
    assert ensemble.embed(torch.from_numpy(images)).shape == (12, 64)


def test_inside_reaches_the_members(made):
    ensemble, _, _ = made
    images = torch.from_numpy(normal(3, 16, seed=3))
    inside = torch.zeros((3, 16, 16), dtype=torch.bool)
    inside[:, 4:12, 4:12] = True
    scores, maps = ensemble.score(images, inside)
    assert (maps[~inside] == 0).all() and not torch.allclose(scores, ensemble.score(images)[0])


def test_its_calibration_is_of_the_common_patients(made):
    ensemble, _, held_out = made
    paired = ensemble.paired_calibration()
    assert list(paired.patients) == [n for n in range(40) if n != 7]
    np.testing.assert_allclose(paired.scores, np.delete(image_scores(ensemble, Images(held_out)), 7), atol=1e-5)
    assert paired.p_values([1e6])[0] == pytest.approx(1 / 40)
    assert [alarm.name for alarm in paired.alarms] == ["brightness", "smoothness"] * 2
    maps = np.ones((1, 16, 16), np.float32)
    np.testing.assert_array_equal(paired.z_maps(maps), maps)
    with pytest.raises(ValueError, match="nothing of pixels"):
        paired.pixel_p_values(maps)


def test_it_is_calibrated_like_any_model(made):
    ensemble, _, held_out = made
    calibration = calibrate(ensemble, Images(held_out), Images(normal(20, 16, seed=1)))
    maps = ensemble.score(torch.from_numpy(normal(30, 16, seed=4)))[1].numpy()
    assert 0.02 < (calibration.pixel_p_values(maps) <= 0.05).mean() < 0.08


def test_what_is_no_ensemble(made):
    _, members, _ = made
    with pytest.raises(ValueError, match="at least two"):
        Ensemble(members[:1])
    volume = build("cae", 8, width=8, dims=3)
    with pytest.raises(ValueError, match="same number of dimensions"):
        Ensemble([members[0], (volume, members[0][1])])
