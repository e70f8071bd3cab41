"""Archives of all kinds: read as the libraries read them where they are sound, and harmless where they are not."""

import gzip
import io
import random
import tarfile
import time
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hostile_archives import BODY, CASES, END, GOOD, MAX_BYTES, MAX_MEMBERS, OUTSIDE, RATIO, make_zip, member, raw_zip

from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.ingest import sources
from phenotype.ingest.registering import register

LIMITS = sources.Limits(file_bytes=8 << 20, members=MAX_MEMBERS, archive_bytes=MAX_BYTES, ratio=RATIO)
REASONS = {reason for _, _, told in CASES.values() for reason in told}


def outcomes(path: Path, home: Path) -> Counter[str]:
    """Walk an archive and read all that is found: how often each reason is given, or "read"."""
    told: Counter[str] = Counter()
    for found in sources.walk(path, LIMITS, lambda _: home / "spool" / "0.tar"):
        reason = found.reason
        if found.state == "found":
            try:
                size = len(open_bytes(found.ref, LIMITS.file_bytes))
                reason = "read" if size == found.size or path.suffix == ".gz" else "other size"
            except Unreadable as error:
                reason = error.code
        told[reason] += 1
    return told


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_archive_ends_with_its_reasons_and_harms_nothing(name, tmp_path):
    suffix, data, told = CASES[name]
    folder = tmp_path / "deep" / "er" / "export"
    folder.mkdir(parents=True)
    path = folder / f"a{suffix}"
    path.write_bytes(data)
    home = folder / "home"
    before, began = everything(tmp_path), time.process_time()
    tracemalloc.start()
    try:
        assert outcomes(path, home) == told
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10
    assert peak < 24 << 20
    new = {name for name in everything(tmp_path) - before if "home/spool" not in name}
    assert new <= {"deep/er/export/home"}
    assert not list(Path(OUTSIDE).parent.glob("escaped*"))


def test_there_are_enough_of_them():
    assert len(CASES) >= 60
    assert len({data for _, data, _ in CASES.values()}) >= 120


@pytest.mark.parametrize("name", ["tar: slip", "zip: slip"])
def test_control_the_naive_way_writes_outside(name, tmp_path):
    _, data, _ = CASES[name]
    into = tmp_path / "a" / "b" / "c"
    into.mkdir(parents=True)
    if name.startswith("tar"):
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            tar.extractall(into, filter="fully_trusted")
    else:
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            for info in z.infolist():
                (into / info.filename).write_bytes(z.read(info))
    assert (tmp_path / "escaped").exists()


@pytest.mark.parametrize("name", ["zip: bomb", "compressed: gz bomb"])
def test_control_the_naive_way_inflates(name):
    _, data, _ = CASES[name]
    if name.startswith("zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as z:
            size = len(z.read("bomb"))
    else:
        size = len(gzip.decompress(data))
    assert size > RATIO * len(data)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_cut_anywhere_nothing_is_read_that_is_not_whole(suffix, tmp_path):
    rng = random.Random(4)
    bodies = {f"m{i}": rng.randbytes(700 + 300 * i) for i in range(6)}
    path = tmp_path / f"whole{suffix}"
    pack(path, bodies)
    data, seen = path.read_bytes(), Counter()
    for n, cut in enumerate(sorted(rng.sample(range(1, len(data.rstrip(b"\0"))), 60))):
        part = tmp_path / f"{n}{suffix}"
        part.write_bytes(data[:cut])
        for found in sources.walk(part, LIMITS, lambda _, n=n: tmp_path / f"{n}.spool"):
            seen[found.reason] += 1
            if found.state == "found":
                assert open_bytes(found.ref) == bodies[found.inner.rpartition("/")[2]]
    print(seen)
    assert seen["archive"] <= 2, "what is cut says so, unless only a checksum is missing"
    assert set(seen) <= {"", "archive", "bad_archive", "truncated_archive", "truncated_member", "archive_format"}


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_flipped_bytes_are_refused_or_change_no_more_than_a_member(suffix, tmp_path):
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    path = tmp_path / f"whole{suffix}"
    pack(path, {f"m{i}": rng.randbytes(300) for i in range(4)})
    data, told = path.read_bytes(), Counter()
    for n in range(300):
        broken = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        part = tmp_path / f"x{suffix}"
        part.write_bytes(broken)
        told += outcomes(part, tmp_path / str(n))
    print(told)
    assert set(told) <= REASONS | {"too_large", "zip_method", "other size"}


def pack(path: Path, bodies: dict[str, bytes]) -> None:
    if path.suffix == ".zip":
        path.write_bytes(make_zip(*bodies.items()))
        return
    with tarfile.open(path, "w:" + (path.suffix[1:] if path.suffix != ".tar" else "")) as tar:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, "zip", "zip64"])
