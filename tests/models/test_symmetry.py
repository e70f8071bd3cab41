"""The two lungs against each other, and how sharp an image is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal, opaque
from scipy.ndimage import gaussian_filter
from sklearn.metrics import roc_auc_score

from phenotype.models import build
from phenotype.models.symmetry import patches, sharpness, strengths
from phenotype.models.train import train

SIZE, COUNT = 32, 16


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    model = build("symmetry", SIZE, seed=1)
    train(
        model,
        Images(normal(40, SIZE, seed=1)),
        folder=tmp_path_factory.mktemp("symmetry"),
        steps=0,
        batch_size=16,
        seed=1,
        learning_rate=1e-3,
        checkpoint_every=1000,
    )
    return model


def scores(model, images: np.ndarray, term: str) -> torch.Tensor:
    return model.scored_by(term=term).score(torch.from_numpy(np.ascontiguousarray(images)))[0]


def test_an_opacity_of_one_lung_is_found_and_marked_on_both_sides(trained):
    healthy, sick = normal(COUNT, SIZE, seed=2), opaque(normal(COUNT, SIZE, seed=3))
    of_healthy, of_sick = (scores(trained, images, "asymmetry") for images in (healthy, sick))
    assert roc_auc_score(np.repeat([0, 1], COUNT), torch.cat([of_healthy, of_sick])) > 0.9
    maps = trained.score(torch.from_numpy(sick))[1] - trained.score(torch.from_numpy(healthy))[1]
    assert maps[:, 12:20, 6:14].mean() > 2 * maps[:, 22:28, 6:14].mean()
    assert maps[:, 12:20, 18:26].mean() > 2 * maps[:, 22:28, 18:26].mean()


def test_what_both_lungs_have_is_less_asymmetric_than_what_one_has(trained):
    healthy = normal(COUNT, SIZE, seed=4)
    one = opaque(healthy)
    both = opaque(one[..., ::-1])
    none, single, double = (scores(trained, images, "asymmetry").median() for images in (healthy, one, both))
    assert single > none + 2
    assert double < single - 0.5


@pytest.mark.parametrize("way", ["smoother", "rougher"])
def test_sharpness_counts_to_either_side(trained, way):
    healthy = normal(COUNT, SIZE, seed=5)
    smooth = np.stack([gaussian_filter(image, (0, 2.0, 2.0)) for image in healthy])
    other = smooth if way == "smoother" else (healthy + 2 * (healthy - smooth)).clip(0, 1)
    change = sharpness(torch.from_numpy(other)) - sharpness(torch.from_numpy(healthy))
    assert bool(((change < 0) == (way == "smoother")).all())
    both = [scores(trained, images, "sharpness") for images in (healthy, other)]
    assert roc_auc_score(np.repeat([0, 1], COUNT), torch.cat(both)) > 0.9


def test_the_score_is_the_sum_of_its_terms_and_the_map_the_same(trained):
    x = normal(5, SIZE, seed=6)
    parts = [scores(trained, x, term) for term in ("sum", "asymmetry", "sharpness")]
    torch.testing.assert_close(parts[0], parts[1] + parts[2])
    maps = [trained.scored_by(term=term).score(torch.from_numpy(x))[1] for term in ("sum", "sharpness")]
    assert torch.equal(*maps)


def test_images_that_scores_are_standardised_on_are_not_remembered(trained):
    held = trained.held_out(torch.from_numpy(normal(40, SIZE, seed=1)))
    assert int(held.sum()) == 8
    assert trained.memory.shape[0] == 32
    terms = torch.stack(
        [scores(trained, normal(40, SIZE, seed=1)[held.numpy()], t) for t in ("asymmetry", "sharpness")]
    )
    torch.testing.assert_close(terms.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(terms.std(1), torch.ones(2), atol=1e-5, rtol=0)


def test_mirrored_images_have_mirrored_patches():
    crops = torch.from_numpy(normal(3, SIZE, seed=7)).double()
    torch.testing.assert_close(strengths(crops).flip(-1), strengths(crops.flip(-1)))


def test_a_wide_patch_is_the_mean_of_what_is_around_a_patch():
    x = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    narrow, wide = patches(x), patches(x, 2)
    assert narrow.shape == wide.shape == (1, 1, 15, 15)
    torch.testing.assert_close(narrow[0, 0, 7, 7], x[0, 0, 14:18, 14:18].mean())
    torch.testing.assert_close(wide[0, 0, 7, 7], x[0, 0, 12:20, 12:20].mean())
    torch.testing.assert_close(wide[0, 0, 0, 0], x[0, 0, 0:6, 0:6].mean())  # cut off at the border
