"""Identifiers taken out of the words of a report: those known of the patient, and what looks like one.

The rules are a table beside this file, made to be read and changed. What comes out is pseudonymised and scrubbed by a
machine, not anonymous: a rule finds what it was written for.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date
from importlib import resources
from typing import Final

from phenotype.export.scrub_dates import PATTERNS, moved
from phenotype.export.scrub_names import (
    MIN_LOOSE,
    Known,
    birth_pattern,
    numbers_pattern,
    parts,
    spelled,
    sweep_pattern,
)

STATEMENT: Final = "pseudonymised, machine-scrubbed, not anonymous"
_MARK: Final = 0xF0000  # private characters stand for what was taken out, so that no later rule sees into it
_ENDINGS: Final = r"(?i:['’´`]?s|['’´`]|n|en|ns|schen?|sche[rsm])?"  # Müllers, Müller's, Müllern, Müllersche
_SPACE: Final = r"[ \t]"
_CAPITAL: Final = "A-ZÀ-ÖØ-ÞĀŁŚŠŽČĆĐŐŰİ"
_WORD: Final = rf"[{_CAPITAL}][\w'’´`]*\w(?:-[{_CAPITAL}]?[\w'’]+)*"
_PARTICLE: Final = (
    r"(?:Von|Van|De[rnl]?|D[ai]|La|Le|Ter|von|van|vom|zu|zur|zum|de|del|della"
    r"|der|den|di|da|dos|el|al|bin|ben|ter|ten|le|la|Mc|Mac|O['’])"
)
_INITIAL: Final = rf"[{_CAPITAL}]\."


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text without what was found, how often what was replaced, and what still looks like an identifier."""

    text: str = field(repr=False)
    replaced: Counter[str]
    residue: Counter[str]


@dataclass(frozen=True, slots=True)
class _Rules:
    replace: tuple[tuple[str, re.Pattern[str]], ...]  # placeholder, pattern
    residue: tuple[tuple[str, re.Pattern[str]], ...]  # kind, pattern
    ordinary: frozenset[str]  # names that are words too: only taken for a name with a capital letter


def scrub(text: str, known: Known, days: int, *, language: str = "", dates: Iterable[date] = ()) -> Scrubbed:
    """Take identifiers out of `text`.

    Names become [NAME], days of birth [BIRTH DATE], numbers [NUMBER], other dates [DATE 2019-03-01] moved back by
    `days`; more kinds stand in the rules. `dates` are dates of the patient's examinations; `language` ("de", "en")
    settles the order of day and month where both can be.
    """
    work = _Work(unicodedata.normalize("NFC", text))
    for kind, pattern in _known_patterns(known, one_case=text.islower() or text.isupper()):
        work.replace(kind, pattern)
    for kind, pattern in _rules().replace:
        work.replace(kind, pattern)
    mine = frozenset(dates)
    latest = max((d.year for d in mine), default=date.today().year) + 1
    move = moved(days, language.startswith("de"), mine, latest)
    for pattern in PATTERNS:
        work.replace("DATE", pattern, move)
    return Scrubbed(work.whole(), work.counts, _residue(work.bare(), known))


class _Work:
    """A text under work: what was taken out is one private character each."""

    def __init__(self, text: str) -> None:
        self.text = "".join(c for c in text if unicodedata.category(c) != "Co")
        self.taken: list[str] = []
        self.counts: Counter[str] = Counter()

    def replace(
        self, kind: str, pattern: re.Pattern[str], value: Callable[[re.Match[str]], str | None] | None = None
    ) -> None:
        """Take out the group `x` of each match, or all of it."""

        def one(match: re.Match[str]) -> str:
            said = value(match) if value else ""
            if said is None or len(self.taken) >= 0xFFFD:
                return match[0]
            group = "x" if "x" in pattern.groupindex else 0
            start, end = match.span(group)
            if start == end:
                return match[0]
            self.taken.append(f"[{kind} {said}]" if said else f"[{kind}]")
            self.counts[kind] += 1
            mark = chr(_MARK + len(self.taken) - 1)
            return match.string[match.start() : start] + mark + match.string[end : match.end()]

        self.text = pattern.sub(one, self.text)

    def whole(self) -> str:
        """With placeholders; names side by side are one."""
        text = "".join(self.taken[ord(c) - _MARK] if ord(c) >= _MARK and ord(c) < _MARK + 0xFFFF else c
                       for c in self.text)  # fmt: skip
        return re.sub(r"\[NAME\](?:[ \t,.\-]{1,2}\[NAME\])+", "[NAME]", text)

    def bare(self) -> str:
        """What is left, with a sign for each thing taken out."""
        return "".join("\u2588" if ord(c) >= _MARK else c for c in self.text)


