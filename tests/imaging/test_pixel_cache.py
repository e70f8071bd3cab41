"""Pixels are decoded once, by a process that can be spared; what is kept is exact, bounded, and says nothing."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import phenotype.imaging.cache as module
from phenotype.features.views import Source, read_views
from phenotype.imaging.cache import read_cached, smallest
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef, Unreadable

RNG = np.random.default_rng(3)


def picture(path: Path, shade: int = 0, size: int = 64) -> FileRef:
    Image.fromarray((RNG.integers(0, 200, (size, size)) + shade).astype(np.uint8)).save(path)
    return FileRef(str(path))


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("??/*.safetensors"))


def test_what_is_kept_is_what_was_decoded(tmp_path, monkeypatch):
    ref, folder = picture(tmp_path / "Doe_Jane_19500101.png"), tmp_path / "cache"
    plain = read_pixels([ref])
    assert (read_cached([ref], folder).pixels == plain.pixels).all()
    (file,) = kept(folder)
    assert file.stat().st_size < 64 * 64 + 500, "a byte a pixel"
    assert file.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(module, "shared", None)  # the second time nothing is decoded
    again = read_cached([ref], folder)
    assert (again.pixels == plain.pixels).all()
    assert again.pixels.dtype == np.float32
    assert (again.spacing_mm, again.tilt_corrected) == (plain.spacing_mm, plain.tilt_corrected)
    everything = b"".join(p.name.encode() + p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert not any(word in everything for word in (b"Doe", b"Jane", b"1950", str(tmp_path).encode()))


def test_real_slices_of_jpeg_2000_are_kept_with_their_spacing_and_native_ones_are_not(tmp_path, shared_data):
    slices = [FileRef(str(p)) for p in sorted((shared_data / "ct_series" / "dicom").iterdir())[:6]]
    plain = read_pixels(slices)
    for _ in range(2):
        found = read_cached(slices, tmp_path)
        assert (found.pixels == plain.pixels).all()
        assert (found.spacing_mm, found.tilt_corrected) == (plain.spacing_mm, plain.tilt_corrected)
    assert len(kept(tmp_path)) == 1
    native = FileRef(str(shared_data / "dicom" / "cornerstone_wado" / "CTImage.dcm"))
    assert (read_cached([native], tmp_path).pixels == read_pixels([native]).pixels).all()
    assert len(kept(tmp_path)) == 1


def test_a_changed_file_is_decoded_anew(tmp_path):
    ref = picture(tmp_path / "a.png")
    one = read_cached([ref], tmp_path / "cache").pixels
    picture(tmp_path / "a.png", shade=40)
    other = read_cached([ref], tmp_path / "cache").pixels
    assert (other == read_pixels([ref]).pixels).all()
    assert (one != other).any()
    (tmp_path / "a.png").unlink()
    with pytest.raises(Unreadable) as caught:
        read_cached([ref], tmp_path / "cache")
    assert caught.value.code == "missing"


def test_damage_anywhere_in_what_is_kept_is_noticed_and_mended(tmp_path):
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draw = random.Random(seed)
    ref, folder = picture(tmp_path / "a.png"), tmp_path / "cache"
    right = read_cached([ref], folder).pixels
    (file,) = kept(folder)
    sound, unnoticed = file.read_bytes(), 0
    for number in range(40):
        damaged = bytearray(sound)
        if number % 4 == 0:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        unnoticed += _plainly(file, right)
        assert (read_cached([ref], folder).pixels == right).all(), f"seed {seed}, number {number}"
        (file,) = kept(folder)
        assert not _plainly(file, right), "mended"
    assert unnoticed > 10, "the negative control: safetensors alone notices no changed bit"


def _plainly(file: Path, right: np.ndarray) -> bool:
    from safetensors.numpy import load

    try:
        return bool((load(file.read_bytes())["pixels"] != right).any())
    except Exception:
        return False


def test_the_oldest_go_when_too_much_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("PHENOTYPE_CACHE_GB", "0.00005")  # 50 kB: eleven of these
    refs = [picture(tmp_path / f"{n}.png") for n in range(30)]
    folder, first = tmp_path / "cache", None
    for n, ref in enumerate(refs):
        read_cached([ref], folder)
        first = first or kept(folder)[0]
        if n < 20:
            read_cached(refs[:1], folder)  # in use
            os.utime(first, ns=(time.time_ns() + 10**9, time.time_ns() + 10**9))
        assert sum(p.stat().st_size for p in kept(folder)) <= 50_000
    assert 8 <= len(kept(folder)) <= 12
    assert first in kept(folder)


def test_a_disk_that_is_full_costs_the_cache_and_not_the_image(tmp_path):
    ref = picture(tmp_path / "a.png")
    folder = tmp_path / "cache"
    read_cached([ref], folder)
    (file,) = kept(folder)
    file.unlink()
    file.parent.rmdir()
    file.parent.write_bytes(b"")  # a file where the folder should be: nothing can be written
    assert (read_cached([ref], folder).pixels == read_pixels([ref]).pixels).all()


def test_a_failed_decode_keeps_its_reason(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(Unreadable) as caught:
        read_cached([FileRef(str(tmp_path / "a.png"))], tmp_path / "cache")
    assert caught.value.code == "decode"
    assert kept(tmp_path / "cache") == []


@pytest.mark.parametrize(
    "values", [[0, 255], [-1024, 3071], [0, 65535], [0, 65536], [0.5, 1], [-1, 40000], [np.nan, 1]]
)
def test_values_are_kept_exactly(values):
    pixels = np.array([values, values], dtype=np.float32)
    small = smallest(pixels)
    np.testing.assert_array_equal(small.astype(np.float32), pixels)
    sizes = {(0, 255): 1, (-1024, 3071): 2, (0, 65535): 2}
    assert small.dtype.itemsize == sizes.get(tuple(values), 4)


def test_of_a_volume_only_the_slices_that_are_looked_at_are_read(tmp_path):
    files = [(picture(tmp_path / f"{n}.png").path, "") for n in range(12)]
    source = Source("volume", "CT", tuple(files), tmp_path / "cache")
    Path(files[0][0]).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    views = read_views(source, [32], 3, "image")
    assert [view.slice for (view,) in views] == [2, 6, 10]
    assert len(kept(tmp_path / "cache")) == 3
    picture(Path(files[6][0]), size=32)
    with pytest.raises(Unreadable, match="mixed_size"):
        read_views(source, [32], 3, "image")
