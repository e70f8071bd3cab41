"""Side, site and severity of each mention."""

from dataclasses import dataclass, field
from itertools import pairwise, product

from spacy.tokens import Doc

from nlp.context import Clauses
from nlp.lexicon import Place
from nlp.linking import Frame, Group, frame_of, of_another, owner, points_back, touching
from nlp.scan import Layer, Notes, notes_of

_PRECISE = {"lobe": 3, "segment": 3, "zone": 2, "bone": 1, "part": 1}  # which of several sites to tell
_EXPLAINS = frozenset({"present", "uncertain"})  # effects of cues that say what a finding may be
_NAMED = frozenset({"lobe", "segment", "zone", "bone"})  # told even where it is part of the finding's own name
_ADJECTIVES = 4  # words that may stand between two places of a list: "upper and left lower lobe"
_ALONG = 5  # words between a finding and another that comes with it
Mark = tuple[int, int, Place]


@dataclass(slots=True)
class Told:
    """What a group of mentions was told about its place; before or after its own words."""

    group: Group
    sided: bool  # whether it can have a side: not a heart
    sides: list[tuple[str, int, int]] = field(default_factory=list)  # with the words that told it
    sites: list[tuple[Place, int, int]] = field(default_factory=list)
    before: bool = False
    after: bool = False
    surely: bool = False


