"""The words: concepts, anatomy, cues and headings, loaded from the tables in `lexicons/` and `rules/`.

How a phrase is written there: words as they stand in a report, in any case; phrases separated by |. `effusion(s)`
stands for both forms, `(mild/moderate) edema` for either word, `(the) heart` for with and without, and so does an
empty word, `(old/healed/) fracture`; `heart ... enlarged` allows up to eight words between; ^ and $ ask for the start
and the end of a sentence.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from nlp.tables import LexiconError, Row, read_table

_HERE = Path(__file__).parent
_CODES = {"radlex": re.compile(r"RID\d+"), "mesh": re.compile(r"D\d{6,9}"), "snomed": re.compile(r"\d{5,18}")}
_MOST_FORMS = 5000  # a slip of the brackets should not fill the memory
_ID = re.compile(r"[a-z][a-z0-9_]*")
CATEGORIES = frozenset({"finding", "device", "normal", "none"})  # none: harmless words that hide shorter phrases
SECTIONS = frozenset({"indication", "comparison", "technique", "findings", "impression", "addendum", "other"})
EFFECTS = frozenset({"absent", "uncertain", "present", "historical", "none", "stop"})
MODIFIERS = {"side": ("left", "right", "bilateral"), "severity": ("borderline", "mild", "moderate", "severe")}


@dataclass(frozen=True, slots=True)
class Concept:
    """A finding, device or normal statement that a report can name. Codes are "" where none was verified."""

    id: str
    name: str
    category: str  # "finding", "device" or "normal"
    parent: str  # id of the broader concept, or ""
    radlex: str
    mesh: str
    snomed: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that name something: one part, or several with other words between; perhaps a whole sentence."""

    parts: tuple[str, ...]
    opens: bool = False  # must start its sentence
    closes: bool = False  # must end its sentence


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the body. `side` is set where the words imply one ("RUL", "bibasilar")."""

    id: str
    kind: str
    side: str


@dataclass(frozen=True, slots=True)
class Cue:
    """Words that say how a mention is meant, and how far they reach."""

    id: str
    effect: str
    direction: str  # "forward", "backward", "both", or "either": forward only where nothing stands before
    certainty: float
    scope: str  # "clause", "list" (up to "and", a comma or a verb) or "near" (a few words)


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything that one language knows. Pairs hold a phrase and what it stands for."""

    concepts: tuple[Concept, ...]
    midline: frozenset[str]  # concepts without a side, such as cardiomegaly
    names: tuple[tuple[Phrase, int], ...]  # phrase, index into concepts
    sites: tuple[tuple[str, Site], ...]
    cues: tuple[tuple[str, Cue], ...]
    sides: tuple[tuple[str, str], ...]
    severities: tuple[tuple[str, str], ...]
    headings: tuple[tuple[str, str, str], ...]  # words, section, temporality
    classes: tuple[tuple[str, str], ...]  # words, class
    units: tuple[tuple[str, float], ...]  # words, millimetres


def concepts(language: str = "en", lexicon: Path | None = None) -> tuple[Concept, ...]:
    """The concepts of a language, those of a user's own `lexicon` table added."""
    return tuple(c for c in load(language, lexicon).concepts if c.category != "none")


def version(language: str = "en", lexicon: Path | None = None) -> str:
    """A hash of the content of all lexicon and rule files: equal words, equal version, on every machine."""
    digest = hashlib.sha256()
    files = [path for kind in ("lexicons", "rules") for path in sorted((_HERE / kind / language).glob("*.tsv"))]
    for path in [*files, *([lexicon] if lexicon else [])]:
        content = "\n".join(path.read_text(encoding="utf-8-sig").splitlines())
        digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()[:16]


def load(language: str = "en", lexicon: Path | None = None) -> Lexicon:
    """All tables of a language. Raises LexiconError, which names file, line and column."""
    return _load(language, str(lexicon) if lexicon else None)


@lru_cache(maxsize=8)
def _load(language: str, lexicon: str | None) -> Lexicon:
    words, rules = _HERE / "lexicons" / language, _HERE / "rules" / language
    if not words.is_dir():
        known = ", ".join(sorted(p.name for p in (_HERE / "lexicons").iterdir() if p.is_dir()))
        raise LexiconError(f"{words}: there is no lexicon for language {language!r} (there are: {known})")
    found = _Findings()
    found.read(words / "findings.tsv")
    if lexicon is not None:
        found.read(Path(lexicon))
    found.check_parents()
    modifiers = list(_modifiers(rules / "modifiers.tsv"))
    return Lexicon(
        concepts=tuple(found.concepts.values()),
        midline=frozenset(found.midline),
        names=tuple(found.names),
        sites=tuple(_sites(words / "anatomy.tsv")),
        cues=tuple(_cues(rules / "cues.tsv")),
        sides=tuple((phrase, value) for kind, phrase, value in modifiers if kind == "side"),
        severities=tuple((phrase, value) for kind, phrase, value in modifiers if kind == "severity"),
        headings=tuple(_headings(rules / "sections.tsv")),
        classes=tuple((p, row["class"]) for row, p in _plain(rules / "words.tsv", ("class", "phrases"))),
        units=tuple((p, row.number("mm", 1.0)) for row, p in _plain(rules / "units.tsv", ("mm", "phrases"))),
    )


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


