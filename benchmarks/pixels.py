"""How fast pixels and headers are read, beside pydicom and beside the codec alone, in one run.

    python -m benchmarks.pixels [--files 40] [--headers 400] [--rounds 3]

Pixels: one CT slice (512 x 512, 16 bits) as it is stored by each transfer syntax, in so many files. It is a real one
with ../shared/data, else one made from a seed; syntaxes that are not there are encoded on the spot. `read_pixels` gives
float32 after the modality LUT; pydicom's `pixel_array` and the codec alone stop at the stored numbers. Through the
cache, the first read decodes in a process that can be spared and writes what comes out; the second finds it there
(native pixels are never kept). All find the files in memory.

Headers: generated CT slices with 30 private elements. `read_object` reads, checks and hashes the whole object; the
plain loop of pydicom stops before the pixels and reads 20 values.

CPU seconds count, those of the processes that it started with them; each is measured in turns, and the median of the
rounds counts. What is read is compared, once, before anything is measured.
"""

import argparse
import hashlib
import os
import random
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.ingest import ROOT, VALUES, Scan, files, make_export, slice_of, uid
from phenotype.imaging.cache import read_cached
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.ingest.dicom import read_object

REAL = ROOT.parent / "shared" / "data" / "dicom" / "cornerstone_wado"
KINDS = {
    "native": ExplicitVRLittleEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG lossless": JPEGLosslessSV1,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}
MADE = (RLELossless, JPEGLSLossless, JPEG2000Lossless)  # what pydicom's plugins encode
WAYS = ("codec alone", "pydicom", "read_pixels", "cache, first", "cache, again")
Work = Callable[[], object]
T = TypeVar("T")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=40, help="of each transfer syntax")
    parser.add_argument("--headers", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"seed {args.seed}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as place:
        pixels(Path(place), args.files, args.rounds, args.seed)
    with tempfile.TemporaryDirectory() as place:
        headers(Path(place), args.headers, args.rounds, args.seed)


# ---------------------------------------------------------------- pixels


def pixels(place: Path, count: int, rounds: int, seed: int) -> None:
    """Slices a CPU second of each way, and how they compare to pydicom."""
    print(f"\nslices per CPU second (beside pydicom's pixel_array); {count} files a kind")
    print(f"{'':15}{'bytes':>9}" + "".join(f"{way:>18}" for way in WAYS))
    for kind, syntax in KINDS.items():
        data = encoded(syntax, seed)
        if data is None:
            print(f"{kind:15} is not there, and nothing here encodes it")
            continue
        refs = copies(place / kind, data, count)
        check(refs[0], place / kind / "checked")
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way, work in ways(refs, place / kind / f"cache {number}").items():
                times[way].append(cpu_of(work))
        middle = {way: median(found) / count for way, found in times.items()}
        cells = (f"{1 / time:9.0f} ({middle['pydicom'] / time:6.2f})" for time in middle.values())
        print(f"{kind:15}{len(data):9}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


def ways(refs: list[FileRef], cache: Path) -> dict[str, Work]:
    """What is measured, in this order: the second read finds what the first one kept."""
    decode = codec(Path(refs[0].path))
    return {
        "codec alone": lambda: each(decode, range(len(refs))),
        "pydicom": lambda: each(lambda ref: dcmread(ref.path).pixel_array, refs),
        "read_pixels": lambda: each(lambda ref: read_pixels([ref]), refs),
        "cache, first": lambda: each(lambda ref: read_cached([ref], cache), refs),
        "cache, again": lambda: each(lambda ref: read_cached([ref], cache), refs),
    }


def each(work: Callable[[T], object], values: Iterable[T]) -> None:
    """Do it with each, and keep nothing."""
    for value in values:
        work(value)


def codec(path: Path) -> Callable[[object], object]:
    """The function that turns the coded bytes, which are in memory, into numbers; of native pixels, a copy of them."""
    data = dcmread(path)
    syntax, stored = data.file_meta.TransferSyntaxUID, data.PixelData
    if syntax == DeflatedExplicitVRLittleEndian:
        body = path.read_bytes()
        squeezed = body[144 + data.file_meta.FileMetaInformationGroupLength :]
        return lambda _: zlib.decompress(squeezed, -zlib.MAX_WBITS)
    if not syntax.is_encapsulated:
        return lambda _: np.frombuffer(stored, np.int16).copy()
    frame = get_frame(stored, 0, number_of_frames=1)
    if syntax == RLELossless:
        from rle.rle import decode_frame

        return lambda _: decode_frame(frame, data.Rows * data.Columns, data.BitsAllocated, "<")
    if syntax == JPEGLSLossless:
        from jpeg_ls import decode_buffer

        return lambda _: decode_buffer(frame)
    if syntax == JPEG2000Lossless:
        from openjpeg.utils import decode_pixel_data

        return lambda _: decode_pixel_data(frame, version=2)
    return partial(_by_gdcm, path)


def _by_gdcm(path: Path, _: object) -> object:
    """GDCM decodes no bare codestream: reading the file is with it."""
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(os.fspath(path))
    if not reader.Read():
        raise SystemExit("GDCM reads nothing")
    return reader.GetImage().GetBuffer()


def encoded(syntax: UID, seed: int) -> bytes | None:
    """The slice in a transfer syntax: as another program wrote it, or encoded here; None where neither can be had."""
    for path in sorted(REAL.glob("CTImage.dcm*")) if REAL.exists() else ():
        if dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID == syntax:
            return path.read_bytes()
    data = made(seed)
    if syntax in MADE:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax.is_encapsulated:
        return None
    data.file_meta.TransferSyntaxUID = syntax
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "slice"
        data.save_as(path, enforce_file_format=True)
        return path.read_bytes()


def made(seed: int) -> Dataset:
    """A body of soft tissue with lungs of air and the noise of a scanner."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    values = np.where(x**2 / 0.7 + y**2 / 0.4 < 1, 40.0, -1000)
    values[(np.abs(x) - 0.35) ** 2 / 0.05 + y**2 / 0.16 < 1] = -850
    data = slice_of(Scan(0, uid(seed, "study"), uid(seed, "series")), 0, seed, random.Random(seed))
    data.Rows, data.Columns = values.shape
    data.PixelData = (values + rng.normal(0, 12, values.shape) + 1024).astype("<i2").tobytes()
    return data


def copies(folder: Path, data: bytes, count: int) -> list[FileRef]:
    """The same bytes under so many names."""
    folder.mkdir()
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for path in paths:
        path.write_bytes(data)
    return [FileRef(os.fspath(path)) for path in paths]


def check(ref: FileRef, cache: Path) -> None:
    """That all give the same numbers; and the first call, which loads libraries and starts workers, is over."""
    data = dcmread(ref.path)
    values = data.pixel_array * np.float32(data.RescaleSlope) + np.float32(data.RescaleIntercept)
    found = read_pixels([ref]).pixels
    seen = values != values.min()  # padding becomes as dark as the darkest real pixel
    same = np.array_equal(found[seen], values[seen])
    kept = [read_cached([ref], cache).pixels for _ in range(2)]
    if not same or not all(np.array_equal(one, found) for one in kept):
        raise SystemExit("not the same pixels")
    codec(Path(ref.path))(0)


# ---------------------------------------------------------------- headers


def headers(place: Path, count: int, rounds: int, seed: int) -> None:
    """Objects a CPU second: read whole, checked and hashed, beside the two floors."""
    size = make_export(place / "export", count, seed, pixels=512)
    paths = files(place / "export")

    def plain(path: Path) -> None:
        data = dcmread(path, stop_before_pixels=True)
        for keyword in VALUES:
            data.get(keyword)

    run: dict[str, Callable[[Path], object]] = {
        "read and SHA-256": lambda path: hashlib.sha256(path.read_bytes()).digest(),
        "pydicom, header and 20 values": plain,
        "read_object": lambda path: read_object(path.read_bytes()),
    }
    times: dict[str, list[float]] = {name: [] for name in run}
    for work in run.values():
        each(work, paths[:20])
    for _ in range(rounds):
        for name, work in run.items():
            times[name].append(cpu_of(partial(each, work, paths)))
    middle = {name: median(found) / count for name, found in times.items()}
    beside = middle["pydicom, header and 20 values"]
    print(f"\nobjects per CPU second; {count} slices, {size / 1e6:.0f} MB")
    for name, one in middle.items():
        print(f"{name:32}{1 / one:9.0f}   {beside / one:6.2f} times the plain loop")
    share = middle["read_object"] - middle["read and SHA-256"]
    print(f"of which reading the header costs {share * 1e6:.0f} microseconds, without reading and hashing the bytes")


# ---------------------------------------------------------------- CPU seconds


def cpu_of(work: Work) -> float:
    """CPU seconds of this process and of those that it has started."""
    began = time.process_time(), _of_children()
    work()
    return time.process_time() - began[0] + _of_children() - began[1]


def _of_children() -> float:
    """CPU seconds of all living descendants, and of the dead ones that were waited for."""
    ticks: dict[int, tuple[int, int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it has just ended
        ticks[int(stat.parent.name)] = int(fields[1]), sum(map(int, fields[11:15]))
    family = {os.getpid()}
    while more := {pid for pid, (parent, _) in ticks.items() if parent in family} - family:
        family |= more
    living = sum(used for pid, (_, used) in ticks.items() if pid in family and pid != os.getpid())
    own = os.times()
    return living / os.sysconf("SC_CLK_TCK") + own.children_user + own.children_system


if __name__ == "__main__":
    main()
