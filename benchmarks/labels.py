"""How far the confidence of labels can be trusted, and what the second reader finds, against manual coding.

    python benchmarks/labels.py [SHARED]

SHARED is the folder that holds `tools/radeval` and the coded chest radiograph reports (default: ../shared). Each report
is a patient of its own. Printed are

- a reliability table: of labels with a confidence in a range, how many are coded, by the rules alone and with the text
  classifier's say;
- of the pairs that the rules assert and the classifier finds least probable, how many are not coded;
- of the pairs of report and concept that the rules do not assert but the classifier finds most probable, how many are
  coded, or are found by the whole lexicon where the rules had one with every fifth synonym of each concept left out.
"""

import hashlib
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gold_reader import LABELS
from nlp import lexicon
from nlp.reader import Reader
from nlp.values import Reading
from phenotype.extraction.classify import PARTS, ReadReport, ReadSentence, Score, classify
from phenotype.extraction.labels import NOT_TODAY, Said, label_study

BINS = (0.0, 0.03, 0.1, 0.3, 0.5, 0.7, 0.85, 0.94, 0.97, 1.01)
LEFT_OUT = 0.2  # of a concept's synonyms
TOPS = (50, 100, 200, 500)
SAID = ("concept", "assertion", "temporality", "certainty", "section", "side", "experiencer", "change", "implied")


def read_with(folder: Path, texts: list[str]) -> list[Reading]:
    """The readings of texts by the lexicons in a folder; in a process of its own."""
    lexicon.HERE = folder
    return list(Reader("en").read(texts))


def weakened(folder: Path, seed: int) -> Path:
    """A copy of the lexicons in which of every concept with several synonyms some are missing."""
    rng = random.Random(seed)
    copy = folder / "lexicons"
    shutil.copytree(lexicon.HERE, copy)
    for path in sorted((copy / "en" / "findings").glob("*.tsv")):
        lines = path.read_text(encoding="utf-8").splitlines()
        at = next(line for line in lines if line.strip() and not line.startswith("#")).split("\t").index("phrases")
        for number, line in enumerate(lines):
            cells = line.split("\t")
            phrases = cells[at].split("|") if len(cells) > at and not line.startswith("#") else []
            if len(phrases) > 1:
                gone = set(rng.sample(range(len(phrases)), max(1, round(LEFT_OUT * len(phrases)))))
                cells[at] = "|".join(p for n, p in enumerate(phrases) if n not in gone)
                lines[number] = "\t".join(cells)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return copy


def mentions(reading: Reading) -> list[Said]:
    """What labels are made from."""
    return [Said(**{name: getattr(m, name) for name in SAID}) for m in reading.mentions]


def as_read(doc: Any, reading: Reading) -> ReadReport:
    """A report as the classifier gets it."""
    said: dict[int, list[Said]] = {}
    for mention, own in zip(reading.mentions, mentions(reading), strict=True):
        said.setdefault(mention.sentence_start, []).append(own)
    idle = [(s.start, s.end) for s in reading.sections if s.name in NOT_TODAY]
    sentences = (s for s in reading.sentences if not any(a <= s.start < b for a, b in idle))
    part = int(hashlib.sha256(doc.id.encode()).hexdigest(), 16) % PARTS
    return ReadReport(
        part, tuple(ReadSentence(doc.text[s.start : s.end], tuple(said.get(s.start, ()))) for s in sentences)
    )


def second_opinions(docs: list[Any], readings: list[Reading]) -> dict[str, list[Score]]:
    """The classifier's scores."""
    concepts = [c for c in lexicon.concepts() if c.category in ("finding", "device")]
    reports = {d.id: as_read(d, r) for d, r in zip(docs, readings, strict=True)}
    return classify(reports, {c.id: c.parent for c in concepts}, [c.id for c in concepts], least=20, strength=10.0)


def coded(doc: Any, concept: str) -> bool:
    """Whether a label that the concept is coded under was given."""
    return not set(LABELS.get(concept, (concept,))).isdisjoint(doc.gold)


