"""Images are laid onto their mean, and maps of crops back onto the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_images import Images, normal
from torch.nn import functional

from phenotype.models.alignment import Alignment, lungs

SIZE, SIDE = 64, 48


@pytest.fixture(scope="module")
def alignment() -> Alignment:
    found = Alignment(SIZE, SIDE)
    found.fit(Images(normal(40, SIZE, seed=1)), seed=0)
    return found


def moved(x: torch.Tensor, scale: float, across: float, down: float) -> torch.Tensor:
    """Images seen through a window `scale` as wide, shifted; in units of half the side."""
    matrix = torch.tensor([[[scale, 0.0, across], [0.0, scale, down]]]).expand(len(x), -1, -1)
    grid = functional.affine_grid(matrix, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="border", align_corners=False)


@pytest.mark.parametrize("change", [(1.0, 0.15, -0.1), (1.2, 0.0, 0.0), (0.85, -0.1, 0.1)])
def test_a_known_move_is_undone(alignment, change):
    """The crop of a moved image lies where it lay in the image, to one pixel and a half; unaligned it is far off."""
    x = torch.from_numpy(normal(12, SIZE, seed=3))
    scale, across, down = change
    corners = torch.tensor([[-0.5, -0.5, 1.0], [0.5, -0.5, 1.0], [-0.5, 0.5, 1.0], [0.5, 0.5, 1.0]]).double()
    before, after = (alignment.place(images) @ corners.T for images in (x, moved(x, *change)))
    shift = torch.tensor([across, down])[:, None].double()
    off = (scale * after + shift - before).norm(dim=1).median() * SIZE / 2
    nothing = (scale * before + shift - before).norm(dim=1).median() * SIZE / 2
    assert off < 1.5 < 3 < nothing


def test_crops_of_different_images_are_more_alike_than_the_images(alignment):
    x = torch.from_numpy(normal(20, SIZE, seed=4))
    shifts = np.random.default_rng(0).uniform(-0.2, 0.2, (20, 2)).tolist()
    x = torch.cat([moved(one[None], 1.0, *shift) for one, shift in zip(x, shifts, strict=True)])
    crops = alignment.crops(x, alignment.place(x))
    unaligned = alignment.crops(x, alignment.place(x)[:1].expand(20, -1, -1))
    assert crops.std(0).mean() < 0.7 * unaligned.std(0).mean()


def test_a_map_lands_where_its_spot_is_in_the_image(alignment):
    x = torch.from_numpy(normal(6, SIZE, seed=5))
    x[:, :, 24:28, 20:24] = 1.0
    placed = alignment.place(x)
    back = alignment.back(alignment.crops(x, placed), placed)[:, 0]
    assert back.shape == (6, SIZE, SIZE)
    for one in back:
        row, column = divmod(int(one.argmax()), SIZE)
        assert 23 <= row <= 28 and 19 <= column <= 24


def test_an_image_is_placed_alone_and_always_the_same(alignment):
    x = torch.from_numpy(normal(9, SIZE, seed=6))
    together = alignment.place(x)
    assert torch.equal(together, alignment.place(x))
    assert torch.equal(together, torch.cat([alignment.place(one[None]) for one in x]))
    assert torch.equal(together.flip(0), alignment.place(x.flip(0)))


def test_the_lungs_are_the_dark_basins_and_nothing_else_is():
    image = normal(20, SIZE, seed=7).mean(0)[0]
    image[:, SIZE // 2 - 4 : SIZE // 2 + 4] += 0.3  # the mediastinum, which these images do not have
    found = lungs(image)
    assert found[SIZE // 2, int(0.3 * SIZE)] and found[SIZE // 2, int(0.7 * SIZE)]
    assert not found[:, SIZE // 2].any() and not found[0].any()
    assert lungs(np.full((SIZE, SIZE), 0.5)) is None
    assert lungs(np.tile(np.linspace(0, 1, SIZE), (SIZE, 1))) is None


@pytest.mark.parametrize("size", [8, 16])
def test_tiny_images_and_such_without_lungs_are_placed(size):
    alignment = Alignment(size, 16)
    flat = np.full((12, 1, size, size), 0.5, np.float32)
    alignment.fit(Images(flat), seed=0)
    placed = alignment.place(torch.from_numpy(flat))
    assert torch.isfinite(placed).all() and torch.isfinite(alignment.crops(torch.from_numpy(flat), placed)).all()
