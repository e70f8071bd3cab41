"""The picture of algorithm beside expert: what is drawn where, and that nothing personal is in it."""

import numpy as np
import pytest
from PIL import Image

from db.queries.expert import ExpertMark, SideBySide
from db.queries.gallery import ShownImage
from phenotype.explore.films import Unseen
from phenotype.explore.pictures import View
from phenotype.explore.side_by_side import Shown, write_side_by_side
from phenotype.imaging.window import Frame, standardize


@pytest.fixture
def view():
    plane = np.random.default_rng(0).normal(1000, 20, (300, 200)).astype(np.float32)
    pixels, frame = standardize(plane, "DX", 128)
    assert isinstance(frame, Frame)
    return View(pixels, frame, plane.shape)


def boxes(side):
    corners = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) / side
    return np.hstack([corners, corners + 1 / side]).astype(np.float32)


def case(marks, *, labels=None, hot=0):
    scores = np.zeros(16, np.float32)
    scores[hot] = 3.0
    image = ShownImage("0123456789abcdef", "s", "radiograph", "PA", 0, 0.5, 0.5)
    return SideBySide(image, scores, boxes(4), labels, 0.91, "here", marks)


def drawn(box, reader="A", mask=None):
    return ExpertMark(reader, "nodule", 0, box, mask)


def cells(path):
    """The pixels of the three columns of a picture of one case."""
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    return np.array_split(picture[int(0.2 * len(picture)) :], 3, axis=1)


def coloured(cell):
    """Where a pixel is not grey, as fractions of the cell."""
    rows, columns = np.nonzero(np.ptp(cell, axis=2) > 40)
    return rows / cell.shape[0], columns / cell.shape[1]


def test_map_and_drawing_lie_where_they_should(view, tmp_path):
    out = tmp_path / "deep" / "out.png"
    marks = (drawn((0.75, 0.75, 1.0, 1.0)), drawn((0.0, 0.0, 0.2, 0.2), "R2"))
    assert write_side_by_side([Shown("Nodule", 1.0, case(marks, hot=15), view)], out) == 1
    image, algorithm, expert = cells(out)
    assert coloured(image)[0].size == 0
    rows, columns = coloured(algorithm)  # the hot region is the last: bottom right
    assert rows.size > 50
    assert np.median(rows) > 0.6
    assert np.median(columns) > 0.6
    rows, columns = coloured(expert)
    assert rows.size > 50
    assert ((rows > 0.6) & (columns > 0.6)).sum() > 20
    assert ((rows < 0.4) & (columns < 0.4)).sum() > 20
    assert ((rows > 0.6) & (columns < 0.4)).sum() == 0


def test_masks_and_supervoxels_are_drawn_too(view, tmp_path):
    mask = np.zeros((300, 200), bool)
    mask[:100, 100:] = True
    labels = np.zeros((30, 20), np.int32)
    labels[20:, 10:] = 16
    shown = Shown("Nodule", None, case((drawn((0, 0.5, 1 / 3, 1.0), mask=mask),), labels=labels, hot=15), view)
    write_side_by_side([shown], tmp_path / "out.png")
    _, algorithm, expert = cells(tmp_path / "out.png")
    rows, columns = coloured(expert)
    assert rows.size > 50
    assert np.median(rows) < 0.5
    rows, columns = coloured(algorithm)
    assert np.median(rows) > 0.5
    assert np.median(columns) > 0.5


def test_images_that_cannot_be_read_are_left_out(view, tmp_path):
    shown = [Shown("Nodule", 1.0, case(()), Unseen("no files")), *[Shown("Nodule", 1.0, case(()), view)] * 5]
    assert write_side_by_side(shown, tmp_path / "out.png") == 5
    assert write_side_by_side(shown[:1], tmp_path / "none.png") == 0


def test_the_same_is_drawn_the_same(view, tmp_path):
    for name in ("one", "two"):
        write_side_by_side([Shown("Nodule", 1.0, case((drawn((0.1, 0.1, 0.5, 0.5)),)), view)], tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