def place(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    before: tuple[int, Told] | None = None  # the last sentence with a place, and the mention there that has it
    for at, mentions in enumerate(notes.found):
        if not mentions:
            continue
        start, end = notes.sentences[at]
        marks = _marks(notes, start, end)
        follows = before is not None and before[0] == at - 1 and points_back(notes, start, mentions[0].start)
        if marks or follows:
            frame = frame_of(notes, at)
            told = _tell_places(notes, frame, marks, before[1] if before and follows else None)
            before = next(((at, t) for t in reversed(told) if t.sites or t.sides), None)
        if grades := notes.within(Layer.SEVERITY, start, end):
            normal = _normal(notes, start, end)  # "Herz normal groß, Erguss links": the effusion is not large
            _tell_severity(notes, frame_of(notes, at), [hit for hit in grades if hit[0] not in normal])
    return doc


def _normal(notes: Notes, start: int, end: int) -> set[int]:
    """The words that call something normal."""
    states, hits = notes.vocabulary.lexicon.states, notes.within(Layer.STATE, start, end)
    return {word for a, b, value in hits if states[value][1] != "none" for word in range(a, b)}


def _marks(notes: Notes, start: int, end: int) -> list[Mark]:
    """Sites and sides of a sentence in the order of the text; a side is a site without a name."""
    lexicon = notes.vocabulary.lexicon
    readings: dict[tuple[int, int], list[Place]] = {}
    for a, b, value in notes.within(Layer.PLACE, start, end):
        readings.setdefault((a, b), []).append(lexicon.places[value][1])
    sided = notes.within(Layer.SIDE, start, end)
    if not readings and not sided:
        return []
    within_sites = {word for a, b in readings for word in range(a, b)}  # "right atrium" says nothing of a side
    sides = [(a, b, lexicon.modifiers[v][2]) for a, b, v in sided if a not in within_sites]
    marks = [(a, b, Place("", "", side)) for a, b, side in sides if side != "none"]
    following: Mark | None = None
    for (a, b), sites in reversed(readings.items()):  # "upper and left lower lobe": lobes both
        kind = following[2].kind if following and following[0] - b <= _ADJECTIVES else ""
        following = (a, b, next((site for site in sites if site.kind == kind), sites[0]))
        marks.append(following)
    return sorted(marks, key=lambda mark: mark[:2])


def _tell_places(notes: Notes, frame: Frame, marks: list[Mark], earlier: Told | None) -> list[Told]:
    lexicon, clauses = notes.vocabulary.lexicon, frame.clauses
    concepts, midline = lexicon.concepts, lexicon.midline
    every = [Told(g, any(concepts[m.concept].id not in midline for m in g.mentions)) for g in frame.groups]
    lateral = [t for t in every if t.sided]
    sided = [t.group for t in lateral] or frame.groups
    by_start = {t.group.start: t for t in every}
    last: tuple[int, Group] | None = None
    # first those that surely belong to a mention; the others only if nothing else is said of it
    doubtful = [mark for mark in marks if of_another(sided, clauses, mark[0], mark[1])]
    if doubtful:
        marks = [mark for mark in marks if not of_another(sided, clauses, mark[0], mark[1])] + doubtful
    first_doubtful = len(marks) - len(doubtful)
    for nr, (a, b, site) in enumerate(marks):
        group = owner(sided if site.side else frame.groups, clauses, a, b, last)
        if group is None or (site.id and b <= group.start and _told_normal(clauses, b, group.start)):
            continue
        told = by_start[group.start]
        if nr < first_doubtful:
            told.surely = True
        elif told.surely:
            continue
        last = (b, group)
        if site.id and (site.kind in _NAMED or not (group.start <= a and b <= group.end)):
            told.sites.append((site, a, b))
        if site.side and not (site.id and site.side == "bilateral" and told.sides):  # "left lung bases" are left
            told.sides.append((site.side, a, b))
        told.before |= a < group.start
        told.after |= b > group.end
    for told in every:  # "the lungs are clear but for a scar in the left apex": the scar is not said to be in the lungs
        if len(told.sites) > 1 and any(site.kind in _PRECISE for site, _, _ in told.sites):
            here = clauses.around(told.group.start)
            told.sites = [t for t in told.sites if t[0].kind in _PRECISE or clauses.around(t[1]) == here]
    for adjective, noun in touching(sided, clauses) if lateral else ():  # "calcified left granuloma"
        _share(by_start[noun.start], by_start[adjective.start])
        _share(by_start[adjective.start], by_start[noun.start])
    pairs = [(every[i], every[j]) for i, j in frame.pairs if every[i].sided and every[j].sided]
    _share_in_lists(pairs)
    if earlier is not None and lateral:
        _share(earlier, lateral[0])
        lateral[0].before = True
    choices = {every[i].group.start for i, j in frame.pairs if _choice(frame, i, j)}
    for cause, meaning in pairwise(lateral):  # "opacity in the left base may represent atelectasis"
        end, start = cause.group.end, meaning.group.start
        # "opacity in the left base, scar versus atelectasis"
        apposed = start in choices and clauses.between(end, start)[-1:] == ["joint"]
        if apposed or _means(notes, clauses, end, start):
            _share(cause, meaning)
            _share(meaning, cause)
            meaning.before = True
    _share_in_lists(pairs)
    for one, following in pairwise(lateral):  # "stone on the right with hydronephrosis"
        if _comes_with(clauses, one.group, following.group) and not following.sides and not following.sites:
            following.sides += one.sides
    for told in every:
        _tell(notes, told)
    return every


def _told_normal(clauses: Clauses, start: int, end: int) -> bool:
    """Whether what is said of a place ends before a finding: "spleen unremarkable, cyst in the kidney"."""
    between = clauses.between(start, end)
    return "break" in between and "joint" in between[between.index("break") :]


def _comes_with(clauses: Clauses, one: Group, other: Group) -> bool:
    """Whether a finding goes along with the one before, and both are there."""
    there = one.mentions[0].assertion != "absent" != other.mentions[0].assertion
    near = other.start - one.end <= _ALONG
    return there and near and clauses.between(one.end, other.start) == ["with"]


def _choice(frame: Frame, i: int, j: int) -> bool:
    return "either" in frame.clauses.between(frame.groups[i].end, frame.groups[j].start)


def _means(notes: Notes, clauses: Clauses, start: int, end: int) -> bool:
    """Whether the words between two mentions say that one is, or comes with, the other."""
    lexicon = notes.vocabulary.lexicon
    if any(lexicon.cues[value][1].effect in _EXPLAINS for _, _, value in notes.within(Layer.CUE, start, end)):
        return True
    if any(lexicon.classes[value][1] == "blank" for _, _, value in notes.within(Layer.CLASS, start, end)):
        return True  # the words taken out of "opacity in the left base, XXXX atelectasis" were of that kind mostly
    return bool(notes.within(Layer.LINK, start, end))


def _share_in_lists(pairs: list[tuple[Told, Told]]) -> None:
    for one, following in pairs:
        if one.before:
            _share(one, following)
    for previous, one in reversed(pairs):
        if one.after and not one.before:
            _share(one, previous)


def _share(giver: Told, taker: Told) -> None:
    """What is said of one mention holds for another of which nothing is said."""
    if not taker.sides and not taker.sites:
        taker.sides += giver.sides
        taker.sites += [told for told in giver.sites if told[0].kind in _PRECISE]
        taker.before, taker.after = giver.before, giver.after


def _tell(notes: Notes, told: Told) -> None:
    lexicon = notes.vocabulary.lexicon
    sides = {side for side, _, _ in told.sides}
    side = "bilateral" if len(sides) > 1 else next(iter(sides), "")
    site_id = max(told.sites, key=lambda s: _PRECISE.get(s[0].kind, 0))[0].id if told.sites else ""
    for mention in told.group.mentions:
        mention.site = site_id
        for site, a, b in told.sites:
            mention.told("site", site.id, a, b)
        if lexicon.concepts[mention.concept].id not in lexicon.midline:
            mention.side = side
            for value, a, b in told.sides:
                mention.told("side", value, a, b)


def _tell_severity(notes: Notes, frame: Frame, grades: list[tuple[int, int, int]]) -> None:
    modifiers = notes.vocabulary.lexicon.modifiers
    for a, b, value in grades:
        grade = modifiers[value][2]
        group = owner(frame.groups, frame.clauses, a, b, None) if grade != "none" else None
        if group and grade == "borderline" and b <= group.start and "joint" in frame.clauses.between(b, group.start):
            continue  # "heart size at the upper limits of normal, tortuous aorta"
        for mention in group.mentions if group else ():
            mention.severity = mention.severity or grade
            mention.told("severity", grade, a, b)
    for adjective, noun in touching(frame.groups, frame.clauses):
        for one, other in product(adjective.mentions, noun.mentions):
            one.severity = other.severity = one.severity or other.severity
            for told in {e for e in (*one.evidence, *other.evidence) if e[0] == "severity"}:
                one.told(*told)
                other.told(*told)
