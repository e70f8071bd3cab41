"""Compound words cut into their parts: "Oberlappeninfiltrat" is an infiltrate in an upper lobe.

A word that the lexicon does not have, and that is wholly made of words that it has, counts as those words. What may
stand first and last, and the letters between, is data: `lexicons/LANGUAGE/compounds.tsv` beside the names of findings,
places, organs and sides. A part left out before or after a hyphen is filled in: "Ober- und Unterlappen".
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import pairwise

from nlp.spelling import Spelling, split

_LONGEST = 60  # letters; what is longer is no word
_MOST = 4  # parts
_SHORTEST_FIRST, _SHORTEST_HEAD, _SHORTEST_PLACE = 4, 4, 4  # letters, endings left out of the last two
_REMEMBERED = 50_000  # words
_AHEAD = 4  # words between a hyphen and the word that completes it
_EXACT = frozenset({"lobe", "zone", "segment"})  # kinds of places
_HYPHENS = frozenset("-–‐")
Parts = tuple[str, ...]


class Compounds(dict[str, Parts]):
    """For each word, as it is written, its parts; () for a word that is none or that the lexicon has."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        lexicon = spelling.lexicon
        told = {kind: {spelling.stem(p) for p, k in lexicon.compounds if k == kind} for kind in ("first", "head")}
        names = _single(spelling, (phrase.parts[0] for phrase, _ in lexicon.names if len(phrase.parts) == 1))
        places = _single(spelling, (p for p, _ in lexicon.places))
        organs = _single(spelling, (p for p, _ in lexicon.normals))
        sides = _single(spelling, (p for p, kind, _ in lexicon.modifiers if kind == "side"))
        self._meaning: dict[str, set[int]] = {}
        for phrase, concept in lexicon.names:
            if len(phrase.parts) == 1 and len(words := spelling.words(phrase.parts[0])) == 1:
                self._meaning.setdefault(words[0], set()).add(concept)
        self._exact = sides | _single(spelling, (p for p, place in lexicon.places if place.kind in _EXACT))
        self._links = [spelling.fold(p) for p, kind in lexicon.compounds if kind == "link"]
        self._firsts = told["first"] | {w for w in names | places | organs | sides if len(w) >= _SHORTEST_FIRST}
        self._heads = told["head"] | {w for w in names if len(w) >= _SHORTEST_HEAD}
        self._heads |= {w for w in places | organs if len(w) >= _SHORTEST_PLACE}
        self._joints = {spelling.stem(p) for p, kind in lexicon.classes if kind in ("joint", "either")}

    def __missing__(self, word: str) -> Parts:
        if len(self) >= _REMEMBERED:
            self.clear()
        parts = self[word] = self._cut(word)
        return parts

    def cut(self, words: list[str], spaces: list[bool]) -> tuple[list[str], list[bool]]:
        """The words of a text, and whether a space follows each, with compounds cut."""
        parts = [self[word] for word in words]
        if not any(parts):
            return words, spaces
        cut: list[str] = []
        spaced: list[bool] = []
        for word, space, of in zip(words, spaces, parts, strict=True):
            cut += of or (word,)
            spaced += [False] * (len(of) - 1)
            spaced.append(space)
        return cut, spaced

    def words(self, phrase: str) -> list[str]:
        """The words of a phrase of a table, cut as they are in a text; a phrase of one word stays whole."""
        pieces = split(phrase)
        if len(pieces) == 1:
            return self._spelling.words(phrase)
        return [self._spelling.stem(part) for piece in pieces for part in self[piece] or (piece,)]

    def _cut(self, word: str) -> Parts:
        if not _SHORTEST_FIRST + _SHORTEST_HEAD <= len(word) <= _LONGEST or not word.isalpha():
            return ()
        known = self._spelling.right(word)
        if known and self._spelling.stem(word) not in self._meaning:
            return ()
        folded = self._spelling.fold(word)
        written = {0: 0}  # places in the folded word -> places in the word as written
        at = 0
        for i, letter in enumerate(word, start=1):
            at += len(self._spelling.fold(letter))
            written[at] = i
        if at != len(folded):
            return ()
        for i in range(_SHORTEST_FIRST - 1, len(folded) - _SHORTEST_HEAD + 1):
            if self._is_head(folded[i:]) and (firsts := self._places(folded[:i], _MOST - 1)):
                if known and not self._tells_where(folded, firsts[0], i):
                    continue
                ends = [*firsts, len(folded)]
                if all(end in written for end in ends):
                    return tuple(word[written[a] : written[b]] for a, b in pairwise([0, *ends]))
        return ()

    def _tells_where(self, folded: str, first: int, head: int) -> bool:
        """Whether a finding's name only adds a lobe or a side to that of the same finding: "Oberlappeninfiltrat"."""
        stem = self._spelling.stem
        same = self._meaning.get(stem(folded[head:])) == self._meaning[stem(folded)]
        return same and first == head and stem(folded[:first]) in self._exact

    def _is_head(self, part: str) -> bool:
        return self._spelling.stem(part) in self._heads

    def _is_first(self, part: str) -> bool:
        stem = self._spelling.stem
        return stem(part) in self._firsts or any(
            part.endswith(link) and stem(part.removesuffix(link)) in self._firsts for link in self._links
        )

    def _places(self, start: str, most: int) -> list[int]:
        """Where the parts end that the beginning of a word is made of; [] if it is not."""
        if self._is_first(start):
            return [len(start)]
        for i in range(_SHORTEST_FIRST - 1, len(start) - 2) if most > 1 else ():
            if self._is_first(start[i:]) and (before := self._places(start[:i], most - 1)):
                return [*before, len(start)]
        return []

    def completed(self, words: Sequence[str], spaced: Sequence[bool]) -> list[tuple[int, str]]:
        """Words with a part left out at a hyphen, and the lexicon's words that they stand for."""
        found = []
        for i in range(1, len(words) - 1):
            if words[i] not in _HYPHENS or spaced[i] == spaced[i - 1]:
                continue
            if spaced[i] and (whole := self._with_end(words, i)):
                found.append((i - 1, whole))
            elif spaced[i - 1] and (whole := self._with_start(words, i)):
                found.append((i + 1, whole))
        return found

    def _with_end(self, words: Sequence[str], hyphen: int) -> str:
        """ "Pleura- und Perikarderguss" -> "pleuraerguss"."""
        if self._spelling.stem(words[hyphen + 1]) not in self._joints:
            return ""
        start = self._spelling.fold(words[hyphen - 1])
        for word in words[hyphen + 2 : hyphen + 2 + _AHEAD]:
            folded = self._spelling.fold(word)[:_LONGEST]
            for i in range(len(folded) - 2 if start.isalpha() and folded.isalpha() else 0):
                if (whole := self._spelling.stem(start + folded[i:])) in self._spelling.known:
                    return whole
        return ""

    def _with_start(self, words: Sequence[str], hyphen: int) -> str:
        """ "Pleuraverdickung und -verkalkung" -> "pleuraverkalkung"."""
        end = self._spelling.fold(words[hyphen + 1])
        if hyphen < 2 or not end.isalpha() or self._spelling.stem(words[hyphen - 1]) not in self._joints:
            return ""
        folded = self._spelling.fold(words[hyphen - 2])[:_LONGEST]
        wholes = (self._spelling.stem(folded[:i] + end) for i in range(len(folded), 2, -1))
        return next((whole for whole in wholes if whole in self._spelling.known), "")


@lru_cache(maxsize=8)
def compounds(spelling: Spelling) -> Compounds | None:
    """How the compounds of a language are cut; None if it has none."""
    return Compounds(spelling) if spelling.lexicon.compounds else None


def _single(spelling: Spelling, phrases: Iterable[str]) -> set[str]:
    """The phrases that are one word."""
    return {words[0] for phrase in phrases if len(words := spelling.words(phrase)) == 1 and words[0].isalpha()}
