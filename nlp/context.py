"""What a report says about its mentions: there, not there, perhaps; now, in the past or only thought of; whose.

In the manner of NegEx (Chapman et al. 2001) and ConText (Harkema et al. 2009): cues reach forward or backward until
something ends their scope. Which words are cues, and how far they reach, stands in `lexicons/LANGUAGE/cues.tsv`.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import cast

from spacy.tokens import Doc

from nlp.lexicon import Cue
from nlp.scan import Found, Layer, Notes, notes_of
from nlp.sentences import content, opens_entry
from nlp.values import Assertion

_NEAR = 4  # words that a "near" cue reaches over
_HIDDEN = 0.8  # of the certainty is left where a blank, which may hide a "no", stands before a mention
_PARTS = frozenset({"verb", "joint", "either"})  # classes of words that part a sentence
_STRENGTH = {"absent": 2, "uncertain": 1, "hypothetical": 1, "present": 0}


@dataclass(slots=True)
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
    anew: frozenset[int] = frozenset()  # words that begin an own entry after a comma: "no effusion, mild scoliosis"
    commas: tuple[int, ...] = ()
    described: tuple[int, ...] = ()  # words that tell a side, a severity or a size

    def around(self, i: int) -> tuple[int, int]:
        """The clause that holds word `i`."""
        at = bisect_right(self.bounds, i)
        return self.bounds[at - 1], self.bounds[at] if at < len(self.bounds) else self.end

    def between(self, start: int, end: int) -> list[str]:
        """The classes of the small words in a range."""
        return [kind for i in range(start, end) if (kind := self.kinds.get(i))]


def judge(doc: Doc) -> Doc:
    """The spaCy component: assertion, certainty, temporality and experiencer of each mention."""
    notes = notes_of(doc)
    blanks = _blanks(notes)
    at, heads = 0, list[CueHit]()
    for (start, end), mentions in zip(notes.sentences, notes.found, strict=True):
        if heads and not opens_entry(notes, start):
            heads = []
        if not mentions:
            if notes.text[notes.ends[end - 1] - 1] == ":":
                heads = _heads(notes, start, end)
            continue
        while notes.sections[at].end <= start:
            at += 1
        past = notes.sections[at].temporality == "historical"
        if past:
            for mention in mentions:
                mention.temporality = "historical"
        cues = heads + _cues(notes, start, end)
        if cues:
            clauses = clauses_of(notes, start, end)
            for nr, cue in enumerate(cues):
                for mention in _reached(cue, cues[:nr], cues[nr + 1 :], mentions, clauses):
                    _apply(cue, mention, past)
        if blanks:
            _doubt_blanks(blanks, start, mentions)
    return doc


def clauses_of(notes: Notes, start: int, end: int) -> Clauses:
    """Where scopes end in a sentence: at stop cues, semicolons, and joints between two parts with a verb each.

    A participle ("seen") makes a part of its own only beside another: "no effusion seen, scar noted" are two, "there is
    no effusion and scar seen" is one."""
    if start in notes.clauses:  # three components ask
        return cast(Clauses, notes.clauses[start])
    classes, cues = notes.vocabulary.lexicon.classes, notes.vocabulary.lexicon.cues
    first, last = content(notes, start, end)
    kinds: dict[int, str] = {}
    participles, anew, parts, commas = set[int](), set[int](), list[int](), list[int]()
    for a, b, value in notes.within(Layer.CLASS, start, end):
        kind = classes[value][1]
        if kind == "participle":
            participles.add(a)
        elif kind == "anew":
            anew.add(a)
        elif kind != "blank":
            if kind in _PARTS and a >= first and a not in kinds:
                parts.append(a)
                if kind == "joint" and notes.word(a) == ",":
                    commas.append(a)
            for i in range(a, b):
                kinds[i] = kind
    hard = {a for a, b, value in notes.within(Layer.CUE, start, end) if cues[value][1].effect == "stop" and b <= end}
    hard |= {a for a, _, _ in notes.within(Layer.SIGN, start, end) if notes.word(a) == ";"}
    bounds, joint, closed = [start], -1, False
    before, after = set[str](), set[str]()  # which verbs stand before and after the joint

    def parted() -> bool:
        return joint >= 0 and bool(before) and ("finite" in after or bool(before & after))

    for i in sorted(hard.union(parts)) if hard else parts:
        part = kinds.get(i)
        if i in hard:
            bounds += [joint, i] if parted() else [i]
            before, after, joint, closed = set(), set(), -1, False
        elif part == "verb":
            (after if joint >= 0 else before).add("participle" if i in participles else "finite")
        elif part == "either":
            if joint == i - 1 and not closed:  # "no A, B, or C seen": the comma is one of a list
                joint = -1
        elif not closed or parted():
            if parted():
                bounds.append(joint)
                before = set()
            before, after = before | after, set()
            joint, closed = i, kinds.get(i - 1) == "verb"  # a verb right before it ends its part
    if parted():
        bounds.append(joint)
    modifiers = notes.vocabulary.lexicon.modifiers
    told = (*notes.within(Layer.SIDE, start, end), *notes.within(Layer.SEVERITY, start, end))
    described = tuple([a for a, _, value in told if modifiers[value][2] not in ("none", "bilateral")])
    clauses = Clauses(sorted(set(bounds)), kinds, last, end, frozenset(anew), tuple(commas), described)
    notes.clauses[start] = clauses
    return clauses


