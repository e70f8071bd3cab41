"""What a reader says about a report: plain values with character offsets into its text."""

from dataclasses import dataclass
from typing import Literal

Assertion = Literal["present", "absent", "uncertain"]
Temporality = Literal["current", "historical"]


@dataclass(frozen=True, slots=True)
class SectionSpan:
    """A section's own text, its heading left out.

    `name` is one of indication, comparison, technique, findings, impression, addendum, other."""

    name: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SentenceSpan:
    """One sentence, or one entry of a list."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mention:
    """One concept that the report asserts, denies or doubts: `text[start:end]` is the phrase that names it."""

    concept: str  # id from the lexicon, such as "pleural_effusion"
    assertion: Assertion
    temporality: Temporality  # what stands in an indication, comparison or history is not a finding of today
    certainty: float  # 0..1: how sure the report is that the concept is there; absent 0, present 1, hedges between
    start: int
    end: int
    sentence_start: int
    sentence_end: int
    section: str
    cue_start: int | None  # the words that decided the assertion
    cue_end: int | None
    rule: str  # id of the rule that fired, "" if none did
    side: str  # "left", "right", "bilateral" or ""
    site: str  # id from the anatomy lexicon, such as "lower_lobe", or ""
    severity: str  # "borderline", "mild", "moderate", "severe" or ""
    size_mm: float | None  # the largest dimension, if a size is said of the mention


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was read in one report, in the order of the text."""

    sections: tuple[SectionSpan, ...]
    sentences: tuple[SentenceSpan, ...]
    mentions: tuple[Mention, ...]
