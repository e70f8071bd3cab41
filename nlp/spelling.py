"""Which word of the lexicon a written word is: letters with two spellings, endings, and slips of the keyboard.

What a language allows is data: `lexicons/LANGUAGE/folding.tsv` (letters), `compounds.tsv` (endings), and the class
"spelled" of `words.tsv` (words that are right as they are, however close to a word of the lexicon).
"""

import re
import unicodedata
from functools import cached_property, lru_cache
from pathlib import Path

from nlp.lexicon import Lexicon, load

# Runs are bounded: no report has a word of 200 letters, and a token of a megabyte would stay in the vocabulary.
# Accents that stand as signs of their own, and soft hyphens, belong to their word.
_LETTERS = r"[^\W\d_]{1,200}(?:[\u0300-\u036f\u00ad][^\W\d_]{0,20}){0,20}"
PIECE = re.compile(rf"({_LETTERS}|\d{{1,30}}(?:[.,]\d{{1,30}})?|_{{1,200}}|\s{{1,200}}|.)( ?)", re.DOTALL)
_SHORTEST_STEM = 4  # letters before an ending
_SHORTEST = 8  # letters of a word that is looked at for a slip: in shorter ones too many other words are one slip away
_LONGEST = 40
_PREFIX = 5  # letters in which another letter makes another word: macro-, micro-, intra-, infra-


class Spelling:
    """The words of a lexicon, and how texts may write them."""

    def __init__(self, lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self._letters = str.maketrans(dict(lexicon.folding))
        self._endings = sorted((e.lower() for e, kind in lexicon.compounds if kind == "ending"), key=len, reverse=True)
        self._fixed = frozenset(w.lower() for w, kind in lexicon.classes if kind == "spelled")
        telling = (
            *(part for phrase, _ in lexicon.names for part in phrase.parts),
            *(p for p, *_ in lexicon.places),
            *(p for p, *_ in lexicon.modifiers),
        )
        others = (
            *(p for p, *_ in lexicon.cues),
            *(p for p, *_ in lexicon.normals),
            *(p for p, *_ in lexicon.states),
            *(p for p, *_ in lexicon.headings),
            *(p for p, kind in lexicon.classes if kind != "spelled"),
            *(p for p, *_ in lexicon.units),
        )
        self.written = frozenset(word for phrase in (*telling, *others) for word in split(phrase))
        self._telling = {word for phrase in telling for word in self.words(phrase)}
        self.known = frozenset(word for phrase in others for word in self.words(phrase)) | self._telling

    def words(self, phrase: str) -> list[str]:
        """The words of a phrase as they are compared with those of a text."""
        return [self.stem(piece) for piece in split(phrase)]

    def fold(self, word: str) -> str:
        """A word in lower case, with one spelling for letters that have two."""
        if not word.isascii():
            word = unicodedata.normalize("NFC", word).replace("\u00ad", "")
        return word.lower().translate(self._letters)

    def stem(self, word: str) -> str:
        """A word without its ending, folded."""
        if word.lower() in self._fixed:
            return word.lower()
        folded = self.fold(word)
        for ending in self._endings:
            if folded.endswith(ending) and len(folded) - len(ending) >= _SHORTEST_STEM:
                stem = folded.removesuffix(ending)
                return folded if stem[-1] == ending == "s" else stem  # not "Ergus"
        return folded

    def read(self, word: str) -> str:
        """The lexicon's word that this one stands for, or else the word itself, folded and without its ending."""
        stem = self.stem(word)
        return stem if stem in self.known else self._corrected(stem)

    def right(self, word: str) -> bool:
        """Whether the lexicon has a word, perhaps with another ending."""
        return word.lower() in self._fixed or self.stem(word) in self.known

    def _corrected(self, folded: str) -> str:
        """The only word of the lexicon that is one slip away, if it is one for a finding or for what is said of it.

        The first letter is taken to be right, and the last one too: other last letters make other forms of a word.
        Small words are left alone: they are common, and close to each other."""
        if not _SHORTEST <= len(folded) <= _LONGEST or not folded.isalpha() or folded in self._fixed:
            return folded
        near = {w for key in (folded, *_shortened(folded)) for w in self._slips.get(key, ()) if _one_slip(folded, w)}
        return next(iter(near)) if len(near) == 1 and near <= self._telling else folded

    @cached_property
    def _slips(self) -> dict[str, list[str]]:
        """The longer words by what is left of them when one letter is taken out: the index of Garbe's SymSpell."""
        slips: dict[str, list[str]] = {}
        for word in self.known:
            if len(word) >= _SHORTEST - 1 and word.isalpha():
                for key in {word, *_shortened(word)}:
                    slips.setdefault(key, []).append(word)
        return slips


def _shortened(word: str) -> set[str]:
    return {word[:i] + word[i + 1 :] for i in range(1, len(word) - 1)}


def _one_slip(one: str, other: str) -> bool:
    """Whether one letter is missing, too many or wrong, or two neighbours have changed places."""
    if one[-1] != other[-1]:
        return False
    if len(one) != len(other):
        longer, shorter = sorted((one, other), key=len, reverse=True)
        return shorter in _shortened(longer)
    differ = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(differ) == 2:
        i, j = differ
        return j == i + 1 and one[i] == other[j] and one[j] == other[i]
    return len(differ) == 1 and differ[0] >= _PREFIX


def split(text: str) -> list[str]:
    """The words of a phrase in lower case, white space left out."""
    return [piece.lower() for piece, _ in PIECE.findall(text) if not piece.isspace()]


def spelling(language: str, own: Path | None = None) -> Spelling:
    """How the words of a language are spelled, with those of a user's `own` tables."""
    return _spelling(language, str(own) if own else None)


@lru_cache(maxsize=8)
def _spelling(language: str, own: str | None) -> Spelling:
    return Spelling(load(language, Path(own) if own else None))
