"""Where the sections of a report are. A text without headings is one section, "findings".

Headings are data, `lexicons/LANGUAGE/sections.tsv`. Where no heading says that the findings begin, they begin with the
paragraph after what was asked, done or compared, or with the line after a question or a full stop.
"""

from bisect import bisect_left, bisect_right
from itertools import pairwise

from spacy.tokens import Doc

from nlp.scan import Layer, Notes, Section, notes_of
from nlp.trie import Hit

_SHORT = ("comparison", "technique")  # end with their line if the findings have no heading
_SIGNS = 4  # signs before a heading: "** FINDINGS **"
_TITLE = 5  # words of a heading that is none of the table's: "LUNGS AND PLEURA:"
_REMARK = 9  # words between a heading and its colon: "ADDENDUM #2 (12/01/2020):"


def find_sections(doc: Doc) -> Doc:
    """The spaCy component."""
    notes = notes_of(doc)
    headings = [(hit, after) for hit in notes.hits[Layer.HEADING] if (after := _heading_end(notes, hit))]
    first = headings[0][0][0] if headings else len(notes.ids)
    named = [notes.vocabulary.lexicon.headings[hit[2]][1:] for hit, _ in headings]
    last_findings = max((i for i, (name, _) in enumerate(named) if name == "findings"), default=-1)
    if first:
        notes.sections.append(Section("findings" if last_findings < 0 else "other", "current", 0, first))
    ends = [*(hit[0] for hit, _ in headings), len(notes.ids)][1:]
    for nr, ((_, start), (name, time), end) in enumerate(zip(headings, named, ends, strict=False)):
        cut = end
        if time == "historical" and nr > last_findings:
            last = nr + 1 == len(named) or named[nr + 1][1] != "historical"
            cut = _findings_begin(notes, name, start, end, last)
        notes.sections.append(Section(name, time, start, max(start, cut)))
        if cut < end:
            notes.sections.append(Section("findings", "current", cut, end))
    return doc


def _heading_end(notes: Notes, hit: Hit) -> int:
    """The word after a heading and its colon, or 0 if the words are not a heading here."""
    start, end, _ = hit
    words = notes.text[notes.starts[start] : notes.ends[end - 1]]
    opens_line = _opens_line(notes, start)
    colon = _colon(notes, end) if opens_line and words[0].isupper() else end
    following = notes.word(colon) if colon < len(notes.ids) else ""
    if following == ":":
        after_stop = start > 0 and notes.word(start - 1) in ".;!?"
        shouted = words.isupper() and len(words) > 3  # "HISTORY cough FINDINGS: clear", but not "CT with CM: clear"
        return colon + 1 if opens_line or after_stop or shouted else 0
    if not opens_line:
        return 0
    if end == len(notes.ids) or _starts_line(notes, end):  # alone on its line
        return end if end < len(notes.ids) and (words[0].isupper()) else 0
    following = notes.word(end)
    if following in "-–—*" and words.isupper():  # "IMPRESSION - no change", "** FINDINGS **"
        return end + 1
    return end if words.isupper() and len(words) > 5 and following.isalpha() and not following.isupper() else 0


def _opens_line(notes: Notes, i: int) -> bool:
    """Whether only signs, or a number, stand before word `i` in its line."""
    line = notes.lines[bisect_right(notes.lines, i) - 1]
    return i - line <= _SIGNS and not any(notes.word(k).isalpha() for k in range(line, i))


def _colon(notes: Notes, i: int) -> int:
    """Where the colon of a heading is that ends before word `i`, numbers and brackets passed over."""
    k, last = i, min(i + _REMARK, len(notes.ids) - 1)
    while k < last and (notes.word(k) in "#*./" or notes.word(k).isdecimal()):
        k += 1
    if k < last and notes.word(k) == "(":
        while k < last and notes.word(k) != ")":
            k += 1
        k += 1
    return k if k <= last and notes.word(k) == ":" else i


def _findings_begin(notes: Notes, name: str, start: int, end: int, last: bool) -> int:
    """Where the findings begin in a section after which they have no heading: with a paragraph or another heading,
    or with a line after a whole sentence, if it is the last of these sections."""
    lines = notes.lines[bisect_right(notes.lines, start) : bisect_left(notes.lines, end)]
    for line, following in pairwise([*lines, end]):
        paragraph = notes.text.count("\n", notes.ends[line - 1], notes.starts[line]) > 1
        whole = notes.word(line - 1) == "." if name in _SHORT else last and _ends_before(notes, line, following)
        if paragraph or whole or _is_title(notes, line, end):
            return line
    return _second_sentence(notes, start, end) if name in _SHORT else end


def _ends_before(notes: Notes, line: int, following: int) -> bool:
    """Whether what was asked or known before ends with the line before `line`, and that does not ask again."""
    sign, word = notes.word(line - 1), notes.ids[line - 2] if line > 1 else -1
    ends = sign == "?" or (sign == "." and word not in notes.vocabulary.abbreviations)
    return ends and notes.word(line)[0].isupper() and notes.word(following - 1) != "?"


def _second_sentence(notes: Notes, start: int, end: int) -> int:
    """Where what was done or compared ends in a report of one paragraph: "Technique: 80 ml i.v. There is a nodule."."""
    for k, _, _ in notes.within(Layer.SIGN, start, end - 1):
        if notes.word(k) == "." and notes.starts[k + 1] > notes.ends[k] and notes.word(k + 1)[0].isupper():
            return k + 1
    return end


def _is_title(notes: Notes, i: int, end: int) -> bool:
    """Whether a line begins with a word or a few and a colon: "LUNGS:", "Heart and mediastinum:"."""
    if not notes.word(i)[0].isupper():
        return False
    for k in range(i, min(i + _TITLE + 1, end)):
        if notes.word(k) == ":":
            return k > i
        if not notes.word(k).isalpha() and notes.word(k) not in "/&,-":
            return False
    return False


def _starts_line(notes: Notes, i: int) -> bool:
    at = bisect_left(notes.lines, i)
    return at < len(notes.lines) and notes.lines[at] == i
