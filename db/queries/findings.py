"""What the reports say."""

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding as people read it; the words themselves stay in the vault."""

    study: str | None
    report: str
    finding: str
    assertion: str
    temporality: str
    certainty: float
    side: str
    site: str
    severity: str
    size_mm: float | None
    section: str
    text_start: int
    text_end: int


def findings(
    session: Session,
    *,
    concept: str = "",
    assertion: str = "",
    study: str = "",
    limit: int = 100,
) -> list[FindingRow]:
    """Findings of the current run, filtered by concept (its id or name), assertion and study."""
    rows = session.execute(
        text("""
SELECT study, report, finding, assertion, temporality, certainty, side, site, severity, size_mm, section, text_start,
  text_end
FROM finding_view
WHERE (:concept = '' OR concept = :concept OR lower(finding) = lower(:concept))
  AND (:assertion = '' OR assertion = :assertion) AND (:study = '' OR study = :study)
ORDER BY study, report, text_start, finding LIMIT :limit
"""),
        {"concept": concept, "assertion": assertion, "study": study, "limit": limit},
    )
    return [FindingRow(*row) for row in rows]
