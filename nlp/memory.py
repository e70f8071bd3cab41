"""Sentences that were read before: reports repeat theirs, and to look one up takes far less than to read it.

Only sentences that mean the same wherever they stand are kept, with their mentions. Nothing is written down: a memory
lives and ends with its pipeline.
"""

from collections.abc import Sequence
from functools import partial
from itertools import chain

from spacy.language import Language
from spacy.tokens import Doc

from nlp.linking import points_back
from nlp.scan import Notes, notes_of
from nlp.values import Evidence, Mention

_MOST = 10_000  # sentences in each half of a memory
_LONGEST = 300  # characters: longer sentences hardly come again
_HYPHENS = ("- ", " -")  # of a word with a part left out, which may stand in another sentence


class Memory:
    """Sentences and their mentions; when a half is full, the older half is forgotten."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._newer: dict[tuple[str, str], Sequence[Mention]] = {}
        self._older: dict[tuple[str, str], Sequence[Mention]] = {}

    def get(self, key: tuple[str, str]) -> Sequence[Mention] | None:
        """The mentions of a sentence, at the places where it stood then."""
        mentions = self._newer.get(key)
        if mentions is None:
            mentions = self._older.get(key)
            if mentions is not None:
                self.keep(key, mentions)
        return mentions

    def keep(self, key: tuple[str, str], mentions: Sequence[Mention]) -> None:
        """Remember a sentence."""
        if len(self._newer) >= self._most:
            self._newer, self._older = {}, self._newer
        self._newer[key] = mentions


class FindPhrases:
    """The component that finds the phrases of all sentences that are not remembered."""

    def __init__(self, memory: bool) -> None:
        self.memory = Memory() if memory else None

    def forget(self) -> None:
        """Read every sentence anew from now on."""
        if self.memory is not None:
            self.memory = Memory()

    def __call__(self, doc: Doc) -> Doc:
        notes = notes_of(doc)
        if self.memory is not None and not _has_list(notes):
            self._recall(notes, self.memory)
        sentences = (range(a, b) for at, (a, b) in enumerate(notes.sentences) if at not in notes.recalled)
        notes.vocabulary.phrases.scan(notes.ids, notes.hits, chain.from_iterable(sentences))
        return doc

    def _recall(self, notes: Notes, memory: Memory) -> None:
        text, starts, ends = notes.text, notes.starts, notes.ends
        follows = False  # whether the next sentence speaks of this one
        last = len(notes.sentences) - 1
        section = len(notes.sections) - 1
        for at in range(last, -1, -1):
            start, end = notes.sentences[at]
            followed, follows = follows, points_back(notes, start, end)
            a, b = starts[start], ends[end - 1]
            if follows or followed or b - a > _LONGEST or not _stands_alone(notes, start, end):
                continue
            while notes.sections[section].start > start:
                section -= 1
            key = text[a:b], notes.sections[section].temporality
            mentions = memory.get(key)
            if mentions is None:
                notes.new[at] = partial(memory.keep, key)
            else:
                notes.recalled[at] = mentions


def make_phrases(nlp: Language, name: str, memory: bool) -> FindPhrases:
    """The spaCy factory."""
    return FindPhrases(memory)


def _has_list(notes: Notes) -> bool:
    """Whether a line may reach into the entries of a list below it: "No evidence of:"."""
    return any(notes.text[notes.ends[end - 1] - 1] == ":" for _, end in notes.sentences)


def _stands_alone(notes: Notes, start: int, end: int) -> bool:
    """Whether no word or phrase can run over an end of the sentence."""
    text, ids, pairs = notes.text, notes.ids, notes.vocabulary.pairs
    a, b = notes.starts[start], notes.ends[end - 1]
    if start and (not text[a - 1].isspace() or (ids[start - 1], ids[start]) in pairs):
        return False
    if end < len(ids) and (not text[b].isspace() or (ids[end - 1], ids[end]) in pairs):
        return False
    around = text[a - 1 if a else 0 : b + 1]
    return not any(hyphen in around for hyphen in _HYPHENS)


def moved(mentions: Sequence[Mention], start: int, section: str) -> list[Mention]:
    """The mentions of a sentence that now begins at character `start` of a section."""
    by = start - mentions[0].sentence_start if mentions else 0
    return [
        Mention(
            m.concept,
            m.assertion,
            m.temporality,
            m.experiencer,
            m.certainty,
            m.start + by,
            m.end + by,
            m.sentence_start + by,
            m.sentence_end + by,
            section,
            None if m.cue_start is None else m.cue_start + by,
            None if m.cue_end is None else m.cue_end + by,
            *m[12:-1],
            tuple([Evidence(kind, value, a + by, b + by) for kind, value, a, b in m.evidence]),
        )
        for m in mentions
    ]
