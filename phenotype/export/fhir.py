"""Findings as HL7 FHIR R4 resources: a DiagnosticReport for each report, an Observation for each finding of today.

What is historical, hypothetical or someone else's is no Observation about the patient and is left out. Of the text only
offsets are told (extension derivation-reference), of the patient only the surrogate.
"""

from collections.abc import Iterator
from typing import Any, Final

from db.queries.reported import Coded, Reported, ReportFindings

SNOMED: Final = "http://snomed.info/sct"
LOINC: Final = "http://loinc.org"
DICOM: Final = "http://dicom.nema.org/resources/ontology/DCM"
RADLEX: Final = "http://www.radlex.org"
MESH: Final = "https://www.nlm.nih.gov/mesh"
OWN: Final = "urn:phenotype:lexicon"
_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
_DERIVATION: Final = "http://hl7.org/fhir/StructureDefinition/derivation-reference"

# codes of the subset of SNOMED CT that DICOM may use without fee
_PRESENCE: Final = {"present": ("52101004", "Present"), "absent": ("272519000", "Absent")}
_UNCERTAIN: Final = ("82334004", "Indeterminate")
_SIDES: Final = {"left": ("7771000", "Left"), "right": ("24028007", "Right"), "bilateral": ("51440002", "Bilateral")}
_SEVERITIES: Final = {
    "mild": ("255604002", "Mild"),
    "moderate": ("6736007", "Moderate"),
    "severe": ("24484000", "Severe"),
}
_LATERALITY: Final = ("272741003", "Laterality")
_SEVERITY: Final = ("246112005", "Severity")
_SITE: Final = ("363698007", "Finding site")
_LENGTH: Final = ("410668003", "Length")


def told_of_today(finding: Reported) -> bool:
    """Whether a finding is said of the patient, as of today."""
    return finding.temporality == "current" and finding.experiencer == "patient"


def resources(report: ReportFindings) -> Iterator[dict[str, Any]]:
    """The Patient (a surrogate, nothing else), the Observations and the DiagnosticReport of a report, in R4 JSON."""
    observations = [
        _observation(report, number, finding)
        for number, finding in enumerate(report.findings, 1)
        if told_of_today(finding)
    ]
    about: dict[str, Any] = {}
    if report.patient:
        yield {"resourceType": "Patient", "id": report.patient}
        about["subject"] = {"reference": f"Patient/{report.patient}"}
    if report.day:
        about["effectiveDateTime"] = report.day.isoformat()
    yield from (observation | about for observation in observations)
    whole: dict[str, Any] = {
        "resourceType": "DiagnosticReport",
        "id": report.report,
        "status": "unknown",  # whether the report was final is not known here
        "category": [_concept(_coding("http://terminology.hl7.org/CodeSystem/v2-0074", "RAD", "Radiology"))],
        "code": _concept(_coding(LOINC, "18748-4", "Diagnostic imaging study")),
    }
    if report.language:
        whole["language"] = report.language
    if observations:
        whole["result"] = [{"reference": f"Observation/{o['id']}"} for o in observations]
    yield whole | about


def _observation(report: ReportFindings, number: int, finding: Reported) -> dict[str, Any]:
    observation: dict[str, Any] = {
        "resourceType": "Observation",
        "id": f"{report.report}-{number}",
        "extension": [
            {
                "url": _DERIVATION,
                "extension": [
                    {"url": "reference", "valueReference": {"reference": f"DiagnosticReport/{report.report}"}},
                    {"url": "offset", "valueInteger": finding.start},
                    {"url": "length", "valueInteger": finding.end - finding.start},
                ],
            }
        ],
        "status": "preliminary",  # read by a program, verified by no one
        "category": [_concept(_coding(_CATEGORY, "imaging", "Imaging"))],
        "code": _coded(finding.concept),
        "valueCodeableConcept": _concept(_coding(SNOMED, *_PRESENCE.get(finding.assertion, _UNCERTAIN))),
        "method": {"text": "read from the report's text by rules"},
    }
    if finding.sites:
        observation["bodySite"] = _coded(finding.sites[0])
    components = list(_components(finding))
    if components:
        observation["component"] = components
    return observation


def _components(finding: Reported) -> Iterator[dict[str, Any]]:
    if finding.assertion == "uncertain":
        yield _component(
            _coding(DICOM, "111012", "Certainty of Finding"),
            valueQuantity={
                "value": round(100 * finding.certainty, 2),
                "unit": "%",
                "system": "http://unitsofmeasure.org",
                "code": "%",
            },
        )
    for site in finding.sites[1:]:
        yield _component(_coding(SNOMED, *_SITE), valueCodeableConcept=_coded(site))
    if finding.side:
        yield _component(
            _coding(SNOMED, *_LATERALITY), valueCodeableConcept=_concept(_coding(SNOMED, *_SIDES[finding.side]))
        )
    if finding.severity:
        known = _SEVERITIES.get(finding.severity)
        value = _concept(_coding(SNOMED, *known)) if known else {"text": finding.severity}
        yield _component(_coding(SNOMED, *_SEVERITY), valueCodeableConcept=value)
    for what, size in (("", finding.size_mm), ("prior", finding.prior_size_mm)):
        if size is not None:
            named = {"coding": [_coding(SNOMED, *_LENGTH)], "text": "earlier length"} if what else None
            quantity = {"value": size, "unit": "mm", "system": "http://unitsofmeasure.org", "code": "mm"}
            component = _component(_coding(SNOMED, *_LENGTH), valueQuantity=quantity)
            yield component | ({"code": named} if named else {})
    for name, text in (("number", finding.count), ("change since the prior examination", finding.change)):
        if text:
            yield {"code": {"text": name}, "valueString": text}


def _component(coding: dict[str, str], **value: Any) -> dict[str, Any]:
    return {"code": _concept(coding), **value}


def _coded(thing: Coded) -> dict[str, Any]:
    """The project's own id first, then what other vocabularies call it."""
    systems = ((RADLEX, thing.radlex), (SNOMED, thing.snomed), (MESH, thing.mesh))
    codings = [_coding(OWN, thing.id, thing.name), *({"system": s, "code": code} for s, code in systems if code)]
    return {"coding": codings, "text": thing.name}


def _concept(coding: dict[str, str]) -> dict[str, Any]:
    return {"coding": [coding]}


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}
