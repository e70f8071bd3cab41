"""Sizes in millimetres: "4.5 cm", "2.3 x 1.5cm", "3-4 mm", "12 mm, previously 8 mm"; the largest dimension counts.

Which words join numbers, tell of an earlier examination, or make a length something else than a size ("3 cm above the
carina", "1.25 mm slices") stands in `modifiers.tsv` under `measure`.
"""

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from spacy.tokens import Doc

from nlp.lexicon import Lexicon
from nlp.linking import frame_of, owner, points_back
from nlp.scan import Found, Layer, Notes, notes_of

_NUMBER = r"(?:\d{1,4}(?:[.,]\d{1,3})?|[.,]\d{1,2})"
_NEAR = 4  # words between "previously" and the length that it dates
_MOST = 5  # numbers after the first


@dataclass(frozen=True, slots=True)
class _Patterns:
    run: re.Pattern[str]  # a number, and those joined to it
    step: re.Pattern[str]  # one of them, with what stands before and its unit
    joins: dict[str, str]  # word -> times, range, list (and, or) or comma
    millimetres: dict[str, float]
    apart: frozenset[str]  # words that follow a distance


@dataclass(slots=True)
class Size:
    """A length, or several that belong together, in millimetres. Positions count words."""

    start: int
    end: int
    lengths: list[float]
    sign: str = "x"  # between the lengths: "x", or "-" where they are a range
    prior: bool = False
    perhaps: bool = False  # prior if there is one of today beside it: "was 8 mm"
    first_end: int = 0  # where the first of several lengths ends

    @property
    def value(self) -> str:
        return self.sign.join(str(round(length, 2)) for length in self.lengths)


_KNOWN: dict[int, tuple[Lexicon, _Patterns]] = {}


