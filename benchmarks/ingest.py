"""How fast a delivery is taken in, beside a plain loop of pydicom and beside C-STORE into Orthanc, in one run.

    python -m benchmarks.ingest [--files 2000] [--rounds 3] [--orthanc]
    python -m benchmarks.ingest --memory 2000,20000

CT slices (512 x 512, 16 bits, 30 private elements, 50 to a series) are made from a seed. Each way is measured in a
process of its own, in turns, with the files in the page cache; the median of the rounds counts. CPU seconds are those
of the process and of all that it started. What `phenotype ingest` does is done whole: files are written down, read,
hashed and checked in the process that may be ended, stored, matched, put together into volumes, and counted.

`--orthanc` needs Orthanc (Debian: apt-get install orthanc) and Linux, as root: it is started in a network namespace of
its own, since it listens on all addresses. `--memory` takes in so many small files and prints the peak of memory.
"""

import argparse
import fcntl
import hashlib
import json
import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).resolve().parents[1]
SLICES = 50  # of a series
SENT = 500  # by C-STORE: enough to know the rate
PLAIN = "pydicom, header and 20 values"
VALUES = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "PatientID",
    "PatientName",
    "PatientSex",
    "PatientBirthDate",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "BodyPartExamined",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "Rows",
    "Columns",
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--orthanc", action="store_true", help="measure C-STORE into Orthanc, too")
    parser.add_argument("--memory", metavar="N,N", help="take in so many small files and watch the memory instead")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)  # how the script runs itself
    args = parser.parse_args()
    if args.measure:
        way, folder = args.measure
        print(json.dumps(WAYS[way](Path(folder))))
        return
    print(f"seed {args.seed}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if args.memory:
        for count in map(int, args.memory.split(",")):
            watch_memory(count, args.seed)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "export"
        size = make_export(folder, args.files, args.seed, pixels=512)
        print(f"{args.files} files, {size / 1e6:.0f} MB")
        ways = [way for way in WAYS if way != "orthanc"]
        measure("floor", folder)  # so that all find the files in memory
        half = halve(folder, Path(place) / "half")
        rounds = [{way: measure(way, folder) for way in ways} for _ in range(args.rounds)]
        smaller = [{way: measure(way, half) for way in ("plain", "one", "two")} for _ in range(args.rounds)]
        if args.orthanc:
            rounds[0]["orthanc"] = measure("orthanc", folder)
    show(rounds, args.files, size)
    show_each_further(rounds, smaller, args.files)


# ---------------------------------------------------------------- what is measured


def floor(folder: Path) -> dict[str, float]:
    """Read and hash."""
    return timed(lambda: [hashlib.sha256(path.read_bytes()).digest() for path in files(folder)])


def plain(folder: Path) -> dict[str, float]:
    """What a short script would do."""

    def loop() -> None:
        for path in files(folder):
            dataset = dcmread(path, stop_before_pixels=True)
            for keyword in VALUES:
                dataset.get(keyword)

    return timed(loop)


def ingest(folder: Path, executor: str = "here") -> dict[str, float]:
    """`phenotype ingest`, and `phenotype ingest` of the same again."""
    from db.session import open_database
    from phenotype.ingest.stage import Assemble, Ingest, register
    from phenotype.pipeline import Step, run_step

    with tempfile.TemporaryDirectory() as place:
        home = Path(place) / "files"
        database = open_database(f"sqlite:///{Path(place) / 'x.db'}")
        source = (str(folder),)

        def whole() -> None:
            for step in (Step(Ingest(), source), Step(Assemble())):
                run_step(step, database, home, executor=executor, progress=None)

        found = timed(whole)
        again = timed(lambda: register(database, folder, home))
        everything = timed(whole)
        database.close()
    return found | {"again": again["wall"], "again_cpu": again["cpu"], "twice": everything["wall"]}


def ingest_two(folder: Path) -> dict[str, float]:
    """The same with two processes that read."""
    return ingest(folder, "processes:2")


def orthanc(folder: Path) -> dict[str, float]:
    """C-STORE into Orthanc over one association, in a network namespace of its own."""
    from pynetdicom import AE, _config

    _config.STORE_SEND_CHUNKED_DATASET = True  # the bytes as they lie
    raise_loopback()
    with tempfile.TemporaryDirectory() as place:
        names = {"Name": "bench", "StorageDirectory": place, "IndexDirectory": place, "DicomPort": 4242}
        settings = names | {"HttpServerEnabled": False, "DicomAlwaysAllowStore": True, "DicomCheckCalledAet": False}
        (Path(place) / "orthanc.json").write_text(json.dumps(settings))
        server = subprocess.Popen(["Orthanc", f"{place}/orthanc.json"], stderr=subprocess.DEVNULL)
        try:
            wait_for(4242)
            entity = AE()
            entity.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)

            def send() -> None:
                association = entity.associate("127.0.0.1", 4242)
                failed = [path for path in files(folder)[:SENT] if association.send_c_store(path).Status != 0]
                association.release()
                if failed:
                    raise RuntimeError(f"{len(failed)} files were refused")

            return timed(send) | {"files": min(SENT, len(files(folder)))}
        finally:
            server.terminate()
            server.wait()


