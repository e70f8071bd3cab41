"""What a delivery holds: the files of a folder tree and the members of archives, listed before anything is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from phenotype.executors import Refused
from phenotype.imaging.archives import Entry, is_tar, tar_entries, zip_directory, zip_entries
from phenotype.imaging.compression import RATIO, SMALL, SUFFIXES, beginning, compression_of, inner_name
from phenotype.imaging.files import FileRef, Unreadable, open_file, spell
from phenotype.ingest import spool

TARS = frozenset((".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst"))
ARCHIVES = TARS | SUFFIXES | {".zip", ".7z", ".rar"}  # or single files, compressed: that is looked into
SYSTEM = frozenset({".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db"})
_ON_DISCS = (
    "exe dll ocx so dylib msi cab jar class bat cmd sh inf ini cfg properties chm hlp js css htm html ico gif svg"
)
VIEWERS = frozenset(f".{suffix}" for suffix in f"{_ON_DISCS} ttf woff woff2 lnk url".split())
TABLES = frozenset(
    {".csv", ".tsv", ".tab", ".xlsx", ".xlsm", ".parquet", ".xml"}  # may list pictures by name
    | {".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zst", ".tsv.gz"}
)
_TABLES = tuple(TABLES)
LARGE = 16 << 20  # a file of this size is looked into for an archive whatever its name: that costs it nothing


@dataclass(frozen=True, slots=True)
class Limits:
    """What a delivery may hold."""

    file_bytes: int = 2 << 30
    members: int = 2_000_000  # of one archive
    archive_bytes: int = 1 << 40  # of one archive, unpacked
    ratio: int = RATIO  # unpacked to packed


@dataclass(slots=True)
class Found:
    """A file of a delivery. `state` and `reason` are set where the name or the size already decide."""

    ref: FileRef
    size: int
    modified: int = 0  # nanoseconds; of the archive for its members
    state: str = "found"
    reason: str = ""
    inner: str = ""  # the path inside the delivery, with an archive as a folder
    origin: str = ""  # where it was delivered, if it is read elsewhere
    archive: bool = False  # whether `members` is to look into it


LISTED = frozenset(("archive", "archive_too_large", "truncated_archive"))  # archives of which members were found
PASSING = frozenset(("missing", "unreadable_file", "no_space"))  # archives that may be opened the next time
Place = Callable[[Found], Path | None]


def kind_of(source: Path) -> str:
    """ "folder", "zip", "tar" or "file". Raises Refused where there is nothing to read."""
    if source.is_dir():
        return "folder"
    if source.is_file():
        try:
            kind = _archive_kind(str(source), source.stat().st_size)
        except Unreadable:
            return "file"
        return {"": "file", "other": "file", "zip": "zip"}.get(kind, "tar")
    raise Refused("source", "there is no such file or folder to ingest")


def is_table(name: str) -> bool:
    """Whether a file's name says that it is a table."""
    return name.lower().endswith(_TABLES)


def walk(source: Path, limits: Limits | None = None, spooled: Place = lambda _: None) -> Iterator[Found]:
    """Every file below `source` (a folder, an archive or one file), folder by folder, in no certain order; before an
    archive its members (see `members`)."""
    for found in files(source, limits):
        if found.archive:
            yield from members(found, limits, spooled)
        yield found


def files(source: Path, limits: Limits | None = None) -> Iterator[Found]:
    """Every file below `source`, archives unopened. Nothing is read but folders.

    Links are written down and not followed: what they lead to is found on its own, or is no part of the delivery.
    """
    limits, kind, root = limits or Limits(), kind_of(source), str(source.resolve())
    if kind != "folder":
        yield _file(root, os.path.basename(root), os.stat(root), limits, named=True)  # noqa: PTH116, PTH119
        return
    cut = len(root.rstrip(os.sep)) + 1
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:  # closed before the next is opened, however deep the tree
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        yield _entry(entry, root, cut, limits)
        except OSError:
            yield Found(FileRef(spell(folder)), 0, 0, "quarantined", "unreadable_folder", folder[cut:])


def _entry(entry: os.DirEntry[str], root: str, cut: int, limits: Limits) -> Found:
    path = entry.path
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return Found(FileRef(spell(path)), 0, 0, "quarantined", "unreadable_file", path[cut:])
    if stat.S_ISREG(status.st_mode):
        return _file(path, path[cut:], status, limits)
    reason = "special_file"
    if stat.S_ISLNK(status.st_mode):
        inside = f"{os.path.realpath(path)}{os.sep}".startswith(f"{root.rstrip(os.sep)}{os.sep}")
        reason = "link" if inside else "link_outside"
    return Found(FileRef(spell(path)), 0, 0, "ignored", reason, path[cut:])


def _file(path: str, inner: str, status: os.stat_result, limits: Limits, *, named: bool = False) -> Found:
    size, suffix, ref = status.st_size, _suffix(inner), FileRef(spell(path))
    looked_into = suffix in ARCHIVES or size >= LARGE or named
    state, reason = _decide(inner, "" if looked_into else suffix, size, limits)
    looked_into = looked_into and (state == "found" or reason == "too_large")  # an archive may be large
    return Found(ref, size, status.st_mtime_ns, state, reason, inner, "", looked_into)


