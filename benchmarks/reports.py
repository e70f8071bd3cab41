"""How fast reports are read, beside medSpaCy and beside spaCy's bare tokenizer, in one run.

    python benchmarks/reports.py [--medspacy PYTHON] [--reports 1000] [--rounds 5]
    python benchmarks/reports.py --memory 100000

Each is measured in CPU seconds on the same reports, in turns, so that other work on the machine meets all alike; the
median of the rounds counts. Ours reads with everything switched on: language detection, sections, sentences, findings,
assertions, sites, sizes, changes, and the evidence for each. The reports are the radiographs of Open-i, which must be
at ../shared/data. Each is read once a round by a reader that remembers no sentence of an earlier round.

medSpaCy asks for versions of its own, so it has its own environment, whose interpreter `--medspacy` names:

    python -m venv medspacy-env
    medspacy-env/bin/pip install medspacy_quickumls==3.2 unidecode nltk six pysimstring --no-deps
    medspacy-env/bin/pip install --no-deps medspacy==1.3.1 PyRuSH PyFastNER quicksectx
    medspacy-env/bin/pip install pysbd jsonschema loguru "setuptools<80" "spacy==3.8.*"

It gets as many target rules as our lexicon has names (the plain ones as they are, those with gaps without the gap), its
own rules for context and sections, and is measured as it comes (with PyRuSH) and with spaCy's sentencizer in place of
PyRuSH, which takes most of its time.

`--memory` reads so many reports, each with words, names and numbers that no other has, and prints how much memory the
process holds on the way: it must not grow with the number of reports.
"""

import argparse
import csv
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT.parent / "shared" / "data" / "openi" / "reports.csv"
SECTIONS = ("indication", "comparison", "findings", "impression")
OURS, TOKENIZER, MEDSPACY, NO_PYRUSH = "phenotype", "spaCy's tokenizer", "medSpaCy", "medSpaCy without PyRuSH"
SLOW = 0.1  # of the reports are enough for medSpaCy as it comes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--medspacy", metavar="PYTHON", help="an interpreter that has medSpaCy")
    parser.add_argument("--reports", type=int, default=1000, help="how many; medSpaCy as it comes gets a tenth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, metavar="N", help="read N reports and watch the memory instead")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)  # how the script runs itself under --medspacy
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], json.loads(Path(args.serve[1]).read_text(encoding="utf-8")))
        return
    if not REPORTS.exists():
        print(f"nothing measured: {REPORTS.relative_to(ROOT.parent)} is not there")
        return
    texts = list(openi())
    if args.memory:
        watch_memory(texts, args.memory)
        return
    print(f"{len(texts)} reports, {sum(map(len, texts)) / len(texts):.0f} characters each")
    one_process(spread(texts, args.reports), args.rounds, args.medspacy)
    two_processes(texts)


def openi() -> Iterator[str]:
    """The reports with their headings."""
    with REPORTS.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            yield "\n".join(f"{name.upper()}:\n{row[name].strip()}" for name in SECTIONS if row[name].strip())