WAYS: dict[str, Callable[[Path], dict[str, float]]] = {
    "floor": floor,
    "plain": plain,
    "one": ingest,
    "two": ingest_two,
    "orthanc": orthanc,
}
NAMES = {
    "floor": "read and SHA-256",
    "plain": PLAIN,
    "one": "phenotype ingest, one process reads",
    "two": "phenotype ingest, two processes read",
    "orthanc": "C-STORE into Orthanc",
}


# ---------------------------------------------------------------- how it is measured


def files(folder: Path) -> list[Path]:
    """All files, in order."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Wall seconds, and when (in CPU seconds of this process) it began."""
    began, start = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - began, "cpu": time.process_time() - start, "before": start}


def measure(way: str, folder: Path) -> dict[str, float]:
    """Run one way in a process of its own; its CPU seconds and peak of memory with those of all that it started."""
    command = [sys.executable, "-m", "benchmarks.ingest", "--measure", way, str(folder)]
    if way == "orthanc":
        command = ["unshare", "--net", *command]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"'{way}' failed")
    found: dict[str, float] = json.loads(answer)
    if way in ("one", "two"):  # the second time is within: its share is that of the process itself
        found["own"] = found["cpu"]
        found["cpu"] = used.ru_utime + used.ru_stime - found["before"] - found["again_cpu"]
    return found | {"peak": used.ru_maxrss / 1024}


def show(rounds: list[dict[str, dict[str, float]]], count: int, size: int) -> None:
    """The table, with ratios to the plain loop."""

    def middle(way: str, what: str) -> float:
        return median(found[way][what] for found in rounds if way in found)

    print(f"\n{'':38}{'files/s':>9}{'MB/s':>7}{'files/CPU s':>13}{'wall ratio':>12}{'CPU ratio':>11}{'peak MB':>9}")
    for way, name in NAMES.items():
        if way not in rounds[0]:
            continue
        share = rounds[0][way].get("files", count) / count
        wall, cpu = middle(way, "wall") / share, middle(way, "cpu") / share
        ratios = middle("plain", "wall") / wall, middle("plain", "cpu") / cpu
        row = (
            f"{name:38}{count / wall:9.0f}{size / 1e6 / wall:7.0f}{count / cpu:13.0f}{ratios[0]:12.2f}{ratios[1]:11.2f}"
        )
        print(row + f"{middle(way, 'peak'):9.0f}")
    print(f"of one process, in the one that stores: {middle('one', 'own') / count * 1e6:.0f} CPU microseconds a file")
    again = count / middle("one", "again"), count / middle("one", "again_cpu")
    print(f"the same files again: {again[0]:.0f} files/s, {again[1]:.0f} files/CPU s are found to be known")
    print(f"`phenotype ingest` of the same again: {middle('one', 'twice'):.2f} s in all")


