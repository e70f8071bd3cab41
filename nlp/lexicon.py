"""The words: concepts, places, cues and headings, loaded from the tables in `lexicons/`.

`lexicons/concepts/` and `lexicons/sites/` say what there is, in any language; `lexicons/LANGUAGE/` has a language's
words for it and its rules. A language is a folder. A user's own words are a table of findings, or a folder of the same
form as `lexicons/`, whose rows are added.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from nlp.phrases import Phrase, parse_phrases, plain_phrases
from nlp.tables import LexiconError, Row, read_table

HERE = Path(__file__).parent / "lexicons"
_CODES = {"radlex": re.compile(r"RID\d+"), "mesh": re.compile(r"D\d{6,9}"), "snomed": re.compile(r"\d{5,18}")}
_ID = re.compile(r"[a-z][a-z0-9_]*")
_LANGUAGE = re.compile(r"[a-z]{2,3}")
CATEGORIES = frozenset({"finding", "device", "normal", "none"})  # none: harmless words that hide shorter phrases
SECTIONS = frozenset({"indication", "comparison", "technique", "findings", "impression", "addendum", "other"})
EFFECTS = frozenset({"absent", "uncertain", "present", "historical", "hypothetical", "other", "none", "stop"})
MODIFIERS: dict[str, tuple[str, ...] | None] = {  # None: any value
    "side": ("left", "right", "bilateral"),
    "severity": ("borderline", "mild", "moderate", "severe"),
    "change": ("new", "increased", "stable", "decreased", "resolved", "removed"),
    "count": None,  # "2", "several"
    "prior": ("prior", "since", "month"),  # the examination that a change speaks of; what stands before a date alone
    "size": None,  # sizes without a number: "subcentimeter"
    "measure": ("times", "range", "from", "earlier", "was", "about", "apart", "technical"),  # words around lengths
    "link": ("means", "beside", "this"),  # what ties a finding to the one before it
}


@dataclass(frozen=True, slots=True)
class Concept:
    """A finding, device or normal statement that a report can name. Codes are "" where none was verified."""

    id: str
    name: str
    category: str  # "finding", "device" or "normal"
    parent: str  # id of the broader concept, or ""
    region: str  # the table it stands in: "chest", "abdomen" ...
    radlex: str
    mesh: str
    snomed: str


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the body."""

    id: str
    name: str
    kind: str  # "lobe", "zone", "segment", "bone", "joint", "vessel", "part", "region" or "organ"
    parent: str  # id of the place that it is part of, or ""
    radlex: str
    snomed: str


@dataclass(frozen=True, slots=True)
class Place:
    """What words for a place say: a site, with a side where the words imply one ("RUL", "bibasilar")."""

    id: str
    kind: str
    side: str


@dataclass(frozen=True, slots=True)
class Cue:
    """Words that say how a mention is meant, and how far they reach."""

    id: str
    effect: str
    direction: str  # "forward", "backward", "both", "either" (forward only where nothing stands before) or "between"
    certainty: float
    scope: str  # "clause", "list" (up to "and", a comma or a verb) or "near" (a few words)


@dataclass(frozen=True, slots=True)
class Normal:
    """An organ or measure that a report can call normal: which words do, and what that denies."""

    id: str
    states: frozenset[str]  # ids of the states that count for it, such as "clear"
    denies: tuple[int, ...]  # indexes of concepts


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Everything that one language knows. Pairs hold a phrase and what it stands for."""

    language: str
    concepts: tuple[Concept, ...]
    midline: frozenset[str]  # concepts without a side, such as cardiomegaly
    names: tuple[tuple[Phrase, int], ...]  # phrase, index into concepts
    places: tuple[tuple[str, Place], ...]
    cues: tuple[tuple[str, Cue], ...]
    modifiers: tuple[tuple[str, str, str], ...]  # words, kind, value
    normals: tuple[tuple[str, Normal], ...]
    states: tuple[tuple[str, str], ...]  # words, id of the state
    headings: tuple[tuple[str, str, str], ...]  # words, section, temporality
    classes: tuple[tuple[str, str], ...]  # words, class
    units: tuple[tuple[str, float], ...]  # words, millimetres
    folding: tuple[tuple[str, str], ...]  # letters, other letters that they may be written as
    compounds: tuple[tuple[str, str], ...]  # part of a word, kind of part


def languages(own: Path | None = None) -> tuple[str, ...]:
    """The languages there are words for, those of a user's own folder among them."""
    folders = [HERE, *([own] if own and own.is_dir() else [])]
    found = {p.name for folder in folders for p in folder.iterdir() if p.is_dir() and _LANGUAGE.fullmatch(p.name)}
    return tuple(sorted(found))


