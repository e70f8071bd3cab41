"""Organs travel from the reference to images."""

import numpy as np
import pytest
import SimpleITK as sitk

from phenotype.imaging import grids
from phenotype.imaging.geometry import directions
from phenotype.normalization.organs import on_image, read_labels, read_names

AXIAL = directions((1, 0, 0, 0, 1, 0))


def test_a_label_map_lies_where_it_lies_in_the_patient_whatever_the_order_of_its_voxels(tmp_path):
    """A file whose rows run to the front, of voxels half as large, a little longer at the lower end."""
    labels = np.zeros((12, 20, 24), np.uint8)
    labels[4:6, 2:6, 4:12], labels[8:10, 10:16, 2:20] = 7, 9
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels[:, ::-1]))
    image.SetSpacing((1.0, 1.0, 1.5))
    image.SetDirection((1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((-10.0, 30.0 + 19.0, 100.0))  # of its first voxel: the last of the rows above
    sitk.WriteImage(image, str(tmp_path / "organs.nii.gz"))
    found = read_labels(tmp_path / "organs.nii.gz", (5, 10, 12), (3.0, 2.0, 2.0), AXIAL, (-10.0, 30.0, 101.5))
    assert found.shape == (5, 10, 12)
    wanted = labels[np.ix_([1, 3, 5, 7, 9], np.arange(0, 20, 2), np.arange(0, 24, 2))]
    assert (found == wanted).all() and set(np.unique(found)) == {0, 7, 9}
    with pytest.raises(ValueError, match="no organ"):
        read_labels(tmp_path / "organs.nii.gz", (5, 10, 12), (3.0, 2.0, 2.0), AXIAL, (500.0, 0.0, 0.0))
    (tmp_path / "broken.nii").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        read_labels(tmp_path / "broken.nii", (5, 10, 12), (3.0, 2.0, 2.0), AXIAL, (0, 0, 0))


def test_names_stand_in_a_table(tmp_path):
    (tmp_path / "names.csv").write_text("label,name\n7,liver\n9,left kidney\n", encoding="utf-8")
    labels = np.array([0, 7, 9, 11])
    assert read_names(tmp_path / "names.csv", labels) == {7: "liver", 9: "left kidney", 11: "label 11"}
    assert read_names(None, labels)[7] == "label 7"


def test_volume_share_and_box_of_organs_in_a_fragment():
    """An image of the upper half of the reference, of half its size."""
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10:30, 10:30, 10:30], labels[2:6, 10:20, 10:20] = 1, 2
    nodes = grids.nodes((5, 5, 5))
    forward = np.asarray(nodes * [0.5, 1, 1] + [0.5, 0, 0], np.float32)
    backward = grids.invert(forward, (5, 5, 5))
    cube, other = on_image(labels, {1: "cube", 2: "other"}, forward, backward, (50.0, 100.0, 100.0), (25, 50, 50))
    assert cube.organ == "cube" and cube.share == pytest.approx(0.5, abs=0.01)
    assert cube.volume_ml == pytest.approx(25 * 50 * 50 / 1000, rel=0.1)
    assert cube.low == pytest.approx((0, 0.25, 0.25), abs=0.04) and cube.high == pytest.approx(
        (0.5, 0.75, 0.75), abs=0.04
    )
    assert (other.share, other.volume_ml, other.low) == (0.0, 0.0, None)
    unknown, _ = on_image(labels, {1: "cube", 2: "other"}, forward, backward, None, (25, 50, 50))
    assert unknown.volume_ml is None
