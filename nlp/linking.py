"""Which mention a side, a site, a severity, a size, a number or a change belongs to.

Words before a finding describe it ("small left effusion"), unless a preposition ties them to the finding before
("nodule in the left base, effusion"). Entries of a list share what stands before the first or after the last of them
("right pleural thickening and adhesions", "effusion and atelectasis at the left base").
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

from nlp.context import Clauses, clauses_of
from nlp.scan import Found, Layer, Notes

_FAR = 10  # words between a description and what it describes
_LIST = 5  # words between two entries of a list
_ADJECTIVES = 4  # words between a preposition and the place it leads to
_OPENING = 3  # words in which a sentence says that it speaks of the one before


@dataclass(slots=True)
class Group:
    """Mentions that share words; what is said of one is said of all."""

    start: int
    end: int
    mentions: list[Found]


@dataclass(slots=True)
class Frame:
    """A sentence with mentions, as the components that describe them see it."""

    start: int
    end: int
    groups: list[Group]
    clauses: Clauses
    pairs: list[tuple[int, int]]  # groups side by side in a list, by their places in `groups`


def frame_of(notes: Notes, at: int) -> Frame:
    """The frame of the sentence number `at`, made once."""
    frame = cast("Frame | None", notes.frames.get(at))
    if frame is None:
        start, end = notes.sentences[at]
        groups, clauses = groups_of(notes.found[at]), clauses_of(notes, start, end)
        frame = notes.frames[at] = Frame(start, end, groups, clauses, neighbours(groups, clauses))
    return frame


def points_back(notes: Notes, start: int, end: int) -> bool:
    """Whether a sentence speaks of the one before it: "This may represent atelectasis"."""
    links, modifiers = notes.within(Layer.LINK, start, min(start + _OPENING, end)), notes.vocabulary.lexicon.modifiers
    return any(modifiers[value][2] == "this" for _, _, value in links)


def groups_of(mentions: list[Found]) -> list[Group]:
    """Mentions of a sentence, those with common words together."""
    groups: list[Group] = []
    for mention in mentions:
        if groups and mention.start < groups[-1].end:
            groups[-1].mentions.append(mention)
            groups[-1].end = max(groups[-1].end, mention.end)
        else:
            groups.append(Group(mention.start, mention.end, [mention]))
    return groups


def owner(groups: list[Group], clauses: Clauses, start: int, end: int, last: tuple[int, Group] | None) -> Group | None:
    """The group that the words from `start` to `end` describe, or None.

    `last` is where the words of the same kind before these ended, and whom they described."""
    before = after = None
    for group in groups:
        if group.end <= start:
            before = group
        elif group.start >= end:
            after = group
            break
        else:
            return group
    near = after is not None and after.start - end <= _FAR
    if after is None:
        return before
    if before is None:
        return after if near else None
    right = clauses.between(end, after.start)
    left = clauses.between(before.end, start)
    if left[-1:] == ["place"] and not set(left) & {"with", "either", "joint", "break"}:
        return before  # "nodule in the left base"
    together = clauses.around(start) == clauses.around(after.start)
    if near and together and not set(right) & {"joint", "with", "place", "verb"}:
        return after  # "left lower lobe atelectasis"
    if last is not None and last[1] is before and set(clauses.between(last[0], start)) <= {"joint", "either"}:
        return before  # "in the right and left base"
    if not left:
        return before  # "effusion left, atelectasis right"
    apart = clauses.around(before.start) != clauses.around(start)
    return after if (near and apart) or "with" in left or ("joint" in left and "verb" in right) else before


def of_another(groups: list[Group], clauses: Clauses, start: int, end: int) -> bool:
    """Whether a place may be that of something without a name: "lucency in both apices along with scarring"."""
    if groups[0].start < end:
        return False
    words = range(start - 1, max(clauses.bounds[0], start - _ADJECTIVES), -1)
    led = next((kind for i in words if (kind := clauses.kinds.get(i))), "")
    return led == "place" and bool(set(clauses.between(end, groups[0].start)) & {"joint", "with"})


def neighbours(groups: list[Group], clauses: Clauses) -> list[tuple[int, int]]:
    """Pairs of groups that stand side by side in a list, both denied or neither."""
    return [
        (nr, nr + 1)
        for nr, (a, b) in enumerate(pairwise(groups))
        if b.start - a.end <= _LIST
        and (a.mentions[0].assertion == "absent") == (b.mentions[0].assertion == "absent")
        and clauses.around(a.start) == clauses.around(b.start)
        and (between := set(clauses.between(a.end, b.start)))
        and between <= {"joint", "either"}
    ]


def touching(groups: list[Group], clauses: Clauses) -> list[tuple[Group, Group]]:
    """Pairs of groups in one noun phrase ("calcified left granuloma") or with a stroke between ("atelectasis/scar")."""
    return [
        (a, b)
        for a, b in pairwise(groups)
        if (
            b.start - a.end <= _LIST
            and not clauses.between(a.end, b.start)
            and clauses.around(a.start) == clauses.around(b.start)
        )
        or (b.start - a.end == 1 and clauses.between(a.end, b.start) == ["either"])
    ]