def members(found: Found, limits: Limits | None = None, spooled: Place = lambda _: None) -> Iterator[Found]:
    """The members of an archive (zip; tar, plain or compressed), none if it is no archive by its first bytes.

    The archive itself is then ignored by the rule "archive", or quarantined with the reason why not all of it can be
    read: `found` is changed. A compressed tar is inflated to the file that `spooled` names, and not opened without one.
    An archive inside an archive is not opened.
    """
    limits = limits or Limits()
    try:
        kind = _archive_kind(found.ref.path, found.size)
        if not kind:
            return
        place = found.ref.path
        if kind == "zip":
            entries = _zip(place, limits)
        else:
            if kind != "tar":
                place = _spool(found, kind, limits, spooled)
            entries = _tar(place, limits)
        found.state, found.reason = "ignored", "archive"
        for entry in entries:
            yield _member(found, entry, place, limits)
    except Unreadable as error:
        found.state, found.reason = "quarantined", error.code


def restore(found: Found, limits: Limits | None = None, spooled: Place = lambda _: None) -> Path | None:
    """Inflate a compressed tar whose members were listed before, if what it was inflated to is gone; where to."""
    try:
        target, kind = spooled(found), _archive_kind(found.ref.path, found.size)
        if kind in ("", "zip", "tar", "other") or target is None or target.exists():
            return None
        _spool(found, kind, limits or Limits(), spooled)
    except Unreadable:  # its members will say so when they are read
        return None
    return target


def _zip(place: str, limits: Limits) -> Iterator[Entry]:
    with open_file(place) as file:
        directory = zip_directory(file)
        count = size = packed = 0
        for entry in zip_entries(file, directory):  # once for the sums, which must be known before
            count, size, packed = count + 1, size + entry.size, packed + 30 + entry.packed
            if count > limits.members or size > limits.archive_bytes:
                raise Unreadable("archive_too_large")
        if packed > directory.start:
            raise Unreadable("archive_overlap", "members share their bytes")
        yield from zip_entries(file, directory)


def _tar(place: str, limits: Limits) -> Iterator[Entry]:
    with open_file(place) as file:
        for count, entry in enumerate(tar_entries(file)):
            if count >= limits.members:
                raise Unreadable("archive_too_large")
            yield entry


def _spool(found: Found, kind: str, limits: Limits, spooled: Place) -> str:
    """Where the tar lies that was compressed."""
    target = spooled(found)
    if kind == "other" or target is None:
        raise Unreadable("archive_format")
    limit = min(limits.archive_bytes, max(SMALL, limits.ratio * found.size))
    spool.inflate(found.ref.path, kind, target, limit)
    return spell(str(target))


def _member(found: Found, entry: Entry, place: str, limits: Limits) -> Found:
    state, reason = _decide(entry.name, _suffix(entry.name), entry.size, limits)
    if entry.flaw and reason != "system_file":
        state, reason = "ignored" if entry.flaw in ("link", "special_file") else "quarantined", entry.flaw
    elif state == "found" and entry.size > max(1 << 20, limits.ratio * entry.packed):
        state, reason = "quarantined", "archive_ratio"
    ref, inner = FileRef(place, entry.member), f"{found.inner}/{entry.name}"
    return Found(ref, entry.size, found.modified, state, reason, inner, found.ref.path)


def _archive_kind(path: str, size: int) -> str:
    """By its first bytes: zip, tar; gz, bz2, xz, zst for a compressed tar; "other" for an archive that cannot be opened
    here; or empty, as for a single file that is compressed. The name counts for what is no tar but says so."""
    suffix, within, compressed = _suffix(path), _suffix(inner_name(path)), ""
    named = suffix in TARS or (suffix in SUFFIXES and within == ".tar")
    with open_file(path) as file:
        head = file.read(512)
        kind = compression_of(head)
        # the beginning of a bz2 costs 9 ms, of others 0.03: where the name is that of a single file, it is believed
        if kind and (named or kind != "bz2" or within in ("", suffix)):
            file.seek(0)
            try:
                compressed = kind if is_tar(beginning(file, kind)) else ""
            except Unreadable as error:
                if named:
                    raise Unreadable("bad_archive", error.message) from None
    if head[:4] in (b"PK\3\4", b"PK\5\6") or (suffix == ".zip" and size):
        return "zip"
    if is_tar(head) or (suffix == ".tar" and not kind):
        return "tar"
    return compressed or ("other" if named or suffix in ARCHIVES - SUFFIXES else "")


def _suffix(name: str) -> str:
    base = name[name.rfind("/") + 1 :]
    dot = base.rfind(".")
    return base[dot:].lower() if dot > 0 else ""


def _decide(name: str, suffix: str, size: int, limits: Limits) -> tuple[str, str]:
    """The state and reason of a file as far as its name and size decide. An archive's own suffix does not."""
    base = name[name.rfind("/") + 1 :]
    if base.startswith("._") or base.lower() in SYSTEM or "__MACOSX" in name.split("/"):
        return "ignored", "system_file"
    if suffix in VIEWERS:
        return "ignored", "viewer_file"
    if suffix in ARCHIVES and (suffix not in SUFFIXES or _suffix(inner_name(base)) == ".tar"):
        return "quarantined", "nested_archive"  # what is in there may be wanted, so it is not ignored but shown
    if size == 0:
        return "quarantined", "empty"
    return ("quarantined", "too_large") if size > limits.file_bytes else ("found", "")
