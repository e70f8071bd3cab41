"""Damaged DICOM: mutants of real and generated objects, and the same objects cut off at random points.

Each must end in exactly one state with a code for its reason, in the way that ingestion goes: in batches, in processes
with limits. A share of those that are taken in is decoded too. Mutants are functions of (object, seed), made in the
worker, so that one that fails can be made again: `mutant(objects()[n], seed)`.
"""

from __future__ import annotations

import random
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ingest"))  # dicom_maker stands there

import numpy as np
from dicom_maker import ct_slice, dicom

from abuse.outcome import Outcome
from phenotype.executors import run_batches
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef, Unreadable
from phenotype.ingest.reading import Delivered, read_delivered
from phenotype.sandbox import Limits, Sandbox

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "dicom"
LARGEST = 600_000  # bytes of an object that mutants are made of: the more of them, the more mutants a minute
DECODED = 6  # one of so many that are taken in
BATCH = 50
LIMITS = Limits(memory_bytes=2 << 30, cpu_seconds=10, wall_seconds=60.0, file_bytes=1 << 30)
CODE = re.compile(r"[a-z][a-z0-9_]*(:[A-Za-z0-9.]+)?")
ENDED = ("time_limit", "memory_limit", "worker_died")
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_VRS = (*_LONG, b"US", b"SS", b"UL", b"DS", b"IS", b"LO", b"PN", b"UI", b"AT", b"FD", b"TM", b"DA", b"ZZ", b"\0\0")


# ------------------------------------------------------------------------------------------------ objects


def real_objects() -> list[Path]:
    """The real objects beside the checkout; none where they are absent."""
    found = [path for path in sorted(REAL.rglob("*")) if path.is_file() and path.stat().st_size <= LARGEST]
    return [path for path in found if path.read_bytes()[128:132] == b"DICM"]


@cache
def objects() -> tuple[bytes, ...]:
    """Real objects, and generated ones in several transfer syntaxes, so that there always are some."""
    return (*generated_objects(), *(path.read_bytes() for path in real_objects()))


