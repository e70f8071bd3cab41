"""A report as the reader understood it, as a page to look at: in the manner of displaCy, with no script."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from nlp.values import Evidence, Mention, Reading
from phenotype.explore.page import POLICY, template, write_whole

BRIEF = ("report", "finding", "state", "place", "severity", "size", "count", "change", "words")  # of `row`
_SIGNS = {
    "present": "+",
    "absent": "−",
    "uncertain": "?",
    "not of today": "↩",
    "hypothetical": "if",
    "someone else's": "≠",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """Words in a row, and what they were read as: `role` is "", "cue" or "told"."""

    text: str
    role: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Tag:
    """What stands behind marked words."""

    state: str
    sign: str
    text: str


@dataclass(frozen=True, slots=True)
class Marked:
    """Words that name one finding or several that share words."""

    state: str
    pieces: tuple[Piece, ...]
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A section with the heading as it stands in the text."""

    heading: str
    name: str
    today: bool
    parts: tuple[Piece | Marked, ...]


def state_of(mention: Mention) -> str:
    """One word for assertion, time and person: what a reader of the page wants to know first."""
    if mention.experiencer == "other":
        return "someone else's"
    if mention.temporality != "current":
        return {"historical": "not of today", "hypothetical": "hypothetical"}[mention.temporality]
    return mention.assertion


def write_reading(reports: Iterable[tuple[str, str, Reading]], names: Mapping[str, str], out: Path) -> Path:
    """Write one page for reports, each a title, its text and its reading, to the file `out`; return its path.

    names  of concepts and sites by their ids

    The page shows the text itself: it is as confidential as the report. Raises Refused where it cannot be written.
    """
    shown = [
        {
            "title": title,
            "language": reading.language,
            "blocks": list(blocks(text, reading, names)),
            "rows": [row(text, mention, names) for mention in reading.mentions],
        }
        for title, text, reading in reports
    ]
    html = template("reading.html.jinja").render(policy=POLICY, reports=shown, signs=_SIGNS)
    write_whole(out, html.encode("utf-8", "replace"))
    return out


def blocks(text: str, reading: Reading, names: Mapping[str, str]) -> Iterator[Block]:
    """The text in its sections; only white space around headings is left out."""
    at = 0
    for section in reading.sections:
        inside = [m for m in reading.mentions if section.start <= m.start < max(section.end, section.start + 1)]
        heading = text[at : section.start].strip()
        today = section.name not in ("indication", "comparison", "technique")
        yield Block(heading, section.name, today, tuple(_parts(text, section.start, section.end, inside, names)))
        at = section.end
    if rest := text[at:].strip():
        yield Block(rest, "", True, ())


def _parts(
    text: str, start: int, end: int, mentions: list[Mention], names: Mapping[str, str]
) -> Iterator[Piece | Marked]:
    """Marked words and what stands between; mentions that overlap are marked together."""
    told = sorted({*chain.from_iterable(_told(m, names) for m in mentions)})
    at = start
    while mentions:
        group, last = [mentions[0]], mentions[0].end
        while len(group) < len(mentions) and mentions[len(group)].start < last:
            last = max(last, mentions[len(group)].end)
            group.append(mentions[len(group)])
        mentions = mentions[len(group) :]
        first = max(group[0].start, at)
        yield from _pieces(text, at, first, told)
        yield Marked(_leading(group), tuple(_pieces(text, first, last, told)), tuple(_tags(group, names)))
        at = last
    yield from _pieces(text, at, end, told)


def _told(mention: Mention, names: Mapping[str, str]) -> Iterator[tuple[int, int, str, str]]:
    """Words that decided something: from, to, role, and what they were read as."""
    if mention.cue_start is not None and mention.cue_end is not None:
        yield mention.cue_start, mention.cue_end, "cue", f"{mention.assertion}: rule {mention.rule}"
    for e in mention.evidence:
        yield e.start, e.end, "told", f"{e.kind.replace('_', ' ')}: {names.get(e.value, e.value)}"


def _pieces(text: str, start: int, end: int, told: list[tuple[int, int, str, str]]) -> Iterator[Piece]:
    """The words from `start` to `end`, cut where something begins or ends; of two that overlap the first is shown."""
    at = start
    for a, b, role, tip in told:
        if a < at or b > end:
            continue
        if a > at:
            yield Piece(text[at:a])
        yield Piece(text[a:b], role, tip)
        at = b
    if at < end:
        yield Piece(text[at:end])


def _leading(group: list[Mention]) -> str:
    return state_of(min(group, key=lambda m: m.implied))


def _tags(group: list[Mention], names: Mapping[str, str]) -> Iterator[Tag]:
    for mention in group:
        if not mention.implied:
            state = state_of(mention)
            yield Tag(
                state, _SIGNS[state], " · ".join([names.get(mention.concept, mention.concept), *_facts(mention, names)])
            )
    implied = [names.get(m.concept, m.concept) for m in group if m.implied]
    if implied:
        more = f" and {len(implied) - 3} more" if len(implied) > 4 else ""
        yield Tag("absent", _SIGNS["absent"], ", ".join(implied[: 3 if more else 4]) + more)


def _facts(mention: Mention, names: Mapping[str, str]) -> Iterator[str]:
    if mention.count:
        yield f"× {mention.count}"
    place = " ".join(filter(None, (mention.side, names.get(mention.site, "").lower())))
    yield from filter(None, (mention.severity, place, mention.change))
    if mention.size_mm is not None:
        yield f"{mention.size_mm:g} mm"
    if mention.prior_size_mm is not None:
        yield f"was {mention.prior_size_mm:g} mm"


def row(text: str, mention: Mention, names: Mapping[str, str]) -> dict[str, Any]:
    """A mention as a line of a table, in words that people use."""

    def values(kind: str) -> str:
        found: Iterable[Evidence] = (e for e in mention.evidence if e.kind == kind)
        return ", ".join(dict.fromkeys(names.get(e.value, e.value) for e in found))

    def length(size: float | None, kind: str) -> str:
        return "" if size is None else (values(kind).replace(".0", "").replace("x", " × ") or f"{size:g}") + " mm"

    prior = length(mention.prior_size_mm, "prior_size")
    sizes = (length(mention.size_mm, "size"), prior and f"was {prior}")
    return {
        "finding": names.get(mention.concept, mention.concept),
        "state": state_of(mention),
        "certainty": mention.certainty,
        "place": ", ".join(filter(None, (mention.side, values("site")))),
        "severity": mention.severity,
        "size": ", ".join(filter(None, sizes)),
        "count": mention.count,
        "change": ", ".join(filter(None, (mention.change, values("prior") and "since the prior"))),
        "section": mention.section,
        "words": text[mention.start : mention.end],
        "rule": mention.rule,
        "implied": mention.implied,
    }