class _Findings:
    """The tables of findings, one read over the other."""

    def __init__(self) -> None:
        self.concepts: dict[str, Concept] = {}
        self.names: list[tuple[Phrase, int]] = []
        self.midline: set[str] = set()
        self._parents: list[Row] = []

    def read(self, path: Path) -> None:
        """Add a table. A concept already there gets the new phrases, and what cells say anew."""
        required, optional = ("id", "phrases"), ("name", "category", "parent", "radlex", "mesh", "snomed", "midline")
        here: set[str] = set()
        for row in read_table(path, required, optional):
            if not _ID.fullmatch(row["id"]):
                raise row.error("id", f"{row['id']!r} is not lower-case letters, digits and _")
            if row["id"] in here:
                raise row.error("id", f"{row['id']!r} is there twice")
            here.add(row["id"])
            old = self.concepts.get(row["id"])
            if old is None and not row["name"]:
                raise row.error("name", f"the new concept {row['id']!r} needs a name")
            if row["category"]:
                row.one_of("category", CATEGORIES)
            for column, code in _CODES.items():
                if row[column] and not code.fullmatch(row[column]):
                    raise row.error(column, f"{row[column]!r} does not look like a {column} code")
            told = {k: row[k] for k in ("name", "category", "parent", "radlex", "mesh", "snomed") if row[k]}
            blank = Concept(row["id"], row["name"], "finding", "", "", "", "")
            self.concepts[row["id"]] = replace(old or blank, **told)
            if row["midline"]:
                row.one_of("midline", {"yes"})
                self.midline.add(row["id"])
            self._parents.append(row)
            place = list(self.concepts).index(row["id"])
            self.names += [(phrase, place) for phrase in parse_phrases(row)]

    def check_parents(self) -> None:
        for row in self._parents:
            if row["parent"] and (row["parent"] not in self.concepts or row["parent"] == row["id"]):
                raise row.error("parent", f"{row['parent']!r} is not another concept of the lexicon")


def _plain(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[tuple[Row, str]]:
    """Rows with each of their phrases; these may have neither gaps nor anchors."""
    for row in read_table(path, columns, optional):
        for phrase in parse_phrases(row):
            if len(phrase.parts) > 1 or phrase.opens or phrase.closes:
                raise row.error("phrases", "... , ^ and $ are for findings only")
            yield row, phrase.parts[0]


def _sites(path: Path) -> Iterator[tuple[str, Site]]:
    for row, phrase in _plain(path, ("id", "name", "kind", "phrases"), ("side", "radlex", "snomed")):
        yield phrase, Site(row["id"], row["kind"], row.one_of("side", ("", *MODIFIERS["side"])))


def _cues(path: Path) -> Iterator[tuple[str, Cue]]:
    for row, phrase in _plain(path, ("id", "effect", "phrases"), ("direction", "certainty", "scope")):
        effect = row.one_of("effect", EFFECTS)
        direction = row.one_of("direction", ("", "forward", "backward", "both", "either"))
        certainty = row.number("certainty", 0.0 if effect == "absent" else 1.0)
        if not 0 <= certainty <= 1:
            raise row.error("certainty", f"{row['certainty']!r} is not between 0 and 1")
        scope = row.one_of("scope", ("", "clause", "list", "near")) or "clause"
        yield phrase, Cue(row["id"], effect, direction, certainty, scope)


def _modifiers(path: Path) -> Iterator[tuple[str, str, str]]:
    for row, phrase in _plain(path, ("kind", "value", "phrases")):
        kind = row.one_of("kind", MODIFIERS)
        yield kind, phrase, row.one_of("value", MODIFIERS[kind])


def _headings(path: Path) -> Iterator[tuple[str, str, str]]:
    for row, phrase in _plain(path, ("section", "phrases"), ("temporality",)):
        time = row.one_of("temporality", ("", "current", "historical")) or "current"
        yield phrase, row.one_of("section", SECTIONS), time
