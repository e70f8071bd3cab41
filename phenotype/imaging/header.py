"""What the elements of a data set say: converted one by one, when asked for.

A data set parsed as a whole costs a millisecond and more; the forty values that are wanted of it, a twentieth of that.
The values are those that pydicom gives, which the tests compare on real and on generated objects, with one exception:
text that does not follow its declared character set is decoded by the sets that senders forget to declare.
"""

from __future__ import annotations

import functools
import math
import struct

from pydicom.charset import convert_encodings, decode_bytes, default_encoding
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.values import TEXT_VR_DELIMS

from phenotype.imaging.encoding import Index, Layout, items, quiet

_CHARSET = 0x00080005
_BY_CHARSET = frozenset({b"LO", b"LT", b"PN", b"SH", b"ST", b"UC", b"UT"})  # PS3.5 6.1.2.3: all other text is ASCII
_WHOLE = frozenset({b"LT", b"ST", b"UR", b"UT"})  # a backslash in these is a backslash
_TEXT = _BY_CHARSET | _WHOLE | frozenset({b"AE", b"AS", b"CS", b"DA", b"DS", b"DT", b"IS", b"TM", b"UI"})
_NUMBERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i", b"FL": "f", b"FD": "d", b"UV": "Q", b"SV": "q"}
_CONVERTED = _TEXT | _NUMBERS.keys()


class Header:
    """The values of one data set, or of one item of a sequence, by keyword of the dictionary.

    charset  the value of SpecificCharacterSet that holds where the elements themselves have none: that of the data set
             around an item
    """

    __slots__ = ("charset", "found", "where")

    def __init__(self, where: Layout, found: Index, charset: bytes = b"") -> None:
        self.where, self.found = where, found
        span = found.spans.get(_CHARSET)
        self.charset = charset if span is None else where.body[span[1] : span[2]]

    def __contains__(self, keyword: str) -> bool:
        return _known(keyword)[0] in self.found.spans

    def text(self, keyword: str) -> str:
        """The first value as text, stripped; empty where it is absent or unsound: all text is optional."""
        tag, kind = _known(keyword)
        span = self.found.spans.get(tag)
        if span is None:
            return ""
        raw = self.where.body[span[1] : span[2]]
        if (span[0] or kind) in _TEXT and raw.isascii() and not (b"\\" in raw or b"\x1b" in raw or b"=" in raw):
            return raw.decode("ascii").replace("\0", "").strip()  # as nearly all of it is
        values = self.texts(keyword)
        return values[0] if values else ""

    def texts(self, keyword: str) -> tuple[str, ...]:
        """All values as text, each stripped; none of what is neither text nor numbers."""
        tag, kind = _known(keyword)
        span = self.found.spans.get(tag)
        if span is None or span[1] == span[2]:
            return ()
        raw = self.where.body[span[1] : span[2]]
        vr = span[0] if span[0] in _CONVERTED else kind  # the dictionary's where it is implicit, UN, or unheard of
        if vr == b"US or SS":
            vr = b"SS" if self.text("PixelRepresentation") == "1" else b"US"
        if vr in _NUMBERS:
            form = _NUMBERS[vr]
            count, rest = divmod(len(raw), struct.calcsize("=" + form))
            order = "<" if self.where.little else ">"
            return () if rest else tuple(str(n) for n in struct.unpack(f"{order}{count}{form}", raw))
        if vr not in _TEXT:
            return ()
        if raw.isascii() and b"\x1b" not in raw:  # the same in every character set
            text = raw.decode("ascii")
        elif vr in _BY_CHARSET:
            text = _decoded(raw, _encodings(self.charset))
        else:
            text = raw.decode("latin-1")
        values = [text] if vr in _WHOLE else text.split("\\")
        if vr == b"PN":
            values = [value.rstrip("\0 ").rstrip("=") for value in values]  # empty groups of components
        return tuple(value.replace("\0", "").strip() for value in values)

    def items(self, keyword: str) -> list[Header]:
        """The items of a sequence; none where it is absent."""
        found = items(self.where, self.found, _known(keyword)[0])
        return [Header(self.where, item, self.charset) for item in found]

    def floats(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """`count` finite numbers; None where there are not just these."""
        try:
            values = tuple(float(value) for value in self.texts(keyword))
        except ValueError:
            return None
        return values if len(values) == count and all(map(math.isfinite, values)) else None


@functools.cache
def _known(keyword: str) -> tuple[int, bytes]:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag, dictionary_VR(tag).encode()


@functools.lru_cache(maxsize=64)
def _encodings(charset: bytes) -> tuple[str, ...]:
    """Python's names of the declared character sets."""
    values = [value.strip() for value in charset.decode("latin-1").rstrip(" \0").split("\\")]
    try:
        with quiet():
            return tuple(convert_encodings(values))
    except (ValueError, LookupError):  # no name that any encoding could have
        return (default_encoding,)


def _decoded(raw: bytes, encodings: tuple[str, ...]) -> str:
    if b"\x1b" in raw:  # ISO 2022: parts in several character sets
        with quiet():
            return str(decode_bytes(raw, encodings, TEXT_VR_DELIMS))
    declared = encodings[0]
    # ISO_IR 6 has no letters beyond ASCII, so whoever sends some has not declared what they are
    for encoding in ("utf-8",) if declared == default_encoding else (declared, "utf-8"):
        try:
            return raw.decode(encoding)
        except (UnicodeError, LookupError):  # the next one
            pass
    return raw.decode("latin-1")  # takes any bytes