def generated_objects() -> list[bytes]:
    """A slice in eight transfer syntaxes, several frames, colours, and a bare data set."""
    from pydicom import dcmread
    from pydicom.uid import (
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        ImplicitVRLittleEndian,
        JPEG2000Lossless,
        JPEGLSLossless,
        RLELossless,
    )

    grey = {"Rows": 64, "Columns": 48, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
    ramp = (np.arange(64 * 48, dtype="<u2").reshape(64, 48) * 37 % 4096).tobytes()
    plain = ct_slice(1, **grey, PixelData=ramp)
    made = [plain, dicom(), dicom(**grey, NumberOfFrames=3, PixelData=ramp * 3)]
    made.append(dicom(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, PixelData=bytes(144)))
    for syntax in (JPEG2000Lossless, JPEGLSLossless, RLELossless):
        read = dcmread(BytesIO(plain))
        read.compress(syntax, generate_instance_uid=False)
        made.append(_saved(read))
    for syntax in (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian):
        if syntax == ExplicitVRBigEndian:
            made.append(ct_slice(1, syntax=syntax, **grey, PixelData=np.frombuffer(ramp, "<u2").byteswap().tobytes()))
        else:
            made.append(ct_slice(1, syntax=syntax, **grey, PixelData=ramp))
    bare = dcmread(BytesIO(plain))
    made.append(_saved(bare)[132:])
    return made


def _saved(read: Any) -> bytes:
    stream = BytesIO()
    read.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


# ------------------------------------------------------------------------------------------------ damage


def _fields(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(tag, length field, its size, value) positions of the elements at the top, as far as they can be followed."""
    at = 132 if data[128:132] == b"DICM" else 0
    while at + 12 <= len(data):
        vr = data[at + 4 : at + 6]
        where, size = (at + 8, 4) if vr in _LONG else (at + 6, 2) if vr.isalpha() else (at + 4, 4)
        length = int.from_bytes(data[where : where + size], "little")
        yield at, where, size, where + size
        if length >= 0xFFFF_FFFF or length > len(data):
            return
        at = where + size + length


def _bits(data: bytearray, draw: random.Random, first: int = 0, end: int | None = None) -> None:
    last = len(data) if end is None else min(end, len(data))
    if draw.random() < 0.6 and end is None:
        last = min(last, 4096)
    for _ in range(draw.choice((1, 1, 2, 8))):
        data[draw.randrange(first, max(last, first + 1))] ^= 1 << draw.randrange(8)


def _run(data: bytearray, draw: random.Random) -> None:
    at, length = draw.randrange(len(data)), draw.choice((1, 2, 4, 16, 64, 1000))
    fill = draw.choice((b"\0", b"\xff", None))
    data[at : at + length] = fill * length if fill else draw.randbytes(length)


def _length(data: bytearray, draw: random.Random) -> None:
    _, where, size, _ = draw.choice(list(_fields(data)))
    old = int.from_bytes(data[where : where + size], "little")
    new = draw.choice((0, 1, old - 1, old + 1, old * 2, (1 << 8 * size) - 1, 1 << (8 * size - 1), draw.getrandbits(16)))
    data[where : where + size] = (max(new, 0) & ((1 << 8 * size) - 1)).to_bytes(size, "little")


def _vr(data: bytearray, draw: random.Random) -> None:
    at = draw.choice(list(_fields(data)))[0]
    data[at + 4 : at + 6] = draw.choice(_VRS)


def _tag(data: bytearray, draw: random.Random) -> None:
    places = [field[0] for field in _fields(data)]
    at, other = draw.choice(places), draw.choice(places)
    special = (b"\xe0\x7f\x10\0", b"\xfe\xff\0\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\x28\0\x08\0")
    data[at : at + 4] = draw.choice((data[other : other + 4], draw.choice(special), draw.randbytes(4)))


def _value(data: bytearray, draw: random.Random) -> None:
    """Numbers beyond all measure, in the fields that say how much there is."""
    wanted = [data.find(tag) for tag in (b"\x28\0\x02\0", b"\x28\0\x10\0", b"\x28\0\x11\0", b"\x28\0\x00\x01")]
    at = draw.choice([place for place in wanted if place >= 0] or [0])
    data[at + 8 : at + 10] = draw.choice((0, 1, 3, 7, 255, 32768, 65535)).to_bytes(2, "little")
    if draw.random() < 0.3 and (frames := data.find(b"\x28\0\x08\0IS")) >= 0:
        data[frames + 8 : frames + 10] = draw.choice((b"99", b"-1", b"0 ", b"1e", b".5"))


def _insert(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    data[at:at] = draw.randbytes(draw.choice((1, 2, 8, 100, 1000)))


def _delete(data: bytearray, draw: random.Random) -> None:
    at = draw.randrange(len(data))
    del data[at : at + draw.choice((1, 2, 8, 100, 1000))]


def _double(data: bytearray, draw: random.Random) -> None:
    places = [field[0] for field in _fields(data)]
    at = draw.randrange(len(places))
    end = places[min(at + draw.choice((1, 2, 5)), len(places) - 1)]
    data[end:end] = data[places[at] : end] * draw.choice((1, 1, 50))


def _codestream(data: bytearray, draw: random.Random) -> None:
    starts = [
        at for mark in (b"\xff\x4f\xff\x51", b"\xff\xd8\xff", b"\xfe\xff\0\xe0") if (at := data.find(mark, 300)) > 0
    ]
    first = draw.choice(starts) if starts else len(data) // 2
    _bits(data, draw, first, first + draw.choice((20, 60, 200)))


DAMAGE: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _bits, _run, _length, _vr, _tag, _value, _insert, _delete, _double, _codestream,
)  # fmt: skip


def mutant(data: bytes, seed: int) -> bytes:
    """`data`, damaged once or several times."""
    draw, damaged = random.Random(seed), bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if len(damaged) < 200 or not list(_fields(damaged)):
            break
        draw.choice(DAMAGE)(damaged, draw)
    return bytes(damaged)


# ------------------------------------------------------------------------------------------------ what becomes of them


def become(inputs: dict[str, tuple[int, int, bool]]) -> dict[str, tuple[str, str, str]]:
    """State, reason and what decoding came to, of mutants (object, seed, whether it may be decoded)."""
    return {name: state_of(mutant(objects()[n], seed), decode) for name, (n, seed, decode) in inputs.items()}


def state_of(data: bytes, decode: bool) -> tuple[str, str, str]:
    """The one state of these bytes, its reason, and of those taken in the reason why they are not decoded."""
    read = read_delivered(Delivered(data, "a.dcm", {}, ""))
    pixels = ""
    if decode and read.content is not None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            try:
                pixels = "decoded" if read_pixels([FileRef(file.name)]).pixels.size else "PROBLEM nothing"
            except Unreadable as error:
                pixels = error.code
    if (read.content is None) == (read.state == "ingested") or bool(read.reason) == (read.state == "ingested"):
        return "PROBLEM", f"{read.state} with reason '{read.reason}'", ""
    return read.state, read.reason, pixels


def mutants(count: int, seed: int) -> Outcome:
    """`count` mutants."""
    draw = random.Random(seed)
    asked = {f"{n}": (n % len(objects()), draw.getrandbits(48), n % DECODED == 0) for n in range(count)}
    names = list(asked)
    batches = [{name: asked[name] for name in names[i : i + BATCH]} for i in range(0, count, BATCH)]
    states: Counter[str] = Counter()
    decoded: Counter[str] = Counter()
    problems: list[str] = []
    good = 0
    for outcome in run_batches("processes:2", become, batches, LIMITS):
        for name, failure in outcome.failures.items():
            code = failure.reason.partition(":")[0]
            states[code] += 1
            good += code in ENDED
            if code not in ENDED:
                problems.append(f"PROBLEM mutant {asked[name][:2]}: {failure.reason} {failure.traceback[-200:]!r}")
        for name, (state, reason, pixels) in outcome.outputs.items():
            states[state] += 1
            if pixels:
                decoded["decoded" if pixels == "decoded" else "refused"] += 1
            if state == "PROBLEM" or pixels.startswith("PROBLEM") or (reason and not CODE.fullmatch(reason)):
                problems.append(f"PROBLEM mutant {asked[name][:2]}: {state} {reason} {pixels}")
            else:
                good += 1
    told = ", ".join(f"{n} {state}" for state, n in states.most_common())
    notes = (f"{len(objects())} objects, {len(real_objects())} of them real", told)
    notes += (f"of those decoded {decoded['decoded']} gave pixels, {decoded['refused']} a reason",)
    return Outcome(count, good, _plain_reader([asked[n] for n in names[:400]]), (*notes, *problems))


def _plain_reader(asked: Sequence[tuple[int, int, bool]]) -> str:
    """The negative control: the kinds of exception that pydicom raises on the same mutants."""
    kinds: Counter[str] = Counter()
    with Sandbox(1, LIMITS) as sandbox:
        for n, seed, decode in asked:
            try:
                kinds[sandbox.submit(_plainly, n, seed, decode).result()] += 1
            except Exception as error:
                kinds[getattr(error, "code", type(error).__name__)] += 1
    kinds.pop("", None)
    return f"{len(kinds)} kinds of exception in {sum(kinds.values())} of {len(asked)}"


def _plainly(n: int, seed: int, decode: bool) -> str:
    from pydicom import dcmread

    try:
        read = dcmread(BytesIO(mutant(objects()[n], seed)))
        for element in read:
            _ = element.value
        _ = read.pixel_array if decode else None
    except MemoryError:
        raise
    except Exception as error:
        return type(error).__name__
    return ""


# ------------------------------------------------------------------------------------------------ cut off


def cut(inputs: dict[str, tuple[int, int]]) -> dict[str, tuple[str, bool]]:
    """State of objects (number, bytes that remain), and whether plain pydicom takes them."""
    from pydicom import dcmread

    found = {}
    for name, (n, end) in inputs.items():
        data = objects()[n][:end]
        try:
            for element in dcmread(BytesIO(data), force=True):
                _ = element.value
            plain = True
        except Exception:
            plain = False
        found[name] = state_of(data, False)[0], plain
    return found


def truncations(per_object: int, seed: int) -> Outcome:
    """Every object that is taken in whole, cut off at `per_object` random points: how many are taken in then.

    What is missing cannot always be seen: where only padding is cut, nothing is. 98 of 100 must be noticed.
    """
    draw = random.Random(seed)
    whole = [n for n, data in enumerate(objects()) if state_of(data, False)[0] == "ingested"]
    asked = {f"{n}.{i}": (n, draw.randrange(1, len(objects()[n]))) for n in whole for i in range(per_object)}
    names = list(asked)
    batches = [{name: asked[name] for name in names[i : i + BATCH]} for i in range(0, len(names), BATCH)]
    taken, plain, problems = 0, 0, []
    for outcome in run_batches("processes:2", cut, batches, LIMITS):
        problems += [f"PROBLEM cut {asked[name]}: {failure.reason}" for name, failure in outcome.failures.items()]
        for state, by_pydicom in outcome.outputs.values():
            taken, plain = taken + (state == "ingested"), plain + by_pydicom
    tried = len(asked)
    told = f"{len(whole)} objects; {tried - taken} of {tried} noticed ({100 * (tried - taken) / tried:.1f} %)"
    if taken > 0.02 * tried:
        problems.append(f"PROBLEM {taken} of {tried} cut objects were taken in")
    return Outcome(tried, tried - len(problems), f"pydicom takes {plain} of {tried}", (told, *problems))
