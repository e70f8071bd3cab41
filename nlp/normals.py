"""What normal statements deny: "the heart is normal" says that there is no cardiomegaly.

An organ, or a list of organs, and a state that counts as normal for it stand in one sentence, the state after them
("heart and lungs are normal") or before ("normal heart size", "no abnormality of the pleura"). Organs, states and what
is denied are data: `lexicons/LANGUAGE/normals.tsv` and `states.tsv`. What the same sentence says itself goes before.
This component comes last, so that what is only implied takes no side, size or place in a list from what is said.
"""

from bisect import bisect_right, insort
from typing import NamedTuple

from spacy.tokens import Doc

from nlp.scan import Found, Layer, Notes, notes_of
from nlp.trie import Hit

_NOTHING = "none"  # a state of the table that only hides the state in it: "upper limits of normal"
_BEFORE = 8  # words between an organ and its state: "the lungs again appear to be entirely clear"
_AFTER = 4  # words between a state and its organ: "normal appearance of the heart"
_LISTED = 5  # words between two organs of a list
_JOINTS = frozenset({"joint", "either"})
_DENIES = frozenset({"absent", "uncertain", "hypothetical", "other"})  # effects of cues that undo a state after them


class _Words(NamedTuple):
    """The words of a sentence that decide what a state speaks of."""

    kinds: dict[int, str]  # classes of small words
    taken: frozenset[int]  # words of findings, grades, changes and other states
    signs: frozenset[int]

    def open(self, start: int, end: int, *walls: str) -> bool:
        """Whether nothing stands between two words that keeps them apart."""
        return not any(i in self.taken or i in self.signs or self.kinds.get(i) in walls for i in range(start, end))

    def listed(self, start: int, end: int) -> bool:
        """Whether two organs with these words between stand side by side in a list."""
        between = {kind for i in range(start, end) if (kind := self.kinds.get(i))}
        return (
            end - start <= _LISTED
            and self.open(start, end, "verb", "with", "place", "break")
            and not between.isdisjoint(_JOINTS)
        )


def deny(doc: Doc) -> Doc:
    """The spaCy component: adds to `notes.found` what normal statements deny."""
    notes = notes_of(doc)
    if not notes.hits[Layer.NORMAL] or not notes.hits[Layer.STATE]:
        return doc
    firsts = [start for start, _ in notes.sentences]
    stated = {bisect_right(firsts, a) - 1 for a, _, _ in notes.hits[Layer.STATE]}
    sections = [section.start for section in notes.sections]
    for at in sorted(stated & {bisect_right(firsts, a) - 1 for a, _, _ in notes.hits[Layer.NORMAL]}):
        start, end = notes.sentences[at]
        if notes.sections[bisect_right(sections, start) - 1].temporality == "current":
            _deny_in(notes, start, end, notes.found[at])
    return doc


def _deny_in(notes: Notes, start: int, end: int, found: list[Found]) -> None:
    said = {word for mention in found for a, b in mention.parts for word in range(a, b)}
    organs: dict[tuple[int, int], list[int]] = {}
    for a, b, value in notes.within(Layer.NORMAL, start, end):
        if b <= end and said.isdisjoint(range(a, b)):
            organs.setdefault((a, b), []).append(value)
    if not organs:
        return
    places = list(organs)
    states = [hit for hit in notes.within(Layer.STATE, start, end) if hit[1] <= end]
    words = _words(notes, start, end, said, states)
    lexicon = notes.vocabulary.lexicon
    for state in states:
        name = lexicon.states[state[2]][1]
        if name == _NOTHING or _undone(notes, state, start, end, said, words):
            continue
        for place in _organs_of(state, places, words, end):
            for value in organs[place]:
                organ = lexicon.normals[value][1]
                if name in organ.states:
                    _add(notes, found, start, place, state, organ.id, organ.denies)


