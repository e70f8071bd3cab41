"""How a mention has changed, since which examination, and how many there are.

"new", "larger", "unchanged", "smaller" and "no longer seen" are told of mentions before and after them and of the
entries of a list; with a change goes the examination it speaks of ("since the prior CT", "compared to 03/12/2019").
"""

import re
from bisect import bisect_right

from spacy.tokens import Doc

from nlp.linking import Frame, Group, frame_of, owner
from nlp.scan import Layer, Notes, notes_of

_GONE = frozenset({"resolved", "removed"})  # changes of what is not there any more; the others need something that is
_BEFORE = 5  # words between a number and what it counts
_MOST = 30  # what is counted; larger numbers are years and images
_DATE = re.compile(r"\d{1,4}(?:\s?[./-]\s?\d{1,4}){1,2}(?!\d)|(?:19|20)\d\d(?!\d)|\d{0,2}\.?\s?[xX_]{2,}", re.ASCII)


def compare(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    for at, mentions in enumerate(notes.found):
        if not mentions:
            continue
        start, end = notes.sentences[at]
        if changes := notes.within(Layer.CHANGE, start, end):
            frame = frame_of(notes, at)
            if _tell_changes(notes, frame, changes):
                _tell_prior(notes, frame)
        _tell_counts(notes, at, start, end)
    return doc


def _tell_changes(notes: Notes, frame: Frame, changes: list[tuple[int, int, int]]) -> bool:
    modifiers = notes.vocabulary.lexicon.modifiers
    told: dict[int, tuple[str, int, int]] = {}  # start of a group -> what is said of it, and where
    last: tuple[int, Group] | None = None
    for a, b, value in changes:
        change = modifiers[value][2]
        if change == "none":
            continue
        group = owner(frame.groups, frame.clauses, a, b, last)
        if group and not any(x <= a and b <= y for m in group.mentions for x, y in m.parts):  # "increased markings"
            told.setdefault(group.start, (change, a, b))
            last = (b, group)
    if not told:
        return False
    for i, j in frame.pairs:
        one, following = frame.groups[i], frame.groups[j]
        said = told.get(one.start)
        if said and said[1] < one.start:  # "stable effusion and atelectasis"
            told.setdefault(following.start, said)
    for i, j in reversed(frame.pairs):
        previous, one = frame.groups[i], frame.groups[j]
        said = told.get(one.start)
        if said and said[1] >= one.end:  # "effusion and atelectasis are stable"
            told.setdefault(previous.start, said)
    for group in frame.groups:
        if said := told.get(group.start):
            for mention in group.mentions:
                asked = mention.temporality == "hypothetical"  # "if concern for pneumonia persists"
                if not asked and (mention.assertion == "absent") == (said[0] in _GONE):
                    mention.change = said[0]
                    mention.told("change", *said)
    return True


def _tell_prior(notes: Notes, frame: Frame) -> None:
    """The examination that a change speaks of, with its date: "since the prior CT of 03/12/2019"."""
    modifiers = notes.vocabulary.lexicon.modifiers
    changed = [g for g in frame.groups if any(m.change for m in g.mentions)]
    reach, lead = 0, (-1, -1)
    for a, b, value in notes.within(Layer.PRIOR, frame.start, frame.end) if changed else ():
        kind = modifiers[value][2]
        end = _dated(notes, b, frame.end)
        if kind == "since":
            lead = (a, b)
        if a < reach or kind not in ("prior", "since") or (kind == "since" and end == b):
            continue
        reach = end
        a = lead[0] if lead[1] == a else a  # noqa: PLW2901
        clause = frame.clauses.around(a)
        here = [g for g in changed if frame.clauses.around(g.start) == clause] or [
            next((g for g in reversed(changed) if g.end <= a), changed[0])
        ]
        for group in here:
            for mention in group.mentions:
                if mention.change:
                    mention.told("prior", "prior", a, end)


def _dated(notes: Notes, word: int, end: int) -> int:
    """Where the date ends that starts at a word; the word itself, if none does."""
    modifiers = notes.vocabulary.lexicon.modifiers
    kinds = {a: (b, modifiers[value][2]) for a, b, value in notes.within(Layer.PRIOR, word, min(word + 4, end))}
    at = kinds[word][0] if kinds.get(word, (0, ""))[1] == "since" else word  # "of", "dated"
    if at >= end:
        return word
    date = _DATE.match(notes.text, notes.starts[at], notes.ends[end - 1])
    reached = bisect_right(notes.starts, date.end() - 1) if date else at
    for i in range(at, min(at + 2, end)):  # "March 3, 2019", "3 March 2019"
        if kinds.get(i, (0, ""))[1] == "month":
            reached = max(reached, i + 1)
            while reached < min(i + 4, end) and (notes.word(reached)[0].isdecimal() or notes.word(reached) == ","):
                reached += 1
            reached -= notes.word(reached - 1) == ","
    return reached if reached > at else word


def _tell_counts(notes: Notes, at: int, start: int, end: int) -> None:
    modifiers = notes.vocabulary.lexicon.modifiers
    counts = [(a, b, modifiers[value][2]) for a, b, value in notes.within(Layer.COUNT, start, end)]
    text, starts = notes.text, notes.starts
    for mention in notes.found[at]:
        near = range(max(start, mention.start - _BEFORE), mention.start)
        digits = (i for i in near if text[starts[i]].isdecimal() and _counts(notes, i, start))
        counts.extend((i, i + 1, notes.word(i)) for i in digits)
    if not counts:
        return
    frame = frame_of(notes, at)
    for a, b, count in sorted(set(counts)):
        group = next((g for g in frame.groups if g.end > a), None)
        if count == "none" or group is None or group.start - b > _BEFORE:
            continue
        between = frame.clauses.between(b, group.start)
        if {"verb", "with", "place", "either"} & set(between) or any(
            frame.clauses.kinds.get(i) == "joint" and notes.word(i) != "," for i in range(b, group.start)
        ):
            continue
        for mention in group.mentions:
            if not mention.count:
                mention.count = count
                mention.told("count", count, a, b)


def _counts(notes: Notes, i: int, start: int) -> bool:
    """Whether a number says how many: "3 nodules", not "rib 3", "T3", "3.", "3 mm", "3 of 4" or a date."""
    word = notes.word(i)
    if not (word.isdecimal() and 0 < int(word) <= _MOST and i + 1 < len(notes.ids)):
        return False
    if not notes.word(i + 1).isalpha() or notes.starts[i + 1] == notes.ends[i]:
        return False
    modifiers = notes.vocabulary.lexicon.modifiers
    if notes.within(Layer.UNIT, i + 1, i + 2) or notes.within(Layer.MEASURE, i + 1, i + 2):
        return False
    about = notes.within(Layer.MEASURE, max(start, i - 2), i)
    if i == start or any(b == i and modifiers[value][2] == "about" for _, b, value in about):
        return True
    small = notes.within(Layer.CLASS, i - 1, i)
    kinds = [notes.vocabulary.lexicon.classes[value][1] for _, _, value in small]
    opens = notes.word(i - 1) in ":;(" or bool(notes.within(Layer.COUNT, i - 1, i))
    return (opens or bool(kinds)) and not (i - 2 >= start and notes.word(i - 2)[0].isdecimal())
