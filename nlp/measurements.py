"""Sizes in millimetres: "4.5 cm", "2.3 x 1.5cm", "3-4 mm"; the largest dimension counts."""

import re
from bisect import bisect_left
from functools import lru_cache

from spacy.tokens import Doc

from nlp.context import clauses_of
from nlp.linking import groups_of, owner
from nlp.scan import notes_of

_NUMBER = r"\d{1,4}(?:[.,]\d{1,3})?"


def measure(doc: Doc) -> Doc:
    """The spaCy component. Distances ("3 cm above the carina") are no sizes."""
    notes = notes_of(doc)
    lexicon = notes.vocabulary.lexicon
    sizes = _pattern(lexicon.units)
    apart = {p for p, kind in lexicon.classes if kind == "distance"}
    millimetres = dict(lexicon.units)
    for (start, end), mentions in zip(notes.sentences, notes.found, strict=True):
        if not mentions:
            continue
        for m in sizes.finditer(notes.text, notes.starts[start], notes.ends[end - 1]):
            a, b = bisect_left(notes.starts, m.start()), bisect_left(notes.starts, m.end())
            if {" ".join(map(notes.word, range(b, min(b + n, end)))).lower() for n in (1, 2)} & apart:
                continue
            group = owner(groups_of(mentions), clauses_of(notes, start, end), a, b, None)
            unit = millimetres[m["unit"].lower()]
            size = max(float(n.replace(",", ".")) for n in re.findall(_NUMBER, m["numbers"])) * unit
            for mention in group.mentions if group else ():
                mention.size_mm = max(mention.size_mm or 0.0, size)
    return doc


@lru_cache(maxsize=8)
def _pattern(units: tuple[tuple[str, float], ...]) -> re.Pattern[str]:
    unit = "|".join(sorted((re.escape(u) for u, _ in units), key=len, reverse=True))
    joined = rf"\s?(?:{unit})?\s?(?:x|×|by|-|–|to)\s?{_NUMBER}"
    return re.compile(rf"(?<![\d.,])(?P<numbers>{_NUMBER}(?:{joined}){{0,2}})\s?-?\s?(?P<unit>{unit})\b", re.IGNORECASE)
