"""Detectors of anomalies on real radiographs and phantoms: image figures, maps, calibration, shortcuts.

    python benchmarks/anomaly.py --kermany DIR --shenzhen DIR --demo --model all --seeds 3 --json FILE --docs

--kermany DIR   holds labels.csv (image, split, label): the healthy of `train` are learned from, a fifth of the patients
                kept aside to calibrate on; `test` is the test
--shenzhen DIR  holds readings.csv (accession, image, reading, tuberculosis): of those read as "normal" 60 % are learned
                from, 15 % calibrated on, 25 % tested against all with tuberculosis, by patient, drawn by the seed
--demo          invented radiographs, with the truth that was planted

Each model is trained as `phenotype train` does, without labels. Results are appended to a file in --work as they come;
what is done is skipped when the command is repeated (--again NAME to do a model once more).
"""

import argparse
import json
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from tempfile import gettempdir

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy: each job is one thread

from anomaly_data import Dataset  # noqa: E402
from anomaly_docs import write_docs  # noqa: E402
from anomaly_models import BEST, ROWS, measure, names  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kermany", type=Path)
    parser.add_argument("--shenzhen", type=Path)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--model", default="all", help="a name, several with commas, 'best' or 'all'")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the results go")
    parser.add_argument("--docs", action="store_true", help="write docs/anomaly.md from the results")
    parser.add_argument("--work", type=Path, default=Path(gettempdir()) / "phenotype-anomaly")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each; 0 for this one alone")
    parser.add_argument("--only", default="", help="only jobs whose 'data model seed' contains this")
    parser.add_argument("--again", default="", help="models whose results are thrown away first, with commas")
    parser.add_argument("--share", type=float, default=1.0, help="of each family's training steps, where time is short")
    args = parser.parse_args()
    folders = {"kermany": args.kermany, "shenzhen": args.shenzhen, "demo": Path() if args.demo else None}
    data = [Dataset(name, folder, args.work) for name, folder in folders.items() if folder is not None]
    chosen = names() if args.model == "all" else [BEST["name"]] if args.model == "best" else args.model.split(",")
    for name in set(chosen) - set(ROWS()):
        parser.error(f"no model is called {name!r}; there are {', '.join(sorted(ROWS()))}")
    done = Results(args.work / "results.jsonl", set(args.again.split(",")) - {""})
    run(data, chosen, args, done)
    results = done.of({one.name: one.key for one in data} if data else None, args.share)
    if args.json:
        args.json.write_text(json.dumps({"results": results, "best": BEST}, indent=1) + "\n")
    if args.docs:
        write_docs(results, BEST, Path(__file__).resolve().parents[1] / "docs")


def run(data, chosen, args, done):
    """Do what is not done yet, `--jobs` at a time; a job that fails is told and leaves the others alone."""
    jobs = [(one, name, seed) for seed in range(args.seeds) for one in data for name in chosen]
    jobs = [job for job in jobs if args.only in f"{job[0].name} {job[1]} {job[2]}" and not done.has(*job, args.share)]
    # Members of an ensemble are trained once: alone first, so that the ensemble finds them.
    jobs.sort(key=lambda job: "+" in job[1])
    for one in {job[0].name: job[0] for job in jobs}.values():
        print(f"{one.name}: {len(one.films)} images", flush=True)
    started = time.monotonic()
    failed = 0
    for number, (job, future) in enumerate(finished(jobs, args), 1):
        one, name, seed = job
        minutes = (time.monotonic() - started) / 60
        told = f"[{number}/{len(jobs)}, {minutes:.1f} min] {one.name} {name} seed {seed}"
        try:
            rows = future.result()
        except Exception as error:
            failed += 1
            print(f"{told} FAILED: {type(error).__name__}: {error}", flush=True)
            continue
        done.add(rows)
        print(f"{told}: " + ", ".join(f"{row['data']} {row['image_auroc']:.3f}" for row in rows), flush=True)
    if failed:
        print(f"{failed} of {len(jobs)} failed; repeat the command to try them again")


def finished(jobs, args):
    """Each job with its future, as they end."""
    if args.jobs < 1:
        for job in jobs:
            future = Future()
            try:
                future.set_result(measure(*job, args.share))
            except Exception as error:
                future.set_exception(error)
            yield job, future
        return
    with ProcessPoolExecutor(args.jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(measure, *job, args.share): job for job in jobs}
        for future in as_completed(running):
            yield running[future], future


class Results:
    """Rows of results, a JSON object a line, appended as they come; a line cut short by a crash is not counted."""

    def __init__(self, path, again):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    self.rows.append(json.loads(line))
                except ValueError:
                    continue
        if again:
            self.rows = [row for row in self.rows if row["model"] not in again and row["trained"] not in again]
        beside = path.with_suffix(".part")
        beside.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        beside.replace(path)

    def has(self, data, name, seed, share):
        key = (data.key, name, seed, share)
        return any((row["key"], row["model"], row["seed"], row["share"]) == key for row in self.rows)

    def add(self, rows):
        self.rows += rows
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())

    def of(self, keys, share):
        """The rows of these data sets (all, where None), sorted."""
        rows = [row for row in self.rows if keys is None or row["key"] in keys.values()]
        # Two commands at once may both have measured one: the last counts.
        rows = {(row["data"], row["model"], row["seed"]): row for row in rows if row["share"] == share}.values()
        return sorted(rows, key=lambda row: (row["data"], row["model"], row["seed"]))


if __name__ == "__main__":
    main()