def test_members_are_those_that_the_libraries_see(form, tmp_path):
    rng = random.Random(3)
    names = ["a", "deep/er/b.dcm", "x" * 90, "d" * 60 + "/" + "e" * 80, "blank in the name"]
    if form != tarfile.USTAR_FORMAT:
        names += ["f/" * 90 + "long", "ä/ö.dcm", "名前"]
    bodies = {name: rng.randbytes(rng.choice([1, 511, 512, 513, 3000])) for name in names}
    path = tmp_path / "archive"
    if isinstance(form, str):
        with zipfile.ZipFile(path, "w") as z:
            for name, body in bodies.items():
                with z.open(name, "w", force_zip64=form == "zip64") as file:
                    file.write(body)
    else:
        with tarfile.open(path, "w", format=form) as tar:
            for name, body in bodies.items():
                info = tarfile.TarInfo(name)
                info.size, info.uid = len(body), 10**9  # a number that needs a pax record or base 256
                if form == tarfile.USTAR_FORMAT:
                    info.uid = 1
                tar.addfile(info, io.BytesIO(body))
    *found, archive = sources.walk(path)
    assert archive.reason == "archive"
    assert {f.inner.removeprefix("archive/"): open_bytes(f.ref) for f in found} == bodies


def test_a_hundred_thousand_members_cost_no_more_memory_than_ten_thousand(tmp_path):
    def both(count: int) -> tuple[Path, Path]:
        paths = tmp_path / f"{count}.zip", tmp_path / f"{count}.tar"
        paths[0].write_bytes(raw_zip([(b"%d" % i, b"x", {}) for i in range(count)]))
        paths[1].write_bytes(member(b"same", b"x") * count + END)
        return paths

    for path in both(10_000):
        tracemalloc.start()
        count = sum(1 for _ in sources.walk(path))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 10_001
        assert peak < 1 << 20
    for path in both(100_000):
        began = time.process_time()
        assert sum(1 for _ in sources.walk(path)) == 100_001
        assert time.process_time() - began < 10


