"""Every file of a delivery is written down before any is read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.session import Database, vault_key
from db.tables import Export, ExportFile, Run, Task, VaultExport, VaultExportFile
from db.write import delete_rows, insert_rows
from phenotype.ingest import sources
from phenotype.identity import surrogate
from phenotype.ingest.ledger import NOT_LISTED, UNREAD, chunks


@dataclass(frozen=True, slots=True)
class Registered:
    """A delivery that was written down: how many files it holds, and how many of them are new."""

    export_id: str
    files: int
    new: int


def register(database: Database, source: Path) -> Registered:
    """Write down every file of a delivery before any is read. Doing it again adds nothing but files that are new.

    Raises Refused("source") where there is no such folder or file.
    """
    kind, where = sources.kind_of(source), str(source.resolve())
    with database.writing() as session:
        key = vault_key(session)
        export_id = surrogate(key, "export", where)
        insert_rows(session, Export, [{"id": export_id, "kind": kind, "registered_at": datetime.now(UTC)}])
        insert_rows(session, VaultExport, [{"export_id": export_id, "path": where, "origin": ""}])
    files = new = 0
    for chunk in chunks(sources.walk(source)):
        rows, places = zip(*(ledger_rows(key, export_id, found) for found in chunk), strict=True)
        tables = {row["id"] for row, found in zip(rows, chunk, strict=True) if sources.is_table(found.inner)}
        with database.writing() as session:
            known = set(session.scalars(select(ExportFile.id).where(ExportFile.id.in_(tables))))
            new += insert_rows(session, ExportFile, rows)
            insert_rows(session, VaultExportFile, places)
            if tables - known:
                _ask_again(session, export_id)
        files += len(chunk)
    return Registered(export_id, files, new)


def ledger_rows(key: bytes, export_id: str, found: sources.Found) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of a file in ExportFile and VaultExportFile."""
    ref = found.ref
    # a file that was replaced since is another file of the delivery
    file_id = surrogate(key, "file", export_id, ref.path, ref.member, str(found.size), str(found.modified))
    row = {
        "id": file_id,
        "export_id": export_id,
        "size": found.size,
        "kind": "" if found.state == "found" else UNREAD,
        "state": found.state,
        "reason": found.reason,
        "content_hash": None,
        "same_as": None,
    }
    return row, {"file_id": file_id, "path": ref.path, "member": ref.member}


def _ask_again(session: Session, export_id: str) -> None:
    """A table has come: pictures of this delivery that stood in none are to be read again."""
    waiting = list(
        session.scalars(select(ExportFile.id).where(ExportFile.export_id == export_id, ExportFile.reason == NOT_LISTED))
    )
    runs = list(session.scalars(select(Run.id).where(Run.stage == "ingest")))
    for chunk in chunks(waiting):
        delete_rows(session, Task, run_id=runs, subject_id=chunk)
        session.execute(update(ExportFile).where(ExportFile.id.in_(chunk)).values(state="found", reason=""))