def show_each_further(
    rounds: list[dict[str, dict[str, float]]], smaller: list[dict[str, dict[str, float]]], count: int
) -> None:
    """What each further file costs: what starting costs (some seconds, once) is the same for half as many."""
    rates = {}
    for way in ("plain", "one", "two"):
        for what in ("wall", "cpu"):
            whole, half = (median(found[way][what] for found in some) for some in (rounds, smaller))
            rates[way, what] = (count - count // 2) / max(whole - half, 1e-9)
    print("\neach further file, the start of Python and of the workers left out:")
    for way in ("plain", "one", "two"):
        wall, cpu = rates[way, "wall"], rates[way, "cpu"]
        ratios = wall / rates["plain", "wall"], cpu / rates["plain", "cpu"]
        print(f"{NAMES[way]:38}{wall:9.0f}{'':7}{cpu:13.0f}{ratios[0]:12.2f}{ratios[1]:11.2f}")


def watch_memory(count: int, seed: int) -> None:
    """Take in small files."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "export"
        make_export(folder, count, seed, pixels=16)
        found = measure("one", folder)
        rates = count / found["again"], count / found["again_cpu"]
        print(f"{count:7} files: peak {found['peak']:.0f} MB, {count / found['wall']:.0f} files/s; ", end="")
        print(f"again {rates[0]:.0f} files/s, {rates[1]:.0f} files/CPU s")


def raise_loopback() -> None:
    """Bring the loopback device of this namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def wait_for(port: int) -> None:
    """Until something listens."""
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("Orthanc does not start")


# ---------------------------------------------------------------- the files


@dataclass
class Scan:
    """One series of CT."""

    number: int
    study: str
    uid: str


def make_export(folder: Path, count: int, seed: int, pixels: int) -> int:
    """Write slices as a PACS would; how many bytes."""
    rng, names = np.random.default_rng(seed), random.Random(seed)
    noise = rng.integers(-1000, 1200, (pixels, pixels), dtype=np.int16)
    size = 0
    series = max(1, count // SLICES)
    for n in range(series):
        scan = Scan(n, uid(seed, "study", n // 2), uid(seed, "series", n))
        place = folder / f"PAT{n // 4:03}" / f"ST{n // 2:03}" / f"SE{n:03}"
        place.mkdir(parents=True)
        for i in range(n, count, series):
            d = slice_of(scan, i // series, seed, names)
            d.Rows = d.Columns = pixels
            d.PixelData = np.roll(noise, i, axis=1).tobytes()[:-4] + struct.pack("<i", i)
            path = place / f"IM{i // series:06}"
            d.save_as(path, enforce_file_format=True)
            size += path.stat().st_size
    return size


def halve(folder: Path, half: Path) -> Path:
    """The same with every second file, which are not copied."""
    for path in files(folder)[::2]:
        other = half / path.relative_to(folder)
        other.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, other)
    return half


def slice_of(scan: Scan, i: int, seed: int, names: random.Random) -> Dataset:
    """A header without pixels."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.SOPClassUID, d.SOPInstanceUID = CTImageStorage, uid(seed, "slice", scan.number, i)
    d.StudyInstanceUID, d.SeriesInstanceUID = scan.study, scan.uid
    d.FrameOfReferenceUID = uid(seed, "frame", scan.number)
    d.PatientID, d.PatientName = f"{10_000_000 + scan.number // 4}", f"Muster^Person {scan.number // 4}"
    d.PatientSex, d.PatientBirthDate, d.PatientAge = "F", "19600412", "060Y"
    d.StudyDate = d.SeriesDate = d.AcquisitionDate = d.ContentDate = "20200312"
    d.StudyTime = d.SeriesTime = d.AcquisitionTime = d.ContentTime = "101500.000"
    d.AccessionNumber, d.StudyID, d.Modality = f"A{scan.number // 2:06}", "1", "CT"
    d.Manufacturer, d.InstitutionName, d.StationName = "Maker", "Hospital", "CT1"
    d.StudyDescription, d.SeriesDescription, d.BodyPartExamined = "CT chest", "thin lung", "CHEST"
    d.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    d.KVP, d.ExposureTime, d.XRayTubeCurrent, d.ConvolutionKernel = 120, 500, 200, "B60f"
    d.SeriesNumber, d.AcquisitionNumber, d.InstanceNumber = scan.number + 1, 1, i + 1
    d.ImagePositionPatient, d.ImageOrientationPatient = [-180, -180, 1.25 * i], [1, 0, 0, 0, 1, 0]
    d.PixelSpacing, d.SliceThickness, d.SliceLocation = [0.7, 0.7], 1.25, 1.25 * i
    d.SamplesPerPixel, d.PhotometricInterpretation, d.PixelRepresentation = 1, "MONOCHROME2", 1
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 16, 15
    d.RescaleIntercept, d.RescaleSlope, d.WindowCenter, d.WindowWidth = -1024, 1, [40, -600], [400, 1500]
    block = d.private_block(0x0019, "MAKER 1.0", create=True)
    for n in range(30):
        block.add_new(n, "LO", f"value {n} {names.randrange(10**6)}")
    return d


def uid(*parts: object) -> str:
    """A UID that is always the same for these parts."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


if __name__ == "__main__":
    if shutil.which("unshare") is None and "--orthanc" in sys.argv:
        raise SystemExit("--orthanc needs unshare, of Linux")
    main()
