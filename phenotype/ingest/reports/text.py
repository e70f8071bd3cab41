"""Bytes as text: encodings tried and told, markup taken off, and what all readers say in the same words."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import fields, replace
from html import unescape
from typing import Any

from phenotype.executors import Refused
from phenotype.ingest.contents import Record, Records, day

MAX_VALUE = 1000  # characters of a number, a name, a key
MAX_TEXT = 2_000_000  # characters of one report: a thick book

# What Windows, DOS and the old Mac wrote; the first of those that make the most sense is taken
_EIGHT_BITS = ("cp1252", "iso8859-15", "cp850", "mac-roman")
_LETTERS = frozenset("äöüßéèêëàâáåæçñóòôøœíìîïúùûÿãõÄÖÜÉÈÊÀÂÁÅÆÇÑÓØŒÍÎÚ")
_INNER = re.compile(  # bytes beyond ASCII inside a word, at its end or at its beginning
    rb"(?<=[A-Za-z])[\x80-\xff]{1,3}(?=[A-Za-z])|(?<=[a-z]{2})[\x80-\xff](?=[ .,\r\n])"
    rb"|(?<=[ \n])[\x80-\xff](?=[a-z]{2})"
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")  # and halves of characters, as JSON can hold them

_SHORT = tuple(f.name for f in fields(Record) if f.type == "str" and f.name not in ("text", "refusal"))

_BLANKS = re.compile(r"\s+")
_TAG = re.compile(r"<(/?)(!?[A-Za-z][\w:-]{0,40})[^<>]*>")
_LONG_NUMBER = re.compile(r"&#x?[0-9A-Fa-f]{9,};?")  # no character, and more digits than Python converts
_BLOCKS = frozenset(
    {"address", "br", "caption", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "item", "li"}
    | {"list", "ol", "p", "paragraph", "pre", "section", "table", "tr", "ul"}
)
_HIDDEN = frozenset({"head", "script", "style", "template", "title"})

_STATUS = {
    "preliminary": "preliminary p r i registered partial prelim provisional draft unverified unsigned vorläufig "
    "provisorisch wet-read wetread",
    "final": "final f finalized finalised signed verified approved complete completed validated freigegeben vidiert "
    "befundet definitiv",
    "corrected": "corrected c amended correction revised korrigiert",
    "addendum": "addendum a appended addended nachtrag",
    "cancelled": "cancelled canceled x w d deleted entered-in-error retracted withdrawn void storniert",
}
_STATUS_OF = {word: status for status, words in _STATUS.items() for word in words.split()}


def decode(data: bytes) -> tuple[str, str]:
    """The text and its encoding: by its mark or strictly UTF-8 or UTF-16, then by what Windows, DOS and Mac write.

    Raises Refused("encoding") where the bytes contradict their own mark.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding), encoding
            except UnicodeDecodeError:
                raise Refused("encoding", "the text contradicts its own byte order mark") from None
    wide = _wide(data)
    for encoding in (wide,) if wide else ("utf-8-sig", *_likely(data), "latin-1"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise Refused("encoding", "the text is in none of the encodings that are tried")


def _wide(data: bytes) -> str:
    """UTF-16 without a mark: text of Western letters has a zero in every other byte."""
    head = data[:400]
    if len(head) < 8 or b"\0" not in head:
        return ""
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.7 * half and odd < 0.1 * half else ""


def _likely(data: bytes) -> list[str]:
    """The encodings of eight bits, those first in which the bytes inside words are letters; cp1252 where it is even."""
    inner = Counter(bytes([byte]) for run in _INNER.findall(data[:1_000_000]) for byte in run)

    def letters(encoding: str) -> int:
        return sum(count for byte, count in inner.items() if byte.decode(encoding, "replace") in _LETTERS)

    return sorted(_EIGHT_BITS, key=letters, reverse=True) if inner else list(_EIGHT_BITS[:1])


def tidy(text: str) -> str:
    """Lines ended by "\\n", no control characters, no blanks around. Raises Refused: "not_text", "too_large"."""
    if len(text) > MAX_TEXT:
        raise Refused("too_large", "a report longer than two million characters")
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n").replace("\v", "\n").strip("\ufeff\x1a")
    controls = len(_CONTROLS.findall(text))
    if controls > 4 and controls * 20 > len(text):
        raise Refused("not_text", "more than one control character in twenty")
    return (_CONTROLS.sub("", text) if controls else text).strip()


def status_of(word: str) -> str:
    """preliminary, final, corrected, addendum, cancelled, or empty for what is none of them."""
    return _STATUS_OF.get(word.strip().lower().replace("_", "-"), "")


def moment(text: str) -> str:
    """A DICOM, HL7 or ISO date, with its time where there is one, as ISO text that sorts; empty for anything else.

    A zone is left out: the hour is that of the house.
    """
    parts = re.match(r"\s*(\d{4}[.\-/]?\d{2}[.\-/]?\d{2}|\d{1,2}\.\d{1,2}\.\d{4})[T\s_]*(.*)", text, re.DOTALL)
    found = day(parts[1]) if parts else None
    if not parts or not found:
        return ""
    time = re.match(
        r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?!\d)|([01]\d|2[0-3])([0-5]\d)([0-5]\d)?(?!\d)", parts[2]
    )
    hour, minute, second = (time.groups()[:3] if time[1] else time.groups()[3:]) if time else ("", "", "")
    return f"{found.isoformat()}T{hour:0>2}:{minute}:{second or '00'}" if time else found.isoformat()


