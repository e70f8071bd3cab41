"""A page that explains what was taken in: each file and report in one state, why, and what to do about it."""

import csv
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from db.queries import intake, overview
from db.session import Database
from phenotype.explore.page import POLICY, template, write_whole

STATES = ("ingested", "duplicate", "conflict", "quarantined", "ignored", "found")  # as they are drawn


@dataclass(frozen=True, slots=True)
class Reason:
    """What a code means, and what a person can do about it; nothing where nothing need be done."""

    meaning: str
    to_do: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a bar: where it starts and how wide it is, in percent."""

    state: str
    count: int
    start: float
    width: float


def write_intake(database: Database, out: Path) -> Path:
    """Write the page to the file `out`, whole or not at all, and return its path.

    It holds counts, codes and surrogates: no path, name, number, date of an examination, or word of a report. Raises
    Refused where it cannot be written.
    """
    with database.reading() as session:
        deliveries = intake.deliveries(session)
        files = intake.file_outcomes(session)
        total = Counter[str]()
        for outcome in files:
            total[outcome.state] += outcome.count
        html = template("intake.html.jinja").render(
            policy=POLICY,
            states=[state for state in STATES if total[state]],
            total=total,
            found=sum(total.values()),
            size=sum(outcome.size for outcome in files),
            bar=bar(total),
            deliveries=[(delivery, bar(delivery.states)) for delivery in deliveries],
            files=sorted(files, key=lambda outcome: STATES.index(outcome.state)),
            records=intake.record_outcomes(session),
            series=intake.series_outcomes(session),
            left_out=intake.left_out(session),
            reports=intake.report_outcomes(session),
            checks=intake.checks(session),
            transfers=intake.transfers(session),
            counts={count.table: count.rows for count in overview.counts(session)},
            explain=explain,
            readable=readable,
        )
    write_whole(out, html.encode())
    return out


def bar(states: Mapping[str, int]) -> list[Part]:
    """The parts of a bar of all states; no state that occurs is too thin to be seen."""
    there = [(state, states.get(state, 0)) for state in STATES if states.get(state)]
    total = sum(count for _, count in there)
    widths = [max(100 * count / total, 0.75) for _, count in there]
    scale, start, parts = 100 / sum(widths, 0.0) if widths else 0.0, 0.0, []
    for (state, count), width in zip(there, widths, strict=True):
        parts.append(Part(state, count, round(start, 3), round(width * scale, 3)))
        start += width * scale
    return parts


def explain(code: str) -> Reason:
    """What a reason means: of "missing_tag:Rows" what "missing_tag" means, with what follows the colon."""
    reasons = _reasons()
    name, _, detail = code.partition(":")
    found = reasons.get(code) or reasons.get(name)
    if found is None:
        return Reason("")
    return Reason(f"{found.meaning}: {detail}" if detail and code not in reasons else found.meaning, found.to_do)


@cache
def _reasons() -> dict[str, Reason]:
    with (Path(__file__).parent / "reasons.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader((line for line in file if not line.startswith("#")), delimiter="\t")
        return {row["code"]: Reason(row["meaning"], row["to_do"] or "") for row in rows}


def readable(size: int) -> str:
    """Bytes for people."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
