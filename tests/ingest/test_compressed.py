"""Single files kept compressed: read as if they were not, and harmless where they were made to do harm."""

import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import zstandard
from dicom_maker import ct_slice
from hostile_archives import END, GOOD, make_zip, member

from phenotype.imaging import compression
from phenotype.imaging.cache import read_cached
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.ingest import sources
from phenotype.ingest.reading import read_file
from phenotype.ingest.registering import register


def zst(data: bytes, *, checksum: bool = True, streamed: bool = False) -> bytes:
    packer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=not streamed)
    if not streamed:
        return packer.compress(data)
    stream = packer.compressobj()
    return (
        stream.compress(data[:700]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) + stream.flush() + zst(data[700:])
    )


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zst}
KINDS = pytest.mark.parametrize("kind", PACKERS)


def code(path: Path, limit: int = 2 << 30) -> str:
    """The reason why a file is not read, or "read"."""
    try:
        open_bytes(FileRef(str(path)), limit)
    except Unreadable as error:
        return error.code
    return "read"


def body(seed: int, size: int = 5000) -> bytes:
    rng = random.Random(seed)
    return rng.randbytes(size) + bytes(size) + b"some text " * (size // 10)


@KINDS
def test_sound_files_of_all_makes(kind, tmp_path):
    data, pack, path = body(1, 200_000), PACKERS[kind], tmp_path / "x"
    ways = [pack(data), pack(data[:9]) + pack(b"") + pack(data[9:]), pack(data) * 3]
    if kind == "zst":
        skipped = b"\x50\x2a\x4d\x18\4\0\0\0abcd"  # pzstd writes such frames
        ways += [zst(data, checksum=False), zst(data, streamed=True), skipped + pack(data) + skipped]
    else:
        ways += [pack(data) + bytes(512), pack(data) + bytes(1 << 17)]  # padded, as on a tape
    for n, packed in enumerate(ways):
        path.write_bytes(packed)
        assert open_bytes(FileRef(str(path))) == (data * 3 if n == 2 else data)
    path.write_bytes(pack(b""))
    assert open_bytes(FileRef(str(path))) == b""


@KINDS
def test_cut_anywhere_it_is_truncated_and_garbage_is_no_part_of_it(kind, tmp_path):
    rng, path, seen = random.Random(4), tmp_path / "x", Counter()
    packed = PACKERS[kind](body(2))
    for cut in [len(packed) - 1, *rng.sample(range(12, len(packed)), 80)]:
        path.write_bytes(packed[:cut])
        seen[code(path)] += 1
    assert seen == {"truncated": 81}
    for garbage in (b"x", b"something else than that", packed[1:]):
        path.write_bytes(packed + garbage)
        assert code(path) in ("inflation", "truncated")
    path.write_bytes(packed)
    assert code(path) == "read"


@KINDS
def test_flipped_bytes_are_never_taken_for_the_content(kind, tmp_path):
    seed = 5
    print(f"seed {seed}")
    rng, path, seen, data = random.Random(seed), tmp_path / "x", Counter(), body(3, 1000)
    packed = PACKERS[kind](data)
    for _ in range(300):
        broken = bytearray(packed)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(4, len(broken))] ^= rng.randrange(1, 256)
        path.write_bytes(broken)
        told = code(path)
        seen[told] += 1
        # the header of a gzip file, and what tells no more than sizes, may change without harm
        assert told != "read" or open_bytes(FileRef(str(path))) in (data, bytes(broken))
    print(kind, seen)
    assert seen["inflation"] > 200 and set(seen) <= {"inflation", "truncated", "read"}


