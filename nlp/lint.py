"""What is wrong, doubtful or missing in the tables of words, told to the people who edit them.

`python -m nlp.lexicon check [FOLDER]` prints it, with file, line and column.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nlp import lexicon
from nlp.phrases import Phrase, parse_phrases
from nlp.tables import LexiconError, Row, read_table
from nlp.words import split

Spoken = tuple[tuple[str, ...], bool, bool]  # the words of a phrase's parts, and whether it opens or closes a sentence


@dataclass
class Report:
    """Errors keep a lexicon from being used, or make one phrase mean two things; hints are harmless."""

    errors: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)
    missing: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)  # language -> concepts, sites
    counts: list[str] = field(default_factory=list)


def check(own: Path | None = None) -> Report:
    """All there is to say about the tables, a user's `own` words among them."""
    report = Report()
    try:
        concepts = {c.id: c for c in lexicon.concepts(own)}
        sites = {s.id for s in lexicon.sites(own)}
    except LexiconError as error:
        report.errors.append(str(error))
        return report
    report.errors += _circles({c.id: c.parent for c in concepts.values()}, "concept")
    report.errors += _circles({s.id: s.parent for s in lexicon.sites(own)}, "site")
    kinds = Counter(c.category for c in concepts.values())
    told = ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
    report.counts.append(f"{len(concepts)} concepts ({told}), {len(sites)} sites")
    for language in lexicon.languages(own):
        try:
            lexicon.load(language, own)
        except LexiconError as error:
            report.errors.append(str(error))
            continue
        _check_language(report, language, own, {c.id: c.parent for c in concepts.values()}, sites)
    return report


def _check_language(report: Report, language: str, own: Path | None, parents: dict[str, str], sites: set[str]) -> None:
    folders = [lexicon.HERE, *([own] if own and own.is_dir() else [])]
    tables = [folder / "shared.tsv" for folder in folders]
    on_purpose = {
        pair
        for path in tables
        if path.exists()
        for row in read_table(path, ("one", "other"))
        for pair in ((row["one"], row["other"]), (row["other"], row["one"]))
    }
    names = list(_rows(language, own, "findings/*.tsv", ("id", "phrases"), ("name", "category", "parent", "midline")))
    places = list(_rows(language, own, "anatomy/*.tsv", ("id", "phrases"), ("side",)))

    def apart(one: Row, other: Row) -> bool:
        related = other["id"] in _above(one["id"], parents) or one["id"] in _above(other["id"], parents)
        return one["id"] != other["id"] and not related and (one["id"], other["id"]) not in on_purpose

    def sided(one: Row, other: Row) -> bool:
        return one["side"] != other["side"] and (one["id"], other["id"]) not in on_purpose

    number, place_number = _check_phrases(report, names, apart), _check_phrases(report, places, sided)
    lacking = sorted(parents.keys() - {row["id"] for row in names})
    homeless = sorted(sites - {row["id"] for row in places})
    report.missing[language] = lacking, homeless
    report.counts.append(
        f"{language}: {len(parents) - len(lacking)} concepts with {number} phrases, "
        f"{len(sites) - len(homeless)} sites with {place_number} phrases"
    )


def _check_phrases(report: Report, rows: list[Row], wrong: Callable[[Row, Row], bool]) -> int:
    """Reports rows that share phrases, and returns how many different ones there are."""
    where: dict[Spoken, list[int]] = defaultdict(list)
    shared: dict[tuple[int, int], list[str]] = defaultdict(list)
    for nr, row in enumerate(rows):
        for phrase in parse_phrases(row):
            here = where[spoken(phrase)]
            for other in dict.fromkeys(here):
                shared[nr, other].append(" ... ".join(phrase.parts))
            here.append(nr)
    for (nr, other), phrases in shared.items():
        row, first = rows[nr], rows[other]
        told = ", ".join(map(repr, phrases[:3])) + (f" and {len(phrases) - 3} more" if len(phrases) > 3 else "")
        there = f"{first['id']!r} ({first.path.name}, line {first.line})"
        if wrong(row, first):
            report.errors.append(str(row.error("phrases", f"{row['id']!r} has {told}, and so has {there}")))
        elif row["id"] == first["id"]:
            again = "" if nr == other else f", also under {there}"
            report.hints.append(str(row.error("phrases", f"there twice: {told}{again}")))
    return len(where)


def spoken(phrase: Phrase) -> Spoken:
    """A phrase as reports are compared with it."""
    return tuple(" ".join(split(part)) for part in phrase.parts), phrase.opens, phrase.closes


def _rows(
    language: str, own: Path | None, name: str, columns: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[Row]:
    """The rows of a language's tables of one kind, a user's own among them."""
    codes = ("radlex", "mesh", "snomed")
    folders = [lexicon.HERE, *([own] if own and own.is_dir() else [])]
    paths = [path for folder in folders for path in sorted((folder / language).glob(name))]
    if own and not own.is_dir() and name.startswith("findings"):
        paths.append(own)
    for path in paths:
        yield from read_table(path, columns, (*optional, *codes))


def _above(one: str, parents: dict[str, str]) -> Iterator[str]:
    """What is broader than a concept; ends, even in a circle."""
    seen = {one}
    while (one := parents.get(one, "")) and one not in seen:
        seen.add(one)
        yield one


def _circles(parents: dict[str, str], kind: str) -> Iterator[str]:
    for one in sorted(parents):
        last = [one, *_above(one, parents)][-1]
        if parents.get(last) == one:
            yield f"{kind} {one!r}: its parents lead back to itself"


def main(arguments: Sequence[str]) -> int:
    """`check [FOLDER]`: prints what was found; 1 if there are errors."""
    if not arguments or arguments[0] != "check" or len(arguments) > 2:
        print("usage: python -m nlp.lexicon check [FOLDER OR TABLE OF YOUR OWN WORDS]", file=sys.stderr)
        return 2
    report = check(Path(arguments[1]) if len(arguments) == 2 else None)
    for hint in report.hints:
        print(f"hint: {hint}")
    for language, (concepts, sites) in report.missing.items():
        for kind, ids in (("concepts", concepts), ("sites", sites)):
            if ids:
                print(f"{language} has no words for {len(ids)} {kind}: {', '.join(ids)}")
    for error in report.errors:
        print(f"error: {error}")
    print(*report.counts, sep="\n")
    return 1 if report.errors else 0
