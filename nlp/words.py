"""Text to words, for reports and phrases alike.

Reports are telegraphic ("1.There", "4.5cm", "right-sided", "effusion/thickening"), and spaCy's own tokenizer needs
minutes for some strings without spaces. Here one regular expression cuts text into runs of letters, numbers, and single
signs, in linear time; the pieces put together are the text again, so that offsets are exact.
"""

import re
from itertools import accumulate
from typing import Any

from spacy.attrs import IS_SPACE, LENGTH, LOWER, SPACY
from spacy.tokens import Doc
from spacy.vocab import Vocab

# Runs are bounded: no report has a word of 200 letters, and a token of a megabyte would stay in the vocabulary.
_PIECE = re.compile(r"([^\W\d_]{1,200}|\d{1,30}(?:[.,]\d{1,30})?|_{1,200}|\s{1,200}|.)( ?)", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: spaCy cannot store it


def split(text: str) -> list[str]:
    """The words of a phrase, as the tokenizer cuts them, without white space and in lower case."""
    return [piece.lower() for piece, _ in _PIECE.findall(text) if not piece.isspace()]


class ReportTokenizer:
    """A spaCy tokenizer: text -> Doc, linear in the length of the text whatever it contains."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab

    def __call__(self, text: str) -> Doc:
        pieces = _PIECE.findall(_SURROGATE.sub("\ufffd", text))
        return Doc(self.vocab, words=[p for p, _ in pieces], spaces=[bool(s) for _, s in pieces])

    def to_bytes(self, **_: Any) -> bytes:
        """spaCy asks this of every tokenizer; there is nothing to store."""
        return b""

    def from_bytes(self, _data: bytes, **_kwargs: Any) -> "ReportTokenizer":
        return self

    def to_disk(self, _path: object, **_kwargs: Any) -> None:
        """spaCy asks this of every tokenizer; there is nothing to store."""

    def from_disk(self, _path: object, **_kwargs: Any) -> "ReportTokenizer":
        return self


def words_of(doc: Doc) -> tuple[list[int], list[int], list[int]]:
    """The LOWER ids, start and end offsets of the words of `doc`, white space left out."""
    if not len(doc):
        return [], [], []
    table = doc.to_array([LOWER, LENGTH, SPACY, IS_SPACE])
    lengths = table[:, 1].tolist()
    starts = [0, *accumulate((table[:, 1] + table[:, 2]).tolist())]
    keep = (table[:, 3] == 0).nonzero()[0].tolist()
    lower = table[:, 0].tolist()
    return [lower[i] for i in keep], [starts[i] for i in keep], [starts[i] + lengths[i] for i in keep]
