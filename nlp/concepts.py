"""Which concepts a report names: the hits of the scan, and phrases with other words between their parts."""

from bisect import bisect_left, bisect_right
from itertools import compress, pairwise
from typing import NamedTuple

from spacy.tokens import Doc

from nlp.scan import Found, Gap, Layer, Notes, notes_of
from nlp.sentences import content

_GAP = 8  # words that "..." may stand for
_SHARING = 2  # words of a name that may stand before "and", its head after it: "calcified hilar and mediastinal nodes"
_JOINTS = frozenset({"joint", "either"})
Parts = tuple[tuple[int, int], ...]


class Candidate(NamedTuple):
    """A phrase in a sentence: where its parts are, which of the lexicon's names it is, and its words."""

    parts: Parts
    name: int
    words: frozenset[int]


def find_concepts(doc: Doc) -> Doc:
    """The spaCy component. `notes.found` gets the mentions of each sentence, in order."""
    notes = notes_of(doc)
    notes.found = [[] for _ in notes.sentences]
    firsts = [start for start, _ in notes.sentences]
    hits = (hit for layer in (Layer.NAME, Layer.PART) for hit in notes.hits[layer])
    classes = notes.vocabulary.lexicon.classes
    joints = {a for a, b, value in notes.hits[Layer.CLASS] if b - a == 1 and classes[value][1] in _JOINTS}
    for at in sorted({bisect_right(firsts, start) - 1 for start, _, _ in hits} - {-1}):
        start, end = notes.sentences[at]
        found: list[tuple[Parts, int]] = [(((a, b),), name) for a, b, name in notes.within(Layer.NAME, start, end)]
        found += _gapped(notes, start, end)
        found += _sharing(notes, found, joints, start)
        inside = [f for f in found if f[0][-1][1] <= end]
        notes.found[at] = _kept(notes, inside, start, end)
    return doc


def _gapped(notes: Notes, start: int, end: int) -> list[tuple[Parts, int]]:
    """Phrases of several parts in one sentence: each part the nearest that follows the one before."""
    hits = notes.within(Layer.PART, start, end)
    firsts = [hit for hit in hits if hit[2] in notes.vocabulary.gapped]
    if not firsts or len(hits) < 2:
        return []
    classes = notes.vocabulary.lexicon.classes
    small = notes.within(Layer.CLASS, start, end)
    walls = [a for a, _, value in small if classes[value][1] == "break" or notes.word(a) == ","]
    walls = sorted(walls + [a for a, _, _ in notes.within(Layer.SIGN, start, end)])
    found: list[tuple[Parts, int]] = []
    for a, b, first in firsts:
        waiting: list[tuple[Parts, Gap]] = [(((a, b),), notes.vocabulary.gapped[first])]
        while waiting:
            parts, gap = waiting.pop()
            found += [(parts, name) for name in gap.names]
            if gap.following:
                reach = parts[-1][1]
                wall = bisect_left(walls, reach)
                last = min(reach + _GAP, walls[wall] if wall < len(walls) else end)
                near = hits[bisect_left(hits, (reach,)) : bisect_right(hits, (last, end))]
                nearest = {hit[2]: hit[:2] for hit in reversed(near) if hit[2] in gap.following}
                waiting += [((*parts, span), gap.following[part]) for part, span in nearest.items()]
    return found


def _sharing(notes: Notes, found: list[tuple[Parts, int]], joints: set[int], start: int) -> list[tuple[Parts, int]]:
    """Names that share their head with a name after "and" or "or": "pleural and pericardial effusions"."""
    shared: list[tuple[Parts, int]] = []
    for parts, _ in found:
        a, b = parts[0]
        if len(parts) > 1 or b - a < 2:
            continue
        while a - 1 in joints:
            end = a - 1
            while end - 1 in joints:
                end -= 1
            names = _with_head(notes, start, end, a, b)
            if not names:
                break
            shared += names
            a = names[0][0][0][0]
    return shared


def _with_head(notes: Notes, start: int, end: int, first: int, last: int) -> list[tuple[Parts, int]]:
    """What the words before `end` name with the last of the words from `first` to `last`; the most words count."""
    for a in range(max(start, end - _SHARING), end):
        for head in range(max(first + 1, last - _SHARING), last):
            words = notes.ids[a:end] + notes.ids[head:last]
            hits = notes.vocabulary.phrases.find(words)[Layer.NAME]
            names = [name for hit_start, hit_end, name in hits if (hit_start, hit_end) == (0, len(words))]
            if names:
                return [(((a, end), (head, last)), name) for name in names]
    return []


def _kept(notes: Notes, found: list[tuple[Parts, int]], start: int, end: int) -> list[Found]:
    """The phrases of a sentence without those that longer ones or more special concepts make idle."""
    lexicon = notes.vocabulary.lexicon
    phrases = [lexicon.names[name][0] for _, name in found]
    if any(phrase.opens or phrase.closes for phrase in phrases):
        first, last = content(notes, start, end)
        fits = [
            (not phrase.opens or parts[0][0] == first) and (not phrase.closes or parts[-1][1] == last)
            for (parts, _), phrase in zip(found, phrases, strict=True)
        ]
        found = list(compress(found, fits))
    if any(one[-1][1] > other[0][0] for (one, _), (other, _) in pairwise(found)):
        found = _best(notes, found)
    named = ((lexicon.names[name][1], parts) for parts, name in found)
    return [Found(concept, parts) for concept, parts in named if lexicon.concepts[concept].category != "none"]


def _best(notes: Notes, found: list[tuple[Parts, int]]) -> list[tuple[Parts, int]]:
    """Of phrases that share words the longer ones and the more special concepts, in the order of the text."""
    candidates = [Candidate(p, name, frozenset(w for a, b in p for w in range(a, b))) for p, name in found]
    kept: list[Candidate] = []
    at_word: dict[int, list[Candidate]] = {}
    for candidate in sorted(candidates, key=lambda c: (-len(c.words), c.parts, c.name)):
        rivals = {rival for word in candidate.words for rival in at_word.get(word, ())}
        if any(_idle(notes, candidate, rival) for rival in rivals):
            continue
        for rival in [r for r in rivals if _idle(notes, r, candidate)]:
            kept.remove(rival)
            for word in rival.words:
                at_word[word].remove(rival)
        kept.append(candidate)
        for word in candidate.words:
            at_word.setdefault(word, []).append(candidate)
    return [(c.parts, c.name) for c in sorted(kept)]


def _idle(notes: Notes, one: Candidate, other: Candidate) -> bool:
    """Whether `one` says nothing beside `other`, with which it shares words."""
    names, broader = notes.vocabulary.lexicon.names, notes.vocabulary.broader
    concept, rival = names[one.name][1], names[other.name][1]
    return one.words < other.words or concept == rival or concept in broader[rival]
