"""HL7 v2 results (ORU): each order of each message with observations is a report.

Where the values stand follows chapters 4 and 7 of HL7 v2.5.1 and the radiology profiles of IHE: the accession number in
IPC-1 or OBR-18, else the filler's or placer's number; the status in OBR-25, else in OBX-11.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache

from phenotype.executors import Refused
from phenotype.ingest.contents import Ignored, Record, Records, day, sex_of
from phenotype.ingest.reports.attached import text_of
from phenotype.ingest.reports.hl7_syntax import Segment, Syntax, messages, parse
from phenotype.ingest.reports.text import joined, moment, records, status_of, tidy

# the suffixes of radiology in OBX-3 (table 0432 of old) and LOINC codes of sections
SECTIONS = {
    "IMP": "IMPRESSION", "GDT": "FINDINGS", "ADT": "ADDENDUM", "REC": "RECOMMENDATION", "59776-5": "FINDINGS",
    "18782-3": "FINDINGS", "19005-8": "IMPRESSION", "55110-1": "IMPRESSION", "18834-2": "COMPARISON",
    "11329-0": "HISTORY", "55108-5": "INDICATION", "18785-6": "INDICATION", "55111-5": "TECHNIQUE",
    "18783-1": "RECOMMENDATION", "55107-7": "ADDENDUM",
}  # fmt: skip
MAX_ORDERS = 1000  # of one message
MODALITIES = frozenset({"CR", "CT", "DX", "IO", "MG", "MR", "NM", "OT", "PT", "PX", "RF", "US", "XA"})
# what else a file may be made of; the name of anything else is not repeated, since it may be anything
_OTHER_TYPES = frozenset({"ACK", "ADT", "BAR", "DFT", "MDM", "MFN", "OMG", "OMI", "ORM", "ORR", "OML", "SIU", "VXU"})
_TEXTS, _CODED = frozenset({"", "TX", "FT", "ST"}), frozenset({"CE", "CWE", "CNE", "CF", "IS", "ID"})
_NUMBERS, _DATES = frozenset({"NM", "SN"}), frozenset({"DT", "TM", "TS", "DTM"})
_STUDY_UIDS = frozenset({"113014", "110180", "0020000D", "0020,000D"})
_COUNTED = [str(number) for number in range(1, 1000)]
_UID = re.compile(r"[0-2](?:\.\d{1,40}){3,}")
_WITHDRAWN = frozenset({"D", "W", "X"})
_ABOUT = re.compile(r"(?<![\s(\[])~|~(?!\s?\d)")  # a repetition, unless it says "about", as in "a node of ~5 mm"


@dataclass(slots=True)
class _Order:
    """An OBR with what belongs to it."""

    patient: Segment
    common: Segment  # ORC
    request: Segment  # OBR
    observations: list[Segment] = field(default_factory=list)  # OBX, and the NTE behind them
    notes: list[Segment] = field(default_factory=list)  # NTE behind the OBR
    study: Segment = field(default_factory=list)  # ZDS
    imaging: Segment = field(default_factory=list)  # IPC


@dataclass(frozen=True, slots=True)
class _Reading:
    text: str
    status: str
    study_uid: str
    refusal: str


def read_hl7(data: bytes) -> Records:
    """The reports of a file of messages, in their order. A message that cannot be read is a refused record.

    Raises `Ignored("not_a_report:<type>")` where there are sound messages of other types only.
    """
    rows: list[Record] = []
    charsets: Counter[str] = Counter()
    others: Counter[str] = Counter()
    count = 0
    for count, message in enumerate(messages(data), 1):  # noqa: B007
        try:
            syntax, segments, charset = parse(message)
            charsets[charset] += 1
            kind = _type(syntax, segments[0])
            if kind == "ORU":
                rows += _reports(syntax, segments)
            else:
                others[kind if kind in _OTHER_TYPES else "other"] += 1
        except Refused as error:
            rows.append(Record(0, refusal=error.code))
    if others and not rows:
        raise Ignored(f"not_a_report:{others.most_common(1)[0][0]}", "messages of other types")
    if not rows:
        raise Refused("bad_message", "no message in the file")
    numbered = [replace(row, number=number) for number, row in enumerate(rows, 1)]
    notes = [f"{n} messages in {charset}" for charset, n in charsets.most_common()]
    return records("hl7", numbered, *notes, f"{sum(others.values())} messages of other types" if others else "")


def _type(syntax: Syntax, header: Segment) -> str:
    """The type of a message. Raises Refused("bad_message") where it says none."""
    name = _part(syntax, header, 9)
    if not (name.isalnum() and name.isascii() and len(name) == 3):
        raise Refused("bad_message", "a message that does not say what it is")
    return name


def _value(segment: Segment, number: int) -> str:
    """A field, empty where it is absent or said to be empty ("")."""
    value = segment[number].strip() if len(segment) > number else ""
    return "" if value == '""' else value


def _part(syntax: Syntax, segment: Segment, number: int, component: int = 1) -> str:
    """A component of the first repetition of a field, without escapes."""
    value = _value(segment, number)
    if not value:
        return ""
    parts = value.split(syntax.repetition, 1)[0].split(syntax.component)
    part = parts[component - 1].split(syntax.subcomponent)[0] if len(parts) >= component else ""
    return "" if part == '""' else syntax.plain(part).strip()


def _reports(syntax: Syntax, segments: list[Segment]) -> list[Record]:
    orders = _orders(segments)
    if not orders:
        raise Refused("bad_message", "a result without an order")
    if len(orders) > MAX_ORDERS:
        raise Refused("too_large", "a message of more than a thousand orders")
    readings = [_reading(syntax, order) for order in orders]
    rows: dict[tuple[str, ...], Record] = {}
    for number, order in enumerate(orders):
        reading = readings[number]
        if not order.observations and not order.notes and len(orders) > 1:  # what is read together shares the report
            others = [*range(number + 1, len(orders)), *range(number - 1, -1, -1)]
            near = (o for o in others if orders[o].observations and orders[o].patient is order.patient)
            reading = next((readings[other] for other in near), reading)
        row = _record(syntax, segments[0], order, reading)
        same = (row.accession, row.study_uid, row.patient, row.key, row.status, row.refusal)
        first = rows.setdefault(same, row)
        if row.text not in first.text:  # one report in several parts
            rows[same] = replace(first, text=f"{first.text}\n{row.text}")
    return list(rows.values())


def _orders(segments: list[Segment]) -> list[_Order]:
    orders: list[_Order] = []
    patient: Segment = []
    common: Segment = []
    for segment in segments:
        name = segment[0]
        if name == "OBX":
            if orders:
                orders[-1].observations.append(segment)
        elif name == "PID":
            patient, common = segment, []
        elif name == "ORC":
            common = segment
        elif name == "OBR":
            orders.append(_Order(patient, common, segment))
            common = []
        elif orders and name == "NTE" and not common:
            (orders[-1].observations if orders[-1].observations else orders[-1].notes).append(segment)
        elif orders and name == "ZDS":
            orders[-1].study = segment
        elif orders and name == "IPC":
            orders[-1].imaging = segment
    studies = [order.study for order in orders if order.study]
    if len(studies) == 1 and all(order.patient is patient for order in orders):
        for order in orders:
            order.study = studies[0]
    return orders


def _reading(syntax: Syntax, order: _Order) -> _Reading:
    """What the observations of an order say, in their order."""
    parts: list[tuple[str, bool, list[str]]] = []  # heading, whether it still has its escapes, lines
    documents: list[str] = []
    statuses: set[str] = set()
    study_uid = ""
    last = code = meaning = section = ""
    # the words of a report that is withdrawn as a whole stay: without any there would be no version that says so
    withdrawn = frozenset() if _value(order.request, 25) in _WITHDRAWN else _WITHDRAWN
    for segment in _sorted(order.observations):
        if segment[0] == "NTE":
            heading, escaped, words = (parts[-1][0] if parts else ""), True, _value(segment, 3)
        else:
            size = len(segment)
            identifier, value = segment[3] if size > 3 else "", segment[5] if size > 5 else ""
            status, kind = segment[11].strip() if size > 11 else "", segment[2].strip() if size > 2 else ""
            statuses.add(status)
            if status in withdrawn or value == '""':
                continue
            if identifier != last or not code:
                last, (code, meaning, section) = identifier, _named(syntax, identifier)
            heading = section
            uid = _part(syntax, segment, 5) if code in _STUDY_UIDS else ""
            if uid:
                study_uid = uid if _UID.fullmatch(uid) else study_uid
                continue
            if kind in _TEXTS:
                escaped, words = True, value
            elif kind == "ED":
                documents.append(value)
                continue
            else:
                heading, escaped, words = "", False, _measured(syntax, segment, kind, meaning)
                if not words:
                    continue
        if parts and parts[-1][:2] == (heading, escaped):
            parts[-1][2].append(words)
        else:
            parts.append((heading, escaped, [words]))
    blocks = ((heading, "\n".join(lines), escaped) for heading, escaped, lines in parts)
    text = joined((heading, _lines(syntax, words) if escaped else words) for heading, words, escaped in blocks)
    if not text:
        text = "\n".join(_lines(syntax, _value(note, 3)) for note in order.notes).strip()
    refusal = ""
    if not text and documents:
        text, refusal = _attached(syntax, documents)
    try:
        text = tidy(text)
    except Refused as error:
        text, refusal = "", error.code
    return _Reading(text, _status(_value(order.request, 25), statuses), study_uid, refusal)


def _sorted(observations: list[Segment]) -> list[Segment]:
    """By set id where the ids tell an order, else by sub-id within one kind of observation, else as they came."""
    if [s[1] for s in observations if len(s) > 3] == _COUNTED[: len(observations)]:
        return observations
    marks = [(s[1], s[4] if len(s) > 4 else "", s[3]) for s in observations if s[0] == "OBX" and len(s) > 3]
    if len(marks) < 2 or len(marks) != len(observations):
        return observations
    ids = [m[0].strip() for m in marks]
    if len(set(ids)) == len(ids) and all(i.isdecimal() and len(i) < 9 for i in ids):
        numbers = [int(i) for i in ids]
    elif len({m[1:] for m in marks}) == len(marks) and all(m[1].strip().isdecimal() and len(m[1]) < 9 for m in marks):
        kinds = list(dict.fromkeys(m[2] for m in marks))
        numbers = [kinds.index(m[2]) * 1_000_000 + int(m[1]) for m in marks]
    else:
        return observations
    return [observations[i] for i in sorted(range(len(numbers)), key=numbers.__getitem__)]


@lru_cache(maxsize=512)
def _named(syntax: Syntax, identifier: str) -> tuple[str, str, str]:
    """Code, meaning and heading of an observation."""
    parts = identifier.split(syntax.component)
    codes = [code.strip() for code in parts[0].split(syntax.subcomponent)]
    meaning = syntax.plain(parts[1]).strip() if len(parts) > 1 else ""
    known = [SECTIONS[code.upper()] for code in [*reversed(codes), *parts[3:4]] if code.upper() in SECTIONS]
    general = not meaning or len(meaning) > 60 or "report" in meaning.lower() or "befund" in meaning.lower()
    return codes[0].upper(), meaning, known[0] if known else "" if general else meaning.upper()


def _lines(syntax: Syntax, value: str) -> str:
    """A text, a line for each repetition."""
    if syntax.repetition in value:
        value = _ABOUT.sub("\n", value) if syntax.repetition == "~" else value.replace(syntax.repetition, "\n")
    return syntax.plain(value).rstrip()


def _measured(syntax: Syntax, segment: Segment, kind: str, meaning: str) -> str:
    """A code, number or date as a line with its name. Names and addresses of people, pointers: nothing."""
    parts = [syntax.plain(part).strip() for part in _value(segment, 5).split(syntax.component)]
    if kind in _CODED:
        value = (parts[1] if len(parts) > 1 and parts[1] else "") or (parts[8] if len(parts) > 8 else "") or parts[0]
    elif kind in _NUMBERS:
        value = f"{''.join(parts)} {_part(syntax, segment, 6)}".strip()
    else:
        value = moment(parts[0]) if kind in _DATES else ""
    return f"{meaning}: {value}" if meaning and value else value


def _attached(syntax: Syntax, documents: list[str]) -> tuple[str, str]:
    """The text of the first document that has one, or why none has."""
    refusal = "no_text"
    for document in documents:
        _, kind, subtype, coding, data = [*document.split(syntax.component, 4), "", "", "", ""][:5]
        media_type = {"PDF": "application/pdf", "HTML": "text/html", "RTF": "text/rtf"}.get(subtype.strip().upper())
        media_type = media_type or ("text/plain" if kind.strip().upper() in ("TEXT", "TX", "FT", "ST") else kind)
        try:
            if coding.strip().upper() == "BASE64":
                content = base64.b64decode(re.sub(r"\s|\\\.br\\", "", data), validate=True)
            elif coding.strip().upper() == "HEX":
                content = bytes.fromhex(data)
            else:
                content = syntax.plain(data).encode("utf-8", "replace")
            return text_of(content, media_type), ""
        except (binascii.Error, ValueError):
            refusal = "bad_base64"
        except Refused as error:
            refusal = error.code
    return "", refusal


def _status(declared: str, observed: set[str]) -> str:
    if declared:
        return status_of(declared)
    observed = observed - {""}
    for letters, status in ((("C",), "corrected"), (("P", "R", "I", "S"), "preliminary"), (("F",), "final")):
        if observed & set(letters):
            return status
    return "cancelled" if observed and observed <= _WITHDRAWN else ""


def _record(syntax: Syntax, header: Segment, order: _Order, reading: _Reading) -> Record:
    request, common, patient = order.request, order.common, order.patient
    filler = _part(syntax, request, 3) or _part(syntax, common, 3)
    accession = (
        _part(syntax, order.imaging, 1)
        or _part(syntax, request, 18)
        or filler
        or _part(syntax, request, 2)
        or _part(syntax, common, 2)
    )
    uid = _part(syntax, order.study, 1) or _part(syntax, order.imaging, 3) or reading.study_uid
    number, issuer = _patient(syntax, patient)
    seen, modality = day(_part(syntax, request, 7)[:8]), _part(syntax, request, 24).upper()
    known = accession or uid or (number and seen)  # what finds the study
    return Record(
        0,
        accession=accession,
        study_uid=uid if _UID.fullmatch(uid) else "",
        patient=number,
        issuer=issuer,
        name="^".join(syntax.plain(p).strip() for p in _first(syntax, patient, 5).split(syntax.component)[:5]).rstrip(
            "^"
        ),
        birth=_part(syntax, patient, 7),
        sex=sex_of(_part(syntax, patient, 8)),
        date=seen.isoformat() if seen else "",
        modality=modality if modality in MODALITIES else "",
        text=reading.text,
        key=filler or accession,
        status=reading.status,
        issued=moment(_part(syntax, request, 22)) or moment(_part(syntax, header, 7)),
        language=_part(syntax, header, 19).lower(),
        refusal="no_key" if not known else "" if reading.text else reading.refusal or "no_text",
    )


def _first(syntax: Syntax, segment: Segment, number: int) -> str:
    return _value(segment, number).split(syntax.repetition, 1)[0]


def _patient(syntax: Syntax, segment: Segment) -> tuple[str, str]:
    """The record number and who gave it: the one that is called a medical record number, else the first."""
    found: list[tuple[bool, str, str]] = []
    for repetition in _value(segment, 3).split(syntax.repetition):
        parts = [*repetition.split(syntax.component), "", "", "", ""]
        number = syntax.plain(parts[0]).strip()
        if number and number != '""':
            issuer = syntax.plain(parts[3].split(syntax.subcomponent)[0]).strip()
            found.append((parts[4].strip().upper() != "MR", number, issuer))
    if not found:
        return _part(syntax, segment, 2), ""
    return min(found, key=lambda one: one[0])[1:]