def _cues(notes: Notes, start: int, end: int) -> list[CueHit]:
    """The cues in a sentence that say something themselves."""
    cues = notes.vocabulary.lexicon.cues
    hits = ((a, b, cues[value][1]) for a, b, value in notes.within(Layer.CUE, start, end) if b <= end)
    return [CueHit(a, b, cue) for a, b, cue in hits if cue.effect not in ("stop", "none")]


def _heads(notes: Notes, start: int, end: int) -> list[CueHit]:
    """The cues that end the line over a list, as in "no evidence of:", and so reach into each of its entries."""
    _, last = content(notes, start, end)
    return [c for c in _cues(notes, start, end) if c.end >= last and c.cue.direction == "forward"]


def _reached(
    cue: CueHit, earlier: list[CueHit], later: list[CueHit], mentions: list[Found], clauses: Clauses
) -> list[Found]:
    """The mentions in the scope of a cue."""
    direction = cue.cue.direction
    if direction == "between":  # "scar or atelectasis": what stands right before and right after it
        before = [m for m in mentions if 0 <= cue.start - m.end <= _NEAR][-1:]
        after = [m for m in mentions if 0 <= m.start - cue.end <= _NEAR][:1]
        return before + after if before and after else []
    if direction == "forward" and cue.end >= clauses.last:  # "Pneumothorax: no."
        before = _backward(cue, earlier, mentions, clauses)
        if before and cue.cue.effect == "uncertain" and _about(before[0].end, cue.start, clauses):
            return [m for m in before if m.end >= before[0].start]  # "effusion, pneumonia on the left?": the last entry
        return [m for m in before if cue.start - m.end <= 1]
    reached = [] if direction == "forward" else _backward(cue, earlier, mentions, clauses)
    if direction in ("forward", "both") or (direction == "either" and not reached):
        reached += _forward(cue, later, mentions, clauses)
    return reached


def _forward(cue: CueHit, later: list[CueHit], mentions: list[Found], clauses: Clauses) -> list[Found]:
    # a cue that is itself a clause's first word reaches into that clause; so look from its last word on
    _, limit = clauses.around(max(cue.end - 1, clauses.bounds[0]))
    reached: list[Found] = []
    for mention in mentions:
        if mention.parts[-1][0] <= cue.start:  # but "no acute" may share a word with "acute distress"
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
    after = min((m.end for m in reached), default=cue.end)
    if reached:
        between = clauses.between(after, mention.start)
        if cue.cue.scope != "clause" and any(k in ("joint", "with", "verb") for k in between):
            return True
        anew = [i for i in clauses.anew if after <= i < mention.start and clauses.kinds.get(i - 1) == "joint"]
        if anew and cue.cue.effect == "absent" and "either" not in clauses.between(after, clauses.end):
            return True
        if cue.cue.effect == "absent" and _entry_of_its_own(cue.end, after, mention, clauses):
            return True
    # "no effusion, possible atelectasis": the second cue takes over; "no opacity suspicious for pneumonia": it does not
    return any(
        after <= c.start
        and c.end <= mention.start
        and c.cue.effect in _STRENGTH
        and c.cue.direction not in ("backward", "between")
        and (clauses.kinds.get(c.start - 1) in ("joint", "with") or clauses.kinds.get(c.start) == "with")
        for c in later
    )


