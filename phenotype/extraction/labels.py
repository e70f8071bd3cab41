"""What the mentions of a concept in the reports of one study add up to."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

RANK = {"addendum": 3, "impression": 2}  # the last word of a report stands above what was said before it
NOT_TODAY = frozenset({"indication", "comparison", "technique"})


@dataclass(frozen=True, slots=True)
class Said:
    """One mention, as far as a label needs it."""

    concept: str
    assertion: str
    temporality: str
    certainty: float
    section: str
    side: str


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


def label_study(said: Iterable[Said], parents: Mapping[str, str]) -> list[StudyLabel]:
    """One label for each concept that is spoken of as of today or implied, in the order of concepts.

    An addendum overrules the impression, the impression the rest. Among mentions of equal rank one that asserts counts
    before one that doubts, and that before one that denies: a report that names a nodule in one lung and denies others
    in the next sentence has a nodule.
    """
    by_concept: dict[str, list[Said]] = defaultdict(list)
    for mention in said:
        if mention.temporality == "current" and mention.section not in NOT_TODAY:
            by_concept[mention.concept].append(mention)
    implied: dict[str, list[Said]] = defaultdict(list)
    for concept, mentions in by_concept.items():
        for broader in _ancestors(concept, parents):
            if broader not in by_concept:
                implied[broader] += [
                    m for m in mentions if m.assertion != "absent"
                ]  # no nodule may still be an opacity
    labels = [_label(concept, mentions, implied=False) for concept, mentions in by_concept.items()]
    labels += [_label(concept, mentions, implied=True) for concept, mentions in implied.items() if mentions]
    return sorted(labels, key=lambda label: label.concept)


def _ancestors(concept: str, parents: Mapping[str, str]) -> list[str]:
    found: list[str] = []
    while (concept := parents.get(concept, "")) and concept not in found:
        found.append(concept)
    return found


def _label(concept: str, mentions: list[Said], *, implied: bool) -> StudyLabel:
    highest = max(RANK.get(m.section, 1) for m in mentions)
    decisive = [m for m in mentions if RANK.get(m.section, 1) == highest]
    value = next(v for v in ("present", "uncertain", "absent") if any(m.assertion == v for m in decisive))
    confidence = max(m.certainty for m in decisive if m.assertion == value)
    sides = {m.side for m in mentions if m.side and m.assertion == value and value != "absent"}
    side = "" if not sides else sides.pop() if len(sides) == 1 else "bilateral"
    return StudyLabel(concept, value, round(confidence, 4), side, len(mentions), implied)
