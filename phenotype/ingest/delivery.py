"""A delivery from beginning to end: written down, read, matched, checked; and what failed, once more."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.session import Database
from db.tables import ExportFile, Run, Task
from db.write import delete_rows
from phenotype.ingest.ledger import UNREAD, chunks, conservation
from phenotype.ingest.matching import match_reports
from phenotype.ingest.overwritten import forget_overwritten
from phenotype.ingest.registering import register
from phenotype.ingest.stage import Ingest
from phenotype.stage import Progress, Refused, Stage, Summary, run_stage


def take_in(
    stage: Stage,
    database: Database,
    home: Path,
    *,
    sources: Iterable[Path] = (),
    exports: Sequence[str] = (),
    executor: str = "here",
    progress: Progress | None = None,
) -> Summary:
    """Write down what `sources` hold, read it with the knobs of `stage` (an Ingest), link reports to studies, and
    check that nothing was lost. `exports` are deliveries that are written down already.

    Raises Refused: "source" where there is nothing at a path, "ledger" where the check fails, and as `run_stage` does.
    """
    named = [register(database, source, home).export_id for source in sources]
    stage = replace(stage, only=(*exports, *named))  # type: ignore[call-arg]  # a field of Ingest
    summary = run_stage(stage, database, home, executor=executor, progress=progress)
    if forget_overwritten(database, named):
        run_stage(stage, database, home, executor=executor)
    with database.writing() as session:
        match_reports(session)
    with database.reading() as session:
        conservation(session)
    return summary


def retry(
    database: Database,
    home: Path,
    *,
    reason: str = "",
    executor: str = "here",
    progress: Progress | None = None,
) -> list[Summary]:
    """Read once more what was quarantined, for any reason or for one, each file with the knobs it was read with last.

    What a file's name or size decided stays as it is. Raises Refused for a reason that no such file has, and as
    `take_in` does.
    """
    with database.reading() as session:
        waiting = _waiting(session, reason)
    if reason and not waiting:
        raise Refused("reason", f"no file that was read is quarantined for '{reason}': `phenotype files` lists reasons")
    known = {f.name for f in fields(Ingest)}
    summaries = []
    for recipe, files in waiting:
        with database.writing() as session:
            for chunk in chunks(files):
                delete_rows(session, Task, subject_id=chunk)
                session.execute(update(ExportFile).where(ExportFile.id.in_(chunk)).values(state="found", reason=""))
        stage = Ingest(**{name: value for name, value in recipe.items() if name in known})
        summaries.append(take_in(stage, database, home, executor=executor, progress=progress))
    return summaries


def _waiting(session: Session, reason: str) -> list[tuple[dict[str, Any], list[str]]]:
    """The recipe of each run of `ingest`, oldest first, and the quarantined files that it was the last to read."""
    query = (
        select(ExportFile.id, Task.run_id)
        .join(Task, Task.subject_id == ExportFile.id)
        .join(Run, Run.id == Task.run_id)
        .where(Run.stage == "ingest", ExportFile.state == "quarantined", ExportFile.kind != UNREAD)
        .order_by(Task.finished_at, Task.run_id)
    )
    if reason:
        query = query.where(ExportFile.reason == reason)
    last = dict(session.execute(query).all())
    runs = session.execute(select(Run.id, Run.recipe).where(Run.stage == "ingest").order_by(Run.opened_at, Run.id))
    found = [(recipe, sorted(file for file, run in last.items() if run == run_id)) for run_id, recipe in runs]
    return [(recipe, files) for recipe, files in found if files]
