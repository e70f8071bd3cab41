"""What a delivery holds, before anything is read."""

import io
import os
import re
import socket
import zipfile
from collections import Counter

import pytest
from dicom_maker import dicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from db.tables import Export, ExportRecord, VaultExportFile
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.ingest import registering, sources
from phenotype.ingest.registering import Registered, register
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


def test_links_and_special_files_are_written_down_and_never_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"x")
    inside = tmp_path / "export"
    (inside / "a").mkdir(parents=True)
    (inside / "a" / "1").write_bytes(b"x")
    (inside / "loop").symlink_to(inside)
    (inside / "a" / "up").symlink_to("..")
    (inside / "self").symlink_to("self")
    (inside / "chain").symlink_to("further")
    (inside / "further").symlink_to(outside)
    (inside / "beside").symlink_to(tmp_path / "export2")  # begins like the export
    os.mkfifo(inside / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(inside / "socket"))
        told = outcomes(inside)
    assert told == {
        "a/1": "found",
        "a/up": "link",
        "loop": "link",
        "self": "link",
        "chain": "link_outside",
        "further": "link_outside",
        "beside": "link_outside",
        "pipe": "special_file",
        "socket": "special_file",
    }
    with pytest.raises(Unreadable, match="unreadable_file"):
        open_bytes(FileRef(str(inside / "pipe")))  # without waiting for somebody to write


def test_names_that_are_no_text(tmp_path, database):
    names = [b"\xff\xfe", b"caf\xe9.dcm", b"new\nline", b" ", b"bytes:%41", b"-rf", b"a\\b", b"%", b"\xf0\x9f\xa6\xb4"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    found = list(walk(tmp_path))
    assert len(found) == len(names)
    for f in found:
        f.ref.path.encode()  # a database can hold it
        assert open_bytes(f.ref) == os.fsencode(f.inner)
    assert register(database, tmp_path).new == len(names)
    with database.reading() as session:
        places = session.execute(select(VaultExportFile.path, VaultExportFile.member)).all()
    assert {open_bytes(FileRef(*place)) for place in places} == set(names)
    assert register(database, tmp_path).new == 0


def test_folders_deeper_than_a_path_may_be_long(tmp_path):
    (tmp_path / "at the top").write_bytes(b"x")
    here = os.open(tmp_path, os.O_DIRECTORY)
    for _ in range(60):
        os.mkdir("d" * 100, dir_fd=here)
        below = os.open("d" * 100, os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("out of reach", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    told = Counter(f.reason or f.state for f in walk(tmp_path))
    assert told == {"found": 1, "unreadable_folder": 1}


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    for name in ("open", "closed", "half"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").write_bytes(b"x")
    real = os.scandir

    def scandir(path):
        if path.endswith("closed"):
            raise PermissionError(13, "no")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert outcomes(tmp_path) == {"open/1": "found", "half/1": "found", "closed": "unreadable_folder"}


def test_the_second_time_nothing_is_opened_or_written(tmp_path, database, monkeypatch):
    monkeypatch.setattr(sources, "LARGE", 10)
    for i in range(50):
        (tmp_path / f"{i}").write_bytes(b"%020d" % i)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as z:
        z.writestr("m", b"x")
    home = tmp_path.parent / "home"
    assert register(database, tmp_path, home) == Registered(surrogate_of(database), 52, 52)
    opened, written = [], []
    real_open = os.open
    monkeypatch.setattr(os, "open", lambda path, *rest, **more: opened.append(path) or real_open(path, *rest, **more))
    monkeypatch.setattr(registering, "_write", lambda *args: written.append(args[3]) or 0)
    assert register(database, tmp_path, home) == Registered(surrogate_of(database), 52, 0)
    assert [str(path) for path in opened] == [str(tmp_path / "a.zip")], "whether what it was inflated to is still there"
    assert not any(written)


def surrogate_of(database):
    with database.reading() as session:
        return session.scalars(select(Export.id)).one()


def dicomdir(*names: tuple[str, ...]) -> bytes:
    """A table of contents that names these files."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID, d.file_meta.MediaStorageSOPInstanceUID = "1.2.840.10008.1.3.10", "2.25.1"
    d.FileSetID = "DISC"
    d.DirectoryRecordSequence = []
    for name in ((), *names):
        item = Dataset()
        item.DirectoryRecordType = "IMAGE" if name else "PATIENT"
        if name:
            item.ReferencedFileID = list(name)
        d.DirectoryRecordSequence.append(item)
    stream = io.BytesIO()
    d.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def test_a_dicomdir_names_what_is_missing(tmp_path, database, ingest):
    names = ("DICOM", "IM1"), ("DICOM", "IM2"), ("..", "..", "ETC", "PASSWD"), ("/ETC/PASSWD",), ("ALONE",)
    (tmp_path / "disc" / "dicom").mkdir(parents=True)
    (tmp_path / "disc" / "dicom" / "im1").write_bytes(dicom("1"))  # as a system without capitals copies it
    (tmp_path / "disc" / "DICOMDIR").write_bytes(dicomdir(*names))
    with zipfile.ZipFile(tmp_path / "disc.zip", "w") as z:
        z.writestr("top/DICOMDIR", dicomdir(*names))
        z.writestr("top/DICOM/IM2", dicom("2"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "DICOMDIR").write_bytes(dicomdir(*names)[:-300])

    def missing() -> dict[str, list[int]]:
        with database.reading() as session:
            query = select(VaultExportFile.path, ExportRecord.number, ExportRecord.state, ExportRecord.reason)
            rows = session.execute(query.join(ExportRecord, ExportRecord.file_id == VaultExportFile.file_id)).all()
        assert {(state, reason) for _, _, state, reason in rows} <= {("quarantined", "listed_file_missing")}
        return {name: sorted(n for path, n, _, _ in rows if path.endswith(name)) for name in ("disc/DICOMDIR", ".zip")}

    ledger = ingest(database, tmp_path)
    assert ledger.states["ingested"] == 2
    assert missing() == {"disc/DICOMDIR": [2, 3, 4, 5], ".zip": [1, 3, 4, 5]}
    (tmp_path / "disc" / "alone").write_bytes(dicom("3"))
    ingest(database, tmp_path)
    assert missing() == {"disc/DICOMDIR": [2, 3, 4], ".zip": [1, 3, 4, 5]}


def test_what_is_known_is_only_looked_at(tmp_path, database, monkeypatch):
    """How fast that is, benchmarks/ingest.py measures."""
    for folder in range(3):
        (tmp_path / f"{folder}").mkdir()
        for i in range(30):
            (tmp_path / f"{folder}" / f"{i}").write_bytes(b"x")
    assert register(database, tmp_path).new == 90
    monkeypatch.setattr(sources, "open_file", None)
    assert register(database, tmp_path).new == 0