def _words(notes: Notes, start: int, end: int, said: set[int], states: list[Hit]) -> _Words:
    classes = notes.vocabulary.lexicon.classes
    kinds = {i: classes[v][1] for a, b, v in notes.within(Layer.CLASS, start, end) for i in range(a, b)}
    hits = [*notes.within(Layer.SEVERITY, start, end), *notes.within(Layer.CHANGE, start, end), *states]
    taken = said.union(*(range(a, b) for a, b, _ in hits))
    return _Words(kinds, frozenset(taken), frozenset(a for a, _, _ in notes.within(Layer.SIGN, start, end)))


def _undone(notes: Notes, state: Hit, start: int, end: int, said: set[int], words: _Words) -> bool:
    """Whether the words around a state take it back: "not entirely normal", "was normal previously"."""
    a, b, _ = state
    modifiers = notes.vocabulary.lexicon.modifiers
    graded = any(s <= a < e and modifiers[v][2] != _NOTHING for s, e, v in notes.within(Layer.SEVERITY, start, end))
    if graded or any(i in said for i in range(a, b)):
        return True  # "top normal", or the words of a finding
    for c, d, value in notes.within(Layer.CUE, max(start, a - 4), min(end, b + 2)):
        cue = notes.vocabulary.lexicon.cues[value][1]
        near = d <= a and a - d <= 1 and words.open(d, a, "joint", "either", "with", "break")
        behind = c == b and cue.direction != "forward"
        if (cue.effect in _DENIES and near) or (cue.effect == "historical" and (near or behind)):
            return True
    return False


def _organs_of(state: Hit, places: list[tuple[int, int]], words: _Words, end: int) -> list[tuple[int, int]]:
    """The organs that a state speaks of: those before it, or else those right after it, or else farther before."""
    a, b, _ = state
    last = bisect_right(places, (a, 0)) - 1
    before = last >= 0 and places[last][1] <= a and a - places[last][1] <= _BEFORE
    following = last + 1
    after = (
        following < len(places)
        and 0 <= places[following][0] - b <= _AFTER
        and words.open(b, places[following][0], "joint", "either", "with", "verb")
    )
    if before and (words.open(places[last][1], a, "joint", "either", "with", "place") or not after):
        if any(words.kinds.get(i) == "with" for i in range(places[last][1], a)):
            return []
        chosen = [places[last]]
        while last and words.listed(places[last - 1][1], places[last][0]):
            last -= 1
            chosen.append(places[last])
        return chosen
    if not after:
        return []
    chosen = [places[following]]
    for place in places[following + 1 :]:
        # "normal heart, the lungs are clear": an organ with a predicate of its own is none of the list
        alone = place[1] < end and (place[1] in words.taken or words.kinds.get(place[1]) == "verb")
        if alone or not words.listed(chosen[-1][1], place[0]):
            break
        chosen.append(place)
    return chosen


def _add(
    notes: Notes,
    found: list[Found],
    start: int,
    place: tuple[int, int],
    state: Hit,
    organ: str,
    denies: tuple[int, ...],
) -> None:
    """Denials, but for what the sentence itself speaks of, be it more broadly or more specially."""
    broader = notes.vocabulary.broader
    said = {mention.concept for mention in found if not mention.implied}
    around = said.union(*(broader[concept] for concept in said), (m.concept for m in found if m.implied))
    sides = notes.within(Layer.SIDE, max(start, place[0] - 1), place[1] + 1)  # "left sulcus", "Randwinkel links"
    side = notes.vocabulary.lexicon.modifiers[sides[0][2]][2] if sides else ""
    for concept in denies:
        if concept in around or not said.isdisjoint(broader[concept]):
            continue
        denial = Found(concept, (place,), "absent", certainty=0.0, cue=state[:2], rule=f"normal_{organ}", implied=True)
        if side:
            denial.side = side
            denial.told("side", side, sides[0][0], sides[0][1])
        insort(found, denial, key=lambda mention: mention.parts)
