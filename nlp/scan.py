"""The first component: every phrase of the lexicon found in one pass, and the notes that later components add to."""

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import cast

from spacy.language import Language
from spacy.strings import StringStore
from spacy.tokens import Doc

from nlp.lexicon import Lexicon, load
from nlp.trie import Hit, Trie
from nlp.values import Assertion, Experiencer, Temporality
from nlp.words import split, words_of

_KEY = "nlp.notes"
_AT_LINE_ENDS = ("continues", "abbreviation")  # classes that matter for sentences only
_NEW_LINE = re.compile(r"\n|\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")


class Layer(IntEnum):
    """What a phrase can be. Layers may overlap; inside one the longest phrase wins (of PART, all are kept)."""

    NAME, PART, CUE, PLACE, SIDE, SEVERITY, CHANGE, COUNT, PRIOR, NORMAL, STATE, HEADING, CLASS, SIGN = range(14)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A lexicon made ready for one pipeline's words."""

    lexicon: Lexicon
    trie: Trie
    gapped: dict[int, tuple[tuple[tuple[int, ...], int], ...]]  # first part -> (parts that follow, index of the name)
    broader: tuple[frozenset[int], ...]  # for each concept those above it
    continues: frozenset[int]  # ids of words that do not end a line's sentence
    abbreviations: frozenset[int]


@dataclass(slots=True)
class Found:
    """A mention in the making. Positions count words."""

    concept: int
    parts: tuple[tuple[int, int], ...]
    assertion: Assertion = "present"
    temporality: Temporality = "current"
    experiencer: Experiencer = "patient"
    certainty: float = 1.0
    cue: tuple[int, int] | None = None
    rule: str = ""
    implied: bool = False
    side: str = ""
    site: str = ""
    severity: str = ""
    size_mm: float | None = None
    prior_size_mm: float | None = None
    count: str = ""
    change: str = ""
    evidence: list[tuple[str, str, int, int]] = field(default_factory=list)  # kind, value, words

    def told(self, kind: str, value: str, start: int, end: int) -> None:
        """Note which words said something."""
        if (kind, value, start, end) not in self.evidence:
            self.evidence.append((kind, value, start, end))

    @property
    def start(self) -> int:
        return self.parts[0][0]

    @property
    def end(self) -> int:
        return self.parts[-1][1]


@dataclass(frozen=True, slots=True)
class Section:
    """A section as a range of words."""

    name: str
    temporality: str
    start: int
    end: int


@dataclass(slots=True)
class Notes:
    """What is known about one report so far. Words are counted without white space."""

    text: str
    vocabulary: Vocabulary
    ids: list[int]
    starts: list[int]  # character offset of each word
    ends: list[int]
    hits: list[list[Hit]]
    lines: list[int]  # the words that start a line
    sections: list[Section] = field(default_factory=list)
    sentences: list[tuple[int, int]] = field(default_factory=list)
    found: list[list[Found]] = field(default_factory=list)  # for each sentence

    def word(self, i: int) -> str:
        return self.text[self.starts[i] : self.ends[i]]

    def within(self, layer: Layer, start: int, end: int) -> list[Hit]:
        """The hits of a layer that start in a range of words."""
        hits = self.hits[layer]
        return hits[bisect_left(hits, (start,)) : bisect_left(hits, (end,))]


def notes_of(doc: Doc) -> Notes:
    """The notes about a report that has been scanned."""
    return cast(Notes, doc.user_data[_KEY])


class Scan:
    """Scans a report for all phrases."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def __call__(self, doc: Doc) -> Doc:
        ids, starts, ends = words_of(doc)
        text = doc.text
        lines = sorted({0, *(bisect_left(starts, m.end()) for m in _NEW_LINE.finditer(text))} - {len(ids)})
        doc.user_data[_KEY] = Notes(text, self.vocabulary, ids, starts, ends, self.vocabulary.trie.scan(ids), lines)
        return doc


def make_scan(nlp: Language, name: str, language: str, lexicon: str | None) -> Scan:
    """The spaCy factory; `lexicon` is the path of a user's own table."""
    return Scan(compile_vocabulary(load(language, Path(lexicon) if lexicon else None), nlp.vocab.strings))


def compile_vocabulary(lexicon: Lexicon, strings: StringStore) -> Vocabulary:
    """All phrases of a lexicon in one trie."""

    def ids(phrase: str) -> tuple[int, ...]:
        return tuple(strings.add(word) for word in split(phrase))

    trie = Trie(len(Layer), every={Layer.PART})
    parts: dict[tuple[int, ...], int] = {}
    gapped: dict[int, list[tuple[tuple[int, ...], int]]] = {}
    for index, (phrase, _) in enumerate(lexicon.names):
        if len(phrase.parts) == 1:
            trie.add(ids(phrase.parts[0]), Layer.NAME, index)
            continue
        first, *rest = (parts.setdefault(ids(part), len(parts)) for part in phrase.parts)
        gapped.setdefault(first, []).append((tuple(rest), index))
    for part_ids, part in parts.items():
        trie.add(part_ids, Layer.PART, part)
    tables: tuple[tuple[Layer, Iterable[str]], ...] = (
        (Layer.CUE, (p for p, _ in lexicon.cues)),
        (Layer.PLACE, (p for p, _ in lexicon.places)),
        (Layer.NORMAL, (p for p, _ in lexicon.normals)),
        (Layer.STATE, (p for p, _ in lexicon.states)),
        (Layer.HEADING, (p for p, _, _ in lexicon.headings)),
        (Layer.SIGN, ".!?;()[]•"),
    )
    for layer, phrases in tables:
        for index, words in enumerate(phrases):
            trie.add(ids(words), layer, index)

    for index, (words, kind, _) in enumerate(lexicon.modifiers):
        trie.add(ids(words), Layer[kind.upper()], index)
    for index, (words, kind) in enumerate(lexicon.classes):
        if kind not in _AT_LINE_ENDS:
            trie.add(ids(words), Layer.CLASS, index)

    def single(kind: str) -> frozenset[int]:
        return frozenset(ids(p)[0] for p, k in lexicon.classes if k == kind and len(ids(p)) == 1)

    return Vocabulary(
        lexicon,
        trie,
        {first: tuple(dict.fromkeys(rest)) for first, rest in gapped.items()},
        _broader(lexicon),
        single("continues"),
        single("abbreviation"),
    )


def _broader(lexicon: Lexicon) -> tuple[frozenset[int], ...]:
    place = {concept.id: index for index, concept in enumerate(lexicon.concepts)}
    above = []
    for concept in lexicon.concepts:
        ids: dict[int, None] = {}
        while concept.parent and place[concept.parent] not in ids:
            ids[place[concept.parent]] = None
            concept = lexicon.concepts[place[concept.parent]]  # noqa: PLW2901
        above.append(frozenset(ids))
    return tuple(above)
