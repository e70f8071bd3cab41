"""Every file of a delivery is written down before any is read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db.session import Database, vault_key
from db.tables import Export, ExportFile, Run, Task, VaultExport, VaultExportFile
from db.write import delete_rows, insert_rows
from phenotype.identity import surrogate
from phenotype.imaging.files import spell
from phenotype.ingest import sources
from phenotype.ingest.directories import check_directories
from phenotype.ingest.ledger import NOT_LISTED, UNREAD, chunks
from phenotype.ingest.sources import Found, Limits


@dataclass(frozen=True, slots=True)
class Registered:
    """A delivery that was written down: how many files the ledger has of it, and how many of them are new."""

    export_id: str
    files: int
    new: int


def register(database: Database, source: Path, home: Path | None = None, limits: Limits | None = None) -> Registered:
    """Write down every file of a delivery before any is read. Doing it again only asks the disk for sizes and times,
    and adds nothing but files that are new.

    `home` is the folder beside the database, where compressed tars are inflated; without it they are not opened.
    Raises Refused("source") where there is no such folder or file.
    """
    kind, where = sources.kind_of(source), spell(str(source.resolve()))
    with database.writing() as session:
        key = vault_key(session)
        export_id = surrogate(key, "export", where)
        insert_rows(session, Export, [{"id": export_id, "kind": kind, "registered_at": datetime.now(UTC)}])
        insert_rows(session, VaultExport, [{"export_id": export_id, "path": where, "origin": ""}])

    def spooled(found: Found) -> Path | None:
        return None if home is None else home.resolve() / "spool" / f"{file_id(key, export_id, found)}.tar"

    new = 0
    own = _ours(database, home, source)
    for chunk in chunks(found for found in sources.files(source, limits) if not found.ref.path.startswith(own)):
        ids = [file_id(key, export_id, found) for found in chunk]
        with database.reading() as session:
            stands = select(ExportFile.id, ExportFile.reason).where(ExportFile.id.in_(ids))
            known = dict(session.execute(stands).all())
        fresh: list[Found] = []
        again: list[Found] = []
        for identity, found in zip(ids, chunk, strict=True):
            before = known.get(identity)
            if before is None:
                fresh.append(found)
            elif found.archive and before in sources.PASSING:
                again.append(found)
            elif found.archive and before in sources.LISTED and (tar := sources.restore(found, limits, spooled)):
                _moved(database, tar)
        # an archive comes after its members, so that one killed in between is opened again
        for archive in [*fresh, *again]:
            if archive.archive:
                for some in chunks(sources.members(archive, limits, spooled)):
                    new += _write(database, key, export_id, some)
        new += _write(database, key, export_id, fresh)
        _write_again(database, key, export_id, again)
    if new:
        check_directories(database, export_id)
    with database.reading() as session:
        of_it = select(func.count()).select_from(ExportFile).where(ExportFile.export_id == export_id)
        return Registered(export_id, session.scalar(of_it) or 0, new)


def _ours(database: Database, home: Path | None, source: Path) -> tuple[str, ...]:
    """How the paths begin of what is no delivery: the database with its journals, which `phenotype ingest .` finds too,
    and the folder beside it, unless that is what was named, as what a live PACS has sent is."""
    own = [str(database.path.resolve())] if database.path else []
    if home is not None and not source.resolve().is_relative_to(home.resolve()):
        own.append(f"{home.resolve()}{os.sep}")
    return tuple(own)


def file_id(key: bytes, export_id: str, found: Found) -> str:
    """The surrogate of a file. One that was replaced since is another file of the delivery."""
    ref, path = found.ref, found.origin or found.ref.path
    return surrogate(key, "file", export_id, path, ref.member, str(found.size), str(found.modified))


def ledger_rows(key: bytes, export_id: str, found: Found) -> tuple[dict[str, Any], dict[str, Any]]:
    """The rows of a file in ExportFile and VaultExportFile."""
    identity = file_id(key, export_id, found)
    row = {
        "id": identity,
        "export_id": export_id,
        "size": found.size,
        "kind": "" if found.state == "found" else UNREAD,
        "state": found.state,
        "reason": found.reason,
        "content_hash": None,
        "same_as": None,
    }
    return row, {"file_id": identity, "path": found.ref.path, "member": found.ref.member}


def _write(database: Database, key: bytes, export_id: str, some: list[Found]) -> int:
    """Write files down; how many are new."""
    if not some:
        return 0
    rows, places = zip(*(ledger_rows(key, export_id, found) for found in some), strict=True)
    with database.writing() as session:
        new = insert_rows(session, ExportFile, rows)
        insert_rows(session, VaultExportFile, places)
        if new and any(sources.is_table(found.inner) for found in some):
            _ask_again(session, export_id)
    return new


def _write_again(database: Database, key: bytes, export_id: str, archives: list[Found]) -> None:
    """The new state of archives that could not be opened before."""
    for archive in archives:
        row, _ = ledger_rows(key, export_id, archive)
        values = {name: row[name] for name in ("kind", "state", "reason")}
        same = ExportFile.id == row["id"]
        with database.writing() as session:
            session.execute(update(ExportFile).where(same, ExportFile.kind == UNREAD).values(values))


def _moved(database: Database, tar: Path) -> None:
    """The folder beside the database lies elsewhere now: so do the members of this tar, which was inflated anew."""
    place = VaultExportFile
    with database.writing() as session:
        path = spell(str(tar))
        session.execute(update(place).where(place.path.endswith(f"/spool/{tar.name}")).values(path=path))


def _ask_again(session: Session, export_id: str) -> None:
    """A table has come: pictures of this delivery that stood in none are to be read again."""
    waiting = list(
        session.scalars(select(ExportFile.id).where(ExportFile.export_id == export_id, ExportFile.reason == NOT_LISTED))
    )
    runs = list(session.scalars(select(Run.id).where(Run.stage == "ingest")))
    for chunk in chunks(waiting):
        delete_rows(session, Task, run_id=runs, subject_id=chunk)
        session.execute(update(ExportFile).where(ExportFile.id.in_(chunk)).values(state="found", reason=""))
