"""The outer shape of HL7 v2: messages in a file, their characters, their segments, and the escapes inside a field.

Chapter 2 of the standard, read as senders write it: any line end, MLLP blocks or none, batches or none, text with line
ends inside a field, a charset that is declared wrongly or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from phenotype.executors import Refused
from phenotype.ingest.reports.text import decode

Segment = list[str]

_AROUND = b"\0\x0b\x1c\r\n\t "
_HEADER = re.compile(rb"MSH(?=[^A-Za-z0-9\s])")
_ALONE = frozenset({"NTE", "OBR", "OBX", "ORC", "PID", "PV1", "PV2", "ZDS"})  # segments that may come without any field
_NUMBER = re.compile(r"[+-]?\d+")
_CHARSETS = {
    "ascii": "ascii", "iso ir6": "ascii", "us-ascii": "ascii", "unicode utf-8": "utf-8", "utf-8": "utf-8",
    "utf8": "utf-8", "iso ir192": "utf-8", "unicode": "utf-8", "unicode utf-16": "utf-8", "unicode utf-32": "utf-8",
    "iso ir14": "shift_jis", "shift_jis": "shift_jis", "iso ir87": "iso2022_jp_2", "iso ir159": "iso2022_jp_2",
    "gb 18030-2000": "gb18030", "gb18030": "gb18030", "ks x 1001": "euc_kr", "big-5": "big5", "big5": "big5",
    "windows-1252": "cp1252", "cp1252": "cp1252", "iso ir100": "iso8859-1", "iso ir101": "iso8859-2",
    "iso ir144": "iso8859-5", "windows-1251": "cp1251", "windows-1250": "cp1250",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Syntax:
    """The delimiters that a message declares of itself, and the encoding of its characters."""

    field: str
    component: str
    repetition: str
    escape: str
    subcomponent: str
    encoding: str

    def plain(self, text: str) -> str:
        """The text with its escapes resolved; what is no escape stays as it stands."""
        if not self.escape or self.escape not in text:
            return text
        text = _escapes(self.escape).sub(self._meant, text)
        # escaped twice on its way: nobody writes of line breaks in a report
        return re.sub(r"\\\.br\\", "\n", text, flags=re.IGNORECASE) if "\\." in text else text

    def _meant(self, found: re.Match[str]) -> str:
        code = found[1]
        kind, rest = code[0].upper(), code[1:]
        if kind == ".":
            return _command(rest)
        if kind == "X":
            return _characters(rest, self.encoding)
        letters = {"F": self.field, "S": self.component, "R": self.repetition, "E": self.escape}
        return letters.get(kind, self.subcomponent if kind == "T" else "")


@lru_cache(maxsize=64)
def _escapes(escape: str) -> re.Pattern[str]:
    mark = re.escape(escape)
    commands = r"\.(?i:br|sp|in|ti|sk|ce|fi|nf)[ ]?[+-]?\d{0,3}"
    characters = r"[Xx](?:[0-9A-Fa-f]{2})+|[CM][0-9A-Fa-f]{4,6}|Z\w{0,20}"
    return re.compile(rf"{mark}([FSRTEHN]|{commands}|{characters}){mark}")


def _command(text: str) -> str:
    name, number = text[:2].lower(), _NUMBER.search(text)
    count = min(abs(int(number[0])), 200) if number else 1
    if name in ("br", "ce"):
        return "\n"
    if name == "sp":
        return "\n" * min(count, 5)
    return " " * count if name in ("sk", "in", "ti") and count and number else ""


def _characters(digits: str, encoding: str) -> str:
    data = bytes.fromhex(digits)
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        return data.decode("latin-1")


def messages(data: bytes) -> Iterator[bytes]:
    """The messages of a file, each from its MSH on, without framing and batch headers. Bytes that belong to no message
    come as they are."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in data[:200]:
        data = decode(data)[0].lstrip("\ufeff").encode("utf-8", "replace")
    data = data.removeprefix(b"\xef\xbb\xbf")
    # a header begins a line; those of files and batches become segments that nobody asks for
    starts = [at for at in (found.start() for found in _HEADER.finditer(data)) if _begins(data, at)]
    before = data[: starts[0]] if starts else data
    if before.strip(_AROUND) and not before.strip(_AROUND).startswith((b"FHS", b"BHS")):
        yield before
    if not starts:
        return
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        yield data[start:end].rstrip(_AROUND)


