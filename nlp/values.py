"""What a reader says about a report: plain values with character offsets into its text."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal

Assertion = Literal["present", "absent", "uncertain"]
Temporality = Literal["current", "historical", "hypothetical"]
Experiencer = Literal["patient", "other"]


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
class Evidence:
    """Words that say something of a mention: `text[start:end]`.

    `kind` is one of site, side, severity, size, prior_size, count, change, prior; `value` is what the words were read
    as: the id of a site, "left", "mild", "12.0x8.0" (mm), "2", "increased" and so on."""

    kind: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mention:
    """One concept that the report asserts, denies or doubts: `text[start:end]` is the phrase that names it."""

    concept: str  # id from the lexicon, such as "pleural_effusion"
    assertion: Assertion
    temporality: Temporality  # historical: not a finding of today; hypothetical: "return if there is"
    experiencer: Experiencer  # other: a relative's, a donor's
    certainty: float  # 0..1: how sure the report is that the concept is there; absent 0, present 1, hedges between
    start: int
    end: int
    sentence_start: int
    sentence_end: int
    section: str
    cue_start: int | None  # the words that decided the assertion
    cue_end: int | None
    rule: str  # id of the rule that fired, "" if none did
    implied: bool  # denied by a normal statement about an organ: "the heart is normal" denies cardiomegaly
    side: str  # "left", "right", "bilateral" or ""
    site: str  # id of the most precise place told, such as "lower_lobe", or ""; all are in `evidence`
    severity: str  # "borderline", "mild", "moderate", "severe" or ""
    size_mm: float | None  # the largest dimension, if a size is said of the mention
    prior_size_mm: float | None  # the same at an earlier examination
    count: str  # "1", "2" ..., "several" or ""
    change: str  # "new", "increased", "stable", "decreased", "resolved", "removed" or ""
    evidence: tuple[Evidence, ...]  # in the order of the text


@dataclass(frozen=True, slots=True)
class Reading:
    """All that was read in one report, in the order of the text."""

    language: str

    sections: tuple[SectionSpan, ...]
    sentences: tuple[SentenceSpan, ...]
    mentions: tuple[Mention, ...]


_SECTION, _SENTENCE, _EVIDENCE, _MENTION = (
    attrgetter(*(f.name for f in fields(kind))) for kind in (SectionSpan, SentenceSpan, Evidence, Mention)
)
_new_mention: Callable[..., Mention] = Mention  # from values in the order of its fields
Row = tuple[str, list[Any], list[Any], list[Any]]


def to_row(reading: Reading) -> Row:
    """A reading as plain tuples, which cross from process to process faster than dataclasses."""
    return (
        reading.language,
        list(map(_SECTION, reading.sections)),
        list(map(_SENTENCE, reading.sentences)),
        [(*_MENTION(m)[:-1], list(map(_EVIDENCE, m.evidence))) for m in reading.mentions],
    )


def from_row(row: Row) -> Reading:
    """The reading that `to_row` made a row of."""
    language, sections, sentences, mentions = row
    return Reading(
        language,
        tuple(SectionSpan(*s) for s in sections),
        tuple(SentenceSpan(*s) for s in sentences),
        tuple(_new_mention(*m[:-1], tuple(Evidence(*e) for e in m[-1])) for m in mentions),
    )
