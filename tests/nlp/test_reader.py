"""What the reader makes of sentences that a radiologist could read and correct."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from spacy.language import Language

from nlp.lexicon import concepts
from nlp.pipeline import load_pipeline, read
from nlp.values import Mention, Reading

TABLE = Path(__file__).with_name("sentences_en.txt")
MARK = re.compile(r"\[([^\]|]+)\|([^\]]+)\]")
CONCEPTS = {c.id for c in concepts()}
SAID = {
    **dict.fromkeys(("present", "absent", "uncertain"), "assertion"),
    **dict.fromkeys(("left", "right", "bilateral"), "side"),
    **dict.fromkeys(("borderline", "mild", "moderate", "severe"), "severity"),
    "historical": "temporality",
}


@pytest.fixture(scope="module")
def nlp() -> Language:
    return load_pipeline()


def one(nlp: Language, text: str) -> Reading:
    (reading,) = read(nlp, [text])
    return reading


def marked() -> Iterator[str]:
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            yield line


def wanted(line: str) -> tuple[str, dict[str, dict[str, object]]]:
    """'No [mass|absent].' -> 'No mass.', {'mass': {'assertion': 'absent', 'side': ''}}"""
    marks: dict[str, dict[str, object]] = {}
    for words, said in MARK.findall(line):
        mark: dict[str, object] = {"side": "", "temporality": "current"}
        for word in said.split("|"):
            if size := re.fullmatch(r"(\d+) mm", word):
                mark["size_mm"] = float(size[1])
            elif word in CONCEPTS:
                mark["concept"] = word
            else:
                mark[SAID.get(word, "site")] = word
        marks[words] = mark
    return MARK.sub(r"\1", line), marks


def told(mention: Mention, mark: dict[str, object]) -> dict[str, object]:
    return {key: getattr(mention, key) for key in mark}


def test_there_are_enough_sentences() -> None:
    assert sum(bool(MARK.search(line)) for line in marked()) >= 80


@pytest.mark.parametrize("line", list(marked()))
def test_sentence(nlp: Language, line: str) -> None:
    text, marks = wanted(line)
    found = {text[m.start : m.end]: m for m in one(nlp, text).mentions}
    assert {words: told(m, marks.get(words, {})) for words, m in found.items()} == marks