def test_an_archive_is_known_by_its_content(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGE", 4096)
    (tmp_path / "export").write_bytes(make_zip(("a", random.Random(1).randbytes(5000))))
    (tmp_path / "disc.iso").write_bytes(GOOD * 4 + END)
    (tmp_path / "small").write_bytes(make_zip(("a", b"x")))  # is told when it is read
    (tmp_path / "image.dcm").write_bytes(bytes(128) + b"DICM" + bytes(9000))
    told = {f.inner: f.reason for f in sources.walk(tmp_path)}
    assert told["export"] == told["disc.iso"] == "archive"
    assert told["small"] == told["image.dcm"] == ""
    assert [sources.kind_of(tmp_path / name) for name in ("export", "disc.iso", "small", "image.dcm")] == [
        "zip",
        "tar",
        "zip",
        "file",
    ]


def test_a_member_is_never_taken_from_an_archive_that_was_replaced(tmp_path):
    for suffix in (".zip", ".tar"):
        path = tmp_path / f"a{suffix}"
        pack(path, {"one": BODY, "two": BODY * 3})
        refs = [found.ref for found in sources.walk(path) if found.state == "found"]
        assert [open_bytes(ref) for ref in refs] == [BODY, BODY * 3]
        pack(path, {"other": BODY + b"!", "two": BODY * 3})
        with pytest.raises(Unreadable):
            open_bytes(refs[0])


def test_places_that_somebody_made_up(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(GOOD + END)
    for place in (
        "@",
        "@x+1:2",
        "@0+1:2",
        "@512+140",
        "@512+140:1:2:3:4:5",
        "@-5+1:2",
        "@512+99999:1",
        "@+:",
        "@512+140:0",
    ):
        with pytest.raises(Unreadable):
            open_bytes(FileRef(str(path), f"0000000{place}/good"))


# ---------------------------------------------------------------- in the ledger


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tbz2", ".txz"])
def test_a_tar_gives_what_the_folder_gives(suffix, new_database, ingest, tmp_path):
    from dicom_maker import ct_slice

    bodies = {f"PAT/ST1/IM{i:04}": ct_slice(i) for i in range(5)}
    database = new_database()
    kind = {".tbz2": "bz2", ".txz": "xz", ".tar.gz": "gz", ".tar": ""}[suffix]
    (tmp_path / "e").mkdir()
    with tarfile.open(tmp_path / "e" / f"x{suffix}", f"w:{kind}") as tar:
        for name, body in bodies.items():
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    assert ingest(database, tmp_path / "e").reasons == {("ignored", "archive"): 1, ("ingested", ""): 5}
    assert ingest(database, tmp_path / "e").found == 6


def test_the_spool_is_made_anew_where_it_is_gone(database, ingest, tmp_path, monkeypatch):
    from sqlalchemy import select

    from db.tables import VaultExportFile

    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "x.tgz").write_bytes(gzip.compress(GOOD + member(b"b", BODY * 2) + END))
    homes = [tmp_path / "one", tmp_path / "two"]

    def members() -> list[bytes]:
        with database.reading() as session:
            places = select(VaultExportFile.path, VaultExportFile.member).where(VaultExportFile.member != "")
            rows = session.execute(places.order_by(VaultExportFile.member)).all()
        return [open_bytes(FileRef(*row)) for row in rows]

    assert register(database, tmp_path / "e", homes[0]).new == 3
    assert members() == [BODY, BODY * 2]
    (spooled,) = (homes[0] / "spool").glob("*.tar")
    assert spooled.stem.isalnum() and "x" not in spooled.stem
    inflated = spooled.stat().st_ino
    assert register(database, tmp_path / "e", homes[0]).new == 0
    assert spooled.stat().st_ino == inflated, "what is there is not made again"
    spooled.unlink()
    with pytest.raises(Unreadable, match="missing"):
        members()
    assert register(database, tmp_path / "e", homes[0]).new == 0
    assert members() == [BODY, BODY * 2]
    homes[0].rename(homes[1])
    (homes[1] / "spool" / spooled.name).unlink()
    assert register(database, tmp_path / "e", homes[1]).new == 0
    assert members() == [BODY, BODY * 2], "the folder beside the database may move"


def test_killed_while_inflating_it_is_whole_the_next_time(database, tmp_path, monkeypatch):
    from phenotype.ingest import spool

    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "x.tgz").write_bytes(gzip.compress(GOOD + END))
    home = tmp_path / "home"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            register(database, tmp_path / "e", home)
    assert not list((home / "spool").glob("*.tar"))
    (home / "spool" / "0.part").write_bytes(b"left behind")
    assert register(database, tmp_path / "e", home).new == 2
    (made,) = (home / "spool").glob("*.tar")
    assert made.read_bytes() == GOOD + END
    assert spool.KEPT_FREE > 0


def test_a_full_disk_is_no_verdict(database, tmp_path, monkeypatch, states):
    from phenotype.ingest import spool

    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "x.tgz").write_bytes(gzip.compress(GOOD + END))
    with monkeypatch.context() as patch:
        patch.setattr(spool, "KEPT_FREE", 1 << 60)
        register(database, tmp_path / "e", tmp_path / "home")
    assert states(database) == {"x.tgz": ("quarantined", "no_space")}
    assert register(database, tmp_path / "e", tmp_path / "home").new == 1
    assert states(database) == {"x.tgz": ("ignored", "archive"), "good": ("found", "")}
