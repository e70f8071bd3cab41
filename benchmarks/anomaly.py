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
from pathlib import Path
from tempfile import gettempdir

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy: each job is one thread

from anomaly_data import Dataset  # noqa: E402
from anomaly_docs import write_docs  # noqa: E402
from anomaly_models import BEST, ROWS, measure, names  # noqa: E402
from jobs import Rows, run  # noqa: E402


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
    again = set(args.again.split(",")) - {""}
    rows = Rows(args.work / "results.jsonl", lambda row: row["model"] in again or row["trained"] in again)
    jobs = to_do(data, chosen, args, rows)
    for one in {job[0].name: job[0] for job in jobs}.values():
        print(f"{one.name}: {len(one.films)} images", flush=True)
    run(
        jobs,
        measure,
        (args.share,),
        rows,
        processes=args.jobs,
        told=lambda job: f"{job[0].name} {job[1]} seed {job[2]}",
        brief=lambda row: f"{row['data']} {row['image_auroc']:.3f}",
    )
    keys = {one.key for one in data}
    results = [row for row in rows.last("data", "model", "seed", share=args.share) if not keys or row["key"] in keys]
    results.sort(key=lambda row: (row["data"], row["model"], row["seed"]))
    if args.json:
        args.json.write_text(json.dumps({"results": results, "best": BEST}, indent=1) + "\n")
    if args.docs:
        write_docs(results, BEST, Path(__file__).resolve().parents[1] / "docs")


def to_do(data, chosen, args, rows):
    """Jobs (data, model, seed) that are not done yet."""
    jobs = [(one, name, seed) for seed in range(args.seeds) for one in data for name in chosen]
    jobs = [(one, name, seed) for one, name, seed in jobs if args.only in f"{one.name} {name} {seed}"]
    done = [(row["key"], row["model"], row["seed"]) for row in rows.rows if row["share"] == args.share]
    jobs = [(one, name, seed) for one, name, seed in jobs if (one.key, name, seed) not in set(done)]
    # Members of an ensemble are trained once: alone first, so that the ensemble finds them.
    return sorted(jobs, key=lambda job: "+" in job[1])


if __name__ == "__main__":
    main()
