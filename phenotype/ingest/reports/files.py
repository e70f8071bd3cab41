"""One report a file: text or PDF, whose name says which examination it is about."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import PurePosixPath

from phenotype.executors import Refused
from phenotype.ingest.contents import Ignored, Record, Records, day
from phenotype.ingest.reports.attached import of_pdf
from phenotype.ingest.reports.rtf import of_rtf
from phenotype.ingest.reports.text import decode, of_html, records, tidy

TEXTS = frozenset({".txt", ".text", ".rpt"})
_BESIDE = re.compile(  # what accompanies a delivery
    r"(read[-_ ]?me|licen[cs]e|copying|copyright|notice|change(s|log)|version|contents|disclaimer|terms|log|errors?|"
    r"(sha\d*|md5|check)-?sums?|manifest|index|dicomdir|requirements|notes_to_reader)\b.*"
)
_SHOUTED = frozenset({"README", "LICENSE", "LICENCE", "COPYING", "NOTICE", "CHANGELOG", "SHA256SUMS", "MD5SUMS"})
_UID = re.compile(r"[0-2](?:\.\d{1,40}){3,}")
_MIMIC = re.compile(r"(?:^|/)p\d\d/p(?P<patient>\d{8})/s(?P<accession>\d{8})\.txt$", re.IGNORECASE)
FIELDS = frozenset({"accession", "patient", "study_uid", "date", "key", "any"})


def is_accompanying(name: str) -> bool:
    """Whether a file's name says that it is a readme, a licence or a log."""
    path = PurePosixPath(name)
    suffix = path.suffix.lower()
    if not suffix:
        return path.name in _SHOUTED
    return suffix in (".log", ".md", ".rst", ".sha256", ".md5") or (
        suffix in TEXTS and bool(_BESIDE.fullmatch(path.stem.lower()))
    )


@lru_cache(maxsize=16)
def pattern(names: str) -> re.Pattern[str]:
    """The pattern of file names, as in "{patient}/{accession}.txt", as a regular expression for the end of a path.

    Raises Refused("names") where it names no examination or an unknown part.
    """
    parts = re.split(r"\{(\w*)\}", names.strip().replace("\\", "/").lstrip("/"))
    asked = parts[1::2]
    if not {"accession", "study_uid"} & set(asked) or not set(asked) <= FIELDS or len(asked) != len(set(asked)):
        raise Refused(
            "names", f"write names as in {{patient}}/{{accession}}.txt; of {', '.join(sorted(FIELDS))}, each once"
        )
    pieces = [
        re.escape(part).replace(r"\*", "[^/]*") if i % 2 == 0 else f"(?P<{part}>[^/]+?)" for i, part in enumerate(parts)
    ]
    return re.compile(f"(?:^|/){''.join(pieces)}$", re.IGNORECASE)


def named(name: str, names: str = "") -> dict[str, str]:
    """What a file's name says: accession, patient and so on. Without a pattern, the stem is the accession number.

    Raises Refused("no_key") where the name does not fit the pattern.
    """
    path = name.replace("\\", "/")
    fits = pattern(names).search(path) if names else _MIMIC.search(path)
    if names and not fits:
        raise Refused("no_key", "the name of the file does not fit the pattern")
    said = {what: value.strip() for what, value in fits.groupdict().items()} if fits else {}
    said.pop("any", "")
    if not fits:
        said["accession"] = PurePosixPath(path).stem.strip()
    if _UID.fullmatch(said.get("accession", "")):
        said.setdefault("study_uid", said["accession"])
    return said


def read_text(data: bytes, name: str, names: str = "") -> Records:
    """The one report of a text file.

    Raises `Ignored("accompanying_text")`, Refused: "not_text", "encoding", "no_text", "no_key".
    """
    if is_accompanying(name):
        raise Ignored("accompanying_text", "a text beside the reports")
    text, encoding = decode(data)
    if "\0" in text:
        raise Refused("not_text", "bytes that are no text")
    page = text.lstrip("\ufeff \r\n\t")[:9].lower()
    return _record(of_html(text) if page.startswith(("<!doctype", "<html")) else tidy(text), encoding, name, names)


def read_pdf(data: bytes, name: str, names: str = "") -> Records:
    """The one report of a PDF. Raises Refused as `read_text` and `of_pdf` do."""
    return _record(of_pdf(data), "pdf", name, names)


def read_rtf(data: bytes, name: str, names: str = "") -> Records:
    """The one report of a file of rich text. Raises Refused as `read_text` and `of_rtf` do."""
    return _record(of_rtf(data.lstrip()), "rtf", name, names)


def _record(text: str, kind: str, name: str, names: str) -> Records:
    if not text:
        raise Refused("no_text", "an empty report")
    said = named(name, names)
    seen = day(said.get("date", ""))
    accession = said.get("accession") or said.get("study_uid", "")
    row = Record(
        1,
        accession=accession,
        study_uid=said.get("study_uid", ""),
        patient=said.get("patient", ""),
        date=seen.isoformat() if seen else "",
        key=said.get("key", ""),
        text=text,
    )
    return records(kind, [row])
