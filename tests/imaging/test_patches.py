"""Patches, the body, plain features."""

import numpy as np
import pytest
from PIL import Image

from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.imaging.masks import body_mask
from phenotype.imaging.regions import FEATURES, box_of, cut, features, grid
from phenotype.imaging.window import standardize


def test_the_grid_covers_the_image_evenly():
    boxes = grid((100, 80), 32, 16)
    assert boxes.dtype == np.int32 and len(boxes) == 5 * 4
    assert boxes[:, :2].min(axis=0).tolist() == [2, 0] and boxes[:, 2:].max(axis=0).tolist() == [98, 80]
    assert (boxes[:, 2:] - boxes[:, :2] == 32).all()
    for wrong in ((100, 1), (0, 1), (32, 0)):
        with pytest.raises(ValueError, match="no patch"):
            grid((64, 64), *wrong)


def test_patches_are_what_lies_in_the_boxes():
    image = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    boxes = grid((40, 50), 8, 5)
    patches = cut(image, boxes)
    for patch, (top, left, bottom, right) in zip(patches, boxes, strict=True):
        assert (patch == image[top:bottom, left:right]).all()
    assert cut(image, boxes[:0]).shape[0] == 0


def test_features_mean_what_their_names_say():
    image = np.random.default_rng(1).random((64, 64)).astype(np.float32)
    boxes = grid((64, 64), 16, 16)
    patches = cut(image, boxes)
    found = dict(zip(FEATURES, features(patches, boxes, (0, 0, 64, 64)).T, strict=True))
    assert found["mean"] == pytest.approx(patches.mean(axis=(1, 2)))
    assert found["std"] == pytest.approx(patches.std(axis=(1, 2)))
    assert found["row"].reshape(4, 4)[:, 0] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])
    assert found["column"].reshape(4, 4)[0] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8])
    flat = features(np.full((1, 16, 16), 0.5, dtype=np.float32), boxes[:1], (0, 0, 64, 64))[0]
    assert flat[FEATURES.index("gradient")] == 0.0 and flat[FEATURES.index("lbp8")] == 1.0


def test_binary_patterns_agree_with_counting_by_hand():
    image = np.random.default_rng(2).integers(0, 2, (18, 18)).astype(np.float32)
    mine = features(image[None], np.array([[0, 0, 18, 18]], dtype=np.int32), (0, 0, 18, 18))[0, 3:13]
    around = [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0)]
    counts = np.zeros(10)
    for r in range(16):
        for c in range(16):
            bits = [image[r + y, c + x] >= image[r + 1, c + 1] for y, x in around]
            runs = sum(bits[i] != bits[i - 1] for i in range(8))
            counts[sum(bits) if runs <= 2 else 9] += 1
    assert mine == pytest.approx(counts / counts.sum())


def test_the_body_is_told_from_the_air():
    image = np.full((100, 100), 0.02, dtype=np.float32)
    image[20:90, 15:85] = 0.7
    image[35:75, 25:45] = image[35:75, 55:75] = 0.05  # lungs as dark as the air outside
    image[3:8, 3:8] = 1.0  # a marker
    body = body_mask(image)
    assert box_of(body) == (20, 15, 90, 85) and body[20:90, 15:85].all()
    assert body_mask(np.zeros((8, 8), dtype=np.float32)).all()


def test_the_body_of_real_radiographs_holds_their_lungs(shared_data):
    shares = []
    for path in sorted((shared_data / "shenzhen" / "lung_masks").iterdir())[:40]:
        lungs = np.asarray(Image.open(path)) > 0
        view, _ = standardize(
            read_pixels([FileRef(str(shared_data / "shenzhen" / "images" / path.name))]).pixels, "CR", 128
        )
        seen, _ = standardize(lungs.astype(np.float32), "CR", 128, (0.0, 1.0))
        shares.append(body_mask(view)[seen > 0.5].mean())
    assert min(shares) > 0.98
