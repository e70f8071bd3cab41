"""DICOMDIR, the table of contents of a disc: what it names and is not there is written down, and nothing else.

It is a hint: files are found by looking, and none is opened because a DICOMDIR names it.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import ExportFile, ExportRecord, VaultExportFile
from db.write import delete_rows, insert_rows
from phenotype.imaging.files import FileRef, Unreadable, open_bytes
from phenotype.sandbox import Ended, Limits, shared

NAME = "dicomdir"
MISSING = "listed_file_missing"
MAX_BYTES = 256 << 20
MANY = 200_000  # names compared at a time


def named_files(ref: FileRef) -> list[str]:
    """The files that a DICOMDIR names, in its order, as "A/B/C" in small letters; empty where it cannot be read."""
    from io import BytesIO

    from pydicom import dcmread

    try:
        records = dcmread(BytesIO(open_bytes(ref, MAX_BYTES))).get("DirectoryRecordSequence") or ()
        parts = [record.get("ReferencedFileID") for record in records]
    except (MemoryError, Unreadable):
        raise
    except Exception:  # pydicom raises thirteen kinds; the file itself is read, and refused, by `Ingest`
        return []
    names = ["/".join([part] if isinstance(part, str) else map(str, part)) for part in parts if part]
    return [name.lower() for name in names]


def check_directories(database: Database, export_id: str) -> int:
    """Compare each DICOMDIR of a delivery with the files that were found beside and below it.

    A file that is named and was not found becomes a record of the DICOMDIR, quarantined as "listed_file_missing"; how
    many there are. Names are compared without regard to case, which discs change.
    """
    wanted: dict[str, list[tuple[str, int]]] = {}  # where it should lie: the DICOMDIR, and which of its names it is
    directories: list[str] = []
    missing = 0
    with database.reading() as session:
        place = VaultExportFile
        ends = func.lower(place.path).endswith(NAME) | func.lower(place.member).endswith(NAME)
        found = session.execute(_places(export_id).where(ends)).all()
    for file_id, path, member in found:
        folder, _, name = _key(path, member).rpartition("/")
        if name != NAME:
            continue
        try:
            names = shared(1, Limits()).call(named_files, FileRef(path, member))
        except (Ended, Unreadable):
            names = []
        directories.append(file_id)
        for number, listed in enumerate(names, 1):
            wanted.setdefault(f"{folder}/{listed}", []).append((file_id, number))
        if len(wanted) > MANY:
            missing += _write(database, export_id, directories, wanted)
            directories, wanted = [], {}
    return missing + _write(database, export_id, directories, wanted)


def _write(database: Database, export_id: str, directories: list[str], wanted: dict[str, list[tuple[str, int]]]) -> int:
    if not directories:
        return 0
    with database.reading() as session:
        for there in _found(session, export_id):
            wanted.pop(there, None)
    told = {"state": "quarantined", "reason": MISSING, "report_id": None}
    rows = [{"file_id": file_id, "number": n} | told for where in wanted.values() for file_id, n in where]
    with database.writing() as session:
        delete_rows(session, ExportRecord, file_id=directories)
        insert_rows(session, ExportRecord, rows)
    return len(rows)


def _found(session: Session, export_id: str) -> Iterator[str]:
    for _, path, member in session.execute(_places(export_id).execution_options(yield_per=10_000)):
        yield _key(path, member)


def _places(export_id: str) -> Select[str, str, str]:
    place = VaultExportFile
    files = select(place.file_id, place.path, place.member).join(ExportFile, ExportFile.id == place.file_id)
    return files.where(ExportFile.export_id == export_id)


def _key(path: str, member: str) -> str:
    """Where a file lies, in small letters; members of an archive below it."""
    return f"{path}/{member.partition('/')[2]}".lower() if member else path.lower()
