"""Words of descriptions and the codes that they mean, from tables that a radiologist can read.

A table has a line for each code: the code, then its words in small plain letters ("ae" for an umlaut). A star stands
for any ending; "_" joins two words that stand beside each other; words of the code "-" mean nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from itertools import pairwise


def words(text: str) -> list[str]:
    """The words of a text in small plain letters, with p.a. and a. p. as one word."""
    text = text.casefold()
    for letter, plain in (("ä", "ae"), ("ö", "oe"), ("ü", "ue"), ("ß", "ss")):
        text = text.replace(letter, plain)
    return re.findall(r"[a-z]+", re.sub(r"\b([ap])\.\s?([ap])\b\.?", r"\1\2", text))


@functools.cache
def table(text: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """The lines of a table: the first word, and the others."""
    lines = (line.split() for line in text.replace("|", "\n").strip().splitlines())
    return tuple((name, frozenset(rest)) for name, *rest in lines)


def codes_of(text: str) -> dict[str, str]:
    """The first word of its line for each of the others."""
    return {code: term for term, codes in table(text) for code in codes}


class Lexicon:
    """Codes by the words that mean them; each code, and each of `more`, is also a word for itself."""

    def __init__(self, text: str, more: Iterable[str] = ()) -> None:
        self.whole = {code.lower(): code for code in more}
        self.start: dict[str, str] = {}
        self.pair: dict[str, list[tuple[str, str]]] = {}
        for code, known in table(text):
            for word in (code.lower(), *known):
                first, _, second = word.partition("_")
                if second:
                    self.pair.setdefault(first, []).append((second.rstrip("*"), code))
                elif word.endswith("*"):
                    self.start[word[:-1]] = code
                else:
                    self.whole[word] = code

    def find(self, found: list[str]) -> frozenset[str]:
        """The codes that these words mean. A pair counts before its words, the longest beginning before a shorter."""
        rest, codes = list(found), set[str]()
        for i, (one, two) in enumerate(pairwise(found)):
            code = next((code for second, code in self.pair.get(one, ()) if two.startswith(second)), "")
            if code:
                codes.add(code)
                rest[i] = rest[i + 1] = ""
        for word in rest:
            starts = (self.start.get(word[:size], "") for size in range(len(word), 2, -1))
            codes.add(self.whole.get(word, "") or next(filter(None, starts), ""))
        return frozenset(codes - {"", "-"})
