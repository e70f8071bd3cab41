"""Sentences of dictated, telegraphic and numbered reports.

Numbers open the entries of a list and never end a sentence; a line break ends one unless the line was merely wrapped.
"""

from bisect import bisect_left
from itertools import pairwise

from spacy.tokens import Doc

from nlp.scan import Layer, Notes, notes_of

_WRAPPED = 40  # characters: shorter lines are entries of a list, not wrapped text
_LONGEST = 300  # words: what is longer is no sentence, and is cut so that time stays linear in the text
_PARTS = frozenset({"lobe", "zone", "segment", "bone"})  # places that stand after a side
_AHEAD = 4  # words of such a place
_BULLETS = "-*•·–—+>#"


def find_sentences(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    starts = {section.start for section in notes.sections}
    _at_signs(notes, starts)
    _at_line_breaks(notes, starts)
    ordered = sorted(starts)
    for section in notes.sections:
        inside = ordered[bisect_left(ordered, section.start) : bisect_left(ordered, section.end)]
        for start, end in pairwise([*inside, section.end]):
            notes.sentences += [(a, min(a + _LONGEST, end)) for a in range(start, end, _LONGEST)]
    return doc


def content(notes: Notes, start: int, end: int) -> tuple[int, int]:
    """A sentence without its number or bullet and without the signs at its end."""
    if end - start > 1 and notes.word(start).isdecimal() and notes.word(start + 1) in ".)":
        start += 2
    while start < end and notes.word(start) in _BULLETS:
        start += 1
    while start < end and not notes.word(end - 1).isalnum():
        end -= 1
    return start, end


def opens_entry(notes: Notes, k: int) -> bool:
    """Whether word `k` is a bullet, or the number of an entry in a list."""
    numbered = _is_number(notes, k) and k + 1 < len(notes.ids) and notes.word(k + 1) in ".)"
    return numbered or notes.word(k) in _BULLETS


def _at_signs(notes: Notes, starts: set[int]) -> None:
    """Sentences that begin after a full stop, or at a number after a semicolon."""
    last, lines, n = -1, set(notes.lines), len(notes.ids)
    for k, _, _ in notes.hits[Layer.SIGN]:
        sign, after = notes.word(k), k + 1
        if sign == "•":
            starts.add(k)
        if sign not in ".;!?" or after >= n:
            continue
        spaced = notes.starts[after] > notes.ends[k]
        if sign == ";":
            if _is_number(notes, after) and after + 1 < n and notes.word(after + 1) in ".)":
                starts.add(after)
        elif sign == "." and k and notes.starts[k] == notes.ends[k - 1]:
            opens = k - 1 in starts or k - 1 in lines or last == k - 2
            if opens and _is_number(notes, k - 1):
                starts.add(k - 1)  # "2." of "... effusion. 2. Scar" opens the sentence
            elif (spaced or _glued(notes, k)) and not _shortened(notes, k):
                starts.add(after)
        elif spaced and not (sign == "?" and (k in starts or k in lines)):  # but "? nodule" asks
            starts.add(after)
        last = k


def _shortened(notes: Notes, k: int) -> bool:
    """Whether a full stop belongs to the word before it: to an abbreviation, or to an ordinal ("der 9. Rippe")."""
    vocabulary, word = notes.vocabulary, notes.ids[k - 1]
    if word in vocabulary.postposed:  # "Erguss li. Herz normal" are two sentences, "Infiltrat li. Unterlappen" is one
        nouns = k > 1 and notes.word(k + 1)[0].isupper() and _ends_noun(notes, k - 2)
        hits = vocabulary.phrases.find(notes.ids[k + 1 : k + 1 + _AHEAD])[Layer.PLACE]
        places = [hit for hit in hits if hit[0] == 0]
        return not nouns or any(vocabulary.lexicon.places[value][1].kind in _PARTS for _, _, value in places)
    if vocabulary.ordinals and notes.word(k - 1)[0].isdecimal():
        return (k > 1 and notes.ids[k - 2] in vocabulary.ordinals) or notes.ids[k + 1] in vocabulary.ordinals
    return word in vocabulary.abbreviations


def _ends_noun(notes: Notes, k: int) -> bool:
    """Whether word `k` is a noun, or a place after one: "Infiltrat apikal", but not "im apikalen"."""
    first = max(0, k + 1 - _AHEAD)
    while k >= first:
        head = k
        while k and notes.starts[k] == notes.ends[k - 1] and notes.word(k - 1).isalpha():
            k -= 1  # compounds are cut, and only their first part has the capital
        if notes.word(k)[0].isupper():
            return True
        if not notes.vocabulary.phrases.find(notes.ids[head : head + 1])[Layer.PLACE]:
            return False
        k -= 1
    return False


def _is_number(notes: Notes, k: int) -> bool:
    word = notes.word(k)
    return len(word) <= 2 and word.isdecimal()


def _glued(notes: Notes, k: int) -> bool:
    """Whether a full stop without a space after it ends a sentence: "effusion.No", not "E.coli"."""
    before, after = notes.word(k - 1), notes.word(k + 1)
    return len(before) > 1 and before.isalpha() and (after[0].isupper() or after.isdecimal()) and len(after) > 0


def _at_line_breaks(notes: Notes, starts: set[int]) -> None:
    """Sentences that begin with a line."""
    for start, line in pairwise(notes.lines):
        if _breaks(notes, start, line):
            starts.add(line)


def _breaks(notes: Notes, start: int, line: int) -> bool:
    """Whether the line that begins with word `line` begins a sentence; `start` is the first word of the line before."""
    between = notes.text[notes.ends[line - 1] : notes.starts[line]]
    if between.count("\n") > 1 or opens_entry(notes, line):
        return True
    if notes.ids[line - 1] in notes.vocabulary.continues:
        return False
    if notes.word(line - 1) in ".:;!?":
        return True
    first = notes.word(line)
    capital = first[0].isupper() and not (first.isupper() and notes.word(line - 1).isupper())
    return capital or notes.ends[line - 1] - notes.starts[start] < _WRAPPED
