"""Dates in the words of a report, found in their many forms and moved by the days of their patient."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Final

from phenotype.export.scrub_names import MONTHS

_MONTH: Final = "|".join(sorted((re.escape(name) for name in MONTHS), key=len, reverse=True))
_NAMED: Final = rf"(?P<name>(?-i:(?=[A-ZÄ]))(?:{_MONTH}))\b\.?"
_DAY, _YEAR = r"(?P<day>0?[1-9]|[12]\d|3[01])", r"(?P<year>(?:19|20)\d\d)"
_SHORT_YEAR: Final = r"(?P<year>(?:19|20)\d\d|['’]?\d\d)"
_BEFORE, _AFTER = r"(?<![\d.,/\-])", r"(?![\d/]|[.,\-]\d)"
_UNIT: Final = r"(?!\s?(?:mm|cm|ml|mg|g|kg|hu|he|ms|mgy|msv|mas|kv|ng|µg|%|x\s?\d))"

# in this order: what is longer is taken first
PATTERNS: Final = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_BEFORE}{_YEAR}\s?(?P<sep>[.\-/])\s?(?P<month>0?[1-9]|1[0-2])\s?(?P=sep)\s?{_DAY}{_AFTER}",
        rf"(?<!\d){_YEAR}(?P<month>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?!\d)",
        rf"{_BEFORE}(?P<one>\d\d?)\s?(?P<sep>[.\-/])\s?(?P<two>\d\d?)\s?(?P=sep)\s?{_SHORT_YEAR}{_AFTER}{_UNIT}",
        rf"{_BEFORE}{_DAY}(?:\.|st|nd|rd|th)?[\s\-]*(?:of\s+)?{_NAMED},?[\s\-]*{_SHORT_YEAR}{_AFTER}{_UNIT}",
        rf"\b{_NAMED}\s*{_DAY}(?:st|nd|rd|th)?(?:,\s*|\s+){_YEAR}{_AFTER}",
        rf"\b{_NAMED},?\s*(?:of\s+)?(?P<year>(?:19|20)\d\d|['’]\d\d){_AFTER}",
        rf"{_BEFORE}{_DAY}(?:\.|st|nd|rd|th)\s*(?:of\s+)?{_NAMED}(?!\w)",
        rf"\b{_NAMED}\s*{_DAY}(?:st|nd|rd|th)?\b{_AFTER}{_UNIT}",
        rf"{_BEFORE}(?P<month>0?[1-9]|1[0-2])\s?[./\-]\s?{_YEAR}{_AFTER}{_UNIT}",
        r"(?:(?<=\bam )|(?<=\bvom )|(?<=\bseit )|(?<=\bbis )|(?<=\bzum )|(?<=\bab )|(?<=\bvon ))"
        r"(?P<day>0?[1-9]|[12]\d|3[01])\.\s?(?P<month>0?[1-9]|1[0-2])\.(?!\d)",
        r"(?:(?<=\bon )|(?<=\bfrom )|(?<=\bdated )|(?<=\bsince )|(?<=\bof ))"
        r"(?P<one>\d\d?)(?P<sep>/)(?P<two>\d\d?)(?![\d/])",
        rf"{_BEFORE}{_YEAR}(?![\d/]|[.,\-]\d|\w){_UNIT}",
    )
)


def moved(days: int, german: bool, known: frozenset[date], latest: int) -> Callable[[re.Match[str]], str | None]:
    """What stands for a found date: the moved one, as exact as it was; "" where no date can be made of it, and None
    where it cannot be one at all.

    `known` are dates of the patient, which settle what 03/04/2019 means where the language leaves it open; `latest`
    is the last year that two digits can mean.
    """

    def answer(match: re.Match[str]) -> str | None:
        found = match.groupdict()
        year = _year(found.get("year") or "", latest)
        if found.get("one"):
            day_month = _order(int(found["one"]), int(found["two"]), year, found["sep"], german, known)
            if day_month is None:
                return None
            day, month = day_month
        else:
            month = MONTHS[found["name"].casefold().rstrip(".")] if found.get("name") else int(found.get("month") or 0)
            day = int(found.get("day") or 0)
        if not year:
            return ""
        try:
            there = date(year, month or 7, day or (15 if month else 1)) - timedelta(days=days)
        except (ValueError, OverflowError):
            return ""
        if day:
            return there.isoformat()
        return f"{there:%Y-%m}" if month else f"{there:%Y}"

    return answer


def _year(text: str, latest: int) -> int:
    digits = text.lstrip("'’")
    if not digits:
        return 0
    if len(digits) == 4:
        return int(digits)
    return int(digits) + (2000 if int(digits) <= latest % 100 else 1900)


def _order(one: int, two: int, year: int, sep: str, german: bool, known: frozenset[date]) -> tuple[int, int] | None:
    """(day, month) of two numbers; None where they are neither."""
    readings = [(one, two)] if one in range(1, 32) and two in range(1, 13) else []
    if two in range(1, 32) and one in range(1, 13):
        readings.append((two, one))
    if not readings:
        return None
    for day, month in readings:
        if any((day, month) == (k.day, k.month) and year in (0, k.year) for k in known):
            return day, month
    if len(readings) == 2 and sep == "/" and not german:
        return readings[1]
    return readings[0]
