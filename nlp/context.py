"""What a report says about its mentions: there, not there, perhaps; now or in the past.

In the manner of NegEx (Chapman et al. 2001) and ConText (Harkema et al. 2009): cues reach forward or backward until
something ends their scope. Which words are cues, and how far they reach, stands in `rules/LANGUAGE/cues.tsv`.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import cast

from spacy.tokens import Doc

from nlp.lexicon import Cue
from nlp.scan import Found, Layer, Notes, notes_of
from nlp.sentences import content
from nlp.values import Assertion

_NEAR = 4  # words that a "near" cue reaches over
_STRENGTH = {"absent": 2, "uncertain": 1, "present": 0}


@dataclass(frozen=True, slots=True)
class CueHit:
    """A cue in a sentence."""

    start: int
    end: int
    cue: Cue


@dataclass(slots=True)
class Clauses:
    """A sentence cut where cues cannot reach over, and its small words by class."""

    bounds: list[int]
    kinds: dict[int, str]
    last: int  # after the last word, signs at the end left out
    end: int

    def around(self, i: int) -> tuple[int, int]:
        """The clause that holds word `i`."""
        at = bisect_right(self.bounds, i)
        return self.bounds[at - 1], self.bounds[at] if at < len(self.bounds) else self.end

    def between(self, start: int, end: int) -> list[str]:
        """The classes of the small words in a range."""
        return [kind for i in range(start, end) if (kind := self.kinds.get(i))]


def judge(doc: Doc) -> Doc:
    """The spaCy component: assertion, certainty and temporality of each mention."""
    notes = notes_of(doc)
    at = 0
    for (start, end), mentions in zip(notes.sentences, notes.found, strict=True):
        while notes.sections[at].end <= start:
            at += 1
        if not mentions:
            continue
        for mention in mentions:
            mention.temporality = "historical" if notes.sections[at].temporality == "historical" else "current"
        cues = _cues(notes, start, end)
        if cues:
            clauses = clauses_of(notes, start, end)
            cues = [c for c in cues if c.cue.effect not in ("stop", "none")]
            for nr, cue in enumerate(cues):
                for mention in _reached(cue, cues[nr + 1 :], mentions, clauses):
                    _apply(cue, mention)
            for mention in mentions:  # "the previously seen effusion is no longer identified" speaks of today
                if mention.assertion == "absent" and notes.sections[at].temporality == "current":
                    mention.temporality = "current"
    return doc


def clauses_of(notes: Notes, start: int, end: int) -> Clauses:
    """Where scopes end in a sentence: at stop cues, semicolons, and joints between two parts with a verb each."""
    classes = notes.vocabulary.lexicon.classes
    kinds = {i: classes[value][1] for a, b, value in notes.within(Layer.CLASS, start, end) for i in range(a, b)}
    hard = {c.start for c in _cues(notes, start, end) if c.cue.effect == "stop"}
    hard |= {a for a, _, _ in notes.within(Layer.SIGN, start, end) if notes.word(a) == ";"}
    bounds, verb_before, joint, verb_after = [start], False, -1, False
    for i in range(start, end):
        kind = kinds.get(i)
        if i in hard:
            if joint >= 0 and verb_before and verb_after:
                bounds.append(joint)
            bounds.append(i)
            verb_before, joint, verb_after = False, -1, False
        elif kind == "joint":
            if joint >= 0 and verb_before and verb_after:
                bounds.append(joint)
                verb_before = False
            verb_before, verb_after, joint = verb_before or verb_after, False, i
        elif kind == "verb":
            if joint >= 0:
                verb_after = True
            else:
                verb_before = True
    if joint >= 0 and verb_before and verb_after:
        bounds.append(joint)
    return Clauses(sorted(set(bounds)), kinds, content(notes, start, end)[1], end)


def _cues(notes: Notes, start: int, end: int) -> list[CueHit]:
    cues = notes.vocabulary.lexicon.cues
    return [CueHit(a, b, cues[value][1]) for a, b, value in notes.within(Layer.CUE, start, end) if b <= end]


def _reached(cue: CueHit, later: list[CueHit], mentions: list[Found], clauses: Clauses) -> list[Found]:
    """The mentions in the scope of a cue."""
    direction = cue.cue.direction
    if direction == "forward" and cue.end >= clauses.last:  # "Pneumothorax: no."
        return [m for m in _backward(cue, mentions, clauses) if cue.start - m.end <= 1]
    reached = [] if direction == "forward" else _backward(cue, mentions, clauses)
    if direction in ("forward", "both") or (direction == "either" and not reached):
        reached += _forward(cue, later, mentions, clauses)
    return reached


def _forward(cue: CueHit, later: list[CueHit], mentions: list[Found], clauses: Clauses) -> list[Found]:
    # a cue that is itself a clause's first word reaches into that clause; so look from its last word on
    _, limit = clauses.around(cue.end - 1)
    reached: list[Found] = []
    for mention in mentions:
        anchor = mention.parts[-1][0]
        if anchor < cue.end:
            continue
        inside = mention.start < cue.start  # between the parts of a phrase: "heart is not enlarged"
        if not inside and (mention.start >= limit or _cut_off(cue, later, mention, reached, clauses)):
            break
        reached.append(mention)
    return reached


def _cut_off(cue: CueHit, later: list[CueHit], mention: Found, reached: list[Found], clauses: Clauses) -> bool:
    """Whether something between a cue and a mention ends the scope, though the clause goes on."""
    if cue.cue.scope == "near" and mention.start - cue.end > _NEAR:
        return True
    if not reached:
        return False
    after = min(m.end for m in reached)
    if cue.cue.scope != "clause" and any(k in ("joint", "with", "verb") for k in clauses.between(after, mention.start)):
        return True
    # "no effusion, possible atelectasis": the second cue takes over; "no opacity suspicious for pneumonia": it does not
    return any(
        after <= c.start
        and c.end <= mention.start
        and c.cue.effect in _STRENGTH
        and c.cue.direction != "backward"
        and (clauses.kinds.get(c.start - 1) in ("joint", "with") or clauses.kinds.get(c.start) == "with")
        for c in later
    )


def _backward(cue: CueHit, mentions: list[Found], clauses: Clauses) -> list[Found]:
    first, _ = clauses.around(max(cue.start - 1, clauses.bounds[0]))
    reached: list[Found] = []
    edge = cue.start
    for mention in reversed(mentions):
        if mention.end > cue.start:
            continue
        if mention.start < first:
            break
        if cue.cue.scope == "near" and cue.start - mention.end > _NEAR:
            break
        if cue.cue.scope != "clause" and reached:
            between = clauses.between(mention.end, edge)
            if set(between) & {"with", "verb"} or not (mention.end > edge or set(between) & {"joint", "either"}):
                break
        reached.append(mention)
        edge = min(edge, mention.start)
    return reached


def _apply(hit: CueHit, mention: Found) -> None:
    """The strongest cue decides: absent before uncertain before present; of two doubts the greater."""
    cue = hit.cue
    if cue.effect == "historical":
        mention.temporality = "historical"
        return
    old, new = _STRENGTH[mention.assertion], _STRENGTH[cue.effect]
    if new > old or (new == old and cue.certainty < mention.certainty):
        mention.assertion = cast(Assertion, cue.effect)
        mention.certainty, mention.cue, mention.rule = cue.certainty, (hit.start, hit.end), cue.id
