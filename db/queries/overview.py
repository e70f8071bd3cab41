"""What there is, what was run, and what went wrong."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.types import UtcTime

COUNTED = (
    "patient",
    "study",
    "series",
    "image",
    "report",
    "finding",
    "label",
    "embedding",
    "anomaly",
    "term_map",
    "phenotype",
)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows a table has."""

    table: str
    rows: int


@dataclass(frozen=True, slots=True)
class FileState:
    """How many files, or rows of delivered tables, ended in a state for a reason."""

    what: str
    kind: str
    state: str
    reason: str
    count: int


@dataclass(frozen=True, slots=True)
class RunState:
    """What became of a run."""

    stage: str
    label: str
    run: str
    state: str
    done: int
    failed: int
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class FailureReason:
    """How often the current runs failed for a reason."""

    stage: str
    label: str
    reason: str
    count: int


def counts(session: Session) -> list[Counts]:
    """The size of the tables that people ask about."""
    return [Counts(t, session.scalar(text(f"SELECT count(*) FROM {t}")) or 0) for t in COUNTED]  # noqa: S608


def file_states(session: Session) -> list[FileState]:
    """Files and rows by what became of them; each is in exactly one state."""
    rows = session.execute(
        text("""
SELECT 'file', kind, state, reason, count(*) FROM export_file GROUP BY kind, state, reason
UNION ALL
SELECT 'table row', 'report', state, reason, count(*) FROM export_record GROUP BY state, reason
UNION ALL
SELECT 'report', '', match, '', count(*) FROM report GROUP BY match
ORDER BY 1, 3, 5 DESC, 4
""")
    )
    return [FileState(*row) for row in rows]


def run_states(session: Session) -> list[RunState]:
    """The current runs, in the order they were last opened."""
    query = text("""
SELECT stage, label, run, state, done, failed, opened_at FROM run_view WHERE is_current = 1 ORDER BY opened_at
""")
    rows = session.execute(query.columns(opened_at=UtcTime))
    return [RunState(*row) for row in rows]


def failure_reasons(session: Session) -> list[FailureReason]:
    """Why subjects of the current runs failed, the commonest first."""
    rows = session.execute(
        text("""
SELECT r.stage, r.label, t.reason, count(*) FROM task t JOIN current_run r ON r.id = t.run_id
WHERE t.state = 'failed' GROUP BY r.stage, r.label, t.reason ORDER BY 4 DESC, 1, 2, 3
""")
    )
    return [FailureReason(*row) for row in rows]
