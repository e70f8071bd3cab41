"""One delivered file read: its digest and what it holds, in one pass over its bytes. Runs on any worker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from phenotype.imaging.dicom import is_picture, picture_size
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.ingest.contents import Ignored, PictureFile, Read
from phenotype.ingest.dicom import read_header
from phenotype.ingest.sources import is_table
from phenotype.ingest.tables import read_table
from phenotype.stage import Refused


def read_file(ref: FileRef, columns: Mapping[str, str]) -> Read:
    """Read a delivered file. What is wrong with its content is part of the answer; that it cannot be read at all (it
    is gone, the disk fails) raises `Unreadable`, since that may be otherwise the next time."""
    try:
        data = open_bytes(ref)
    except Unreadable as error:
        if error.code not in ("bad_archive_member", "too_large"):
            raise
        return Read("", "", None, "quarantined", error.code)
    digest = hashlib.sha256(data).hexdigest()
    kind = _kind(ref, data)
    try:
        if kind == "picture":
            return Read(digest, kind, PictureFile(*picture_size(data)))
        if kind == "table":
            return Read(digest, kind, read_table(data, columns))
        return Read(digest, kind or "dicom", read_header(data))
    except Ignored as rule:
        return Read(digest, kind, None, "ignored", rule.code)
    except (Refused, Unreadable) as error:
        return Read(digest, kind, None, "quarantined", error.code)


def _kind(ref: FileRef, data: bytes) -> str:
    if data[128:132] == b"DICM":
        return "dicom"
    if is_picture(data):
        return "picture"
    return "table" if is_table(ref.member or ref.path) else ""
