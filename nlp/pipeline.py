"""The reader as a spaCy pipeline, from scan, sections and sentences to mentions and what is said of them."""

import gc
from collections.abc import Iterable, Iterator
from pathlib import Path

import spacy
from spacy.language import Language
from spacy.tokens import Doc

from nlp.anatomy import place
from nlp.change import compare
from nlp.concepts import find_concepts
from nlp.context import judge
from nlp.measurements import measure
from nlp.memory import make_phrases, moved
from nlp.normals import deny
from nlp.scan import Found, Notes, make_scan, notes_of
from nlp.sections import find_sections
from nlp.sentences import find_sentences
from nlp.spelling import spelling
from nlp.values import Evidence, Mention, Reading, SectionSpan, SentenceSpan
from nlp.words import ReportTokenizer

_STRUCTURE = {"report_sections": find_sections, "report_sentences": find_sentences}
_CONTENT = {
    "report_concepts": find_concepts,
    "report_context": judge,
    "report_anatomy": place,
    "report_change": compare,
    "report_measurements": measure,
    "report_normals": deny,  # last: what is implied takes no part in lists, sides and sizes
}
_LONGEST = 50_000_000  # characters; spaCy's own limit is for models that need memory for each word

Language.factory("report_scan", func=make_scan, default_config={"language": "en", "lexicon": None})
Language.factory("report_phrases", func=make_phrases, default_config={"memory": False})
for _name, _component in (_STRUCTURE | _CONTENT).items():
    Language.component(_name, func=_component)


def load_pipeline(language: str = "en", lexicon: Path | None = None, memory: bool = False) -> Language:
    """A blank spaCy pipeline with the components of the reader; nothing is downloaded.

    `lexicon` is a user's own table of findings, or a folder in the form of `lexicons/`; its rows are added.
    With a `memory`, sentences that `read` has met before are not read again; the notes about them stay empty.
    Raises LexiconError, which names file, line and column.
    """
    try:
        nlp = spacy.blank(language)
    except ImportError:  # a language that spaCy does not have: its word lists are not needed here
        nlp = spacy.blank("xx")
    nlp.tokenizer = ReportTokenizer(nlp.vocab, spelling(language, lexicon))
    nlp.max_length = _LONGEST
    nlp.add_pipe("report_scan", config={"language": language, "lexicon": str(lexicon) if lexicon else None})
    for name in _STRUCTURE:
        nlp.add_pipe(name)
    nlp.add_pipe("report_phrases", config={"memory": memory})
    for name in _CONTENT:
        nlp.add_pipe(name)
    gc.collect()
    gc.freeze()  # the words stay as long as the program: the collector need not walk through them again and again
    return nlp


def read(nlp: Language, texts: Iterable[str]) -> Iterator[Reading]:
    """What each text says, in the order of the texts, one by one as they come."""
    return map(reading_of, nlp.pipe(texts))


def reading_of(doc: Doc) -> Reading:
    """What the pipeline noted about a report."""
    notes = notes_of(doc)
    starts, ends = notes.starts, notes.ends
    spans = [(starts[a], ends[b - 1]) for a, b in notes.sentences]
    section, mentions = 0, list[Mention]()
    for at, ((start, _), span, found) in enumerate(zip(notes.sentences, spans, notes.found, strict=True)):
        if found or notes.recalled.get(at):
            while notes.sections[section].end <= start:
                section += 1
            name = notes.sections[section].name
            known = notes.recalled.get(at)
            said = moved(known, span[0], name) if known else [_mention(notes, m, span, name) for m in found]
            mentions += said
            if at in notes.new:
                notes.new[at](said)
        elif at in notes.new:
            notes.new[at]([])
    return Reading(
        notes.vocabulary.lexicon.language,
        tuple(SectionSpan(s.name, *_span(notes, s.start, s.end)) for s in notes.sections),
        tuple(SentenceSpan(a, b) for a, b in spans),
        tuple(mentions),
    )


def _span(notes: Notes, start: int, end: int) -> tuple[int, int]:
    """Words to characters; an empty range of words is an empty span where it stands."""
    if start < end:
        return notes.starts[start], notes.ends[end - 1]
    at = notes.ends[start - 1] if start else 0
    return at, at


def _mention(notes: Notes, found: Found, sentence: tuple[int, int], section: str) -> Mention:
    starts, ends, cue = notes.starts, notes.ends, found.cue
    return Mention(
        concept=notes.vocabulary.lexicon.concepts[found.concept].id,
        assertion=found.assertion,
        temporality=found.temporality,
        experiencer=found.experiencer,
        certainty=found.certainty,
        start=starts[found.parts[0][0]],
        end=ends[found.parts[-1][1] - 1],
        sentence_start=sentence[0],
        sentence_end=sentence[1],
        section=section,
        cue_start=starts[cue[0]] if cue else None,
        cue_end=ends[cue[1] - 1] if cue else None,
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
            Evidence(kind, value, starts[a], ends[b - 1]) for kind, value, a, b in sorted(found.evidence, key=_in_text)
        )
        if found.evidence
        else (),
    )


def _in_text(evidence: tuple[str, str, int, int]) -> tuple[int, int, str]:
    return evidence[2], evidence[3], evidence[0]
