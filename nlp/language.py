"""Which language a report is written in: the one whose lexicon and everyday words it shares most of.

The everyday words are data: `lexicons/languages.tsv`. Languages without a lexicon stand there too, so that a report in
one of them is told from a report in a language that is known.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path

from nlp.compounds import Compounds
from nlp.lexicon import HERE
from nlp.phrases import plain_phrases
from nlp.spelling import Spelling, spelling

_FIRST, _MOST = 300, 3_000  # characters: how much is looked at first, and where the first part leaves doubt
_WHOLE = 840  # what a word counts that one language alone has; words of several languages count for each a share of it
_SHARE = 0.2  # of a report's words that its language must have
_SURE = 8 * _WHOLE
_DIGIT = 1 << 32  # the counts of all languages are digits of one number, so that the words are added up only once


def detect(text: str, languages: Sequence[str], lexicon: Path | None = None) -> str:
    """The language of a report, one of `languages`, or "" where none of them fits.

    Of two that fit equally well ("Pneumothorax.") the one that stands first. `lexicon` is a user's own table or folder.
    """
    return _detector(tuple(languages), str(lexicon) if lexicon else None).detect(text)


class _Detector:
    """Words and what they count."""

    def __init__(self, languages: tuple[str, ...], own: Path | None) -> None:
        everyday = _everyday(own)
        self._spellings = {language: spelling(language, own) for language in languages}
        self._names = (*languages, *(name for name in everyday if name not in self._spellings))
        self._compounds = {name: Compounds(s) for name, s in self._spellings.items() if s.lexicon.compounds}
        letters = dict(chain.from_iterable(s.lexicon.folding for s in self._spellings.values()))
        self._blank = str.maketrans(dict.fromkeys(map(chr, range(128)), " ") | dict.fromkeys("–—•“”„…", " "))
        self._blank |= {ord(c): c for c in "abcdefghijklmnopqrstuvwxyz"} | str.maketrans(letters)
        had: dict[str, set[int]] = {}
        for digit, name in enumerate(self._names):
            known: Iterable[str] = self._spellings[name].written if name in self._spellings else ()
            for word in {w for text in chain(known, everyday.get(name, ())) for w in self._words(text)}:
                had.setdefault(word, set()).add(digit)
        self._counts = {
            word: sum(_WHOLE // len(digits) * _DIGIT**digit for digit in digits) for word, digits in had.items()
        }

    def detect(self, text: str) -> str:
        words = self._words(text[:_FIRST])
        best, count, second = self._best(words)
        if len(text) > _FIRST and (count < _SURE or count < 2 * second):
            words = self._words(text[:_MOST])
            best, count, _ = self._best(words)
        if count == 0:
            return self._by_form(words)
        return best if best in self._spellings and count >= _SHARE * _WHOLE * len(words) else ""

    def _words(self, text: str) -> set[str]:
        return {word for word in text.lower().translate(self._blank).split() if len(word) > 1}

    def _best(self, words: set[str]) -> tuple[str, int, int]:
        """The language that has most of the words, with its count, and the count of the next one."""
        total = sum(map(self._counts.get, words, repeat(0)))
        counts = []
        for name in self._names:
            total, count = divmod(total, _DIGIT)
            counts.append((count, name))
        (count, best), (second, _) = sorted(counts, key=lambda c: -c[0])[:2]
        return best, count, second

    def _by_form(self, words: set[str]) -> str:
        """The language of words that no lexicon has as they stand: inflected, compound or misspelt ones."""
        for name, spelled in self._spellings.items():
            if any(_resembles(word, spelled, self._compounds.get(name)) for word in words):
                return name
        return ""


def _resembles(word: str, spelled: Spelling, compounds: Compounds | None) -> bool:
    return spelled.read(word) in spelled.known or (compounds is not None and bool(compounds[word]))


def _everyday(own: Path | None) -> dict[str, list[str]]:
    """The everyday words of each language."""
    words: dict[str, list[str]] = {}
    for folder in (HERE, *([own] if own and own.is_dir() else [])):
        if (path := folder / "languages.tsv").exists():
            for row, phrase in plain_phrases(path, ("language", "phrases")):
                words.setdefault(row["language"], []).append(phrase)
    return words


@lru_cache(maxsize=8)
def _detector(languages: tuple[str, ...], own: str | None) -> _Detector:
    return _Detector(languages, Path(own) if own else None)
