"""What was delivered, and what became of it: counts for the page that explains an ingestion."""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session

from db.types import UtcTime


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery: how many files of it ended in each state."""

    export: str
    kind: str
    registered_at: datetime
    size: int  # bytes, all files
    states: dict[str, int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many of something ended in a state, for a reason."""

    what: str  # the kind of file, or of the file that a record stands in
    state: str
    reason: str
    count: int
    size: int = 0  # bytes


@dataclass(frozen=True, slots=True)
class SeriesOutcome:
    """The series of a modality: how many make images, and why others make none."""

    modality: str
    series: int
    instances: int
    images: int
    refused: dict[str, int]


@dataclass(frozen=True, slots=True)
class ReportOutcome:
    """The reports of a format: versions, current ones, and how these found their studies."""

    kind: str
    versions: int
    current: int
    matched: int
    unmatched: int
    ambiguous: int


@dataclass(frozen=True, slots=True)
class Check:
    """A header that says something doubtful: how many objects or series of a modality."""

    what: str
    value: str
    modality: str
    count: int


def deliveries(session: Session) -> list[Delivery]:
    """All deliveries, the newest first."""
    states: dict[str, dict[str, int]] = {}
    sizes: Counter[str] = Counter()
    counted = text("SELECT export_id, state, count(*), sum(size) FROM export_file GROUP BY export_id, state ORDER BY 2")
    for export, state, count, size in session.execute(counted):
        states.setdefault(export, {})[state] = count
        sizes[export] += int(size or 0)
    query = text("SELECT id, kind, registered_at FROM export ORDER BY registered_at DESC, id")
    rows = session.execute(query.columns(registered_at=UtcTime))
    return [Delivery(export, kind, at, sizes[export], states.get(export, {})) for export, kind, at in rows]


def file_outcomes(session: Session) -> list[Outcome]:
    """Files by kind, state and reason, the commonest first."""
    query = """
SELECT kind, state, reason, count(*), sum(size) FROM export_file GROUP BY kind, state, reason ORDER BY 4 DESC, 1, 2, 3
"""
    rows = session.execute(text(query))
    return [Outcome(kind, state, reason, count, int(size or 0)) for kind, state, reason, count, size in rows]


def record_outcomes(session: Session) -> list[Outcome]:
    """Rows of tables, messages and resources by the kind of their file, state and reason, the commonest first."""
    query = """
SELECT f.kind, r.state, r.reason, count(*) FROM export_record r JOIN export_file f ON f.id = r.file_id
GROUP BY f.kind, r.state, r.reason ORDER BY 4 DESC, 1, 2, 3
"""
    return [Outcome(*row) for row in session.execute(text(query))]


def series_outcomes(session: Session) -> list[SeriesOutcome]:
    """Series by modality."""
    refused: dict[str, Counter[str]] = {}
    reasons = text("SELECT modality, refused, count(*) FROM series_view WHERE refused IS NOT NULL GROUP BY 1, 2")
    for modality, reason, count in session.execute(reasons):
        # the code before the message
        refused.setdefault(modality, Counter())[reason.split(":")[0]] += count
    query = (
        "SELECT modality, count(*), sum(instances), sum(images) FROM series_view GROUP BY modality ORDER BY 2 DESC, 1"
    )
    return [
        SeriesOutcome(modality, series, int(instances or 0), int(images or 0), dict(refused.get(modality, {})))
        for modality, series, instances, images in session.execute(text(query))
    ]


def left_out(session: Session) -> dict[str, int]:
    """Slices that belong to no image although their series makes one, by reason."""
    total: Counter[str] = Counter()
    query = text(
        "SELECT CAST(i.left_out_reasons AS TEXT), count(*) FROM image i JOIN current_run c ON c.id = i.run_id "
        "WHERE i.left_out > 0 GROUP BY 1"
    )
    for reasons, count in session.execute(query):
        total.update({reason: number * count for reason, number in json.loads(reasons).items()})
    return dict(total.most_common())


def report_outcomes(session: Session) -> list[ReportOutcome]:
    """Reports by the format they came in."""
    query = """
SELECT kind, count(*), sum(is_current), sum(CASE WHEN is_current = 1 AND match = 'matched' THEN 1 ELSE 0 END),
  sum(CASE WHEN is_current = 1 AND match = 'unmatched' THEN 1 ELSE 0 END),
  sum(CASE WHEN is_current = 1 AND match = 'ambiguous' THEN 1 ELSE 0 END)
FROM report_view GROUP BY kind ORDER BY 2 DESC, 1
"""
    return [ReportOutcome(kind, *(int(n) for n in counts)) for kind, *counts in session.execute(text(query))]


def checks(session: Session) -> list[Check]:
    """What headers say that is doubtful or matters on export, by modality, the commonest first."""
    query = """
SELECT 'modality' AS what, modality_basis AS value, modality, count(*) FROM series
WHERE modality_basis = 'class' GROUP BY 2, 3
UNION ALL SELECT 'body_part', body_part_basis, modality, count(*) FROM series
WHERE body_part_basis = 'contradicted' GROUP BY 2, 3
UNION ALL SELECT 'view', i.view_basis, e.modality, count(*) FROM instance i JOIN series e ON e.id = i.series_id
WHERE i.view_basis = 'contradicted' GROUP BY 2, 3
UNION ALL SELECT 'burned_in', i.burned_in, e.modality, count(*) FROM instance i JOIN series e ON e.id = i.series_id
WHERE i.burned_in IN ('declared', 'likely') GROUP BY 2, 3
UNION ALL SELECT 'lossy', '', e.modality, count(*) FROM instance i JOIN series e ON e.id = i.series_id
WHERE i.lossy GROUP BY 3
UNION ALL SELECT 'same_number', '', '', count(*) FROM (
  SELECT 1 FROM vault_patient WHERE record_number <> ''
  GROUP BY upper(ltrim(trim(record_number), '0')) HAVING count(*) > 1) AS shared HAVING count(*) > 0
ORDER BY 4 DESC, 1, 2, 3
"""
    return [Check(*row) for row in session.execute(text(query))]


def transfers(session: Session) -> list[Outcome]:
    """Series asked for from a live PACS, by state and reason."""
    query = "SELECT 'series', state, reason, count(*) FROM transfer GROUP BY state, reason ORDER BY 4 DESC, 2, 3"
    return [Outcome(*row) for row in session.execute(text(query))]
