"""Findings as a table: rows for a CSV file, or a pandas frame."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from db.queries.reported import ReportFindings

if TYPE_CHECKING:
    import pandas as pd

COLUMNS: Final = (
    "patient", "study", "day", "report", "language", "finding", "concept", "category", "assertion", "certainty",
    "temporality", "experiencer", "implied", "side", "site", "sites", "severity", "size_mm", "prior_size_mm", "count",
    "change", "section", "text_start", "text_end", "rule", "radlex", "mesh", "snomed", "run",
)  # fmt: skip
_CATEGORIES: Final = (
    "language", "finding", "concept", "category", "assertion", "temporality", "experiencer", "side", "site", "severity",
    "count", "change", "section", "rule", "run",
)  # fmt: skip


def rows(reports: Iterable[ReportFindings]) -> Iterator[tuple[Any, ...]]:
    """One row of COLUMNS for each finding; `day` is shifted by a secret offset, the same for all of a patient."""
    for r in reports:
        for f in r.findings:
            yield (
                r.patient, r.study, r.day, r.report, r.language, f.concept.name, f.concept.id, f.category, f.assertion,
                f.certainty, f.temporality, f.experiencer, f.implied, f.side, f.sites[0].id if f.sites else "",
                " ".join(site.id for site in f.sites), f.severity, f.size_mm, f.prior_size_mm, f.count, f.change,
                f.section, f.start, f.end, f.rule, f.concept.radlex, f.concept.mesh, f.concept.snomed, r.run,
            )  # fmt: skip


def frame(reports: Iterable[ReportFindings]) -> "pd.DataFrame":
    """A pandas frame of COLUMNS: words that repeat as categories, `day` as a date, sizes in millimetres."""
    import pandas as pd

    table = pd.DataFrame(list(rows(reports)), columns=list(COLUMNS))
    table["day"] = pd.to_datetime(table["day"])
    table[["size_mm", "prior_size_mm"]] = table[["size_mm", "prior_size_mm"]].astype("float64")
    return table.astype(dict.fromkeys(_CATEGORIES, "category"))
