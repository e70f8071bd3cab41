"""Where the sections of a report are. A text without headings is one section, "findings"."""

from bisect import bisect_left

from spacy.tokens import Doc

from nlp.scan import Layer, Notes, Section, notes_of
from nlp.trie import Hit


def find_sections(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    headings = [(hit, after) for hit in notes.hits[Layer.HEADING] if (after := _heading_end(notes, hit))]
    first = headings[0][0][0] if headings else len(notes.ids)
    if first:
        named = {notes.vocabulary.lexicon.headings[hit[2]][1] for hit, _ in headings}
        notes.sections.append(Section("other" if "findings" in named else "findings", "current", 0, first))
    ends = [*(hit[0] for hit, _ in headings), len(notes.ids)][1:]
    for ((_, _, value), start), end in zip(headings, ends, strict=False):
        _, name, time = notes.vocabulary.lexicon.headings[value]
        notes.sections.append(Section(name, time, start, max(start, end)))
    return doc


def _heading_end(notes: Notes, hit: Hit) -> int:
    """The word after a heading and its colon, or 0 if the words are not a heading here."""
    start, end, _ = hit
    words = notes.text[notes.starts[start] : notes.ends[end - 1]]
    opens_line = _starts_line(notes, start) or (_starts_line(notes, start - 1) and not notes.word(start - 1).isalnum())
    following = notes.word(end) if end < len(notes.ids) else ""
    if following == ":":
        after_stop = start > 0 and notes.word(start - 1) in ".;!?"
        return end + 1 if opens_line or after_stop or words.isupper() else 0
    if not opens_line:
        return 0
    if end == len(notes.ids) or _starts_line(notes, end):  # alone on its line
        return end if end < len(notes.ids) and (words[0].isupper()) else 0
    return end if words.isupper() and len(words) > 5 and following.isalpha() and not following.isupper() else 0


def _starts_line(notes: Notes, i: int) -> bool:
    at = bisect_left(notes.lines, i)
    return at < len(notes.lines) and notes.lines[at] == i
