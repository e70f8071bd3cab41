"""Pixels decoded once, in a process that can be spared, and kept beside the database.

Decoding runs a C codec over bytes from outside: it may hang, crash or take all memory, and costs 40 ms a slice of
JPEG 2000. So it is done in a sandbox, and what came out is kept as a safetensors file, in the smallest whole-number
type that holds the values exactly. Names are keyed digests: they say nothing of the paths that they stand for.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from phenotype.imaging.files import FileRef, Unreadable, open_file
from phenotype.sandbox import Ended, Limits, next_part, shared

if TYPE_CHECKING:
    from phenotype.imaging.dicom import Picture

BOUND = "PHENOTYPE_CACHE_GB"  # the setting: how much may be kept
DEFAULT_GB = 50.0
LIMITS = Limits(memory_bytes=6 << 30, cpu_seconds=25, wall_seconds=120.0)
PART_BYTES = 16 << 20  # of files, that a decoder has the time of `LIMITS` for; the slowest needs a fifth of it
_REVISION = 1  # raised when the same file gives other pixels than before
_DECODERS = ("numpy", "pydicom", "python-gdcm", "pyjpegls", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pillow")
_FREE = 0.05  # of the disk is never taken

Values = NDArray[np.generic]


def cache_folder(home: Path) -> Path:
    """Where decoded pixels are kept, of the folder beside the database."""
    return home / "pixels"


def read_cached(refs: Sequence[FileRef], folder: Path | None) -> Picture:
    """As `read_pixels`, but decoded in another process, and kept in `folder` for the next time.

    Nothing is kept without a folder, nor of files whose pixels stand in them as they are. A file that has changed is
    decoded anew, and so is one whose pixels were damaged in the cache. The oldest are deleted when all together take
    more than PHENOTYPE_CACHE_GB gigabytes (50), or the disk is nearly full. Raises `Unreadable` with the reasons of
    `read_pixels`, "time_limit", "memory_limit" or "worker_died".
    """
    sizes = [_size_and_time(ref.path) for ref in refs]
    kept = None if folder is None else _place(folder, refs, sizes)
    if kept is not None and (found := _load(kept)) is not None:
        return found
    parts = 1 + sum(size for size, _ in sizes) // PART_BYTES
    for attempt in (1, 2):  # in case something else was the end of the process
        try:
            future = shared(1, LIMITS).submit(_decode, list(refs), kept, parts, parts=parts)
            values, told, written = future.result()
        except Ended as error:
            if attempt == 2:
                raise Unreadable(error.code, error.message) from None
        except KeyboardInterrupt:
            shared(1, LIMITS).close()
            raise
        else:
            break
    if folder is not None and written:
        _keep_within(folder, written)
    return _picture(values, told)


def _picture(values: Values, told: str) -> Picture:
    """A picture from its pixels and what `_decode` tells of them, as JSON."""
    from phenotype.imaging.dicom import Picture

    spacing, tilt_corrected = json.loads(told)
    return Picture(values.astype(np.float32, copy=False), tuple(spacing), tilt_corrected)


def _size_and_time(path: str) -> tuple[int, int]:
    with open_file(path) as file:
        stat = os.fstat(file.fileno())
    return stat.st_size, stat.st_mtime_ns


# ------------------------------------------------------------------------------------------------ what is kept


def _place(folder: Path, refs: Sequence[FileRef], sizes: Sequence[tuple[int, int]]) -> Path:
    """Where the pixels of these files, as they are now, are kept."""
    what = [[ref.path, ref.member, *size] for ref, size in zip(refs, sizes, strict=True)]
    text = json.dumps([_REVISION, _software(), what])
    name = hashlib.blake2b(text.encode(), key=_key(folder), digest_size=16).hexdigest()
    return folder / name[:2] / f"{name}.safetensors"


@cache
def _software() -> list[str]:
    return [f"{name} {metadata.version(name)}" for name in ("phenotype", *_DECODERS)]


@cache
def _key(folder: Path) -> bytes:
    """The key of this folder, made when it is first used."""
    path = folder / "key"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = folder / f"key.{secrets.token_hex(8)}"
        _write(beside, secrets.token_bytes(32))
        with suppress(FileExistsError):
            os.link(beside, path)  # unlike a rename it does not replace the key of another process
        beside.unlink()
    return path.read_bytes()[:64]


def _load(path: Path) -> Picture | None:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            kept, values = file.metadata(), file.get_tensor("pixels")
        if kept["digest"] == _digest(values, kept["told"]):
            os.utime(path)  # the oldest is the one that nobody has used
            return _picture(values, kept["told"])
    except FileNotFoundError:
        return None
    except Exception:  # noqa: S110  (however it was damaged)
        pass
    with suppress(OSError):
        path.unlink()  # it is made anew
    return None


def _digest(values: Values, told: str) -> str:
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape} {told} ".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


# ------------------------------------------------------------------------------------------------ how much is kept

_unseen: dict[Path, int] = {}  # bytes written by this process since it last looked at the folder


def _keep_within(folder: Path, written: int) -> None:
    """Delete the oldest where too much is kept. Looking costs a walk, so it is not done for every file."""
    bound = int(float(os.environ.get(BOUND, DEFAULT_GB)) * 1e9)
    _unseen[folder] = _unseen.get(folder, bound) + written
    if _unseen[folder] < bound // 50 and _free(folder) >= _FREE:
        return
    kept = []
    for path in folder.glob("??/*"):
        with suppress(OSError):  # another process deletes too
            stat = path.stat()
            kept.append((stat.st_mtime_ns, stat.st_size, path))
    kept.sort()
    total = sum(size for _, size, _ in kept)
    for _, size, path in kept[:-1]:
        if total <= bound * 49 // 50 and _free(folder) >= _FREE:
            break
        with suppress(OSError):
            path.unlink()
        total -= size
    _unseen[folder] = 0


def _free(folder: Path) -> float:
    usage = shutil.disk_usage(folder)
    return usage.free / usage.total


# ------------------------------------------------------------------------------------------------ in the sandbox


def _decode(refs: list[FileRef], place: Path | None, parts: int) -> tuple[Values, str, int]:
    """The pixels as the smallest type that holds them, the rest of the picture as JSON, and how many bytes were
    written to `place`."""
    from phenotype.imaging.dicom import read_pixels

    next_part(parts)
    picture = read_pixels(refs)
    values, told = smallest(picture.pixels), json.dumps([picture.spacing_mm, picture.tilt_corrected])
    written = 0
    if place is not None and _is_coded(refs[0]):
        with suppress(OSError):  # a full disk costs the cache, not the image
            written = _keep(place, values, told)
    return values, told, written


def smallest(pixels: NDArray[np.float32]) -> Values:
    """The same values as uint8, int16 or uint16 where they are whole numbers that fit, else as they are."""
    low, high = pixels.min(), pixels.max()
    for kind in (np.uint8, np.int16, np.uint16):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            whole = pixels.astype(kind)
            return whole if np.array_equal(whole, pixels) else pixels
    return pixels


def _is_coded(ref: FileRef) -> bool:
    from phenotype.imaging import encoding
    from phenotype.imaging.dicom import is_picture
    from phenotype.imaging.files import open_bytes

    data = open_bytes(ref)
    return is_picture(data) or encoding.layout(data).transfer_syntax not in encoding.NATIVE - encoding.DEFLATED


def _keep(place: Path, values: Values, told: str) -> int:
    from safetensors.numpy import save

    data: Any = save({"pixels": np.ascontiguousarray(values)}, {"told": told, "digest": _digest(values, told)})
    place.parent.mkdir(exist_ok=True, mode=0o700)
    beside = place.with_suffix(f".{secrets.token_hex(4)}.part")
    try:
        _write(beside, data)
        beside.replace(place)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    return len(data)