def test_what_only_begins_like_one(tmp_path):
    preamble = bytearray(ct_slice(0))
    for data in (
        b"BZh is no beginning",
        b"(/",
        b"Patient,text\n",
        b"P*M\x17",
        b"\x1f\x8b\x09",
        b"\xfd7zXY\0" + bytes(99),
    ):
        (tmp_path / "x").write_bytes(data)
        assert open_bytes(FileRef(str(tmp_path / "x"))) == data
    for start in (b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):  # the preamble of DICOM may hold anything
        preamble[: len(start)] = start
        (tmp_path / "x").write_bytes(preamble)
        assert open_bytes(FileRef(str(tmp_path / "x"))) == preamble


# ---------------------------------------------------------------- bombs


def patched_xz(dictionary: int) -> bytes:
    """An xz file that asks for a dictionary of this size, coded as in its header."""
    packed = bytearray(lzma.compress(b"abc" * 50))
    end = 12 + (packed[12] + 1) * 4
    assert packed[14:16] == b"\x21\1"
    packed[16] = dictionary
    packed[end - 4 : end] = struct.pack("<L", zlib.crc32(packed[12 : end - 4]))
    return bytes(packed)


def raw_zst(window: int, blocks: list[tuple[int, int, bytes]]) -> bytes:
    """A Zstandard frame with this descriptor of its window, of blocks (kind, size, bytes)."""
    found = b"\x28\xb5\x2f\xfd\0" + bytes([window])
    for n, (kind, size, data) in enumerate(blocks, 1):
        found += (size << 3 | kind << 1 | (n == len(blocks))).to_bytes(3, "little") + data
    return found


