"""Rich Text Format as plain text: what a reader sees, without fonts, pictures, headers and footers.

Control words as in the RTF specification 1.9.1; each character is looked at once.
"""

from __future__ import annotations

import codecs
import re

from phenotype.executors import Refused
from phenotype.ingest.reports.text import tidy

MAX_DEPTH = 1000  # of groups in groups
_TOKEN = re.compile(
    rb"\\([A-Za-z]{1,32})(-?\d{1,10})? ?|\\'([0-9A-Fa-f]{2})|\\([^A-Za-z'])|([{}])|[\r\n]+|([^\\{}\r\n]+)|\\", re.DOTALL
)
_HIDDEN = frozenset(
    {b"fonttbl", b"colortbl", b"stylesheet", b"info", b"pict", b"header", b"headerl", b"headerr", b"headerf", b"footer"}
    | {b"footerl", b"footerr", b"footerf", b"footnote", b"fldinst", b"object", b"themedata", b"datastore", b"listtable"}
    | {
        b"listoverridetable",
        b"rsidtbl",
        b"generator",
        b"xmlnstbl",
        b"latentstyles",
        b"shpinst",
        b"bkmkstart",
        b"bkmkend",
    }
)
_WORDS = {
    b"par": "\n", b"line": "\n", b"sect": "\n", b"page": "\n", b"row": "\n", b"tab": "\t", b"cell": "\t",
    b"bullet": "•", b"endash": "–", b"emdash": "—", b"lquote": "‘", b"rquote": "’", b"ldblquote": "“",
    b"rdblquote": "”", b"emspace": " ", b"enspace": " ",
}  # fmt: skip
_SIGNS = {b"~": "\u00a0", b"_": "-", b"\\": "\\", b"{": "{", b"}": "}", b"\n": "\n", b"\r": "\n"}


def of_rtf(data: bytes) -> str:
    """The text. Raises Refused: "bad_rtf" (groups nested too deeply, not RTF at all), "not_text", "too_large"."""
    if not data.startswith(b"{\\rtf"):
        raise Refused("bad_rtf", "no rich text")
    page = "cp1252"
    parts: list[str] = []
    held = bytearray()  # bytes of the code page, since a character may have two
    hidden, width, skip = False, 1, 0
    groups: list[tuple[bool, int]] = []
    for found in _TOKEN.finditer(data):
        word, number, coded, sign, brace, plain = found.groups()
        if coded or plain:
            piece = bytes([int(coded, 16)]) if coded else plain
            dropped = min(skip, len(piece))
            skip -= dropped
            if not hidden:
                held += piece[dropped:]
            continue
        if held:
            parts.append(held.decode(page, "replace"))
            held.clear()
        if brace == b"{":
            groups.append((hidden, width))
            if len(groups) > MAX_DEPTH:
                raise Refused("bad_rtf", "groups nested too deeply")
        elif brace:
            hidden, width = groups.pop() if groups else (hidden, width)
        elif sign == b"*" or word in _HIDDEN:
            hidden = True
        elif word == b"ansicpg" and number:
            page = _page(number)
        elif word == b"uc" and number:
            width = max(0, min(int(number), 10))
        elif word == b"u" and number and not hidden:
            parts.append(chr(int(number) % 65536))
            skip = width
        elif not hidden:
            parts.append(_WORDS.get(word, "") if word else _SIGNS.get(sign or b"", ""))
    parts.append(held.decode(page, "replace"))
    # characters beyond the first 65,536 are written as two halves
    text = "".join(parts).encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    return tidy("\n".join(line.replace("\u00a0", " ").strip() for line in text.split("\n")))


def _page(number: bytes) -> str:
    name = f"cp{int(number)}"
    try:
        codecs.lookup(name)
    except LookupError:
        return "cp1252"
    return name