def main() -> None:
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "shared"
    sys.path.insert(0, str(shared / "tools"))
    from radeval import concepts, data

    docs = data.openi()
    texts = [d.text for d in docs]
    parents = {c.id: c.parent for c in lexicon.concepts()}
    known = {c for c in parents if set(LABELS.get(c, (c,))) & set(concepts.CONCEPTS)}
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, spawn.Pool(1) as pool:
        full = read_with(lexicon.HERE, texts)
        weak = pool.apply(read_with, (weakened(Path(folder), seed=0), texts))

    started = time.process_time()
    scores = {"full": second_opinions(docs, full)}
    print(f"classifier: {len(docs)} reports in {time.process_time() - started:.0f} CPU seconds")
    scores["weak"] = second_opinions(docs, weak)
    print(f"{'confidence':>14s} {'rules':>8s} {'coded':>6s} {'both':>8s} {'coded':>6s}")
    alone, both = [], []
    for doc, reading in zip(docs, full, strict=True):
        second = {s.concept: s.probability for s in scores["full"][doc.id]}
        for rows, opinion in ((alone, None), (both, second)):
            labels = label_study(mentions(reading), parents, opinion)
            rows += [(x.confidence, coded(doc, x.concept)) for x in labels if x.concept in known and not x.implied]
    for low, high in pairwise(BINS):
        cells = []
        for rows in (alone, both):
            inside = [is_coded for confidence, is_coded in rows if low <= confidence < high]
            cells.append(f"{len(inside):8d} {sum(inside) / len(inside) if inside else float('nan'):6.3f}")
        print(f"{low:6.2f} to {min(high, 1):4.2f} {cells[0]} {cells[1]}")
    for name, rows in (("rules", alone), ("both", both)):
        print(f"{name}: Brier score {sum((p - y) ** 2 for p, y in rows) / len(rows):.4f} over {len(rows)} labels")

    by_full = {
        d.id: {x.concept for x in label_study(mentions(r), parents) if x.value != "absent"}
        for d, r in zip(docs, full, strict=True)
    }
    doubted = [
        (s.probability, coded(doc, s.concept))
        for doc in docs
        for s in scores["full"][doc.id]
        if s.said == "present" and s.concept in known
    ]
    doubted.sort()
    share = sum(not y for _, y in doubted) / len(doubted)
    print(f"asserted by the rules: {len(doubted)} pairs, {share:.3f} of them not coded")
    for top in TOPS:
        print(f"  of the {top} least probable: {sum(not y for _, y in doubted[:top])}, to {doubted[top - 1][0]:.2f}")
    for name, readings in (("full", full), ("weak", weak)):
        candidates = []
        missed = 0
        for doc, reading in zip(docs, readings, strict=True):
            own = {x.concept for x in label_study(mentions(reading), parents) if x.value != "absent"}
            labels = {label for concept in own for label in LABELS.get(concept, (concept,))}
            missed += len(by_full[doc.id] - own)
            for s in scores[name][doc.id]:
                if s.said in ("", "absent"):
                    named = set(LABELS.get(s.concept, (s.concept,)))
                    candidates.append(
                        (
                            s.probability,
                            s.concept in by_full[doc.id],
                            bool((named - labels) & set(doc.gold)),
                            s.concept in known,
                        )
                    )
        candidates.sort(key=lambda c: -c[0])
        print(f"{name} lexicon: {missed} pairs that the whole lexicon asserts are missed")
        for top in TOPS:
            some = candidates[:top]
            found, gold = sum(c[1] for c in some), sum(c[2] for c in some)
            print(
                f"  of the first {top}: {found} asserted by the whole lexicon, {gold} coded and not found by the rules "
                f"(of {sum(c[3] for c in some)} that can be coded); probability from {some[-1][0]:.2f}"
            )


if __name__ == "__main__":
    main()