def concepts(own: Path | None = None) -> tuple[Concept, ...]:
    """The concepts of all languages, those of a user's `own` words added."""
    return tuple(c for c in _things(str(own) if own else None).concepts.values() if c.category != "none")


def sites(own: Path | None = None) -> tuple[Site, ...]:
    """The places of all languages, those of a user's `own` words added."""
    return tuple(_things(str(own) if own else None).sites.values())


def version(language: str, own: Path | None = None) -> str:
    """A hash of the content of all tables of a language: equal words, equal version, on every machine."""
    digest = hashlib.sha256()
    for path in _files(language, own):
        content = "\n".join(path.read_text(encoding="utf-8-sig").splitlines())
        digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()[:16]


def load(language: str = "en", own: Path | None = None) -> Lexicon:
    """All tables of a language. Raises LexiconError, which names file, line and column."""
    return _load(language, str(own) if own else None)


def _files(language: str, own: Path | None) -> list[Path]:
    if own is not None and not own.is_dir():
        return [*_files(language, None), own]
    return [
        path
        for folder in (HERE, *([own] if own else []))
        for path in (
            *sorted((folder / "concepts").glob("*.tsv")),
            *sorted((folder / "sites").glob("*.tsv")),
            *folder.glob("languages.tsv"),
            *sorted((folder / language).rglob("*.tsv")),
        )
    ]


@lru_cache(maxsize=8)
def _load(language: str, own: str | None) -> Lexicon:
    folders = [HERE, *([Path(own)] if own and Path(own).is_dir() else [])]
    homes = [folder / language for folder in folders if (folder / language).is_dir()]
    if not homes:
        known = ", ".join(languages(Path(own) if own else None))
        raise LexiconError(f"{HERE / language}: there is no lexicon for language {language!r} (there are: {known})")

    def tables(name: str) -> Iterator[Path]:
        return (path for home in homes for path in sorted(home.glob(name)))

    things = _things(own)
    findings = [*tables("findings/*.tsv"), *([Path(own)] if own and not Path(own).is_dir() else [])]
    place = {concept: index for index, concept in enumerate(things.concepts)}
    return Lexicon(
        language=language,
        concepts=tuple(things.concepts.values()),
        midline=frozenset(things.midline),
        names=tuple((phrase, place[row["id"]]) for path in findings for row, phrase in _findings(path, place)),
        places=tuple(pair for path in tables("anatomy/*.tsv") for pair in _places(path, things.sites)),
        cues=tuple(pair for path in tables("cues.tsv") for pair in _cues(path)),
        modifiers=tuple(told for path in tables("modifiers.tsv") for told in _modifiers(path)),
        normals=tuple(pair for path in tables("normals.tsv") for pair in _normals(path, place)),
        states=tuple((p, row["state"]) for path in tables("states.tsv") for row, p in _pairs(path, "state")),
        headings=tuple(told for path in tables("sections.tsv") for told in _headings(path)),
        classes=tuple((p, row["class"]) for path in tables("words.tsv") for row, p in _pairs(path, "class")),
        units=tuple((p, row.number("mm", 1.0)) for path in tables("units.tsv") for row, p in _pairs(path, "mm")),
        folding=tuple(pair for path in tables("folding.tsv") for pair in _folding(path)),
        compounds=tuple((p, row["kind"]) for path in tables("compounds.tsv") for row, p in _pairs(path, "kind")),
    )


class _Things:
    """The concepts and places that there are, one table read over the other."""

    def __init__(self) -> None:
        self.concepts: dict[str, Concept] = {}
        self.midline: set[str] = set()
        self.sites: dict[str, Site] = {}
        self._parents: list[tuple[Row, dict[str, Concept] | dict[str, Site]]] = []

    def add_concepts(self, path: Path, here: set[str]) -> None:
        """A concept already there gets what cells say anew; `here` are the ids of the same folder."""
        for row in read_table(path, ("id",), ("name", "category", "parent", "midline", *_CODES, "phrases")):
            _check_row(row, here)
            old = self.concepts.get(row["id"])
            if old is None and not row["name"]:
                raise row.error("name", f"the new concept {row['id']!r} needs a name")
            if row["category"]:
                row.one_of("category", CATEGORIES)
            told = {k: row[k] for k in ("name", "category", "parent", *_CODES) if row[k]}
            blank = Concept(row["id"], row["name"], "finding", "", path.stem, "", "", "")
            self.concepts[row["id"]] = replace(old or blank, **told)
            if row["midline"]:
                row.one_of("midline", {"yes"})
                self.midline.add(row["id"])
            self._parents.append((row, self.concepts))

    def add_sites(self, path: Path, here: set[str]) -> None:
        """A place already there is replaced; `here` are the ids of the same folder."""
        for row in read_table(path, ("id", "name", "kind"), ("parent", "radlex", "snomed")):
            _check_row(row, here)
            self.sites[row["id"]] = Site(
                row["id"], row["name"], row["kind"], row["parent"], row["radlex"], row["snomed"]
            )
            self._parents.append((row, self.sites))

    def check_parents(self) -> None:
        for row, others in self._parents:
            if row["parent"] and (row["parent"] not in others or row["parent"] == row["id"]):
                kind = "concept" if others is self.concepts else "site"
                raise row.error("parent", f"{row['parent']!r} is not another {kind} of the lexicon")


