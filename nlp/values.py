"""What a reader says about a report: plain values with character offsets into its text.

They are named tuples: a reading that crosses from process to process costs a tenth of reading the report.
"""

from typing import Any, Literal, NamedTuple

Assertion = Literal["present", "absent", "uncertain"]
Temporality = Literal["current", "historical", "hypothetical"]
Experiencer = Literal["patient", "other"]


class SectionSpan(NamedTuple):
    """A section's own text, its heading left out.

    `name` is one of indication, comparison, technique, findings, impression, addendum, other."""

    name: str
    start: int
    end: int


class SentenceSpan(NamedTuple):
    """One sentence, or one entry of a list."""

    start: int
    end: int


class Evidence(NamedTuple):
    """Words that say something of a mention: `text[start:end]`.

    `kind` is one of site, side, severity, size, prior_size, count, change, prior; `value` is what the words were read
    as: the id of a site, "left", "mild", "12.0x8.0" (mm), "2", "increased" and so on."""

    kind: str
    value: str
    start: int
    end: int


class Mention(NamedTuple):
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
    count: str  # type: ignore[assignment]  # "1", "2" ..., "several" or ""; hides the method of tuples
    change: str  # "new", "increased", "stable", "decreased", "resolved", "removed" or ""
    evidence: tuple[Evidence, ...]  # in the order of the text


class Reading(NamedTuple):
    """All that was read in one report, in the order of the text."""

    language: str
    sections: tuple[SectionSpan, ...]
    sentences: tuple[SentenceSpan, ...]
    mentions: tuple[Mention, ...]


def as_dict(reading: Reading) -> dict[str, Any]:
    """A reading as dictionaries, for JSON."""
    return {
        "language": reading.language,
        "sections": [s._asdict() for s in reading.sections],
        "sentences": [s._asdict() for s in reading.sentences],
        "mentions": [m._asdict() | {"evidence": [e._asdict() for e in m.evidence]} for m in reading.mentions],
    }
