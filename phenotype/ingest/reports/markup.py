"""Reports in XML: Open-i, and the narrative of HL7's Clinical Document Architecture (CDA).

Read by defusedxml without document types: no entity is ever expanded, nothing outside the file is fetched.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from phenotype.executors import Refused
from phenotype.ingest.contents import Record, Records, day, sex_of
from phenotype.ingest.reports.attached import text_of
from phenotype.ingest.reports.text import joined, moment, records, tidy

MAX_DEPTH = 100
_UID = re.compile(r"[0-2](?:\.\d{1,40}){3,}")
_BLOCKS = frozenset({"paragraph", "item", "list", "tr", "br", "caption", "table", "title"})
_LEFT_OUT = frozenset({"renderMultiMedia", "footnoteRef"})


def read_xml(data: bytes) -> Records:
    """The report of an Open-i file, with the pictures it lists, or of a CDA document.

    Raises Refused: "bad_xml" (entities and document types included), "unknown_xml" for other documents.
    """
    root = parse(data)
    kind = _local(root)
    if kind == "eCitation":
        return _openi(root)
    if kind == "ClinicalDocument":
        return records("cda", [cda(root)])
    raise Refused("unknown_xml", "a document of a kind that is not read")


def parse(data: bytes) -> Any:
    """The root of a document that is not nested too deeply. Raises Refused("bad_xml")."""
    from defusedxml.ElementTree import XMLParser

    parser = XMLParser(forbid_dtd=True, forbid_entities=True, forbid_external=True)
    try:
        parser.feed(data)
        root = parser.close()
    except Exception as error:  # expat's errors, defusedxml's and those of codecs have no base of their own
        raise Refused("bad_xml", f"the document cannot be parsed ({type(error).__name__})") from None
    level, depth = [root], 0
    while level:  # what follows walks down by calling itself
        level, depth = [child for element in level for child in element], depth + 1
        if depth > MAX_DEPTH:
            raise Refused("bad_xml", "elements nested too deeply")
    return root


def _openi(root: Any) -> Records:
    """https://openi.nlm.nih.gov/faq: a report of Indiana University, and the pictures that belong to it."""
    uid = root.find(".//uId")
    uid = root.find(".//uid") if uid is None else uid
    accession = "" if uid is None else (uid.get("id") or uid.text or "").strip()
    parts = [(p.get("Label", "").upper(), "".join(p.itertext())) for p in root.iter("AbstractText")]
    order = ("INDICATION", "COMPARISON", "FINDINGS", "IMPRESSION")
    parts.sort(key=lambda part: order.index(part[0]) if part[0] in order else len(order))
    # as the tables of the same reports have it: each section that says something under its heading
    text = tidy("\n".join(f"{label}: {words.strip()}" for label, words in parts if words.strip()))
    report = Record(
        1,
        accession=accession,
        text=text,
        key=accession,
        refusal="no_key" if not accession else "" if text else "no_text",
    )
    names = dict.fromkeys(i.get("id", "").strip() for i in root.iter("parentImage"))
    pictures = [
        Record(number, accession=accession, image=f"{name}.png", refusal="" if accession else "no_key")
        for number, name in enumerate(filter(None, names), 2)
    ]
    return records("openi", [report, *pictures])


def cda(root: Any) -> Record:
    """The narrative of a CDA document: each section under its title, and whose it is by PS3.20 of DICOM."""
    order, event, person = _path(root, "inFulfillmentOf/order"), _path(root, "documentationOf/serviceEvent"), None
    role = _path(root, "recordTarget/patientRole")
    person = _path(role, "patient")
    number = _path(role, "id")
    accession = _of(_path(order, "accessionNumber"), "extension") or _of(_path(order, "id"), "extension")
    uid = next(
        (v for one in _children(event, "id") for v in (_of(one, "extension"), _of(one, "root")) if _is_uid(v)), ""
    )
    seen = day((_of(_path(event, "effectiveTime/low"), "value") or _of(_path(event, "effectiveTime"), "value"))[:8])
    revision = _of(_path(root, "relatedDocument"), "typeCode")
    text, refusal = _body(_path(root, "component"))
    issued = moment(_of(_path(root, "effectiveTime"), "value"))
    return Record(
        1,
        accession=accession,
        study_uid=uid,
        patient=_of(number, "extension"),
        issuer=_of(number, "assigningAuthorityName") or _of(number, "root"),
        name="^".join(filter(None, (_words(_path(person, f"name/{part}")).strip() for part in ("family", "given")))),
        birth=_of(_path(person, "birthTime"), "value"),
        sex=sex_of(_of(_path(person, "administrativeGenderCode"), "code")),
        date=seen.isoformat() if seen else "",
        text=text,
        key=_of(_path(root, "setId"), "extension")
        or _of(_path(root, "id"), "extension")
        or _of(_path(root, "id"), "root"),
        status={"RPLC": "corrected", "APND": "addendum"}.get(revision, ""),
        issued=issued,
        language=_of(_path(root, "languageCode"), "code").lower(),
        refusal="no_key" if not (accession or uid) else refusal,
    )


def _body(component: Any) -> tuple[str, str]:
    """The text, or why there is none."""
    body = _path(component, "structuredBody")
    if body is not None:
        text = tidy(joined(block for part in _children(body, "component") for block in _sections(part)))
        return text, "" if text else "no_text"
    held = _path(component, "nonXMLBody/text")
    if held is None:
        return "", "no_text"
    content = _words(held)
    try:
        if held.get("representation") == "B64":
            return text_of(base64.b64decode("".join(content.split()), validate=True), held.get("mediaType", "")), ""
        text = tidy(content)
    except (binascii.Error, ValueError):
        return "", "bad_base64"
    except Refused as error:
        return "", error.code
    return text, "" if text else "no_text"


def _sections(component: Any) -> Iterator[tuple[str, str]]:
    for section in _children(component, "section"):
        title = " ".join(_words(_path(section, "title")).split()).rstrip(":").upper()
        lines = (" ".join(line.split()) for line in _words(_path(section, "text")).split("\n"))
        yield title, "\n".join(line for line in lines if line)
        for part in _children(section, "component"):
            yield from _sections(part)


def _words(element: Any) -> str:
    """All text of an element, blocks on lines of their own."""
    if element is None or _local(element) in _LEFT_OUT:
        return ""
    parts = [element.text or ""]
    for child in element:
        block = "\n" if _local(child) in _BLOCKS else " " if _local(child) in ("td", "th") else ""
        parts += [block, _words(child), block, child.tail or ""]
    return "".join(parts)


def _local(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(element: Any, name: str) -> list[Any]:
    return [] if element is None else [child for child in element if _local(child) == name]


def _path(element: Any, names: str) -> Any:
    """The first element along a path of local names, or None."""
    for name in names.split("/"):
        element = next(iter(_children(element, name)), None)
    return element


def _of(element: Any, attribute: str) -> str:
    return "" if element is None else (element.get(attribute) or "").strip()


def _is_uid(text: str) -> bool:
    return bool(_UID.fullmatch(text))