@lru_cache(maxsize=8)
def _things(own: str | None) -> _Things:
    things, folders = _Things(), [HERE]
    if own is not None and Path(own).is_dir():
        folders.append(Path(own))
    for folder in folders:
        concept_ids, site_ids = set[str](), set[str]()
        for path in sorted((folder / "concepts").glob("*.tsv")):
            things.add_concepts(path, concept_ids)
        for path in sorted((folder / "sites").glob("*.tsv")):
            things.add_sites(path, site_ids)
    if own is not None and not Path(own).is_dir():
        things.add_concepts(Path(own), set())
    things.check_parents()
    return things


def _check_row(row: Row, here: set[str]) -> None:
    if not _ID.fullmatch(row["id"]):
        raise row.error("id", f"{row['id']!r} is not lower-case letters, digits and _")
    if row["id"] in here:
        raise row.error("id", f"{row['id']!r} is there twice")
    here.add(row["id"])
    for column, code in _CODES.items():
        if row[column] and not code.fullmatch(row[column]):
            raise row.error(column, f"{row[column]!r} does not look like a {column} code")


def _findings(path: Path, known: dict[str, int]) -> Iterator[tuple[Row, Phrase]]:
    for row in read_table(path, ("id", "phrases"), ("name", "category", "parent", "midline", *_CODES)):
        if row["id"] not in known:
            raise row.error("id", f"{row['id']!r} is no concept of the tables in concepts/")
        for phrase in parse_phrases(row):
            yield row, phrase


def _pairs(path: Path, column: str) -> Iterator[tuple[Row, str]]:
    return plain_phrases(path, (column, "phrases"))


def _places(path: Path, known: dict[str, Site]) -> Iterator[tuple[str, Place]]:
    for row, phrase in plain_phrases(path, ("id", "phrases"), ("side",)):
        if row["id"] not in known:
            raise row.error("id", f"{row['id']!r} is no place of the tables in sites/")
        side = row["side"] and row.one_of("side", MODIFIERS["side"] or ())
        yield phrase, Place(row["id"], known[row["id"]].kind, side)


def _cues(path: Path) -> Iterator[tuple[str, Cue]]:
    for row, phrase in plain_phrases(path, ("id", "effect", "phrases"), ("direction", "certainty", "scope")):
        effect = row.one_of("effect", EFFECTS)
        direction = row.one_of("direction", ("", "forward", "backward", "both", "either", "between"))
        certainty = row.number("certainty", 0.0 if effect == "absent" else 1.0)
        if not 0 <= certainty <= 1:
            raise row.error("certainty", f"{row['certainty']!r} is not between 0 and 1")
        scope = row.one_of("scope", ("", "clause", "list", "near")) or "clause"
        yield phrase, Cue(row["id"], effect, direction, certainty, scope)


def _modifiers(path: Path) -> Iterator[tuple[str, str, str]]:
    for row, phrase in plain_phrases(path, ("kind", "value", "phrases")):
        values = MODIFIERS[row.one_of("kind", MODIFIERS)]
        yield phrase, row["kind"], row.one_of("value", (*values, "none")) if values else row["value"]


def _normals(path: Path, known: dict[str, int]) -> Iterator[tuple[str, Normal]]:
    for row, phrase in plain_phrases(path, ("id", "states", "denies", "phrases")):
        for concept in row["denies"].split():
            if concept not in known:
                raise row.error("denies", f"{concept!r} is no concept of the lexicon")
        yield (
            phrase,
            Normal(row["id"], frozenset(row["states"].split()), tuple(known[c] for c in row["denies"].split())),
        )


def _folding(path: Path) -> Iterator[tuple[str, str]]:
    for row in read_table(path, ("written", "read")):
        if len(row["written"]) != 1:
            raise row.error("written", f"{row['written']!r} is not one letter")
        yield row["written"].lower(), row["read"].lower()


def _headings(path: Path) -> Iterator[tuple[str, str, str]]:
    for row, phrase in plain_phrases(path, ("section", "phrases"), ("temporality",)):
        time = row.one_of("temporality", ("", "current", "historical")) or "current"
        yield phrase, row.one_of("section", SECTIONS), time


if __name__ == "__main__":
    import sys

    from nlp.lint import main

    sys.exit(main(sys.argv[1:]))