def spread(texts: list[str], count: int) -> list[str]:
    """So many of the texts, evenly spread."""
    return texts[:: max(1, len(texts) // count)][:count]


def one_process(texts: list[str], rounds: int, medspacy: str | None) -> None:
    """Reports per CPU second of each, and how they compare."""
    import spacy

    from nlp.lexicon import load
    from nlp.reader import Reader

    reader, blank = Reader(), spacy.blank("en")
    few = spread(texts, round(len(texts) * SLOW))

    def ours() -> float:
        reader.forget()  # else every sentence but those of the first round would be remembered
        return seconds(lambda: [None for reading in reader.read(texts) if reading is None]) / len(texts)

    run: dict[str, Callable[[], float]] = {
        TOKENIZER: lambda: seconds(lambda: [None for text in texts if blank.tokenizer(text) is None]) / len(texts),
        OURS: ours,
    }
    names = load("en").names
    with tempfile.TemporaryDirectory() as folder:
        if medspacy:
            phrases = sorted({" ".join(phrase.parts) for phrase, _ in names})
            job = Path(folder) / "job.json"
            job.write_text(json.dumps({"texts": texts, "few": few, "phrases": phrases}), encoding="utf-8")
            print(f"{len(phrases)} target rules for medSpaCy")
            run |= {name: ask(medspacy, name, job) for name in (NO_PYRUSH, MEDSPACY)}
        times: dict[str, list[float]] = {name: [] for name in run}
        for measure in run.values():
            measure()  # words new to a vocabulary are learned before anything counts
        for _ in range(rounds):
            for name, measure in run.items():
                times[name].append(measure())
    middle = {name: median(found) for name, found in times.items()}
    for name, time_of_one in middle.items():
        print(f"{name:26s}{1 / time_of_one:8.0f} reports per CPU second", end="; ")
        print(f"{OURS} takes {middle[OURS] / time_of_one:.2f} times as long ({time_of_one / middle[OURS]:.1f})")


def ask(python: str, name: str, job: Path) -> Callable[[], float]:
    """A process that measures one of medSpaCy's pipelines each time it is asked."""
    command = [python, str(Path(__file__).resolve()), "--serve", name, str(job)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure() -> float:
        assert process.stdin and process.stdout
        process.stdin.write("go\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise SystemExit(f"{name}: the process that measures it ended")
        return float(answer)

    return measure


def serve(name: str, job: dict[str, list[str]]) -> None:
    """Runs in medSpaCy's environment: CPU seconds for a report, printed for each line that comes in."""
    from loguru import logger

    logger.disable("PyRuSH")  # its debug log would be what is measured
    import medspacy
    import spacy
    from medspacy.ner import TargetRule

    parts = {"medspacy_tokenizer", "medspacy_target_matcher", "medspacy_context", "medspacy_sectionizer"}
    if name == MEDSPACY:
        nlp = medspacy.load(medspacy_enable=parts | {"medspacy_pyrush"})
    else:
        blank = spacy.blank("en")
        blank.add_pipe("sentencizer")
        nlp = medspacy.load(blank, medspacy_enable=parts)
    nlp.get_pipe("medspacy_target_matcher").add([TargetRule(phrase, "FINDING") for phrase in job["phrases"]])
    print(f"{name}: {', '.join(nlp.pipe_names)}", file=sys.stderr)
    texts = job["few"] if name == MEDSPACY else job["texts"]
    for _ in sys.stdin:
        print(seconds(lambda: [None for doc in nlp.pipe(texts) if doc is None]) / len(texts), flush=True)


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def two_processes(texts: list[str]) -> None:
    """The wall time of one process and of two on the same stream of reports, once all have started."""
    from nlp.reader import Reader

    shuffled = random.Random(0)
    stream = []
    for _ in range(4):  # reports of the same sentences in another order
        for text in texts:
            sentences = text.split(". ")
            stream.append(". ".join(shuffled.sample(sentences, len(sentences))))
    reader = Reader()
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for processes, times in found.items():
            reader.forget()
            readings = reader.read(stream, processes)
            list(islice(readings, len(stream) // 2))  # by then every process has loaded its words
            started = time.perf_counter()
            read = sum(1 for _ in readings)
            times.append(read / (time.perf_counter() - started))
    one, two = median(found[1]), median(found[2])
    print(f"{one:.0f} reports per second of wall time in one process, {two:.0f} in two: {two / one:.2f} times as many")
    print(f"a plain loop in two processes does {limit():.2f} times as much as in one: what this machine allows")
    print(f"(load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")


def limit() -> float:
    """How many times as much two processes do as one, when all they do is count."""
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(3):
        for processes, own in times.items():
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                pool.map(count_up, [1] * processes)  # started
                started = time.perf_counter()
                pool.map(count_up, [20_000_000] * processes)
                own.append((time.perf_counter() - started) / processes)
    return median(times[1]) / median(times[2])


def count_up(last: int) -> int:
    """Work that needs nothing but a processor."""
    number = 0
    while number < last:
        number += 1
    return number


def watch_memory(texts: list[str], count: int) -> None:
    """Read `count` reports, none like another, and say how much memory is held at each tenth."""
    from nlp.reader import Reader

    letters = random.Random(0)

    def unlike(number: int) -> str:
        name = "".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=9))
        return f"{texts[number % len(texts)]}\nDr. {name.title()} was told at {number}. A {name}oid nodule."

    for number, _ in enumerate(Reader().read(map(unlike, range(count))), 1):
        if number % (count // 10) == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            print(f"{number} reports: {pages * os.sysconf('SC_PAGE_SIZE') / 2**20:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
