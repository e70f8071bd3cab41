"""Reports as DICOM objects: structured reports of any template, and documents in an envelope (PDF, CDA).

A structured report is a tree of named items (PS3.3 C.17.3). Its text is what a reader is shown: the items in their
order, containers as headings. Who observed is left out, since that is personal data and no finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from pydicom.multival import MultiValue

from phenotype.executors import Refused
from phenotype.imaging import encoding
from phenotype.ingest.contents import Ignored, Record, Records, age, day, sex_of
from phenotype.ingest.reports.attached import text_of
from phenotype.ingest.reports.markup import cda, parse
from phenotype.ingest.reports.text import joined, moment, records, status_of, tidy

MAX_DEPTH = 40  # of items in items
MAX_ITEMS = 100_000

_REPORTS = frozenset({
    "AcquisitionContextSRStorage", "BasicTextSRStorage", "Comprehensive3DSRStorage", "ComprehensiveSRStorage",
    "ComprehensiveSRStorageTrial", "DetailSRStorageTrial", "EnhancedSRStorage", "ExtensibleSRStorage",
    "SimplifiedAdultEchoSRStorage", "TextSRStorageTrial",
})  # fmt: skip
_ENVELOPES = frozenset({"EncapsulatedCDAStorage", "EncapsulatedPDFStorage"})
_OTHERS = frozenset({
    "AudioSRStorageTrial", "ChestCADSRStorage", "ColonCADSRStorage", "EnhancedXRayRadiationDoseSRStorage",
    "ImplantationPlanSRStorage", "KeyObjectSelectionDocumentStorage", "MacularGridThicknessAndVolumeReportStorage",
    "MammographyCADSRStorage", "PatientRadiationDoseSRStorage", "PerformedImagingAgentAdministrationSRStorage",
    "PlannedImagingAgentAdministrationSRStorage", "ProcedureLogStorage", "RadiopharmaceuticalRadiationDoseSRStorage",
    "SpectaclePrescriptionReportStorage", "WaveformAnnotationSRStorage", "XRayRadiationDoseSRStorage",
})  # fmt: skip
CLASSES = _REPORTS | _ENVELOPES | _OTHERS

# titles of documents that are no reports though their class could hold one: dose, CAD, manifests
_NO_REPORTS = {"113701": "dose", "113811": "dose", "113500": "dose", "111036": "cad", "112000": "cad", "112220": "cad"}
_HEADINGS = {"FINDING": "FINDINGS", "IMPRESSIONS": "IMPRESSION", "CONCLUSIONS": "CONCLUSION", "HISTORIES": "HISTORY"}
_GENERAL = frozenset(
    {"TEXT", "REPORT", "REPORT TEXT", "NARRATIVE", "DIAGNOSTIC IMAGING REPORT", "DESCRIPTION", "COMMENT"}
)
_CONTEXT = frozenset({"HAS OBS CONTEXT", "HAS ACQ CONTEXT", "SELECTED FROM"})
_LANGUAGE = frozenset({"121049", "121045", "121046"})


@dataclass(slots=True)
class _Counter:
    left: int = MAX_ITEMS


def read_document(class_name: str, where: encoding.Layout) -> Records:
    """The report in a DICOM object of one of CLASSES.

    Raises `Ignored("not_a_report:<class>")` for dose, CAD, key objects and the like, `Refused`: "bad_header",
    "bad_structure" (nested too deeply), "missing_tag:<keyword>". A report without text is a refused record.
    """
    if class_name not in _REPORTS | _ENVELOPES:
        raise Ignored(f"not_a_report:{class_name}", "a document that is no report")
    with encoding.quiet():
        return _document(class_name, where)


def _document(class_name: str, where: encoding.Layout) -> Records:
    read = encoding.dataset(where)
    title = _code(_first(read, "ConceptNameCodeSequence"))[0]
    if title in _NO_REPORTS:
        raise Ignored(f"not_a_report:{_NO_REPORTS[title]}", "a document that is no report")
    row = _header(read, where)
    try:
        if class_name in _ENVELOPES:
            row = _enveloped(row, read)
        else:
            text = tidy(joined(_blocks(read, "", 0, _Counter())))
            row = replace(row, text=text, language=_language(read), refusal="" if text else "no_text")
    except Refused as error:
        row = replace(row, refusal=error.code)
    if not (row.accession or row.study_uid or (row.patient and row.date)):
        row = replace(row, refusal="no_key")
    return records("sr" if class_name in _REPORTS else "enveloped", [row])


def _header(read: Any, where: encoding.Layout) -> Record:
    request, replaced = _first(read, "ReferencedRequestSequence"), _referenced(read, "PredecessorDocumentsSequence")
    evidence = {study for study, _ in _referenced(read, "CurrentRequestedProcedureEvidenceSequence")} - {""}
    study_uid, seen, born = (
        _text(read, "StudyInstanceUID"),
        day(_text(read, "StudyDate")),
        _text(read, "PatientBirthDate"),
    )
    if len(evidence) == 1:  # a report may be filed in a study of its own: what it is about counts
        study_uid = evidence.pop()
    issued = _text(read, "ContentDate") or _text(read, "InstanceCreationDate")
    time = _text(read, "ContentTime") if _text(read, "ContentDate") else _text(read, "InstanceCreationTime")
    return Record(
        1,
        accession=_text(read, "AccessionNumber") or _text(request, "AccessionNumber"),
        study_uid=study_uid,
        patient=_text(read, "PatientID"),
        issuer=_text(read, "IssuerOfPatientID"),
        name=_text(read, "PatientName"),
        birth=born,
        sex=sex_of(_text(read, "PatientSex")),
        age_years=age(_text(read, "PatientAge"), day(born), seen),
        date=seen.isoformat() if seen else "",
        key=next((uid for _, uid in replaced if uid), "") or _text(read, "SOPInstanceUID") or where.sop_instance,
        status=_status(read, bool(replaced)),
        issued=moment(f"{issued}{time}"),
    )


def _status(read: Any, replaces: bool) -> str:
    """What the flags say. A document that is complete and verified by nobody may be either: nothing is said."""
    flag = status_of(_text(read, "PreliminaryFlag"))
    if not flag and _text(read, "CompletionFlag").upper() == "PARTIAL":
        return "preliminary"
    if not flag and _text(read, "VerificationFlag").upper() == "VERIFIED":
        flag = "final"
    return "corrected" if replaces and flag == "final" else flag


def _referenced(read: Any, keyword: str) -> list[tuple[str, str]]:
    """Study and object of each reference in a hierarchical sequence of references."""
    return [
        (_text(study, "StudyInstanceUID"), _text(instance, "ReferencedSOPInstanceUID"))
        for study in _items(read, keyword)
        for series in _items(study, "ReferencedSeriesSequence")
        for instance in _items(series, "ReferencedSOPSequence")
    ]


def _enveloped(row: Record, read: Any) -> Record:
    """Raises Refused for a document without readable text."""
    content = read.get("EncapsulatedDocument")
    if not content:
        raise Refused("missing_tag:EncapsulatedDocument", "an envelope without a letter")
    length = _text(read, "EncapsulatedDocumentLength")
    data = bytes(content)[: int(length)] if length.isdecimal() and int(length) else bytes(content)
    media_type = _text(read, "MIMETypeOfEncapsulatedDocument").lower()
    if "xml" in media_type or data.lstrip()[:5] == b"<?xml":
        letter = cda(parse(data.rstrip(b"\0 ")))
        return replace(
            row,
            accession=row.accession or letter.accession,
            text=letter.text,
            status=row.status or letter.status,
            language=letter.language,
            refusal="" if letter.text else "no_text" if letter.refusal == "no_key" else letter.refusal,
        )
    return replace(row, text=text_of(data, media_type or "application/pdf"))


def _blocks(item: Any, heading: str, depth: int, count: _Counter) -> Iterator[tuple[str, str]]:
    """Heading and text of everything below an item, in reading order."""
    if depth > MAX_DEPTH:
        raise Refused("bad_structure", "items nested too deeply")
    for child in _items(item, "ContentSequence"):
        count.left -= 1
        if count.left < 0:
            raise Refused("bad_structure", "too many items")
        relation, kind = _text(child, "RelationshipType").upper(), _text(child, "ValueType").upper()
        if relation in _CONTEXT or (relation == "HAS CONCEPT MOD" and kind != "CONTAINER"):
            continue
        if "ReferencedContentItemIdentifier" in child:  # the item itself stands at its own place
            continue
        name = _heading(_code(_first(child, "ConceptNameCodeSequence"))[1])
        if kind == "CONTAINER":
            yield from _blocks(child, name or heading, depth + 1, count)
            continue
        text = _said(child, kind)
        if text and kind == "TEXT":
            section = heading or name
            other = heading and name not in (heading, *_GENERAL) and not text.upper().startswith(name)
            yield section, f"{name.capitalize()}: {text}" if other and name else text
        elif text:
            yield heading, f"{name.capitalize()}: {text}" if name else text
        yield from _blocks(child, heading or name, depth + 1, count)


def _heading(meaning: str) -> str:
    words = " ".join(meaning.upper().split()).rstrip(":")
    return "" if words in _GENERAL or len(words) > 80 else _HEADINGS.get(words, words)


def _said(item: Any, kind: str) -> str:
    """The value of one item as words. Pointers, coordinates and names of people say nothing here."""
    if kind == "TEXT":
        return _text(item, "TextValue")
    if kind == "CODE":
        return _with_modifiers(item, _code(_first(item, "ConceptCodeSequence"))[1])
    if kind == "NUM":
        measured = _first(item, "MeasuredValueSequence")
        unit, meaning = _code(_first(measured, "MeasurementUnitsCodeSequence"))
        unit = "" if unit in ("1", "") or unit.startswith("{") else unit if len(unit) < 12 else meaning
        value = _text(measured, "NumericValue")
        return _with_modifiers(item, f"{value} {unit}".strip()) if value else ""
    if kind == "DATE":
        found = day(_text(item, "Date"))
        return found.isoformat() if found else ""
    if kind == "DATETIME":
        return moment(_text(item, "DateTime")).replace("T", " ")
    return _text(item, "Time")[:4] if kind == "TIME" else ""


def _with_modifiers(item: Any, value: str) -> str:
    """A value with what narrows it down: "Nodule (Left, Upper lobe)"."""
    said = [
        _code(_first(child, "ConceptCodeSequence"))[1] or _text(child, "TextValue")
        for child in _items(item, "ContentSequence")
        if _text(child, "RelationshipType").upper() == "HAS CONCEPT MOD"
    ]
    said = [words for words in said if words]
    return f"{value} ({', '.join(said)})" if value and said else value


def _language(read: Any) -> str:
    for child in _items(read, "ContentSequence"):
        if _code(_first(child, "ConceptNameCodeSequence"))[0] in _LANGUAGE:
            return _code(_first(child, "ConceptCodeSequence"))[0].lower()
    return ""


def _code(item: Any) -> tuple[str, str]:
    """Code and meaning."""
    value = _text(item, "CodeValue") or _text(item, "LongCodeValue") or _text(item, "URNCodeValue")
    return value, _text(item, "CodeMeaning")


def _items(item: Any, keyword: str) -> list[Any]:
    try:
        found = item.get(keyword) if item is not None else None
        return list(found) if found is not None and not isinstance(found, str | bytes) else []
    except Exception:  # pydicom parses on demand, and raises whatever comes on damaged items
        return []


def _first(item: Any, keyword: str) -> Any:
    return next(iter(_items(item, keyword)), None)


def _text(item: Any, keyword: str) -> str:
    """The value as text, the first of several (of texts all, since a backslash may stand in them)."""
    try:
        value = item.get(keyword) if item is not None else None
        if isinstance(value, MultiValue):
            value = "\\".join(map(str, value)) if keyword == "TextValue" else value[0] if value else None
        return "" if value is None else str(value).replace("\0", "").strip()
    except Exception:  # an unknown charset, a broken number: pydicom raises whatever comes
        return ""
