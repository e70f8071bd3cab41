"""What was found, by accession number, to be compared with a truth or an expert that knows studies by nothing else.

Accession numbers are personal data: what these functions return must not be written anywhere.
"""

from sqlalchemy import text
from sqlalchemy.orm import Session


def labels(session: Session) -> dict[str, dict[str, str]]:
    """Accession to concept to present, absent or uncertain."""
    found: dict[str, dict[str, str]] = {}
    rows = session.execute(
        text("""
SELECT v.accession, l.concept, l.value FROM vault_study v JOIN label_view l ON l.study = v.study_id
WHERE NOT l.implied ORDER BY v.accession, l.concept
""")
    )
    for accession, concept, value in rows:
        found.setdefault(accession, {})[concept] = value
    return found


def anomaly_scores(session: Session, model: str) -> dict[str, float]:
    """Accession to the highest anomaly score of the study's images by the model of this label."""
    rows = session.execute(
        text("""
SELECT v.accession, max(a.score) AS score FROM vault_study v JOIN anomaly_view a ON a.study = v.study_id
WHERE a.model = :model GROUP BY v.accession ORDER BY v.accession
"""),
        {"model": model},
    )
    return {row.accession: row.score for row in rows}


def term_peaks(session: Session) -> dict[tuple[str, str], tuple[float, float]]:
    """Accession and concept to the peak of the term's map, as fractions (row, column), where a report asserts it."""
    rows = session.execute(
        text("""
SELECT v.accession, t.concept, t.peak_row, t.peak_column
FROM vault_study v JOIN term_map_view t ON t.study = v.study_id
WHERE t.reported = 'present' AND t.verdict = 'evidence' ORDER BY v.accession, t.concept, t.image
""")
    )
    return {(accession, concept): (row, column) for accession, concept, row, column in rows}


def phenotypes(session: Session) -> dict[str, int]:
    """Accession to the number of the study's phenotype."""
    rows = session.execute(
        text("""
SELECT v.accession, m.phenotype_number AS number FROM vault_study v JOIN membership_view m ON m.study = v.study_id
ORDER BY v.accession
""")
    )
    return {row.accession: row.number for row in rows}
