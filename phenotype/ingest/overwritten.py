"""Files that were overwritten after they had been taken in: what lies under their names now is not what was read."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.session import Database, vault_key
from db.tables import ExportFile, Image, Instance, Task, VaultExportFile
from db.write import delete_rows
from phenotype.imaging.files import FileRef, Unreadable, open_file
from phenotype.ingest.ledger import chunks
from phenotype.ingest.registering import file_id
from phenotype.ingest.sources import Found

REASON = "overwritten"


def forget_overwritten(database: Database, exports: Iterable[str]) -> int:
    """Quarantine the objects of these deliveries whose files were overwritten by others, with what was made of them:
    a study must never show the pixels that somebody else's delivery has put under the same name.

    Copies of them that lie elsewhere, and what contradicted them, are to be read again: how many files that are. A
    file that was only touched is the same. Reports stay, since their words are in the database. What could not be used
    when it was read, as a file that was still being copied, is ignored when another one has taken its place.
    """
    again = 0
    for export_id in exports:
        with database.writing() as session:
            taken, refused = _stale(session, export_id)
            for chunk in chunks(sorted(refused)):
                values = {"state": "ignored", "reason": REASON}
                session.execute(update(ExportFile).where(ExportFile.id.in_(chunk)).values(values))
            for chunk in chunks(sorted(taken)):
                again += _forget(session, chunk)
    return again


def _stale(session: Session, export_id: str) -> tuple[set[str], set[str]]:
    """The objects that were taken in, and the files that were refused, whose bytes are no longer there."""
    place, key = VaultExportFile, vault_key(session)
    of_it = select(place.path).join(ExportFile).where(ExportFile.export_id == export_id, place.member == "")
    names = list(session.scalars(of_it.group_by(place.path).having(func.count() > 1)))
    stale: set[str] = set()
    refused: set[str] = set()
    for chunk in chunks(names):
        query = select(place.path, place.member, ExportFile).join(ExportFile, ExportFile.id == place.file_id)
        query = query.where(ExportFile.export_id == export_id, place.path.in_(chunk))
        rows: dict[str, list[tuple[str, ExportFile]]] = defaultdict(list)
        for path, member, file in session.execute(query):
            rows[path].append((member, file))
        for path, files in rows.items():
            try:
                with open_file(path) as opened:
                    status = os.fstat(opened.fileno())
            except Unreadable:  # gone, perhaps for a while only
                continue
            found = {
                f.id: Found(FileRef(path, m), f.size if m else status.st_size, status.st_mtime_ns) for m, f in files
            }
            now = {identity for identity, f in found.items() if identity == file_id(key, export_id, f)}
            same = {f.same_as for _, f in files if f.id in now and f.state == "duplicate"}
            taken = (f.id for _, f in files if f.kind in ("dicom", "picture") and f.state in ("ingested", "conflict"))
            stale |= {f for f in taken if f not in now and f not in same}
            refused |= {f.id for _, f in files if f.state == "quarantined" and f.reason != REASON and f.id not in now}
    return stale, refused


def _forget(session: Session, files: list[str]) -> int:
    series = list(session.scalars(select(Instance.series_id).where(Instance.file_id.in_(files)).distinct()))
    delete_rows(session, Image, series_id=series)
    delete_rows(session, Task, subject_id=series)  # they are put together anew
    delete_rows(session, Instance, file_id=files)
    gone = {"state": "quarantined", "reason": REASON, "same_as": None, "content_hash": None}
    session.execute(update(ExportFile).where(ExportFile.id.in_(files)).values(gone))
    others = select(ExportFile.id).where(ExportFile.same_as.in_(files), ExportFile.id.not_in(files))
    waiting = list(session.scalars(others))
    delete_rows(session, Instance, file_id=waiting)
    delete_rows(session, Task, subject_id=waiting)
    session.execute(update(ExportFile).where(ExportFile.id.in_(waiting)).values(state="found", reason="", same_as=None))
    return len(waiting)
