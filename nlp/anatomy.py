"""Side, site and severity of each mention."""

from dataclasses import dataclass, field
from itertools import pairwise, product

from spacy.tokens import Doc

from nlp.context import Clauses, clauses_of
from nlp.lexicon import Place
from nlp.linking import Group, groups_of, neighbours, owner, touching
from nlp.scan import Layer, Notes, notes_of

_PRECISE = {"lobe": 3, "segment": 3, "zone": 2, "bone": 1, "part": 1}  # which of several sites to tell
_EXPLAINS = frozenset({"present", "uncertain"})  # effects of cues that say what a finding may be
_NAMED = frozenset({"lobe", "segment", "zone", "bone"})  # told even where it is part of the finding's own name


@dataclass(slots=True)
class Told:
    """What a group of mentions was told about its place; before or after its own words."""

    sides: set[str] = field(default_factory=set)
    sites: list[Place] = field(default_factory=list)
    before: bool = False
    after: bool = False


def place(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    modifiers = notes.vocabulary.lexicon.modifiers
    for (start, end), mentions in zip(notes.sentences, notes.found, strict=True):
        if not mentions:
            continue
        marks = _marks(notes, start, end)
        grades = notes.within(Layer.SEVERITY, start, end)
        if not marks and not grades:
            continue
        groups, clauses = groups_of(mentions), clauses_of(notes, start, end)
        if marks:
            _tell_places(notes, groups, clauses, marks)
        for a, b, value in grades:
            group = owner(groups, clauses, a, b, None)
            for mention in group.mentions if group else ():
                mention.severity = mention.severity or modifiers[value][2]
        for adjective, noun in touching(groups, clauses) if grades else ():
            for one, other in product(adjective.mentions, noun.mentions):
                one.severity = other.severity = one.severity or other.severity
    return doc


def _marks(notes: Notes, start: int, end: int) -> list[tuple[int, int, Place]]:
    """Sites and sides of a sentence in the order of the text; a side is a site without a name."""
    lexicon = notes.vocabulary.lexicon
    marks = [(a, b, lexicon.places[value][1]) for a, b, value in notes.within(Layer.PLACE, start, end)]
    within_sites = {word for a, b, _ in marks for word in range(a, b)}  # "right atrium" says nothing of a side
    sides = [hit for hit in notes.within(Layer.SIDE, start, end) if hit[0] not in within_sites]
    marks += [(a, b, Place("", "", lexicon.modifiers[value][2])) for a, b, value in sides]
    return sorted(marks, key=lambda mark: mark[:2])


def _tell_places(notes: Notes, groups: list[Group], clauses: Clauses, marks: list[tuple[int, int, Place]]) -> None:
    lexicon, cues = notes.vocabulary.lexicon, notes.vocabulary.lexicon.cues
    midline = {id(g) for g in groups if all(lexicon.concepts[m.concept].id in lexicon.midline for m in g.mentions)}
    lateral = [g for g in groups if id(g) not in midline]
    places = {id(g): Told() for g in groups}
    last: tuple[int, Group] | None = None
    for a, b, site in marks:
        group = owner(lateral if site.side and lateral else groups, clauses, a, b, last)
        if group is None:
            continue
        last, told = (b, group), places[id(group)]
        if site.id and (site.kind in _NAMED or not (group.start <= a and b <= group.end)):
            told.sites.append(site)
        if site.side and not (site.id and site.side == "bilateral" and told.sides):  # "left lung bases" are left
            told.sides.add(site.side)
        told.before |= a < group.start
        told.after |= b > group.end
    for cause, meaning in pairwise(lateral):  # "opacity in the left base may represent atelectasis"
        between = notes.within(Layer.CUE, cause.end, meaning.start)
        if any(cues[value][1].effect in _EXPLAINS for _, _, value in between):
            _share(places[id(cause)], places[id(meaning)])
    for adjective, noun in touching(lateral, clauses):  # "calcified left granuloma"
        _share(places[id(noun)], places[id(adjective)])
        _share(places[id(adjective)], places[id(noun)])
    pairs = [pair for pair in neighbours(groups, clauses) if id(pair[0]) not in midline and id(pair[1]) not in midline]
    for one, following in pairs:
        if places[id(one)].before:
            _share(places[id(one)], places[id(following)])
    for previous, one in reversed(pairs):
        if places[id(one)].after and not places[id(one)].before:
            _share(places[id(one)], places[id(previous)])
    for group in groups:
        told = places[id(group)]
        side = "bilateral" if len(told.sides) > 1 else next(iter(told.sides), "")
        site_id = max(told.sites, key=lambda s: _PRECISE.get(s.kind, 0)).id if told.sites else ""
        for mention in group.mentions:
            mention.site = site_id
            mention.side = "" if lexicon.concepts[mention.concept].id in lexicon.midline else side


def _share(giver: Told, taker: Told) -> None:
    """What is said of one entry of a list holds for a neighbour of which nothing is said."""
    if not taker.sides and not taker.sites:
        taker.sides |= giver.sides
        taker.sites += [site for site in giver.sites if site.kind in _PRECISE]
        taker.before, taker.after = giver.before, giver.after
