"""Which mention a side, a site, a severity or a size belongs to.

Words before a finding describe it ("small left effusion"), unless a preposition ties them to the finding before
("nodule in the left base, effusion"). Entries of a list share what stands before the first or after the last of them
("right pleural thickening and adhesions", "effusion and atelectasis at the left base").
"""

from dataclasses import dataclass
from itertools import pairwise

from nlp.context import Clauses
from nlp.scan import Found

_FAR = 10  # words between a description and what it describes
_LIST = 5  # words between two entries of a list


@dataclass(slots=True)
class Group:
    """Mentions that share words; what is said of one is said of all."""

    start: int
    end: int
    mentions: list[Found]


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
    inside = next((g for g in groups if g.start < end and start < g.end), None)
    if inside:
        return inside
    before = next((g for g in reversed(groups) if g.end <= start), None)
    after = next((g for g in groups if g.start >= end), None)
    near = after is not None and after.start - end <= _FAR
    if before is None or after is None:
        return before or (after if near else None)
    left, right = clauses.between(before.end, start), clauses.between(end, after.start)
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


def neighbours(groups: list[Group], clauses: Clauses) -> list[tuple[Group, Group]]:
    """Pairs of groups that stand side by side in a list."""
    return [
        (a, b)
        for a, b in pairwise(groups)
        if b.start - a.end <= _LIST
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
