"""How a phrase is written in the tables of words.

Words as they stand in a report, in any case; phrases separated by |. `effusion(s)` stands for both forms,
`(mild/moderate) edema` for either word, `(the) heart` for with and without, and so does an empty word,
`(old/healed/) fracture`; `heart ... enlarged` allows up to eight words between; ^ and $ ask for the start and the end
of a sentence.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nlp.tables import Row, read_table

_MOST_FORMS = 5000  # a slip of the brackets should not fill the memory


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that name something: one part, or several with other words between; perhaps a whole sentence."""

    parts: tuple[str, ...]
    opens: bool = False  # must start its sentence
    closes: bool = False  # must end its sentence


def parse_phrases(row: Row) -> Iterator[Phrase]:
    """The phrases of a row, written out."""
    for written in row["phrases"].split("|"):
        if not written.strip():
            raise row.error("phrases", "an empty phrase (two | with nothing between, or nothing at all)")
        for text in _written_out(row, written):
            words = text.split()
            opens, closes = words[:1] == ["^"], words[-1:] == ["$"]
            parts = tuple(p.strip() for p in " ".join(words[opens : len(words) - closes]).split("..."))
            if not all(parts):
                raise row.error("phrases", f"{written.strip()!r}: words are missing around ... or between ^ and $")
            yield Phrase(parts, opens, closes)


def plain_phrases(path: Path, columns: Collection[str], optional: Collection[str] = ()) -> Iterator[tuple[Row, str]]:
    """The rows of a table with each of their phrases, which may have neither gaps nor anchors here."""
    for row in read_table(path, columns, optional):
        for phrase in parse_phrases(row):
            if len(phrase.parts) > 1 or phrase.opens or phrase.closes:
                raise row.error("phrases", "... , ^ and $ are for findings only")
            yield row, phrase.parts[0]


def _written_out(row: Row, written: str) -> Iterator[str]:
    """'(a/b) c(s)' -> 'a c', 'a cs', 'b c', 'b cs'; brackets may stand in brackets."""
    waiting, done = [written], dict[str, None]()
    while waiting:
        text = waiting.pop()
        inner = re.search(r"\(([^()]*)\)", text)
        if inner is None:
            if "(" in text or ")" in text:
                raise row.error("phrases", f"{written.strip()!r}: brackets do not match")
            done[text] = None
            continue
        choices = inner[1].split("/")
        choices = [*choices, ""] if len(choices) == 1 else choices
        waiting += [text[: inner.start()] + choice + text[inner.end() :] for choice in choices]
        if len(waiting) + len(done) > _MOST_FORMS:
            raise row.error("phrases", f"{written.strip()!r}: stands for over {_MOST_FORMS} phrases")
    return iter(done)