def told(what: str, rows: Iterable[Record], *notes: str) -> str:
    """One line on what was understood: how many records, how many refused and why. Notes must hold no content."""
    rows = list(rows)
    refused = Counter(row.refusal for row in rows if row.refusal)
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items())) or "none refused"
    return ", ".join(part for part in (what, *notes, f"{len(rows)} records", counts) if part)


def records(what: str, rows: Iterable[Record], *notes: str) -> Records:
    """Records with the line that tells of them, their values without what no database takes."""
    rows = tuple(map(cleaned, rows))
    return Records(rows, told(what, rows, *notes))


def cleaned(row: Record) -> Record:
    """The record without control characters and endless values outside its text."""
    values = {name: getattr(row, name) for name in _SHORT}
    if all(len(value) <= MAX_VALUE and value.isprintable() for value in values.values()):
        return row
    clean: dict[str, Any] = {name: _CONTROLS.sub("", value)[:MAX_VALUE].strip() for name, value in values.items()}
    return replace(row, **clean)


def joined(blocks: Iterable[tuple[str, str]]) -> str:
    """Blocks of text in their order, each new heading before its block; a block alone stands without one.

    A heading that the block itself starts with is not said twice.
    """
    kept = [(heading.strip(), text.strip()) for heading, text in blocks if text.strip()]
    if len({heading for heading, _ in kept}) < 2:
        return "\n".join(text for _, text in kept)
    lines, last = [], ""
    for heading, text in kept:
        new = heading and heading != last and not text.upper().startswith(heading)
        lines.append(f"{heading}: {text}" if new else text)
        last = heading
    return "\n".join(lines)


def of_html(page: str) -> str:
    """The words of an HTML page, a line for each paragraph, list item and row of a table.

    Each character is looked at once, whatever the page: html.parser takes minutes for a megabyte of "<a ".
    """
    parts: list[str] = []
    page = page[: 8 * MAX_TEXT]
    position, exact = 0, False
    while position < len(page):
        start = page.find("<", position)
        start = len(page) if start < 0 else start
        words = page[position:start]
        parts.append(words if exact else _BLANKS.sub(" ", words))
        if page.startswith("<!--", start):
            end = page.find("-->", start)
            position = len(page) if end < 0 else end + 3
            continue
        tag = _TAG.match(page, start)
        if tag is None:
            parts.append(page[start : start + 1])
            position = start + 1
            continue
        name, position = tag[2].lower(), tag.end()
        if name in _HIDDEN and not tag[1]:
            closing = re.compile(f"</{name}", re.IGNORECASE).search(page, position)
            position = closing.start() if closing else len(page)
        exact = not tag[1] if name == "pre" else exact
        parts.append("\n" if name in _BLOCKS else " " if name in ("td", "th") else "")
    text = unescape(_LONG_NUMBER.sub("", "".join(parts)))
    lines = (re.sub(r"[ \t\xa0]+", " ", line).strip() for line in text.split("\n"))
    return tidy("\n".join(line for line in lines if line))
