"""Volumes, cubes and masks as models see them, and the way back."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from phenotype.demo.cases import draw_studies
from phenotype.demo.dicom import save, volume_files
from phenotype.demo.thorax import Thorax, attenuation, draw_build, draw_view, expose
from phenotype.demo.volume import Space, draw_volume
from phenotype.features.places import find
from phenotype.features.samples import Unit, prepare
from phenotype.features.views import Look, Source, read_views
from phenotype.features.volumes import read_volume
from phenotype.imaging.files import Unreadable

STUDY = draw_studies(1, 1, 0)[-1]


def written(folder, hu, spacing):
    """A CT series on disk."""
    space = Space((0.0, 0.0, 0.0), spacing, len(hu))
    paths = []
    for k, file in enumerate(volume_files(STUDY, hu.astype(np.int16), space)):
        save(file, folder / f"{k}.dcm")
        paths.append((str(folder / f"{k}.dcm"), ""))
    return Source("volume", "CT", tuple(paths))


def ball_in_a_body(spacing, centre=(60.0, 70.0, 90.0), radius=24.0):
    """120 x 160 x 200 mm of soft tissue with air around, and in it a ball of bone; mm (z, y, x)."""
    counts = [round(mm / step) for mm, step in zip((120, 200, 240), spacing, strict=True)]
    z, y, x = np.meshgrid(*((np.arange(n) + 0.5) * s for n, s in zip(counts, spacing, strict=True)), indexing="ij")
    hu = np.full(counts, -1000.0)
    hu[(y > 20) & (y < 180) & (x > 20) & (x < 220)] = 40
    hu[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2] = 1000
    return hu


@pytest.mark.parametrize("spacing", [(10.0, 2.0, 2.0), (4.0, 4.0, 4.0), (3.0, 2.0, 5.0)])
@pytest.mark.parametrize("framing", ["body", "image"])
def test_voxels_are_as_long_as_wide_and_high(tmp_path, spacing, framing):
    source = written(tmp_path, ball_in_a_body(spacing), spacing)
    volume = read_volume(source, Look(framing=framing, window="bone", patch=8, dims=3, spacing=4.0))
    ball = np.argwhere(volume.pixels > 0.565)
    extent = np.ptp(ball, axis=0) + 1
    assert extent == pytest.approx([12, 12, 12], abs=2.1)  # 48 mm, whatever the spacing of the slices
    z, y, x = (ball.mean(axis=0) + 0.5 - volume.offset) / volume.scale * spacing
    assert (z, y, x) == pytest.approx((60, 70, 90), abs=max(2.5, spacing[0] / 2))
    assert volume.slice_of(ball[:, 0].mean()) == pytest.approx(60 / spacing[0], abs=1)
    if framing == "body":
        assert volume.pixels.shape[1:] == pytest.approx((40, 50), abs=3)
    plane = volume.plane(int(ball[:, 0].mean()))
    there = plane.to_fractions(np.argwhere(plane.pixels > 0.565).mean(axis=0) + 0.5)
    assert there == pytest.approx((70 / 200, 90 / 240), abs=0.02)


def test_a_volume_of_few_slices_is_filled_up_and_one_without_spacing_refused(tmp_path):
    source = written(tmp_path, ball_in_a_body((10.0, 4.0, 4.0))[:4], (10.0, 4.0, 4.0))
    volume = read_volume(source, Look(patch=32, dims=3, spacing=4.0))
    assert volume.pixels.shape[0] == 32 and not volume.inside[0].any()
    assert [volume.slice_of(z) for z in (0, 11, 17, 31)] == [0, 0, 2, 3]
    with pytest.raises(Unreadable, match="too_large"):
        read_volume(source, Look(patch=16, dims=3, spacing=0.05))
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(Unreadable, match="no_spacing"):
        read_volume(Source("radiograph", "CR", ((str(tmp_path / "flat.png"), ""),)), Look(patch=8, dims=3))


def test_cubes_lie_in_the_lungs_and_do_not_depend_on_the_others(tmp_path):
    images = []
    for n in range(2):
        hu, space, _ = draw_volume(draw_build(np.random.default_rng(n)), [], n)
        images.append((f"i{n}", written(tmp_path / str(n), hu, space.spacing)))
    unit = Unit(16, 16, 64, 1, "body", 5, 0, within="lung", dims=3, spacing=6.0)
    one, failed = prepare(tmp_path / "one.samples", images, unit, lambda *_: None)
    other, _ = prepare(tmp_path / "other.samples", images[::-1], unit, lambda *_: None)
    assert (len(one), failed, one.missing) == (10, 0, 0)
    cubes, inside = one.take(np.arange(10)), one.inside(np.arange(10))
    assert cubes.shape == (10, 1, 16, 16, 16) and inside.shape == (10, 16, 16, 16) and inside.dtype == np.bool_
    assert inside[:, 8, 8, 8].all()  # the centre of each
    assert (cubes[:, 0][~inside] == 0).all() and 0.1 < cubes[:, 0][inside].mean() < 0.6
    assert (other.take(np.arange(10)) == cubes[[5, 6, 7, 8, 9, 0, 1, 2, 3, 4]]).all()
    assert one.owners.tolist() == [0] * 5 + [1] * 5


def radiograph(path, seed):
    rng = np.random.default_rng(seed)
    thorax = Thorax(draw_build(rng), draw_view(rng))
    Image.fromarray((255 * expose(attenuation(thorax), thorax.view)).astype(np.uint8)).save(path)
    return Source("radiograph", "CR", ((str(path), ""),)), thorax.open_lung > 0.5


def test_what_lies_outside_the_lungs_is_blanked(tmp_path):
    source, lungs = radiograph(tmp_path / "a.png", 0)
    ((view,),) = read_views(source, [64], 1, "body", "", "lung")
    ((whole,),) = read_views(source, [64], 1, "body")
    assert not view.missing and (view.pixels[~view.inside] == 0).all()
    assert (view.pixels[view.inside] == whole.pixels[view.inside]).all()
    where = view.to_fractions(np.argwhere(view.inside) + 0.5) * lungs.shape
    rows, columns = np.minimum(where.astype(int), np.asarray(lungs.shape) - 1).T
    assert lungs[rows, columns].mean() > 0.8 > 0.5 > lungs.mean()


def test_images_without_lungs_are_counted_and_seen_within_the_body(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)).save(tmp_path / "noise.png")
    noise = Source("radiograph", "CR", ((str(tmp_path / "noise.png"), ""),))
    images = [("a", radiograph(tmp_path / "a.png", 0)[0]), ("b", noise)]
    unit = Unit(32, 0, 64, 1, "body", 1, 0, within="lung")
    samples, _ = prepare(tmp_path / "s.samples", images, unit, lambda *_: None)
    assert samples.missing == 1
    assert samples.inside(np.array([0])).mean() < 0.5 < samples.inside(np.array([1])).mean()
    plain, _ = prepare(tmp_path / "p.samples", images, Unit(32, 0, 64, 1, "body", 1, 0), lambda *_: None)
    assert plain.inside is None and plain.missing == 0


def test_slices_of_one_mr_volume_remain_comparable():
    rng = np.random.default_rng(0)
    slices = [np.pad(rng.normal(m, 5, (30, 30)), 5).astype(np.float32) for m in (100, 200, 400)]
    from phenotype.imaging import window

    places = find(slices, "MR", "image")
    low_high = window.window_of("", "MR", slices)
    means = [window.standardize(s, "MR", 40, low_high)[0][8:-8, 8:-8].mean() for s in slices]
    assert means == sorted(means) and means[2] > 3 * means[0]
    assert places.body.shape == (3, 128, 128)


MEMORY = """
import resource, sys
import numpy as np
from pathlib import Path
from phenotype.features import volumes
from phenotype.features.samples import Unit, prepare
from phenotype.features.views import Source
from phenotype.imaging.dicom import Picture

def big(refs, cache):
    rng = np.random.default_rng(int(refs[0].path))
    return Picture(rng.normal(-200, 300, (60, 200, 200)).astype(np.float32), (2.0, 1.0, 1.0))

volumes.read_cached = big
peaks = []
for count in (2, 12):
    images = [(f"i{n}", Source("volume", "CT", ((str(n), ""),))) for n in range(count)]
    unit = Unit(16, 16, 64, 1, "body", 8, 0, dims=3, spacing=2.0)
    samples, failed = prepare(Path(sys.argv[1]) / f"{count}.samples", images, unit, lambda *_: None)
    assert (len(samples), failed) == (8 * count, 0)
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_memory_does_not_grow_with_the_number_of_studies(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    few, many = map(int, ran.stdout.split())
    assert many - few < 9600  # KiB: a study has 9,375 as it is read; ten more than the first two leave nothing behind