def _begins(data: bytes, at: int) -> bool:
    before = data[max(0, at - 8) : at].rstrip(b" \t")[-1:]
    return at == 0 or before in (b"\r", b"\n", b"\x0b", b"\x1c")


def parse(message: bytes) -> tuple[Syntax, list[Segment], str]:
    """Delimiters, segments (fields by their number, MSH too), and what was told of the charset: its name, or
    "<name> for <declared name>" where the declared one does not fit.

    Raises Refused("bad_message") where there is no header to go by.
    """
    first = re.split(rb"[\r\n]", message, maxsplit=1)[0]
    if first[:3] != b"MSH" or len(first) < 8 or first[3:4].isalnum():
        raise Refused("bad_message", "no message header")
    fields = first.split(first[3:4])
    declared = fields[17].decode("ascii", "replace") if len(fields) > 17 else ""
    text, encoding, told = _decoded(message, declared)
    if len(text) < 8:
        raise Refused("bad_message", "no message header")
    signs = text[4:9].split(text[3])[0]
    component, repetition, escape, sub = (signs[i : i + 1] or usual for i, usual in enumerate(("^", "~", "", "&")))
    syntax = Syntax(text[3], component, repetition, escape, sub, encoding)
    segments: list[Segment] = []
    separator = syntax.field
    inside: list[str] = []  # lines that belong to the last field
    for line in text.replace("\r\n", "\r").replace("\n", "\r").split("\r"):
        name = line[:3]
        if line[3:4] == separator and name.isalnum() and name.isupper():
            _extend(segments, inside, separator)
            segments.append(line.split(separator))
        elif name in _ALONE and len(line.rstrip()) == 3:
            _extend(segments, inside, separator)
            segments.append([name])
        else:
            inside.append(line)
    _extend(segments, inside, separator)
    segments[0].insert(1, separator)  # the separator itself is the first field of MSH
    return syntax, segments, told


def _extend(segments: list[Segment], inside: list[str], separator: str) -> None:
    """Give a segment the lines that followed it, since a line end may stand inside a field."""
    if inside:
        head, *more = "\n".join(inside).split(separator)
        segments[-1][-1] += f"\n{head}"
        segments[-1] += more
        inside.clear()


def _decoded(message: bytes, declared: str) -> tuple[str, str, str]:
    """The text, its encoding, and what is told of it."""
    names = [_charset(name) for name in re.split(r"[~\\^]", declared) if name.strip()]
    if message.isascii() and b"\x1b" not in message:
        # escapes of bytes are meant in the declared encoding
        return message.decode("ascii"), next((n for n in reversed(names) if n != "ascii"), "latin-1"), "ascii"
    shifted = b"\x1b" in message  # ISO 2022
    if names and names[0].startswith("iso8859") and not shifted and _is_utf8(message):
        return message.decode("utf-8"), "utf-8", f"utf-8 for {names[0]}"  # by chance in one text of millions
    names.reverse()  # alternates hold the letters, the first is what everything starts with
    for name in sorted(names, key=lambda name: shifted and not name.startswith("iso2022")):
        try:
            text = message.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
        if name == "iso8859-1" and re.search("[\x80-\x9f]", text):
            break
        return text, name, name
    text, encoding = decode(message)
    encoding = encoding.removesuffix("-sig")
    return text, encoding, f"{encoding} for {names[-1] if names else 'nothing'}"


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


@lru_cache(maxsize=64)
def _charset(declared: str) -> str:
    """Python's name of a charset of table 0211 or of one written freely; "ascii" for what is unknown."""
    name = declared.strip().lower().replace("iso_ir", "iso ir").replace("iso ir ", "iso ir")
    part = re.fullmatch(r"(?:iso[ -_]?)?8859[/\-_](\d{1,2})", name)
    return f"iso8859-{int(part[1])}" if part and 1 <= int(part[1]) <= 16 else _CHARSETS.get(name, "ascii")