ZEROS = bytes(100 << 20)
ZST_ZEROS = [(1, 128 << 10, b"\0")] * 800  # each repeats one byte: 4 bytes for 128 KiB
BOMBS = {  # what it is; the reason; the same but for what makes it one, or None where the bound is lifted instead
    "gz of zeros": (lambda: gzip.compress(ZEROS), "archive_ratio", None),
    "bz2 of zeros": (lambda: bz2.compress(ZEROS), "archive_ratio", None),
    "xz of zeros": (lambda: lzma.compress(ZEROS, preset=0), "archive_ratio", None),
    "zst of zeros": (lambda: zst(ZEROS), "archive_ratio", None),
    "zst of one byte blocks": (lambda: raw_zst(0x50, ZST_ZEROS), "archive_ratio", None),
    "gz in many members": (lambda: gzip.compress(ZEROS[: 10 << 20]) * 10, "archive_ratio", None),
    "xz with a dictionary of 4 GiB": (lambda: patched_xz(40), "inflation", lambda: patched_xz(28)),
    "zst with a window of 2 TiB": (lambda: raw_zst(0xF8, [(0, 3, b"abc")]), "inflation",
                                   lambda: raw_zst(0x50, [(0, 3, b"abc")])),
    "zst with a window of 256 MiB": (lambda: raw_zst(0x90, [(0, 3, b"abc")]), "inflation",
                                     lambda: raw_zst(0x88, [(0, 3, b"abc")])),
    "more than the limit": (lambda: gzip.compress(bytes(3 << 20)), "too_large", lambda: gzip.compress(bytes(1 << 20))),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_with_its_reason_within_bounds(name, tmp_path, monkeypatch):
    make, reason, harmless = BOMBS[name]
    path, limit = tmp_path / "x", 2 << 20 if reason == "too_large" else 2 << 30
    path.write_bytes(make())
    assert path.stat().st_size < 2 << 20
    tracemalloc.start()
    try:
        assert code(path, limit) == reason
        assert next(iter(sources.walk(path))).state == "found"  # where its beginning is looked at
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (compression.SMALL * 5 // 4 + (8 << 20) if reason == "archive_ratio" else 8 << 20)
    if harmless is None:
        monkeypatch.setattr(compression, "SMALL", 1 << 40)
        assert len(open_bytes(FileRef(str(path)))) == 100 << 20
    else:
        path.write_bytes(harmless())
        assert code(path, limit) == "read"


def test_bombs_in_a_delivery_harm_none_of_their_neighbours(database, ingest, states, tmp_path):
    folder = tmp_path / "e"
    folder.mkdir()
    for name in ("zst of one byte blocks", "xz with a dictionary of 4 GiB", "zst with a window of 2 TiB"):
        (folder / name.replace(" ", "_")).write_bytes(BOMBS[name][0]())
    (folder / "1.dcm.gz").write_bytes(gzip.compress(ct_slice(1)))
    (folder / "2.dcm.gz").write_bytes(gzip.compress(ct_slice(2))[:-20])
    (folder / "3.dcm.gz").write_bytes(gzip.compress(gzip.compress(ct_slice(3))))
    (folder / "4.dcm.gz").write_bytes(b"not compressed")
    (folder / "5.zip").write_bytes(make_zip(("a", raw_zst(0x50, ZST_ZEROS)), ("b.zst", zst(ct_slice(5)))))
    ingest(database, folder)
    assert states(database) == {
        "zst_of_one_byte_blocks": ("quarantined", "archive_ratio"),
        "xz_with_a_dictionary_of_4_GiB": ("quarantined", "inflation"),
        "zst_with_a_window_of_2_TiB": ("quarantined", "inflation"),
        "1.dcm.gz": ("ingested", ""),
        "2.dcm.gz": ("quarantined", "truncated"),
        "3.dcm.gz": ("quarantined", "nested_archive"),
        "4.dcm.gz": ("quarantined", "not_dicom"),
        "5.zip": ("ignored", "archive"),
        "a": ("quarantined", "archive_ratio"),
        "b.zst": ("ingested", ""),
    }


# ---------------------------------------------------------------- what is in them


@KINDS
def test_compressed_or_not_it_is_the_same_file(kind, database, ingest, states, tmp_path, monkeypatch):
    folder = tmp_path / "e"
    folder.mkdir()
    plain, packed = folder / "1.dcm", folder / f"1.dcm.{kind}"
    plain.write_bytes(ct_slice(1))
    packed.write_bytes(PACKERS[kind](ct_slice(1)))
    (folder / "IM0002").write_bytes(PACKERS[kind](ct_slice(2)))  # told by the bytes
    (folder / "3").write_bytes(ct_slice(3))
    with zipfile.ZipFile(folder / "more.zip", "w") as z:
        z.writestr(f"3.dcm.{kind}", PACKERS[kind](ct_slice(3)))
    with monkeypatch.context() as patch:  # nothing is inflated while files are written down
        patch.setattr(compression, "inflate", None)
        assert register(database, folder, tmp_path / "home").new == 6
    ledger = ingest(database, folder)
    assert ledger.reasons == {("ingested", ""): 3, ("duplicate", ""): 2, ("ignored", "archive"): 1}
    assert not (tmp_path / "home").exists()
    refs = [FileRef(str(path)) for path in (plain, packed)]
    assert read_file(refs[0], {}) == read_file(refs[1], {})
    pixels = [picture.pixels for ref in refs for picture in (read_pixels([ref]), read_cached([ref], tmp_path / "kept"))]
    assert all(np.array_equal(pixels[0], other) for other in pixels)


@KINDS
def test_a_compressed_table_or_report_is_read_by_its_inner_name(kind, database, ingest, states, tmp_path):
    from PIL import Image as Pillow

    picture = io.BytesIO()
    Pillow.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture, "png")
    files = {
        "reports.csv": b"accession,text\nA1,No pneumothorax.\nA2,Small effusion.\n",
        "list.csv": b"image,patient,study,view\n0.png,P1,S1,PA\n",
        "A3.txt": b"The lungs are clear.\n",
        "reports.ndjson": b'{"resourceType":"DiagnosticReport","id":"1","status":"final","conclusion":"Clear lungs",'
        b'"identifier":[{"type":{"coding":[{"code":"ACSN"}]},"value":"A4"}]}\n',
    }
    folder = tmp_path / "e"
    folder.mkdir()
    (folder / "0.png").write_bytes(picture.getvalue())  # its table is read before it
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        (folder / f"{name}.{kind}").write_bytes(PACKERS[kind](data))
        plain, packed = (read_file(FileRef(str(p)), {}) for p in (tmp_path / name, folder / f"{name}.{kind}"))
        assert plain == packed and plain.state == "ingested" and plain.content.rows
    ingest(database, folder)
    assert set(states(database).values()) == {("ingested", "")}


def test_a_name_without_the_suffix(tmp_path):
    names = {
        "x.csv.gz": "x.csv",
        "a/b.DCM.ZST": "a/b.DCM",
        "x.gz": "x",
        "x.csv": "x.csv",
        "IM1": "IM1",
        "1.2.3": "1.2.3",
    }
    assert {name: compression.inner_name(name) for name in names} == names
    assert [sources.is_table(name) for name in ("x.csv", "x.CSV.gz", "x.tsv.gz", "x.dcm.gz", "csv.gz")] == [
        True, True, True, False, False,
    ]  # fmt: skip


# ---------------------------------------------------------------- tars


@KINDS
@pytest.mark.parametrize("name", ["x.tar.{}", "x.{}", "X.TAR.{}"])
def test_a_compressed_tar_is_known_by_what_is_in_it(kind, name, database, ingest, tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for i in range(3):
            info = tarfile.TarInfo(f"IM{i}")
            info.size = len(ct_slice(i))
            tar.addfile(info, io.BytesIO(ct_slice(i)))
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / name.format(kind)).write_bytes(PACKERS[kind](stream.getvalue()))
    assert ingest(database, tmp_path / "e").reasons == {("ignored", "archive"): 1, ("ingested", ""): 3}


def test_what_is_said_of_tars_that_are_none_or_lie_deeper(tmp_path):
    tar = GOOD + member(b"b", body(1)) + END
    told = {
        "cut.tar.zst": (zst(tar[:2000]) + zst(tar[2000:])[:-30], {"truncated_archive", "truncated_member"}),
        "damaged.tar.zst": (
            zst(tar[:2000]) + zst(tar[2000:])[:60] + bytes(60) + zst(tar[2000:])[120:],
            {"bad_archive"},
        ),
        "no.tar.zst": (zst(b"a table\n" * 99), {"archive_format"}),
        "no.tzst": (b"nothing compressed", {"archive_format"}),
        "deep.zip": (make_zip(("x.tar.zst", zst(tar)), ("y.tzst", zst(tar))), {"nested_archive"}),
    }
    for name, (data, reasons) in told.items():
        (tmp_path / name).write_bytes(data)
        found = list(sources.walk(tmp_path / name, None, lambda found: tmp_path / "spool" / found.inner))
        assert {f.reason for f in found} - {"", "archive"} <= reasons and {f.reason for f in found} & reasons, name
    (tmp_path / "z.zip").write_bytes(make_zip(("y.zst", zst(tar)), ("tar", tar)))
    members = [f for f in sources.walk(tmp_path / "z.zip") if f.state == "found"]
    assert [read_file(f.ref, {}).reason for f in members] == ["nested_archive"] * 2  # told when they are read


def test_a_bz2_named_as_a_single_file_is_not_looked_into(tmp_path):
    for name in ("1.dcm.bz2", "1.bz2", "1"):
        (tmp_path / name).write_bytes(bz2.compress(GOOD + END))
    found = {f.inner: f.reason for f in sources.walk(tmp_path, None, lambda found: tmp_path.parent / found.inner)}
    assert found == {"1.dcm.bz2": "", "1.bz2": "archive", "1.bz2/good": "", "1": ""}
    for name in ("1.dcm.bz2", "1"):
        assert read_file(FileRef(str(tmp_path / name)), {}).reason == "nested_archive", "nothing is lost in silence"
