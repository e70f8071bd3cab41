"""Findings as rows of the tables NOTE and NOTE_NLP of the OMOP Common Data Model 5.4.

Concept ids are 0 where a vocabulary is needed to know them; the codes stand in `term_modifiers`. No text leaves: the
note's text and the snippet are empty, the lexical variant is the concept's name, `offset` says where it stands.
"""

from collections.abc import Iterator
from typing import Any, Final

from db.queries.reported import Reported, ReportFindings

PERSON: Final = ("person_id", "person_source_value")  # the part of PERSON that ties the ids to surrogates
NOTE: Final = (
    "note_id", "person_id", "note_date", "note_datetime", "note_type_concept_id", "note_class_concept_id",
    "note_title", "note_text", "encoding_concept_id", "language_concept_id", "provider_id", "visit_occurrence_id",
    "visit_detail_id", "note_source_value", "note_event_id", "note_event_field_concept_id",
)  # fmt: skip
NOTE_NLP: Final = (
    "note_nlp_id", "note_id", "section_concept_id", "snippet", "offset", "lexical_variant", "note_nlp_concept_id",
    "note_nlp_source_concept_id", "nlp_system", "nlp_date", "nlp_datetime", "term_exists", "term_temporal",
    "term_modifiers",
)  # fmt: skip
_TIMES: Final = {"current": "present", "historical": "past", "hypothetical": "hypothetical"}


def note_row(report: ReportFindings, note_id: int, person_id: int | None) -> dict[str, Any]:
    """One row of NOTE. `note_source_value` is the report's surrogate."""
    return dict.fromkeys(NOTE, "") | {
        "note_id": note_id,
        "person_id": "" if person_id is None else person_id,
        "note_date": report.day.isoformat() if report.day else "",
        "note_type_concept_id": 0,
        "note_class_concept_id": 0,
        "note_title": "Radiology report",
        "encoding_concept_id": 0,
        "language_concept_id": 0,
        "note_source_value": report.report,
    }


def note_nlp_rows(report: ReportFindings, note_id: int, first: int) -> Iterator[dict[str, Any]]:
    """One row of NOTE_NLP for each finding; `first` is the id of the first."""
    for number, finding in enumerate(report.findings, first):
        yield {
            "note_nlp_id": number,
            "note_id": note_id,
            "section_concept_id": 0,
            "snippet": "",
            "offset": str(finding.start),
            "lexical_variant": finding.concept.name,
            "note_nlp_concept_id": 0,
            "note_nlp_source_concept_id": 0,
            "nlp_system": f"phenotype {report.run}",
            "nlp_date": report.read_at.date().isoformat(),
            "nlp_datetime": report.read_at.isoformat(),
            "term_exists": term_exists(finding),
            "term_temporal": _TIMES[finding.temporality],
            "term_modifiers": ";".join(f"{key}={value}" for key, value in _modifiers(finding)),
        }


def term_exists(finding: Reported) -> str:
    """Y only where all of it holds, as the CDM asks: said of the patient, as of today, and not denied or doubted."""
    of_today = finding.temporality == "current" and finding.experiencer == "patient"
    return "Y" if of_today and finding.assertion == "present" else "N"


def _modifiers(finding: Reported) -> Iterator[tuple[str, str]]:
    told = (
        ("concept", finding.concept.id),
        ("radlex", finding.concept.radlex),
        ("snomed", finding.concept.snomed),
        ("mesh", finding.concept.mesh),
        ("negation", "yes" if finding.assertion == "absent" else ""),
        ("certainty", f"{finding.certainty:g}" if finding.assertion == "uncertain" else ""),
        ("subject", "other" if finding.experiencer == "other" else ""),
        ("section", finding.section),
        ("side", finding.side),
        ("site", ",".join(site.id for site in finding.sites)),
        ("severity", finding.severity),
        ("size_mm", "" if finding.size_mm is None else f"{finding.size_mm:g}"),
        ("prior_size_mm", "" if finding.prior_size_mm is None else f"{finding.prior_size_mm:g}"),
        ("count", finding.count),
        ("change", finding.change),
    )
    return ((key, value) for key, value in told if value)
