"""What a delivery holds: the files of a folder tree and the members of its zips, listed before anything is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from phenotype.imaging.files import FileRef, Unreadable, open_archive
from phenotype.stage import Refused

ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"))
SYSTEM = frozenset({".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db"})
VIEWERS = frozenset((".exe", ".dll", ".inf", ".bat", ".jar", ".js", ".css", ".htm", ".html", ".ico"))  # come on discs
TABLES = frozenset({".csv", ".tsv", ".tab"})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a delivery may hold."""

    file_bytes: int = 2 << 30
    members: int = 200_000  # of one zip
    archive_bytes: int = 1 << 40  # of one zip, unpacked
    ratio: int = 200  # unpacked to packed, of one member: pixels rarely shrink to a tenth


@dataclass(frozen=True, slots=True)
class Found:
    """A file of a delivery. `state` and `reason` are set where the name or the size already decide."""

    ref: FileRef
    size: int
    modified: int = 0  # nanoseconds; of the zip for its members
    state: str = "found"
    reason: str = ""
    inner: str = field(default="", compare=False)  # the path inside the delivery, with the zip as a folder


def kind_of(source: Path) -> str:
    """ "folder", "zip" or "file". Raises Refused where there is nothing to read."""
    if source.is_dir():
        return "folder"
    if source.is_file():
        return "zip" if source.suffix.lower() == ".zip" else "file"
    raise Refused("source", "there is no such file or folder to ingest")


def is_table(name: str) -> bool:
    """Whether a file's name says that it is a table."""
    return PurePosixPath(name).suffix.lower() in TABLES


def walk(source: Path, limits: Limits | None = None) -> Iterator[Found]:
    """Every file below `source` (a folder, a zip or one file), in the order of their names.

    A zip is listed itself, as ignored by the rule "archive", and its members after it; an archive inside a zip is not
    opened. Links that lead out of the folder are not followed. Nothing is read but folders and the directories of zips.
    """
    limits = limits or Limits()
    kind, source = kind_of(source), source.resolve()
    if kind != "folder":
        yield from _file(source, source.name, limits)
        return
    for folder, folders, names in os.walk(source, followlinks=False):
        folders.sort()
        for name in sorted(names):
            path = Path(folder) / name
            inner = path.relative_to(source).as_posix()
            if path.is_symlink() and not path.resolve().is_relative_to(source):
                yield Found(FileRef(str(path)), 0, 0, "ignored", "link_outside", inner)
            else:
                yield from _file(path, inner, limits)


def _file(path: Path, inner: str, limits: Limits) -> Iterator[Found]:
    ref = FileRef(str(path))
    try:
        stat = path.stat()
    except OSError:
        yield Found(ref, 0, 0, "quarantined", "unreadable_file", inner)
        return
    if path.suffix.lower() == ".zip":
        yield from _zip(ref, stat.st_size, stat.st_mtime_ns, inner, limits)
        return
    state, reason = _by_name(path.name) or _by_size(stat.st_size, limits)
    yield Found(ref, stat.st_size, stat.st_mtime_ns, state, reason, inner)


def _zip(ref: FileRef, size: int, modified: int, inner: str, limits: Limits) -> Iterator[Found]:
    try:
        entries = open_archive(ref.path).infolist()
    except Unreadable as error:
        yield Found(ref, size, modified, "quarantined", error.code, inner)
        return
    if len(entries) > limits.members or sum(e.file_size for e in entries) > limits.archive_bytes:
        yield Found(ref, size, modified, "quarantined", "archive_too_large", inner)
        return
    yield Found(ref, size, modified, "ignored", "archive", inner)
    for index, entry in enumerate(entries):
        if entry.is_dir():
            continue
        member = FileRef(ref.path, f"{index:06d}/{entry.filename}")
        state, reason = _by_name(entry.filename, inside=True) or _by_size(entry.file_size, limits)
        if state == "found" and entry.flag_bits & 1:
            state, reason = "quarantined", "encrypted"
        if state == "found" and entry.file_size > (1 << 20) and entry.file_size > limits.ratio * entry.compress_size:
            state, reason = "quarantined", "archive_ratio"
        yield Found(member, entry.file_size, modified, state, reason, f"{inner}/{entry.filename}")


def _by_name(name: str, *, inside: bool = False) -> tuple[str, str] | None:
    path = PurePosixPath(name)
    if path.name.lower() in SYSTEM or path.name.startswith("._") or "__MACOSX" in path.parts:
        return "ignored", "system_file"
    if path.suffix.lower() in VIEWERS:
        return "ignored", "viewer_file"
    if path.suffix.lower() in ARCHIVES:
        # what is in there may be wanted, so it is not ignored but shown
        return "quarantined", "nested_archive" if inside else "archive_format"
    return None


def _by_size(size: int, limits: Limits) -> tuple[str, str]:
    if size == 0:
        return "quarantined", "empty"
    return ("quarantined", "too_large") if size > limits.file_bytes else ("found", "")
