"""What a delivery holds, before anything is read."""

import io
import re
import zipfile

import pytest

from phenotype.imaging.files import open_bytes
from phenotype.ingest.sources import Limits, kind_of, walk
from phenotype.stage import Refused


def outcomes(source, limits=None) -> dict[str, str]:
    return {found.inner: found.reason or found.state for found in walk(source, limits)}


def test_every_file_of_a_folder(tmp_path):
    for name in ("b/2", "a/10", "a/9", "c.csv", "no extension", "ä/ö.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 7)
    found = list(walk(tmp_path))
    assert sorted(f.inner for f in found) == ["a/10", "a/9", "b/2", "c.csv", "no extension", "ä/ö.dcm"]
    assert all(f.size == 7 and f.state == "found" for f in found)
    assert list(walk(tmp_path)) == found
    assert [f.inner for f in walk(tmp_path / "c.csv")] == ["c.csv"]


def test_what_the_name_or_the_size_decides(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    inside = tmp_path / "export"
    inside.mkdir()
    for name in (".DS_Store", "Thumbs.db", "._1.dcm", "x.tar.gz", "viewer.exe", "1.dcm", "big.dcm"):
        (inside / name).write_bytes(b"x" * (20 if name == "big.dcm" else 1))
    (inside / "empty.dcm").touch()
    (inside / "link").symlink_to(outside / "secret")
    (inside / "folder").symlink_to(outside)
    (inside / "own").symlink_to(inside / "1.dcm")
    (inside / "nowhere").symlink_to(inside / "gone")
    assert outcomes(inside, Limits(file_bytes=10)) == {
        ".DS_Store": "system_file",
        "Thumbs.db": "system_file",
        "._1.dcm": "system_file",
        "x.tar.gz": "archive_format",
        "viewer.exe": "viewer_file",
        "1.dcm": "found",
        "big.dcm": "too_large",
        "empty.dcm": "empty",
        "link": "link_outside",
        "folder": "link_outside",
        "own": "link",  # what it leads to is found on its own
        "nowhere": "link",
    }


def test_a_zip_is_listed_with_its_members(tmp_path):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as z:
        z.writestr("x", b"x")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("deep/1.dcm", b"one")
        z.writestr("../2.dcm", b"two")
        z.writestr("nested.zip", inner.getvalue())
        z.writestr("__MACOSX/x", b"x")
        z.writestr("bomb", bytes(4 << 20))
        z.mkdir("folder")
    (tmp_path / "b.zip").write_bytes(b"PK is not enough")
    found = {f.inner: f for f in walk(tmp_path)}
    assert {name: f.reason or f.state for name, f in found.items()} == {
        "a.zip": "archive",
        "a.zip/deep/1.dcm": "found",
        "a.zip/../2.dcm": "found",
        "a.zip/nested.zip": "nested_archive",
        "a.zip/__MACOSX/x": "system_file",
        "a.zip/bomb": "archive_ratio",
        "b.zip": "bad_archive",
    }
    assert re.fullmatch(r"0000001@\d+\+5:3:8:\w{8}/../2.dcm", found["a.zip/../2.dcm"].ref.member)
    assert open_bytes(found["a.zip/../2.dcm"].ref) == b"two"
    assert {f.inner for f in walk(tmp_path / "a.zip")} == {name for name in found if name.startswith("a")}
    assert outcomes(tmp_path / "a.zip", Limits(members=3)) == {"a.zip": "archive_too_large"}
    assert outcomes(tmp_path / "a.zip", Limits(archive_bytes=1000)) == {"a.zip": "archive_too_large"}


def test_nothing_there(tmp_path):
    with pytest.raises(Refused, match="source"):
        kind_of(tmp_path / "gone")
    assert list(walk(tmp_path)) == []
