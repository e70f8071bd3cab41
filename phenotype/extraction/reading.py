"""The words of reports to readings, each within a few seconds, or to the reason why there is none."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nlp import lexicon
from phenotype.extraction.deadline import OutOfTime, deadline
from phenotype.stage import Failure, Refused

if TYPE_CHECKING:
    from nlp.reader import Reader
    from nlp.values import Reading

AUTO = "auto"
LONGEST = 50_000_000  # characters of a report
SECONDS = 5.0  # of processor time for a report; a megabyte takes about one
TOGETHER = 200_000  # characters that are read under one deadline


def read_reports(
    reports: Mapping[str, tuple[str, str]], language: str, words: Path | None, version: str
) -> dict[str, "Reading | Failure"]:
    """Report id to what it says, from its text and the language that its delivery names, if any.

    `language` is that of all reports, or "auto": then each is read in its own, as the delivery says or as it is found
    to be. `version` is the digest of the lexicon: when that is edited, it is loaded anew.
    """
    known = lexicon.languages(words)
    by_language: dict[str, dict[str, str]] = {}
    found: dict[str, Reading | Failure] = {}
    for report, (text, told) in reports.items():
        if len(text) > LONGEST:
            found[report] = _failure("too_long", f"the report has more than {LONGEST:,} characters")
            continue
        own = language if language != AUTO else told if told in known else _detect(text, known, words)
        if own:
            by_language.setdefault(own, {})[report] = text
        else:
            found[report] = _failure("language", "its language was not recognised; `--language` names it")
    for own, texts in by_language.items():
        reader = _reader(own, words, version)
        for some in _together(texts):
            found |= _read(reader, some)
    return {report: found[report] for report in reports}


def _detect(text: str, known: tuple[str, ...], words: Path | None) -> str:
    from nlp.language import detect

    return detect(text, known, words)


@cache
def _reader(language: str, words: Path | None, _version: str) -> "Reader":
    from nlp.reader import Reader

    reader = Reader(language, words)
    reader.read_chunk([""])  # loads what it needs, once in each process, and not at a report's expense
    return reader


def _together(texts: dict[str, str]) -> Iterator[dict[str, str]]:
    some: dict[str, str] = {}
    characters = 0
    for report, text in texts.items():
        if some and characters + len(text) > TOGETHER:
            yield some
            some, characters = {}, 0
        some[report] = text
        characters += len(text)
    if some:
        yield some


def _read(reader: "Reader", texts: dict[str, str]) -> dict[str, "Reading | Failure"]:
    """Read reports together; if that takes too long, one by one, so that only the guilty is given up."""
    try:
        with deadline(SECONDS):
            readings = reader.read_chunk(list(texts.values()))
    except OutOfTime:
        if len(texts) == 1:
            return {next(iter(texts)): _failure("too_slow", f"reading it took more than {SECONDS:g} seconds")}
        return {r: f for report, text in texts.items() for r, f in _read(reader, {report: text}).items()}
    return dict(zip(texts, readings, strict=True))


def _failure(code: str, message: str) -> Failure:
    return Failure(str(Refused(code, message)))
