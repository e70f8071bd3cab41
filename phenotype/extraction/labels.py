"""What the mentions of a concept in the reports of one study add up to.

The value is what the report's last word on a concept says. The confidence is how sure the reports are that it is there:
the certainty of their words, by how far the section that they stand in is to be trusted, whether other sections agree,
and what a second reader makes of the same text. `benchmarks/labels.py` compares it with manual coding.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RANK = {"addendum": 3, "impression": 2}  # the last word of a report stands above what was said before it
NOT_TODAY = frozenset({"indication", "comparison", "technique"})
GONE = frozenset({"resolved", "removed"})
TRUST = {"addendum": 0.98, "impression": 0.96, "findings": 0.92}  # how often an assertion there holds; elsewhere less
TRUST_ELSEWHERE = 0.85
DENIED = 0.02  # what remains of a concept that is denied ...
DENIED_BY_NORMAL = 0.05  # ... by "the heart is normal"
NOTHING_NEW = 0.25  # ... by "no new effusion", which is silent about an old one
AGREED = 0.5  # the share of doubt that remains when another section says the same
DISPUTED = 0.15  # how far a contradiction of lesser rank moves the confidence
SECOND = 0.25  # the weight of the second reader


@dataclass(frozen=True, slots=True)
class Said:
    """One mention, as far as a label needs it."""

    concept: str
    assertion: str
    temporality: str
    certainty: float
    section: str
    side: str
    experiencer: str = "patient"
    change: str = ""
    implied: bool = False  # denied by a normal statement


@dataclass(frozen=True, slots=True)
class StudyLabel:
    """What a study's reports say of a concept.

    `value` is present, absent or uncertain; `confidence` is how sure the reports are that it is there.
    """

    concept: str
    value: str
    confidence: float
    side: str
    mentions: int
    implied: bool  # not said itself, but follows from a narrower concept: who has a rib fracture has a fracture


def label_study(
    said: Iterable[Said], parents: Mapping[str, str], second: Mapping[str, float] | None = None
) -> list[StudyLabel]:
    """One label for each concept that is spoken of as of today or implied, in the order of concepts.

    An addendum overrules the impression, the impression the rest. Among mentions of equal rank one that asserts counts
    before one that doubts, and that before one that denies: a report that names a nodule in one lung and denies others
    in the next sentence has a nodule. A denial by a normal statement, and that there is nothing new, count only where
    nothing else is said. `second` is how probable another reader finds each concept; it decides no value.
    """
    by_concept: dict[str, list[Said]] = defaultdict(list)
    for mention in said:
        if is_of_today(mention):
            by_concept[mention.concept].append(mention)
    narrower: dict[str, list[Said]] = defaultdict(list)
    for concept, mentions in by_concept.items():
        for broader in _ancestors(concept, parents):
            if broader not in by_concept or all(map(_is_weak, by_concept[broader])):
                # no nodule may still be an opacity
                narrower[broader] += [m for m in mentions if m.assertion != "absent"]
    others = second or {}
    labels = [_label(c, mentions, others.get(c), implied=True) for c, mentions in narrower.items() if mentions]
    done = {label.concept for label in labels}
    labels += [_label(c, mentions, others.get(c), implied=False) for c, mentions in by_concept.items() if c not in done]
    return sorted(labels, key=lambda label: label.concept)


def is_of_today(mention: Said) -> bool:
    """Whether a mention says how the patient is now. What has resolved is denied today, however long ago it was."""
    if mention.experiencer != "patient" or mention.section in NOT_TODAY:
        return False
    gone = mention.assertion == "absent" and mention.change in GONE and mention.temporality == "historical"
    return mention.temporality == "current" or gone


def _is_weak(mention: Said) -> bool:
    return mention.assertion == "absent" and (mention.implied or mention.change == "new")


def _ancestors(concept: str, parents: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    while (concept := parents.get(concept, "")) and concept not in found:
        found.append(concept)
    return found


def _label(concept: str, mentions: list[Said], second: float | None, *, implied: bool) -> StudyLabel:
    told = [m for m in mentions if not _is_weak(m)] or mentions
    highest = max(RANK.get(m.section, 1) for m in told)
    decisive = [m for m in told if RANK.get(m.section, 1) == highest]
    value = next(v for v in ("present", "uncertain", "absent") if any(m.assertion == v for m in decisive))
    sides = {m.side for m in told if m.side and m.assertion == value and value != "absent"}
    side = "" if not sides else sides.pop() if len(sides) == 1 else "bilateral"
    sure = _confidence(value, [m for m in decisive if m.assertion == value], told)
    if second is not None:
        sure = (1 - SECOND) * sure + SECOND * second
    return StudyLabel(concept, value, round(sure, 4), side, len(mentions), implied)


def _confidence(value: str, decisive: list[Said], told: list[Said]) -> float:
    if value == "absent":
        sure = min(_remains(m) for m in decisive)
        disputed = any(m.assertion == "present" for m in told)
        return sure + DISPUTED if disputed else sure
    most = max(decisive, key=lambda m: m.certainty * TRUST.get(m.section, TRUST_ELSEWHERE))
    trust = TRUST.get(most.section, TRUST_ELSEWHERE)
    if any(m.section != most.section and m.assertion == value for m in told):
        trust = 1 - AGREED * (1 - trust)
    sure = most.certainty * trust
    return sure - DISPUTED * sure if any(m.assertion == "absent" for m in told) else sure


def _remains(denial: Said) -> float:
    if denial.implied:
        return DENIED_BY_NORMAL
    return NOTHING_NEW if denial.change == "new" else DENIED