def _entry_of_its_own(start: int, after: int, mention: Found, clauses: Clauses) -> bool:
    """Whether a comma ends what is denied, as in "no infiltrate, pleural thickening on the right": only what follows is
    described, and no "or", "and" or verb comes that would make a list of it ("no mass, nodule seen on the left")."""
    comma = next((i for i in reversed(clauses.commas) if after <= i < mention.start), None)
    if comma is None:
        return False
    _, limit = clauses.around(mention.start)
    if any(clauses.kinds.get(i) in _PARTS and i not in clauses.commas for i in range(after, limit)):
        return False
    limit = next((i for i in clauses.commas if i >= mention.end), limit)
    told = [i for i in clauses.described if not any(a <= i < b for a, b in mention.parts)]
    return any(comma < i < limit for i in told) and not any(start <= i < comma for i in told)


def _backward(cue: CueHit, earlier: list[CueHit], mentions: list[Found], clauses: Clauses) -> list[Found]:
    first, _ = clauses.around(max(cue.start - 1, clauses.bounds[0]))
    reached: list[Found] = []
    edge = cue.start
    for mention in reversed(mentions):
        if mention.end > cue.start:
            continue
        if mention.start < first:
            break
        between = set(clauses.between(mention.end, edge))
        far = cue.start - mention.end > _NEAR or (not reached and between & {"with", "joint"})
        listed = not between & {"with", "verb"} and (mention.end >= edge or between & {"joint", "either"})
        if (cue.cue.scope == "near" and far) or (cue.cue.scope != "clause" and reached and not listed):
            break
        if reached and any(mention.end <= i < edge for i in clauses.commas) and _hedged(earlier, mention, first):
            break  # "most likely atelectasis, pneumonia is unlikely"
        reached.append(mention)
        edge = min(edge, mention.start)
    return reached


def _about(start: int, end: int, clauses: Clauses) -> bool:
    """Whether the words after a mention only say where it is."""
    between = clauses.between(start, end)
    led = between == ["place"] or any(start <= i < end for i in clauses.described)
    return start == end or (led and end - start <= _NEAR and set(between) <= {"place"})


def _hedged(cues: list[CueHit], mention: Found, first: int) -> bool:
    """Whether a cue that doubts a mention stands right before it."""
    near = (c for c in cues if first <= c.start and 0 <= mention.start - c.end <= _NEAR)
    return any(c.cue.direction == "forward" and _STRENGTH.get(c.cue.effect) == 1 for c in near)


def _apply(hit: CueHit, mention: Found, past: bool) -> None:
    """The strongest cue decides: absent before uncertain before present; of two doubts the greater."""
    cue, effect = hit.cue, hit.cue.effect
    after = hit.start >= mention.end
    if effect == "historical":  # "no effusion, as before" denies what is there today, "no history of" what was
        if mention.temporality == "hypothetical" or (after and mention.assertion == "absent"):
            return
        mention.temporality = "historical"
    elif effect == "other":
        mention.experiencer = "other"
    elif effect == "hypothetical":
        mention.temporality = "hypothetical"
    elif effect == "absent" and after:
        if mention.temporality == "hypothetical":  # "once the effusion has resolved"
            return
        if not past:  # "the previously seen effusion is no longer identified" speaks of today
            mention.temporality = "current"
    strength = _STRENGTH.get(effect)
    if past and strength == 1 and mention.experiencer == "patient":  # a doubt in an indication is what is asked
        mention.temporality = "hypothetical"
    old = _STRENGTH[mention.assertion]
    if strength is None:
        if not mention.rule:
            mention.cue, mention.rule = (hit.start, hit.end), cue.id
    elif strength > old or (strength == old and cue.certainty < mention.certainty and cue.direction != "between"):
        mention.assertion = "uncertain" if effect == "hypothetical" else cast(Assertion, effect)
        mention.certainty, mention.cue, mention.rule = cue.certainty, (hit.start, hit.end), cue.id


def _blanks(notes: Notes) -> list[int]:
    """The words left out of the report, such as XXXX."""
    classes = notes.vocabulary.lexicon.classes
    return [end - 1 for _, end, value in notes.hits[Layer.CLASS] if classes[value][1] == "blank"]


def _doubt_blanks(blanks: list[int], start: int, mentions: list[Found]) -> None:
    """Lower the certainty of mentions that a blank stands before: it may hide a "no"."""
    for mention in mentions:
        at = bisect_left(blanks, mention.start) - 1
        if at >= 0 and blanks[at] >= max(start, mention.start - _NEAR) and mention.assertion == "present":
            mention.certainty = round(mention.certainty * _HIDDEN, 2)
            if not mention.rule:
                mention.cue, mention.rule = (blanks[at], blanks[at] + 1), "blank"
        start = mention.end
