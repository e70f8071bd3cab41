"""FHIR DiagnosticReport, R4 and R5: one resource, a Bundle, or the lines of a bulk export (NDJSON).

Whose report it is may stand in other resources (Patient, ImagingStudy, ServiceRequest): they are looked up in the same
file and among what a resource contains. A patient's logical id is never taken for a record number.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from phenotype.executors import Refused
from phenotype.ingest.contents import Ignored, Record, Records, day, sex_of
from phenotype.ingest.reports.attached import text_of
from phenotype.ingest.reports.text import decode, moment, of_html, records, status_of, tidy

Resource = dict[str, Any]

MAX_DEPTH = 5  # of bundles in bundles
_HELPERS = frozenset({"Patient", "ImagingStudy", "ServiceRequest"})
# what else a bulk export holds; the name of anything else is not repeated, since it may be anything
_OTHERS = _HELPERS | {"Condition", "Device", "DocumentReference", "Encounter", "Endpoint", "Group", "Immunization"}
_OTHERS |= {"Location", "Media", "MedicationRequest", "Observation", "OperationOutcome", "Organization", "Practitioner"}
_OTHERS |= {"PractitionerRole", "Procedure", "Provenance", "Specimen", "Task"}
_UID = re.compile(r"(?:urn:oid:)?([0-2](?:\.\d{1,40}){3,})")


def read_fhir(data: bytes) -> Records:
    """The reports of a file, in their order. A line or resource that cannot be read is a refused record.

    Raises `Ignored("not_a_report:<type>")` where there are sound resources of other types only; Refused("bad_json").
    """
    rows: list[Record] = []
    reports: list[tuple[int, Resource]] = []
    known: dict[str, Resource] = {}
    kinds: Counter[str] = Counter()
    for found in _documents(decode(data)[0]):
        if found is None:
            rows.append(Record(len(rows) + len(reports) + 1, refusal="bad_json"))
            continue
        for place, resource in _resources(found):
            kind = resource["resourceType"]
            kinds[kind if kind in _OTHERS else "other"] += 1
            if kind == "DiagnosticReport":
                reports.append((len(rows) + len(reports) + 1, resource))
            elif kind in _HELPERS:
                known[f"{kind}/{_text(resource.get('id'))}"] = resource
                if place:
                    known[place] = resource
    for number, resource in reports:
        try:
            row = _report(resource, known)
        except Refused as error:
            row = Record(0, refusal=error.code)
        rows.append(replace(row, number=number))
    others = sum(kinds.values()) - len(reports)
    if not reports and kinds:
        raise Ignored(f"not_a_report:{kinds.most_common(1)[0][0]}", "other resources")
    if not kinds:
        raise Refused("bad_json" if rows else "unknown_json", "no resource in the file")
    rows.sort(key=lambda row: row.number)
    return records("fhir", rows, f"{others} other resources" if others else "")


def _documents(text: str) -> Iterator[Any]:
    """The JSON values of a file: one, or one a line; None for each that is none."""
    try:
        yield json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return
    lines = [line for line in text.split("\n") if line.strip()]
    if not any(line.rstrip().endswith(("}", "]")) and line.lstrip()[:1] in "{[" for line in lines):
        yield None  # one broken document, not many
        return
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        yield found if isinstance(found, dict | list) else None


def _resources(found: Any, place: str = "", depth: int = 0) -> Iterator[tuple[str, Resource]]:
    """Resources with the address that a bundle gives them."""
    if depth > MAX_DEPTH:
        return
    if isinstance(found, list):
        for one in found:
            yield from _resources(one, "", depth + 1)
    elif isinstance(found, dict) and isinstance(found.get("resourceType"), str):
        if found["resourceType"] == "Bundle":
            for entry in _all(found.get("entry")):
                yield from _resources(entry.get("resource"), _text(entry.get("fullUrl")), depth + 1)
        else:
            yield place, found


def _all(value: Any) -> list[Resource]:
    """The objects in a list, or the one that stands there instead of a list."""
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, dict)]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18 else ""


def _object(value: Any) -> Resource:
    return value if isinstance(value, dict) else {}


def _codes(concept: Any) -> set[str]:
    """The codes of a CodeableConcept, or of a Coding as R4 has it in places."""
    found = _object(concept)
    return {_text(coding.get("code")) for coding in [*_all(found.get("coding")), found]} - {""}


def _report(resource: Resource, known: dict[str, Resource]) -> Record:
    near = {f"#{_text(one.get('id'))}": one for one in _all(resource.get("contained"))}

    def resolve(reference: Resource) -> Resource:
        address = _text(reference.get("reference"))
        return near.get(address) or known.get(address) or known.get("/".join(address.split("/")[-2:])) or {}

    def identifiers(*references: Any) -> list[Resource]:
        found = [one for reference in references for one in _all(reference)]
        return [i for one in found for i in [*_all(one.get("identifier")), *_all(resolve(one).get("identifier"))]]

    own, orders = _all(resource.get("identifier")), identifiers(resource.get("basedOn"))
    studies = [*_all(resource.get("imagingStudy")), *_all(resource.get("study"))]
    images = identifiers(studies)
    study_uid = next((uid[1] for i in [*images, *orders, *own] if (uid := _is_uid(i))), "")
    accession = (
        next((_text(i.get("value")) for i in [*own, *orders, *images] if _is_accession(i)), "")
        or next((_text(i.get("value")) for i in orders if not _is_uid(i)), "")
        or next((_text(i.get("value")) for i in own if not _is_uid(i) and not study_uid), "")
    )
    key = next((_text(i.get("value")) for i in own if not _is_accession(i)), "") or _text(resource.get("id"))
    number, issuer, person = _patient(_object(resource.get("subject")), resolve)
    begun = [_text(resolve(study).get("started")) for study in studies]
    seen = [
        _text(resource.get("effectiveDateTime")),
        _text(_object(resource.get("effectivePeriod")).get("start")),
        *begun,
    ]
    date = next((found for text in seen if (found := day(text[:10]))), None)
    text, refusal = _words(resource)
    return Record(
        0,
        accession=accession,
        study_uid=study_uid,
        patient=number,
        issuer=issuer,
        name=_name(person),
        birth=_text(person.get("birthDate")),
        sex=sex_of(_text(person.get("gender"))),
        date=date.isoformat() if date else "",
        modality=_modality([resolve(study) for study in studies]),
        text=text,
        key=key or accession,
        status=status_of(_text(resource.get("status"))),
        issued=moment(_text(resource.get("issued"))) or moment(_text(_object(resource.get("meta")).get("lastUpdated"))),
        language=_text(resource.get("language")).lower(),
        refusal="no_key" if not (accession or study_uid or (number and date)) else refusal,
    )


def _is_accession(identifier: Resource) -> bool:
    return "ACSN" in _codes(identifier.get("type")) or "accession" in _text(identifier.get("system")).lower()


def _is_uid(identifier: Resource) -> re.Match[str] | None:
    value = _text(identifier.get("value"))
    said = _text(identifier.get("system")).lower() == "urn:dicom:uid" or value.startswith("urn:oid:")
    return _UID.fullmatch(value) if said else None


def _patient(subject: Resource, resolve: Any) -> tuple[str, str, Resource]:
    """Record number, who gave it, and the Patient resource where it is at hand."""
    person = resolve(subject)
    found = [*_all(subject.get("identifier")), *_all(person.get("identifier"))]
    found.sort(key=lambda i: "MR" not in _codes(i.get("type")))  # the medical record number first, else as they stand
    first = next((i for i in found if _text(i.get("value"))), {})
    return _text(first.get("value")), _text(first.get("system")), person


def _name(person: Resource) -> str:
    names = _all(person.get("name"))
    if not names:
        return ""
    given = names[0].get("given")
    given = " ".join(filter(None, map(_text, given if isinstance(given, list) else [given])))
    family = _text(names[0].get("family"))
    return f"{family}^{given}".rstrip("^") if family or given else _text(names[0].get("text"))


def _modality(studies: list[Resource]) -> str:
    found = {code for study in studies for modality in _all(study.get("modality")) for code in _codes(modality)}
    return found.pop() if len(found) == 1 else ""


def _words(resource: Resource) -> tuple[str, str]:
    """The text, or why there is none: the attached report with the conclusion where that says more, else what there
    is of the two, else the narrative."""
    conclusion = tidy(resource["conclusion"]) if isinstance(resource.get("conclusion"), str) else ""
    attached, refusal = "", ""
    # plain text rather than a page, a page rather than a PDF
    for form in sorted(_all(resource.get("presentedForm")), key=lambda f: _rank(_text(f.get("contentType")))):
        try:
            attached = _attached(form)
            break
        except Refused as error:
            refusal = refusal or error.code
    if attached or conclusion:
        said = not conclusion or " ".join(conclusion.split()) in " ".join(attached.split())
        return (attached if said else f"{attached}\nIMPRESSION: {conclusion}" if attached else conclusion), ""
    narrative = _object(resource.get("text")).get("div")
    text = of_html(narrative) if isinstance(narrative, str) else ""
    return text, "" if text else refusal or "no_text"


def _rank(media_type: str) -> int:
    order = ("text/plain", "html", "pdf")
    return next((number for number, name in enumerate(order) if name in media_type), len(order))


def _attached(form: Resource) -> str:
    """Raises Refused: "url_only", "bad_base64", and what `text_of` raises."""
    data = form.get("data")
    if not isinstance(data, str) or not data.strip():
        raise Refused("url_only" if form.get("url") else "no_text", "the report itself is not in the resource")
    try:
        content = base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Refused("bad_base64", "an attachment that is not base64") from None
    media_type = _text(form.get("contentType"))
    charset = re.search(r"charset\s*=\s*[\"']?([\w.:-]+)", media_type, re.IGNORECASE)
    return text_of(content, media_type, charset[1] if charset else "")
