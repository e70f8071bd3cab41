"""How a phrase is written in the tables of words.

Words as they stand in a report, in any case; phrases separated by |. `effusion(s)` stands for both forms,
`(mild/moderate) edema` for either word, `(the) heart` for with and without, and so does an empty word,
`(old/healed/) fracture`; `heart ... enlarged` allows up to eight words between; ^ and $ ask for the start and the end
of a sentence.
"""

import re
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from nlp.tables import Row, read_table

_MOST_FORMS, _DEEPEST = 5000, 20  # a slip of the brackets should not fill the memory


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
            if not words:  # "(old)" alone: what is left out leaves nothing
                continue
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


def _written_out(row: Row, written: str) -> list[str]:
    """'(a/b) c(s)' -> 'a c', 'a cs', 'b c', 'b cs'; brackets may stand in brackets."""
    pieces = deque(re.split(r"([()/])", written))

    def sequence(depth: int) -> list[str]:
        """The forms of what stands up to the end of a choice (depth > 0) or of everything."""
        forms = [""]
        while pieces and not (depth and pieces[0] in ("/", ")")):
            piece = pieces.popleft()
            if piece == ")" or depth > _DEEPEST:
                raise row.error("phrases", f"{written.strip()!r}: brackets do not match")
            following = choices(depth + 1) if piece == "(" else [piece]
            if len(forms) * len(following) > _MOST_FORMS:
                raise row.error("phrases", f"{written.strip()!r}: stands for over {_MOST_FORMS} phrases")
            forms = list(dict.fromkeys(before + after for before in forms for after in following))
        return forms

    def choices(depth: int) -> list[str]:
        """The forms of what stands in brackets, the opening one of which was read."""
        told = [sequence(depth)]
        while pieces and pieces[0] == "/":
            pieces.popleft()
            told.append(sequence(depth))
        if not pieces:
            raise row.error("phrases", f"{written.strip()!r}: brackets do not match")
        pieces.popleft()
        return list(dict.fromkeys(chain(*told, [""] if len(told) == 1 else [])))

    return sequence(0)
