"""The first component: the phrases that give a report its structure, and the notes that later components add to."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from spacy.language import Language
from spacy.strings import StringStore
from spacy.tokens import Doc

from nlp.compounds import compounds
from nlp.lexicon import Lexicon
from nlp.spelling import Spelling, spelling
from nlp.trie import Hit, Trie
from nlp.values import Assertion, Experiencer, Mention, Temporality
from nlp.words import text_of, words_of

_KEY = "nlp.notes"
# classes of words that are asked for by themselves, not found by the scan
_AT_LINE_ENDS = ("continues", "abbreviation", "postposed", "ordinal", "spelled")
_NEW_LINE = re.compile(r"[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")


class Layer:  # no Enum: its members take several times as long to look up
    """What a phrase can be. Layers may overlap; inside one the longest phrase wins (of PART, all are kept)."""

    NAME, PART, CUE, PLACE, SIDE, SEVERITY, CHANGE, COUNT, PRIOR, NORMAL, STATE, HEADING, CLASS, SIGN = range(14)
    SIZE, MEASURE, LINK, UNIT = range(14, 18)


_STRUCTURE = frozenset({Layer.HEADING, Layer.SIGN, Layer.LINK})  # what sections and sentences are told from
_LAYERS = sum(name.isupper() for name in vars(Layer))


@dataclass(slots=True)
class Gap:
    """Where a phrase of several parts may have got to: the names that end here, and the parts that may follow."""

    names: list[int] = field(default_factory=list)
    following: "dict[int, Gap]" = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A lexicon made ready for one pipeline's words."""

    lexicon: Lexicon
    structure: Trie
    phrases: Trie  # those of all other layers
    pairs: frozenset[tuple[int, int]]  # words that stand side by side in a phrase
    gapped: dict[int, Gap]  # by first part
    broader: tuple[frozenset[int], ...]  # for each concept those above it
    continues: frozenset[int]  # ids of words that do not end a line's sentence
    abbreviations: frozenset[int]
    postposed: frozenset[int]  # abbreviations that mostly stand after their noun
    ordinals: frozenset[int]  # words beside a number that has a dot of its own


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
    recalled: dict[int, Sequence[Mention]] = field(default_factory=dict)  # what memory.py knows of a sentence
    new: dict[int, Callable[[Sequence[Mention]], None]] = field(default_factory=dict)  # what it would like to know
    clauses: dict[int, Any] = field(default_factory=dict)  # what context.py keeps of a sentence, by its first word
    frames: dict[int, Any] = field(default_factory=dict)  # what linking.py keeps of a sentence

    def word(self, i: int) -> str:
        return self.text[self.starts[i] : self.ends[i]]

    def within(self, layer: int, start: int, end: int) -> list[Hit]:
        """The hits of a layer that start in a range of words."""
        hits = self.hits[layer]
        return hits and hits[bisect_left(hits, (start,)) : bisect_left(hits, (end,))]


def notes_of(doc: Doc) -> Notes:
    """The notes about a report that has been scanned."""
    return cast(Notes, doc.user_data[_KEY])


class Scan:
    """Scans a report for headings, signs, and words that point from sentence to sentence."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary

    def __call__(self, doc: Doc) -> Doc:
        ids, starts, ends = words_of(doc)
        text = text_of(doc)
        lines = sorted({0, *(bisect_left(starts, m.end()) for m in _NEW_LINE.finditer(text))} - {len(ids)})
        hits = self.vocabulary.structure.find(ids)
        doc.user_data[_KEY] = Notes(text, self.vocabulary, ids, starts, ends, hits, lines)
        return doc


def make_scan(nlp: Language, name: str, language: str, lexicon: str | None) -> Scan:
    """The spaCy factory; `lexicon` is the path of a user's own table."""
    return Scan(compile_vocabulary(spelling(language, Path(lexicon) if lexicon else None), nlp.vocab.strings))


def compile_vocabulary(spelled: Spelling, strings: StringStore) -> Vocabulary:
    """All phrases of a lexicon in two tries."""
    lexicon = spelled.lexicon
    cut = compounds(spelled)
    words_of_phrase = spelled.words if cut is None else cut.words

    def ids(phrase: str) -> tuple[int, ...]:
        return tuple(strings.add(word) for word in words_of_phrase(phrase))

    structure, phrases = Trie(_LAYERS), Trie(_LAYERS, every={Layer.PART})
    parts: dict[tuple[int, ...], int] = {}
    gaps = Gap()
    for index, (phrase, _) in enumerate(lexicon.names):
        if len(phrase.parts) == 1:
            phrases.add(ids(phrase.parts[0]), Layer.NAME, index)
            continue
        gap = gaps
        for part in phrase.parts:
            gap = gap.following.setdefault(parts.setdefault(ids(part), len(parts)), Gap())
        gap.names.append(index)
    for part_ids, number in parts.items():
        phrases.add(part_ids, Layer.PART, number)
    tables: tuple[tuple[int, Iterable[str]], ...] = (
        (Layer.CUE, (p for p, _ in lexicon.cues)),
        (Layer.PLACE, (p for p, _ in lexicon.places)),
        (Layer.NORMAL, (p for p, _ in lexicon.normals)),
        (Layer.STATE, (p for p, _ in lexicon.states)),
        (Layer.HEADING, (p for p, _, _ in lexicon.headings)),
        (Layer.SIGN, ".!?;()[]•"),
        (Layer.UNIT, (p for p, _ in lexicon.units)),
    )
    # of one meaning a phrase needs only one value, in however many forms it is written
    meanings: dict[int, tuple[tuple[object, ...], ...]] = {
        Layer.CUE: lexicon.cues, Layer.PLACE: lexicon.places, Layer.NORMAL: lexicon.normals,
        Layer.STATE: lexicon.states, Layer.HEADING: lexicon.headings, Layer.UNIT: lexicon.units,
    }  # fmt: skip
    known: set[object] = set()

    def add(words: str, layer: int, index: int, meaning: object) -> None:
        phrase = ids(words)
        if (phrase, layer, meaning) not in known:
            known.add((phrase, layer, meaning))
            (structure if layer in _STRUCTURE else phrases).add(phrase, layer, index)

    for layer, table in tables:
        rows = meanings.get(layer)
        for index, words in enumerate(table):
            add(words, layer, index, rows[index][1:] if rows else index)

    for index, (words, kind, value) in enumerate(lexicon.modifiers):
        add(words, getattr(Layer, kind.upper()), index, value)
    for index, (words, kind) in enumerate(lexicon.classes):
        if kind not in _AT_LINE_ENDS:
            add(words, Layer.CLASS, index, kind)

    def single(kind: str) -> frozenset[int]:
        return frozenset(ids(p)[0] for p, k in lexicon.classes if k == kind and len(ids(p)) == 1)

    return Vocabulary(
        lexicon,
        structure,
        phrases,
        frozenset((*structure.pairs(), *phrases.pairs())),
        gaps.following,
        _broader(lexicon),
        single("continues"),
        single("abbreviation"),
        single("postposed"),
        single("ordinal"),
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
