"""What models see, and the way back to the image's own pixels."""

import numpy as np
import pytest
from PIL import Image

from phenotype.features.samples import Samples, Unit, prepare
from phenotype.features.views import Source, body_patches, random_corners, read_views
from phenotype.imaging.files import Unreadable


def picture(path, rows, columns, spot=None):
    pixels = np.repeat(np.linspace(60, 120, rows)[:, None], columns, axis=1).astype(np.uint8)
    pixels[: rows // 8] = pixels[:, : columns // 8] = pixels[:, -columns // 8 :] = 0
    if spot:
        row, column = spot
        pixels[row - 13 : row + 14, column - 13 : column + 14] = 255  # over 1 % of the image: the window goes up to it
    Image.fromarray(pixels).save(path)
    return Source("radiograph", "CR", ((str(path), ""),), window=(0.3, 0.1, 1.1, 0.8))  # reaches out of the image


FRAMINGS = ("body", "image", "thorax")


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("rows", "columns"), [(200, 200), (200, 120), (120, 200)])
def test_a_place_in_the_view_is_found_again_in_the_image(tmp_path, rows, columns, framing):
    spot = rows * 3 // 4, columns // 3
    ((view,),) = read_views(picture(tmp_path / "a.png", rows, columns, spot), [64], 1, framing)
    there = view.to_fractions(np.argwhere(view.pixels > 0.9).mean(axis=0) + 0.5)
    np.testing.assert_allclose(there, (np.array(spot) + 0.5) / (rows, columns), atol=0.02)


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("rows", "columns"), [(200, 200), (200, 120), (120, 200)])
def test_a_map_over_the_view_becomes_one_over_the_image(tmp_path, rows, columns, framing):
    spot = rows * 3 // 4, columns // 3
    ((view,),) = read_views(picture(tmp_path / "a.png", rows, columns, spot), [64], 1, framing)
    whole = view.over_image(view.pixels)
    np.testing.assert_allclose(whole.shape, np.array((rows, columns)) * view.frame.scale, atol=0.5)
    there = (np.argwhere(whole > 0.9).mean(axis=0) + 0.5) / whole.shape
    np.testing.assert_allclose(there, (np.array(spot) + 0.5) / (rows, columns), atol=0.02)


def test_framing_by_the_body_leaves_the_surroundings_out(tmp_path):
    wide = np.zeros((100, 300), np.uint8)
    wide[10:90, 100:180] = np.linspace(60, 200, 80)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    ((view,),) = read_views(Source("radiograph", "CR", ((str(tmp_path / "wide.png"), ""),)), [64], 1, "body")
    corners = view.to_fractions(np.array([[0, 0], [64, 64]])) * (100, 300)
    np.testing.assert_allclose(corners, [[10, 100], [90, 180]], atol=3)
    assert (view.over_image(np.ones((64, 64), np.float32)) > 0).mean() == pytest.approx(80 * 80 / 30000, rel=0.15)


def test_through_the_window_of_the_thorax_a_place_is_a_place_of_the_body(tmp_path):
    """Two images of one chest, one of them on a larger film: seen through their windows they are the same."""
    small = np.zeros((100, 100), np.uint8)
    small[10:90, 20:80] = np.linspace(60, 200, 80)[:, None]
    large = np.zeros((160, 140), np.uint8)
    large[50:150, 20:120] = small
    seen = []
    for name, pixels, window in (
        ("small", small, (0.2, 0.25, 0.7, 0.75)),
        ("large", large, (70 / 160, 45 / 140, 120 / 160, 95 / 140)),
    ):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
        source = Source("radiograph", "CR", ((str(tmp_path / f"{name}.png"), ""),), window=window)
        ((view,),) = read_views(source, [50], 1, "thorax")
        grey = (view.pixels - view.pixels.min()) / np.ptp(view.pixels)  # what of an image is body differs a little
        seen.append((grey, body_patches(view, 10, 10).features[:, -2:]))
    np.testing.assert_allclose(seen[0][0], seen[1][0], atol=0.02)
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
    assert seen[0][1].min() == pytest.approx(0.1) and seen[0][1].max() == pytest.approx(0.9)  # of the window
    source = Source("radiograph", "CR", ((str(tmp_path / "small.png"), ""),))
    with pytest.raises(Unreadable, match="not accepted in the common space"):
        read_views(source, [50], 1, "thorax")


def test_patches_lie_on_the_body(tmp_path):
    ((view,),) = read_views(picture(tmp_path / "a.png", 256, 256), [128], 1, "body")
    patches = body_patches(view, 16, 8)
    centre = (patches.boxes[:, :2] + patches.boxes[:, 2:]) / 2
    assert len(patches.boxes) == len(patches.pixels) == len(patches.features) > 50
    assert (view.pixels[centre[:, 0].astype(int), centre[:, 1].astype(int)] > 0).mean() > 0.97
    drawn = random_corners(view.inside, 16, 20, np.random.default_rng(0))
    assert len(drawn) == 20 and all(view.inside[at][8, 8] for at in drawn)
    assert drawn == random_corners(view.inside, 16, 20, np.random.default_rng(0))


def test_samples_do_not_depend_on_the_order_of_images(tmp_path):
    images = [(f"image{n}", picture(tmp_path / f"{n}.png", 100 + n, 90, (50, 40 + n))) for n in range(4)]
    unit = Unit(size=32, patch=16, resolution=64, slices=1, framing="body", patches=3, seed=1)
    one, none = prepare(tmp_path / "one", images, unit, lambda *_: None)
    other, _ = prepare(tmp_path / "other", images[::-1], unit, lambda *_: None)
    assert (len(one), none) == (12, 0)
    forward, backward = (s.take(np.arange(12)).reshape(4, 3, 16, 16) for s in (one, other))
    np.testing.assert_array_equal(forward, backward[::-1])
    assert forward.dtype == np.float32
    assert 0 <= forward.min() < forward.max() <= 1


def test_an_unreadable_image_is_counted_and_the_rest_goes_on(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    images = [
        ("a", picture(tmp_path / "a.png", 64, 64)),
        ("b", Source("radiograph", "CR", ((str(tmp_path / "broken.png"), ""),))),
    ]
    samples, unreadable = prepare(tmp_path / "s", images, Unit(32, 0, 64, 1, "image", 1, 0), lambda *_: None)
    assert (len(samples), unreadable) == (1, 1)


def test_no_samples_is_no_error(tmp_path):
    (tmp_path / "s").write_bytes(b"")
    assert len(Samples(tmp_path / "s", 32, np.empty(0, np.int64))) == 0