def measure(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    for at in sorted({bisect_right(notes.sentences, (a, len(notes.ids))) - 1 for a, _, _ in notes.hits[Layer.UNIT]}):
        start, end = notes.sentences[at]
        if notes.found[at]:
            _tell(notes, at, _dated(notes, start, end, _sizes(notes, start, end)))
        elif at and notes.found[at - 1] and points_back(notes, start, end):  # "There is a nodule. It measures 8 mm."
            for size in _dated(notes, start, end, _sizes(notes, start, end)):
                _say(notes.found[at - 1][-1:], size)
    for a, b, value in notes.hits[Layer.SIZE]:
        at = bisect_right(notes.sentences, (a, len(notes.ids))) - 1
        frame = frame_of(notes, at) if notes.found[at] else None
        group = owner(frame.groups, frame.clauses, a, b, None) if frame else None
        for mention in group.mentions if group else ():
            mention.told("size", notes.vocabulary.lexicon.modifiers[value][2], a, b)
    return doc


def _sizes(notes: Notes, start: int, end: int) -> list[Size]:
    """All lengths of a sentence."""
    patterns = _patterns(notes.vocabulary.lexicon)
    sizes: list[Size] = []
    for run in patterns.run.finditer(notes.text, notes.starts[start], notes.ends[end - 1]):
        steps = list(patterns.step.finditer(notes.text, run.start(), run.end()))
        made: list[Size] = []
        unit, following, listed = (
            0.0,
            "",
            False,
        )  # what joins a number to the one after it; whether in a list with "and"
        for step in reversed(steps):
            unit = patterns.millimetres[step["unit"].lower()] if step["unit"] else unit
            if unit:  # none stands after the last unit
                listed = following == "list" or (listed and following == "comma")
                if following == "comma" and not listed and not step["unit"]:
                    break  # "series 3, 8 mm"
                length = float(step["number"].replace(",", ".")) * unit
                a, b = bisect_left(notes.starts, step.start("number")), bisect_left(notes.starts, step.end())
                if made and following in ("times", "range"):
                    last = made[-1]
                    last.start, last.first_end, last.sign = a, b, "x" if following == "times" else "-"
                    last.lengths.insert(0, length)
                else:
                    made.append(Size(a, b, [length]))
            following = patterns.joins.get((step["join"] or "").lower(), "")
        sizes += reversed(made)
    return sizes


def _dated(notes: Notes, start: int, end: int, sizes: list[Size]) -> list[Size]:
    """The sizes with those of an earlier examination marked, and without distances and the thickness of slices."""
    if not sizes:
        return sizes
    modifiers, apart = notes.vocabulary.lexicon.modifiers, _patterns(notes.vocabulary.lexicon).apart
    dropped = {s.end for s in sizes if {_words(notes, s.end, min(s.end + n, end)) for n in (1, 2)} & apart}
    changed = bool(notes.within(Layer.CHANGE, start, end))
    for a, b, value in notes.within(Layer.MEASURE, start, end):
        said = modifiers[value][2]
        before = next((s for s in reversed(sizes) if s.end <= a), None)
        after = next((s for s in sizes if s.start >= b), None)
        if said == "technical":
            dropped |= {before.end} if before and _near(notes, before.end, a, 1) else set()
            dropped |= {after.end} if after and _near(notes, b, after.start, 1) else set()
        elif said == "apart" and before and before.end == a:
            dropped.add(before.end)
        elif said in ("earlier", "was"):
            if after and _near(notes, b, after.start, _NEAR):
                after.prior, after.perhaps = said == "earlier", said == "was"
            elif before and said == "earlier" and _near(notes, before.end, a, 1):
                before.prior = True
        elif said == "from" and changed and after and after.start == b:
            if after.sign == "-":  # "increased from 8 to 12 mm"
                sizes.insert(sizes.index(after), Size(after.start, after.first_end, after.lengths[:1], prior=True))
                after.start, after.lengths = after.first_end + 1, after.lengths[1:]
                after.prior = after.perhaps = False  # "compared to the prior from 3 to 1 cm": 1 cm is of today
            else:
                after.perhaps = True
    kept = [size for size in sizes if size.end not in dropped]
    for size in kept:
        size.prior |= size.perhaps and any(not other.prior and not other.perhaps for other in kept)
    return kept


def _near(notes: Notes, start: int, end: int, most: int) -> bool:
    """Whether only a few words, and no comma, stand between two."""
    return end - start <= most and "," not in map(notes.word, range(start, end))


def _words(notes: Notes, start: int, end: int) -> str:
    return " ".join(map(notes.word, range(start, end))).lower()


def _tell(notes: Notes, at: int, sizes: list[Size]) -> None:
    frame = frame_of(notes, at)
    last: list[Found] = []
    for size in sorted(sizes, key=lambda size: size.prior):
        group = owner(frame.groups, frame.clauses, size.start, size.end, None)
        if group and not (size.prior and last):  # what was measured before is what is measured today
            last = group.mentions
        if group:
            _say(last, size)


def _say(mentions: list[Found], size: Size) -> None:
    """No size is told of what is not there: "no nodule over 5 mm"; of what has gone, it is that of before."""
    for mention in mentions:
        gone = mention.change in ("resolved", "removed")
        if mention.assertion == "absent" and not gone:
            continue
        if size.prior or gone:
            mention.prior_size_mm = max(mention.prior_size_mm or 0.0, *size.lengths)
            mention.told("prior_size", size.value, size.start, size.end)
        else:
            mention.size_mm = max(mention.size_mm or 0.0, *size.lengths)
            mention.told("size", size.value, size.start, size.end)


def _patterns(lexicon: Lexicon) -> _Patterns:
    # by identity: a lexicon is large, and to compare or hash it for each report takes longer than to read the report
    known = _KNOWN.get(id(lexicon))
    if known is None or known[0] is not lexicon:
        known = _KNOWN[id(lexicon)] = lexicon, _compiled(lexicon)
    return known[1]


def _compiled(lexicon: Lexicon) -> _Patterns:
    joins = {p.lower(): "list" for p, kind in lexicon.classes if kind in ("joint", "either") and p.isalpha()}
    joins |= {p.lower(): said for p, _, said in lexicon.modifiers if said in ("times", "range")}
    joins[","] = "comma"
    millimetres = {p.lower(): size for p, size in lexicon.units}
    join, unit = (
        "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True)) for words in (joins, millimetres)
    )
    unit = rf"(?:\s?-?\s?(?P<unit>{unit})(?![^\W\d_]))?"
    plain = unit.replace("?P<unit>", "?:")
    run = rf"(?<![\w.,/])(?<!\d-){_NUMBER}{plain}(?:\s?(?:{join})\s?{_NUMBER}(?!\d){plain}){{0,{_MOST}}}"
    return _Patterns(
        re.compile(run, re.IGNORECASE),
        re.compile(rf"(?P<join>{join})?\s?(?P<number>{_NUMBER}){unit}", re.IGNORECASE),
        joins,
        millimetres,
        frozenset(p.lower() for p, kind in lexicon.classes if kind == "distance"),
    )
