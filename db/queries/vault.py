"""The one way by which personal data are shown to a person: it writes down who looked."""

from dataclasses import dataclass
from datetime import UTC, datetime
from secrets import token_hex

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import ExportFile, VaultAccess, VaultExportFile, VaultReport


@dataclass(frozen=True, slots=True)
class FilePath:
    """Where a delivered file lies, and what became of it."""

    state: str
    reason: str
    path: str
    member: str


def looked(session: Session, who: str, way: str, what: str) -> None:
    """Write down that `who` was shown something: `what` holds surrogates and counts, never the thing itself."""
    session.add(VaultAccess(id=token_hex(8), at=datetime.now(UTC), who=who, way=way, what=what))


def file_paths(session: Session, who: str, *, state: str = "", reason: str = "", limit: int = 1000) -> list[FilePath]:
    """The paths of files in a state, or with a reason. The session must be a writing one: the look is recorded."""
    place = VaultExportFile
    query = select(ExportFile.state, ExportFile.reason, place.path, place.member).join(place)
    if state:
        query = query.where(ExportFile.state == state)
    if reason:
        query = query.where(ExportFile.reason == reason)
    rows = [FilePath(*row) for row in session.execute(query.order_by(place.path, place.member).limit(limit))]
    looked(session, who, "paths", f"{len(rows)} paths, state '{state}', reason '{reason}'")
    return rows


def report_text(session: Session, who: str, report: str) -> str | None:
    """The words of a report, or None where there is no such report. The look is recorded."""
    text = session.scalar(select(VaultReport.text).where(VaultReport.report_id == report))
    if text is not None:
        looked(session, who, "text", f"report {report}")
    return text
