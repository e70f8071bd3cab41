"""What the reader makes of sentences that a radiologist could read and correct: those in `sentences/`."""

import re
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

from nlp.lexicon import concepts, sites
from nlp.pipeline import load_pipeline, read
from nlp.values import Mention

TABLES = sorted(Path(__file__).with_name("sentences").glob("*.txt"))
MARK = re.compile(r"\[([^\]|]+)\|([^\]]+)\]")
CONCEPTS = {c.id for c in concepts()}
SITES = {s.id for s in sites()}
SAID = {
    **dict.fromkeys(("present", "absent", "uncertain"), "assertion"),
    **dict.fromkeys(("left", "right", "bilateral"), "side"),
    **dict.fromkeys(("borderline", "mild", "moderate", "severe"), "severity"),
    **dict.fromkeys(("historical", "hypothetical"), "temporality"),
    **dict.fromkeys(("new", "increased", "stable", "decreased", "resolved", "removed"), "change"),
    "other": "experiencer",
}
pipeline = cache(load_pipeline)


@dataclass
class Mark:
    """What a sentence's markup says of the words from `start` to `end`."""

    start: int
    end: int
    said: dict[str, object] = field(
        default_factory=lambda: {
            "assertion": "present",
            "temporality": "current",
            "experiencer": "patient",
            "side": "",
            "implied": False,
        }
    )
    concepts: set[str] = field(default_factory=set)
    more: bool = False
    sites: list[str] = field(default_factory=list)


def marked() -> list[tuple[str, str]]:
    """Language and line of each marked-up sentence."""
    return [
        (path.name[:2], line)
        for path in TABLES
        for line in path.read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]


def parse(line: str) -> tuple[str, list[Mark]]:
    """'No [mass|absent].' -> 'No mass.' and what is said of "mass"."""
    text, at, marks = "", 0, []
    for found in MARK.finditer(line):
        text += line[at : found.start()]
        mark = Mark(len(text), len(text) + len(found[1]))
        text, at = text + found[1], found.end()
        marks.append(mark)
        for word in found[2].split("|"):
            if size := re.fullmatch(r"(was )?([\d.]+) mm", word):
                mark.said["prior_size_mm" if size[1] else "size_mm"] = float(size[2])
            elif count := re.fullmatch(r"x(\w+)", word):
                mark.said["count"] = count[1]
            elif certainty := re.fullmatch(r"0\.\d+", word):
                mark.said["certainty"] = float(certainty[0])
            elif word in SAID:
                mark.said[SAID[word]] = word
            elif word == "implied":
                mark.said["implied"] = True
            elif word == "...":
                mark.more = True
            elif word in CONCEPTS:
                mark.concepts.add(word)
            else:
                assert word in SITES, f"{word!r} is no concept, no site and no other word of the markup"
                mark.sites.append(word)
    return text + line[at:], marks


def check(mark: Mark, mentions: list[Mention]) -> None:
    named = {m.concept for m in mentions}
    assert mark.concepts <= named
    assert mark.more or not mark.concepts or mark.concepts == named
    for mention in mentions:
        assert {key: getattr(mention, key) for key in mark.said} == mark.said
        if mark.sites:
            assert mention.site == mark.sites[0]
            assert {e.value for e in mention.evidence if e.kind == "site"} == set(mark.sites)


def test_there_are_enough_sentences() -> None:
    languages = [language for language, line in marked() if MARK.search(line)]
    assert len(languages) >= 400
    assert languages.count("de") >= len(languages) / 3


@pytest.mark.parametrize(("language", "line"), marked())
def test_sentence(language: str, line: str) -> None:
    text, marks = parse(line)
    (reading,) = read(pipeline(language), [text])
    found = {span: list(group) for span, group in groupby(reading.mentions, lambda m: (m.start, m.end))}
    places = {(mark.start, mark.end) for mark in marks}
    told = {span: [m.concept for m in found[span]] for span in found if not all(m.implied for m in found[span])}
    assert set(told) <= places, "a mention is not marked"
    for mark in marks:
        assert (mark.start, mark.end) in found, f"{text[mark.start : mark.end]!r} is no mention"
        check(mark, found[mark.start, mark.end])
