"""Delivered tables: reports as rows of a CSV, TSV or sheet, and lists of pictures that have no header of their own.

Read here: a RIS dump (accession number, text), Open-i (one table of uid, filename and projection, one of uid, findings
and impression), PadChest (image, study, patient, report and projection in one row). Columns are found by their usual
names or named by the caller; encoding and delimiter are guessed, and what was guessed is told.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import PurePosixPath

from phenotype.executors import Refused
from phenotype.ingest.contents import Record, Records, age, day, sex_of
from phenotype.ingest.reports.text import cleaned, decode, moment, status_of, tidy, told

__all__ = ["COLUMNS", "Table", "decode", "find_columns", "looks_like_table", "read_rows", "read_table", "summary"]

MAX_CELL = 10_000_000  # characters
MAX_COLUMNS = 16_384  # as in a sheet of Excel
DELIMITERS = (",", ";", "\t", "|", "^", "~", "\x1f", "\x01")
TITLES = 20  # lines that may stand above the header
PICTURES = frozenset({".png", ".jpg", ".jpeg"})

# what a column means -> its usual names in lower case without anything but letters and digits, the best first
COLUMNS: dict[str, tuple[str, ...]] = {
    "accession": (
        "accessionnumber", "accession", "accessionno", "accessionid", "studyid", "studyuid", "studyinstanceuid",
        "examid", "uid", "reportid", "caseid", "auftragsnummer", "anforderungsnummer", "untersuchungsnummer",
    ),
    "study_uid": ("studyinstanceuid", "studyuid", "dicomstudyuid"),
    "patient": (
        "patientid", "patientnumber", "subjectid", "mrn", "patient", "subject", "patientennummer", "patientenid",
    ),
    "date": ("studydate", "studydatedicom", "examdate", "date", "untersuchungsdatum"),
    "image": ("imageid", "filename", "imagefile", "imagename", "imagepath", "imageindex", "image", "file", "path"),
    "view": ("projection", "viewposition", "view", "position"),
    "sex": ("patientsexdicom", "patientsex", "sex", "gender", "patientgender", "geschlecht"),
    "age": ("patientage", "age", "ageyears"),
    "birth": ("patientbirth", "patientbirthdate", "birthdate", "dateofbirth", "dob", "birthyear", "geburtsdatum"),
    "text": ("reporttext", "report", "text", "reading", "narrative", "reportbody", "fulltext", "befundtext", "befund"),
    "indication": ("indication", "clinicalindication", "history", "clinicalhistory", "clinicalinformation"),
    "technique": ("technique", "examination", "procedure"),
    "comparison": ("comparison", "comparisons"),
    "findings": ("findings", "finding"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "beurteilung"),
    "issuer": ("issuerofpatientid", "patientidissuer", "assigningauthority", "issuer"),
    "name": ("patientname", "patientsname", "patientfullname", "patientenname"),
    "modality": ("modality", "modalitydicom", "modalities"),
    "key": ("reportid", "reportnumber", "reportuid", "reportkey", "documentid", "noteid", "resultid"),
    "status": ("reportstatus", "resultstatus", "documentstatus", "status"),
    "issued": (
        "issued", "reportdatetime", "reportdate", "reportedat", "resultdatetime", "resultdate", "signeddate",
        "verifieddate", "finalizeddate", "charttime",
    ),
    "time": ("reporttime", "issuedtime", "resulttime", "signedtime"),
    "language": ("language", "reportlanguage", "lang"),
}  # fmt: skip
SECTIONS = ("indication", "technique", "comparison", "findings", "impression")  # in a report's usual order


@dataclass(frozen=True, slots=True, kw_only=True)
class Table(Records):
    """A table as it was understood."""

    encoding: str
    delimiter: str
    columns: dict[str, str] = field(repr=False)  # meaning -> name in the header


def read_table(data: bytes, columns: Mapping[str, str] | None = None) -> Table:
    """The rows of a CSV or TSV. `columns` names columns (meaning -> header) where the usual names do not fit.

    Every row of the file becomes a Record: one without key is refused as "no_key", one with neither text nor picture as
    "no_text", one with more or fewer cells than the header as "cells". Raises Refused: "encoding", "no_header",
    "no_columns" (neither text nor pictures), "column" (a named one is not there), "bad_table" (a cell without end, too
    many columns).
    """
    text, encoding = decode(data)
    hint = re.match(r"\ufeff?sep=(.)\r?\n", text)  # as Excel writes and wants it
    text = text[hint.end() :] if hint else text.removeprefix("\ufeff")
    delimiter = hint[1] if hint else _delimiter(text[:65536], columns or {})
    limit = csv.field_size_limit(MAX_CELL)
    try:
        lines = [cells for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if any(cells)]
    except csv.Error:
        raise Refused("bad_table", "a cell without end, or larger than ten million characters") from None
    finally:
        csv.field_size_limit(limit)
    rows, found = read_rows(lines, columns or {})
    table = Table(rows, encoding=encoding, delimiter=delimiter, columns=found)
    return replace(table, told=summary(table))


def read_rows(lines: list[list[str]], columns: Mapping[str, str]) -> tuple[tuple[Record, ...], dict[str, str]]:
    """The records of a table that is split into cells, and which columns were found (meaning -> name in the header).

    The header is the first of the first lines that names what is needed; titles above it are passed over.
    Raises Refused: "no_header", "no_columns", "column", "bad_table" (more than 16,384 columns).
    """
    if not lines:
        raise Refused("no_header", "an empty table")
    reason: Refused | None = None
    for position in range(min(TITLES, len(lines))):
        header, body = lines[position], lines[position + 1 :]
        try:
            found = find_columns(header, columns, body)
        except Refused as error:
            reason = reason or error
            continue
        width = len(header)
        rows = tuple(cleaned(_row(number, cells, found, width)) for number, cells in enumerate(body, 1))
        return rows, {what: header[i].strip() for what, i in found.items()}
    raise reason or Refused("no_header", "an empty table")


def find_columns(header: list[str], named: Mapping[str, str], body: list[list[str]]) -> dict[str, int]:
    """Meaning -> position in the header. Raises Refused("no_columns" | "column") where that makes no table of reports
    or pictures, and Refused("bad_table") for more than 16,384 columns."""
    if len(header) > MAX_COLUMNS:
        raise Refused("bad_table", "more columns than a table has")
    found = _find_columns(header, named, body)
    if "text" not in found and not any(s in found for s in SECTIONS) and "image" not in found:
        raise Refused("no_columns", "neither a column of report text nor one of pictures: name them")
    if not ({"accession", "study_uid", "image"} & set(found) or {"patient", "date"} <= set(found)):
        raise Refused("no_columns", "no column that says which study a row belongs to: name it")
    return found


def looks_like_table(data: bytes) -> bool:
    """Whether the first line names columns: one of the examination, and one of text."""
    text = decode(data[:8192] if data[:8192].isascii() else data)[0][:8192].removeprefix("\ufeff")
    first = next((line for line in text.splitlines() if line.strip()), "")
    header = next(csv.reader([first], delimiter=_delimiter(text, {})), [])
    found = _find_columns(header, {}, []) if len(header) > 1 else {}
    return "accession" in found and any(what in found for what in ("text", *SECTIONS))


def _delimiter(text: str, columns: Mapping[str, str]) -> str:
    """The delimiter under which most columns of the header are known, then the one that makes most columns."""
    first = next((line for line in text.splitlines() if line.strip()), "")

    def known(delimiter: str) -> tuple[int, int]:
        header = next(csv.reader([first], delimiter=delimiter), [])
        return len(_find_columns(header, {k: v for k, v in columns.items() if v in header}, [])), len(header)

    return max(DELIMITERS, key=known)


def _find_columns(header: list[str], named: Mapping[str, str], body: list[list[str]]) -> dict[str, int]:
    """Meaning -> position in the header; a column has one meaning."""
    names = [name.strip() for name in header]
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(re.sub(r"[^a-z0-9]", "", name.lower()), []).append(i)
    found: dict[str, int] = {}
    for what, name in named.items():
        if what not in COLUMNS:
            raise Refused("column", f"'{what}' is no meaning of a column; use one of {', '.join(COLUMNS)}")
        if name not in names:
            raise Refused("column", f"the table has no column for '{what}' under the name that was given")
        found[what] = names.index(name)
    for what, usual in COLUMNS.items():
        if what in found:
            continue
        for name in usual:
            positions = [i for i in places.get(name, []) if i not in found.values()]
            # Open-i calls the kind of examination "image": a column of pictures holds names of pictures
            if positions and (what != "image" or _holds_pictures(body, positions[0])):
                found[what] = positions[0]
                break
    return found


def _holds_pictures(body: list[list[str]], position: int) -> bool:
    values = [cells[position] for cells in body[:200] if position < len(cells) and cells[position].strip()]
    pictures = sum(PurePosixPath(v.strip().replace("\\", "/")).suffix.lower() in PICTURES for v in values)
    return not body or pictures * 2 > len(values)


def _row(number: int, cells: list[str], found: Mapping[str, int], width: int) -> Record:
    if len(cells) < width or any(cell.strip() for cell in cells[width:]):  # a delimiter at the end of a line is usual
        return Record(number, refusal="cells")
    value = {what: cells[i].strip() for what, i in found.items()}
    sections = [(name, value[name]) for name in SECTIONS if value.get(name)]
    whole = value.get("text", "")
    if whole:  # a conclusion in a column of its own belongs to the report, unless the text has it
        sections = [part for part in sections if part[0] == "impression" and _same(part[1]) not in _same(whole)]
    try:
        text = tidy("\n".join([whole] * bool(whole) + [f"{name.upper()}: {words}" for name, words in sections]))
    except Refused as error:
        return Record(number, refusal=error.code)
    path = PurePosixPath(value.get("image", "").replace("\\", "/"))
    # the folders of another machine say nothing here
    elsewhere = path.is_absolute() or ".." in path.parts or any(":" in part for part in path.parts[:1])
    image = path.name if elsewhere else path.as_posix()
    image = "" if image == "." else image
    accession, born, seen = value.get("accession", ""), value.get("birth", ""), day(value.get("date", ""))
    key = accession or value.get("study_uid", "")
    known = key or (value.get("patient") and seen)  # what finds the study
    refusal = "no_key" if not (known or image) else "no_text" if not (text or image) else ""
    if text and not known:
        refusal = "no_key"
    return Record(
        number,
        accession=key or PurePosixPath(image).stem,  # a picture without a study is a study of its own
        study_uid=value.get("study_uid", ""),
        issuer=value.get("issuer", ""),
        name=value.get("name", ""),
        modality=value.get("modality", "").upper(),
        key=value.get("key", ""),
        status=status_of(value.get("status", "")),
        issued=moment(f"{value.get('issued', '')} {value.get('time', '')}"),
        language=value.get("language", "").lower(),
        patient=value.get("patient", ""),
        text=text,
        image=image,
        date=seen.isoformat() if seen else "",
        sex=sex_of(value.get("sex", "")),
        age_years=age(value.get("age", ""), _born(born), seen),
        view=_view(value.get("view", "")),
        birth=born,
        refusal=refusal,
    )


def _same(words: str) -> str:
    """Words without what differs between two copies of them."""
    return " ".join(words.split()).casefold()


def _born(text: str) -> date | None:
    year = re.fullmatch(r"(\d{4})(?:\.0)?", text)  # PadChest tells the year only, as a float
    return date(int(year[1]), 7, 1) if year and year[1] != "0000" else day(text)


def _view(text: str) -> str:
    """The word in capitals, with the usual short forms written out."""
    word = text.strip().upper()
    return {"L": "LATERAL", "LL": "LATERAL", "LAT": "LATERAL", "AP_HORIZONTAL": "AP"}.get(word, word)


def summary(table: Table) -> str:
    """What was understood, in one line without any content: encoding, delimiter, columns, rows, refusals."""
    return told(
        table.encoding, table.rows, f"delimiter {table.delimiter!r}" if table.delimiter else "", "/".join(table.columns)
    )
