"""Text to words, for reports and phrases alike.

Reports are telegraphic ("1.There", "4.5cm", "right-sided", "effusion/thickening"), and spaCy's own tokenizer needs
minutes for some strings without spaces. Here one regular expression cuts text into runs of letters, numbers, and single
signs, in linear time; the pieces put together are the text again, so that offsets are exact.
"""

import re
from itertools import accumulate
from typing import Any

from spacy.attrs import IS_SPACE, LENGTH, NORM, SPACY
from spacy.tokens import Doc
from spacy.vocab import Vocab

from nlp.compounds import compounds
from nlp.spelling import PIECE, Spelling, split

__all__ = ["ReportTokenizer", "split", "text_of", "words_of"]
_TEXT = "nlp.text"
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: spaCy cannot store it


class ReportTokenizer:
    """A spaCy tokenizer: text -> Doc, linear in the length of the text whatever it contains."""

    def __init__(self, vocab: Vocab, spelling: Spelling) -> None:
        self.vocab = vocab
        self._compounds = compounds(spelling)
        # spaCy asks this once for each new word, and every token of that word has the answer
        vocab.lex_attr_getters[NORM] = spelling.read  # type: ignore[attr-defined]
        for lexeme in vocab:
            lexeme.norm_ = spelling.read(lexeme.orth_)

    def __call__(self, text: str) -> Doc:
        text = _SURROGATE.sub("\ufffd", text)
        pieces = PIECE.findall(text)
        words, spaces = [p for p, _ in pieces], [bool(s) for _, s in pieces]
        if self._compounds is None:
            return Doc(self.vocab, words=words, spaces=spaces, user_data={_TEXT: text})
        words, spaces = self._compounds.cut(words, spaces)
        doc = Doc(self.vocab, words=words, spaces=spaces, user_data={_TEXT: text})
        for i, whole in self._compounds.completed(words, spaces) if "- " in text or " -" in text else ():
            doc[i].norm_ = whole
        return doc

    def to_bytes(self, **_: Any) -> bytes:
        """spaCy asks this of every tokenizer; there is nothing to store."""
        return b""

    def from_bytes(self, _data: bytes, **_kwargs: Any) -> "ReportTokenizer":
        return self

    def to_disk(self, _path: object, **_kwargs: Any) -> None:
        """spaCy asks this of every tokenizer; there is nothing to store."""

    def from_disk(self, _path: object, **_kwargs: Any) -> "ReportTokenizer":
        return self


def text_of(doc: Doc) -> str:
    """The text of `doc`; kept beside the words, because spaCy puts it together from them anew each time."""
    text: str = doc.user_data.get(_TEXT) or doc.text
    return text


def words_of(doc: Doc) -> tuple[list[int], list[int], list[int]]:
    """The NORM ids, start and end offsets of the words of `doc`, white space left out."""
    if not len(doc):
        return [], [], []
    table = doc.to_array([NORM, LENGTH, SPACY, IS_SPACE])
    lengths = table[:, 1].tolist()
    starts = [0, *accumulate((table[:, 1] + table[:, 2]).tolist())]
    keep = (table[:, 3] == 0).nonzero()[0].tolist()
    ids = table[:, 0].tolist()
    return [ids[i] for i in keep], [starts[i] for i in keep], [starts[i] + lengths[i] for i in keep]