def _known_patterns(known: Known, one_case: bool) -> list[tuple[str, re.Pattern[str]]]:
    """What is known of the patient: numbers and days of birth before names, since those may stand in them.

    In a text of capitals or of small letters alone, the case of a word does not tell that it is a name.
    """
    found = []
    for kind, pattern in (("BIRTH DATE", birth_pattern(known.births)), ("NUMBER", numbers_pattern(known.numbers))):
        if pattern:
            found.append((kind, re.compile(pattern, re.IGNORECASE)))
    phrases = [r"\s+".join(map(spelled, phrase.split())) for phrase in known.phrases if len(phrase) >= 5]
    if phrases:
        found.append(("ADDRESS", re.compile("|".join(phrases), re.IGNORECASE)))
    names = [pattern for name in (*known.names, *known.others) for pattern in _name_patterns(name, one_case)]
    if names:
        any_name = "|".join(dict.fromkeys(names))
        before = rf"(?:(?:{_INITIAL}{_SPACE}?){{1,2}}|(?i:{_PARTICLE}){_SPACE}+)?"  # A. Müller, van Beethoven
        after = rf"(?:,?{_SPACE}?(?:{_INITIAL}){{1,2}}(?!\w))?"  # Müller, A.
        flags = re.IGNORECASE if one_case else re.NOFLAG
        found.append(("NAME", re.compile(rf"(?<![^\W_])(?:{before}(?:{any_name}){_ENDINGS}{after})(?![^\W_])", flags)))
        found += [("NAME", re.compile(initials, flags)) for name in known.names if (initials := _initials(name))]
    return found


def _name_patterns(name: str, one_case: bool) -> list[str]:
    patterns = []
    for part in sorted(parts(name), key=len, reverse=True):
        body = spelled(part)
        long = sum(c.isalpha() for c in part) >= MIN_LOOSE
        if one_case or (long and part.casefold() not in _rules().ordinary):
            patterns.append(f"(?i:{body})")
        else:  # short or a word too: with a capital only
            patterns.append(rf"(?=[{_CAPITAL}])(?i:{body})")
    return patterns


def _initials(name: str) -> str:
    """A pattern of A.M. and M.A. for Müller^Anna; empty where the name has but one part."""
    family, _, given = unicodedata.normalize("NFC", name).replace(",", "^").partition("^")
    first, last = given.strip()[:1].upper(), family.strip()[:1].upper()
    if not (first.isalpha() and last.isalpha()):
        return ""
    pairs = "|".join(rf"{one}\.{_SPACE}?{two}\." for one, two in ((first, last), (last, first)))
    return rf"(?<![\w.])(?<!\d )(?:{pairs})(?!\w)"


def _residue(text: str, known: Known) -> Counter[str]:
    """What still looks like an identifier, by kind."""
    found: Counter[str] = Counter()
    pattern = sweep_pattern(known)
    if pattern is not None:
        found["known"] = sum(1 for m in pattern.finditer(text) if m[0].casefold() not in _rules().ordinary)
    for kind, looks_like in _rules().residue:
        found[kind] += sum(1 for _ in looks_like.finditer(text))
    return +found


@functools.cache
def _rules() -> _Rules:
    lines = resources.files("phenotype.export").joinpath("scrub_rules.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line.strip() and not line.startswith("#")][1:]
    words = {kind: [row[2] for row in rows if row[0] == kind] for kind in ("not_a_name", "ordinary")}
    not_names = "|".join(re.escape(word) for line in words["not_a_name"] for word in line.split())
    word = rf"(?!(?i:{not_names})\b){_WORD}"
    joint = rf"(?:{_SPACE}+|{_SPACE}*,{_SPACE}*)"
    given = rf"(?:{_INITIAL}{_SPACE}?|{_PARTICLE}{_SPACE}+)"
    macros = {
        "<NAMES>": rf"(?:{given}*{word}(?:{joint}(?:{given}+)?{word}|{_SPACE}+{_INITIAL}){{0,3}})",
        "<NAME2>": rf"(?:{given}*{word}(?:{_SPACE}+(?:{given}+)?{word}){{0,1}})",
        "<WORD>": word,
        "<TITLE>": r"(?:(?:Dr|Prof|Doz|Univ\.-Prof|Univ\.-Doz|Prim|OA|OÄ|Ass|Priv\.-Doz|PD|Mag|Dipl\.-Ing|DI|med|"
        r"Mr|Mrs|Ms|Miss|Herrn?|Frau|Hr|Hrn|Fr|univ|h\.c)\b\.?[ \t]*)*",
        "<S>": _SPACE,
    }
    compiled: dict[str, list[tuple[str, re.Pattern[str]]]] = {"replace": [], "residue": []}
    for stage, kind, pattern, *_ in rows:
        if stage in compiled:
            whole = functools.reduce(lambda text, macro: text.replace(*macro), macros.items(), pattern)
            compiled[stage].append((kind, re.compile(whole)))
    ordinary = frozenset(word.casefold() for line in words["ordinary"] for word in line.split())
    return _Rules(tuple(compiled["replace"]), tuple(compiled["residue"]), ordinary)
