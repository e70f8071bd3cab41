"""The reader as a spaCy pipeline: scan, sections, sentences, concepts, context, anatomy, measurements."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from nlp.anatomy import place
from nlp.concepts import find_concepts
from nlp.context import judge
from nlp.measurements import measure
from nlp.scan import Found, Notes, make_scan, notes_of
from nlp.sections import find_sections
from nlp.sentences import find_sentences
from nlp.values import Evidence, Mention, Reading, SectionSpan, SentenceSpan
from nlp.words import ReportTokenizer

_COMPONENTS = {
    "report_sections": find_sections,
    "report_sentences": find_sentences,
    "report_concepts": find_concepts,
    "report_context": judge,
    "report_anatomy": place,
    "report_measurements": measure,
}
_LONGEST = 50_000_000  # characters; spaCy's own limit is for models that need memory for each word

Language.factory("report_scan", func=make_scan, default_config={"language": "en", "lexicon": None})
for _name, _component in _COMPONENTS.items():
    Language.component(_name, func=_component)


def load_pipeline(language: str = "en", lexicon: Path | None = None) -> Language:
    """A blank spaCy pipeline with the components of the reader; nothing is downloaded.

    `lexicon` is a user's own table of findings, or a folder in the form of `lexicons/`; its rows are added.
    Raises LexiconError, which names file, line and column.
    """
    nlp = spacy.blank(language)
    nlp.tokenizer = ReportTokenizer(nlp.vocab)
    nlp.max_length = _LONGEST
    nlp.add_pipe("report_scan", config={"language": language, "lexicon": str(lexicon) if lexicon else None})
    for name in _COMPONENTS:
        nlp.add_pipe(name)
    return nlp


def read(nlp: Language, texts: Iterable[str]) -> Iterator[Reading]:
    """What each text says, in the order of the texts, one by one as they come."""
    return map(reading_of, nlp.pipe(texts))


def reading_of(doc: Doc) -> Reading:
    """What the pipeline noted about a report."""
    notes = notes_of(doc)
    section, mentions = 0, []
    for sentence, found in zip(notes.sentences, notes.found, strict=True):
        while notes.sections[section].end <= sentence[0]:
            section += 1
        mentions += [_mention(notes, m, sentence, notes.sections[section].name) for m in found]
    return Reading(
        notes.vocabulary.lexicon.language,
        tuple(SectionSpan(s.name, *_span(notes, s.start, s.end)) for s in notes.sections),
        tuple(SentenceSpan(*_span(notes, a, b)) for a, b in notes.sentences),
        tuple(mentions),
    )


def _span(notes: Notes, start: int, end: int) -> tuple[int, int]:
    """Words to characters; an empty range of words is an empty span where it stands."""
    if start < end:
        return notes.starts[start], notes.ends[end - 1]
    at = notes.ends[start - 1] if start else 0
    return at, at


def _mention(notes: Notes, found: Found, sentence: tuple[int, int], section: str) -> Mention:
    start, end = _span(notes, found.start, found.end)
    sentence_start, sentence_end = _span(notes, *sentence)
    cue_start, cue_end = _span(notes, *found.cue) if found.cue else (None, None)
    return Mention(
        concept=notes.vocabulary.lexicon.concepts[found.concept].id,
        assertion=found.assertion,
        temporality=found.temporality,
        experiencer=found.experiencer,
        certainty=found.certainty,
        start=start,
        end=end,
        sentence_start=sentence_start,
        sentence_end=sentence_end,
        section=section,
        cue_start=cue_start,
        cue_end=cue_end,
        rule=found.rule,
        implied=found.implied,
        side=found.side,
        site=found.site,
        severity=found.severity,
        size_mm=found.size_mm,
        prior_size_mm=found.prior_size_mm,
        count=found.count,
        change=found.change,
        evidence=tuple(
            Evidence(kind, value, *_span(notes, a, b))
            for kind, value, a, b in sorted(found.evidence, key=lambda e: (e[2], e[3], e[0]))
        ),
    )
