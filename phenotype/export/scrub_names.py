"""What is known of a person from header and vault, as patterns: names in every spelling, numbers, dates of birth."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date
from typing import Final

MIN_NAME = 2  # letters of a part of a name that is looked for
MIN_LOOSE = 4  # letters from which a part counts whatever its case
MIN_NUMBER = 4  # letters and digits of a number that is looked for
# These stand in the names of headers; taken for names, they would be no cue to other people any more
_TITLES: Final = """
dr drs prof med univ mag dipl ing di dent vet phil jur rer nat habil priv doz pd oa oä prim mr mrs ms miss mx md phd
msc bsc mba frau herr herrn hr fr fräulein sir jr sr ii iii
von van vom zu zur zum de del della der den die das di da dos el al bin ben ter ten le la und and
"""
_LETTER: Final = r"[^\W\d_]"
_SEPARATED: Final = r"[\s.\-/_]?"
_DIGRAPHS: Final = {"ae": "ä", "oe": "ö", "ue": "ü", "ss": "ß"}
_ACCENTED: Final = {
    plain: "".join(
        chr(code)
        for code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))
        if unicodedata.normalize("NFD", chr(code)).casefold()[0] == plain
    )
    for plain in "acdeghijklnorstuwyz"
}
_NO_NAMES: Final = frozenset(_TITLES.split())
_MONTHS: Final = (
    ("January", "Jan", "Januar", "Jänner"),
    ("February", "Feb", "Februar", "Feber"),
    ("March", "Mar", "März", "Mrz"),
    ("April", "Apr"),
    ("May", "Mai"),
    ("June", "Jun", "Juni"),
    ("July", "Jul", "Juli"),
    ("August", "Aug"),
    ("September", "Sept", "Sep"),
    ("October", "Oct", "Oktober", "Okt"),
    ("November", "Nov"),
    ("December", "Dec", "Dezember", "Dez"),
)
MONTHS: Final = {name.casefold(): number for number, names in enumerate(_MONTHS, 1) for name in names}


@dataclass(frozen=True, slots=True)
class Known:
    """What header and vault say of a person. Names as in DICOM ("Family^Given^Middle") or as text."""

    names: tuple[str, ...] = field(default=(), repr=False)
    others: tuple[str, ...] = field(default=(), repr=False)  # names of people who are not the patient
    numbers: tuple[str, ...] = field(default=(), repr=False)
    births: tuple[date, ...] = field(default=(), repr=False)
    phrases: tuple[str, ...] = field(default=(), repr=False)  # addresses, institutions: as they stand

    def __or__(self, other: Known) -> Known:
        """Both together."""
        return Known(*(tuple(dict.fromkeys((*getattr(self, name), *getattr(other, name)))) for name in self.__slots__))


def parts(name: str) -> tuple[str, ...]:
    """The words of a name: "Müller-Lüdenscheidt^Anna Maria" -> both halves too; single letters, titles and
    particles are left out."""
    words: dict[str, None] = {}
    for word in re.split(r"[\s^=,;/\\()\"]+", unicodedata.normalize("NFC", name)):
        for part in (word, *word.split("-")):
            bare = part.strip(".'’`-_*")
            if sum(c.isalpha() for c in bare) >= MIN_NAME and bare.casefold() not in _NO_NAMES:
                words.setdefault(bare)
    return tuple(words)


def spelled(word: str) -> str:
    """A pattern of the ways to spell a name: Müller, Mueller, MULLER; José, JOSE; Weiß, Weiss."""
    pattern, rest = [], unicodedata.normalize("NFC", word).casefold().replace("ß", "ss")
    # what header says plainly may stand with accents in a text, and the reverse
    while rest:
        pair, first = rest[:2], rest[0]
        if pair in _DIGRAPHS:
            umlaut = _DIGRAPHS[pair]
            pattern.append(f"(?:{pair}|{umlaut}|{umlaut.upper()}{'' if pair == 'ss' else '|' + pair[0]})")
            rest = rest[2:]
            continue
        plain = unicodedata.normalize("NFD", first)[0]
        if first in "äöü":
            pattern.append(f"(?:{first}|{plain}e|[{plain}{_ACCENTED[plain]}])")
        elif plain in _ACCENTED:
            pattern.append(f"[{plain}{_ACCENTED[plain]}]")
        elif first in "?\ufffd":  # a letter that a charset has eaten
            pattern.append(r"(?:\w|\?|\ufffd){1,2}")
        else:
            pattern.append(re.escape(first))
        rest = rest[1:]
    return "".join(pattern)


def numbers_pattern(numbers: Iterable[str]) -> str:
    """A pattern of numbers with whatever separators between their digits; empty where there is none to look for."""
    found = []
    for number in numbers:
        characters = [c for c in number if c.isalnum()]
        if len(characters) < MIN_NUMBER:
            continue
        body = _SEPARATED.join(re.escape(c) for c in characters)
        found.append(rf"(?<![^\W_]){body}(?![^\W_])")
        core = re.sub(r"^\D+|\D+$", "", "".join(characters)).lstrip("0")  # MRN0012345 is written 12345 too
        if core != "".join(characters) and len(core) >= 5 and core.isdigit():
            found.append(rf"(?<![^\W_])0*{_SEPARATED.join(core)}(?![^\W_])")
    return "|".join(dict.fromkeys(found))


def birth_pattern(births: Iterable[date]) -> str:
    """A pattern of days of birth in the ways to write them, with two digits of the year too."""
    found = []
    for born in births:
        year, short = f"{born.year:04d}", f"{born.year % 100:02d}"
        month, day = f"0?{born.month}", f"0?{born.day}"
        names = "|".join(re.escape(name) for name in sorted(_MONTHS[born.month - 1], key=len, reverse=True))
        any_year, sep = f"(?:{year}|['’]?{short})", r"\s?[.\-/\s]\s?"
        full = [
            rf"{day}{sep}{month}{sep}{any_year}",
            rf"{month}{sep}{day}{sep}{any_year}",
            rf"{year}\s?[.\-/\s]?\s?{born.month:02d}\s?[.\-/\s]?\s?{born.day:02d}",
            rf"{year}{sep}{month}{sep}{day}",
            rf"{born.day:02d}{born.month:02d}(?:{year}|{short})",
            rf"{day}(?:\.|st|nd|rd|th)?[\s\-]*(?:of\s+)?(?:{names})\.?,?[\s\-]*{any_year}",
            rf"(?:{names})\.?[\s\-]*{day}(?:st|nd|rd|th)?,?[\s\-]*{any_year}",
        ]
        found += [rf"(?<!\d){pattern}(?!\d)" for pattern in full]
    return "|".join(found)


def sweep_pattern(known: Known) -> re.Pattern[str] | None:
    """Finds anything known of a person in a value, in parts of words too where they are long; None: nothing known."""
    found = []
    for name in (*known.names, *known.others):
        for part in parts(name):
            letters = sum(c.isalpha() for c in part)
            body = spelled(part)
            if letters >= 5:
                found.append(body)
            elif letters >= 3:
                found.append(rf"(?<!{_LETTER}){body}(?!{_LETTER})")
    found += [r"\s+".join(map(spelled, phrase.split())) for phrase in known.phrases if len(phrase) >= 5]
    found += [pattern for pattern in (numbers_pattern(known.numbers), birth_pattern(known.births)) if pattern]
    return re.compile("|".join(dict.fromkeys(found)), re.IGNORECASE) if found else None
