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
    prior_size_mm: float | None
    count: str
    change: str
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
SELECT study, report, finding, assertion, temporality, certainty, side, site, severity, size_mm, prior_size_mm, count,
  change, section, text_start, text_end
FROM finding_view
WHERE (:concept = '' OR concept = :concept OR lower(finding) = lower(:concept))
  AND (:assertion = '' OR assertion = :assertion) AND (:study = '' OR study = :study)
ORDER BY study, report, text_start, finding LIMIT :limit
"""),
        {"concept": concept, "assertion": assertion, "study": study, "limit": limit},
    )
    return [FindingRow(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A report that two readers read differently: `said` by the rules, `probability` by the text classifier."""

    study: str | None
    report: str
    finding: str
    said: str
    probability: float


def disagreements(session: Session, *, concept: str = "", said: str = "", limit: int = 100) -> list[Disagreement]:
    """What a person should look at, the most surprising first: what the rules seem to have missed, in turn with what
    they assert and the classifier does not believe. Filtered by concept (its id or name) and by what the rules say
    (present, absent, not mentioned)."""
    rows = session.execute(
        text("""
SELECT study, report, finding, said, probability FROM (
  SELECT d.*, row_number() OVER (
    PARTITION BY CASE said WHEN 'present' THEN 1 ELSE 0 END ORDER BY surprise DESC, report, concept
  ) AS place FROM disagreement_view d
) ranked
WHERE (:concept = '' OR concept = :concept OR lower(finding) = lower(:concept)) AND (:said = '' OR said = :said)
ORDER BY place, surprise DESC, report LIMIT :limit
"""),
        {"concept": concept, "said": said, "limit": limit},
    )
    return [Disagreement(*row) for row in rows]
