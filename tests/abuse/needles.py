"""Look for words in bytes, written in any of 14 ways, many words at once."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote

import numpy as np


def _base64(word: str) -> list[bytes]:
    """As it stands inside of something longer, at each of three places."""
    found = []
    for before in range(3):
        data = bytes(before) + word.encode()
        text = base64.b64encode(data[: len(data) - len(data) % 3])
        found.append(text[4:] if before else text)
    return found


WAYS: dict[str, Callable[[str], list[bytes]]] = {
    "utf-8": lambda w: [w.encode()],
    "windows": lambda w: [w.encode("cp1252")],
    "cyrillic": lambda w: [w.encode("iso8859-5")],
    "utf-16-le": lambda w: [w.encode("utf-16-le")],
    "utf-16-be": lambda w: [w.encode("utf-16-be")],
    "utf-32": lambda w: [w.encode("utf-32-le")],
    "decomposed": lambda w: [unicodedata.normalize("NFD", w).encode()],
    "json": lambda w: [json.dumps(w).strip('"').encode()],
    "html": lambda w: [html.escape(w).encode("ascii", "xmlcharrefreplace")],
    "percent": lambda w: [quote(w).encode()],
    "base64": _base64,
    "hex": lambda w: [w.encode().hex().encode()],
    "sha-256": lambda w: [hashlib.sha256(w.encode()).hexdigest()[:16].encode()],  # what is cut of a plain hash, too
    "md5 or sha-1": lambda w: [h(w.encode()).hexdigest()[:16].encode() for h in (hashlib.md5, hashlib.sha1)],
}
SHORTEST = 6  # bytes; shorter ones are found by chance


class Needles:
    """Words to look for."""

    def __init__(self, words: Iterable[str]) -> None:
        self.by_start: dict[bytes, dict[bytes, tuple[str, str]]] = defaultdict(dict)
        for word in words:
            for way, written in WAYS.items():
                try:
                    forms = written(word)
                except UnicodeEncodeError:
                    continue
                for form in (f.lower() for f in forms):
                    if len(form) >= SHORTEST:
                        self.by_start[form[:4]].setdefault(form, (word, way))
        self.starts = np.unique(np.frombuffer(b"".join(self.by_start), dtype="<u4"))

    def find(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Each word found, and how it was written. Case does not count; numbers are numbers of their own."""
        data = data.lower() + bytes(4)
        for offset in range(4):
            windows = np.frombuffer(data, dtype="<u4", offset=offset, count=max(0, (len(data) - offset) // 4))
            places = np.clip(np.searchsorted(self.starts, windows), 0, len(self.starts) - 1)
            for place in np.flatnonzero(self.starts[places] == windows) * 4 + offset:
                for form, found in self.by_start[data[place : place + 4]].items():
                    if data.startswith(form, int(place)) and _alone(data, int(place), len(form), found[0]):
                        yield found


def _alone(data: bytes, place: int, length: int, word: str) -> bool:
    around = data[max(0, place - 1) : place] + data[place + length : place + length + 1]
    return not word.replace("-", "").replace(".", "").isdigit() or not any(bytes([b]).isalnum() for b in around)
