"""Report terms mapped onto image regions: how well each mapper does it, on invented and on real images.

    python benchmarks/linking.py --demo --seeds 5 --json FILE --docs
    python benchmarks/linking.py --shenzhen TRAIN_DIR --test TEST_DIR --json FILE

--demo          phantoms whose lesions are known, radiographs and CT volumes, with reports that err (see NOISES in
                benchmarks/linking_phantoms.py): region AUROC, average precision, pointing game, mean intersection over
                union, AUROC of images, deletion test; each mapper, beside the place alone and a network that is told
                every region's truth
--shenzhen DIR  real radiographs: DIR holds readings.csv and the images; location words are hidden from training. With
                --test, a second folder like it is mapped, whose readings are used for nothing but the figures
--locality      is the verdict "not local" right, of terms with a place and of terms of the whole lung?
--retrieval     similar regions by look, by meaning and by both
--scale         a million regions of 64 features: time and memory to fit, map and search

FILE gets a part for each that was asked for: "linking", "shenzhen", "locality", "retrieval", "scale". Results of --demo
are appended to a file in --work as they come; what is done is skipped when the command is repeated.
"""

import argparse
import json
import os
from pathlib import Path
from tempfile import gettempdir

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy: each job is one thread
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from jobs import Rows, run  # noqa: E402
from linking_docs import summary, write_docs  # noqa: E402
from linking_measure import CEILING, measure, names  # noqa: E402
from linking_phantoms import NOISES, TERMS  # noqa: E402

KEYS = ("kind", "mapper", "noise", "seed", "finish")  # what a row is of
DOCS = Path(__file__).resolve().parents[1] / "docs"


def main():
    """As the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", action="store_true", help="measure all mappers on phantoms")
    parser.add_argument("--shenzhen", type=Path, metavar="TRAIN_DIR", help="real radiographs to learn from")
    parser.add_argument("--test", type=Path, metavar="TEST_DIR", help="real radiographs to map; else held-out folds")
    parser.add_argument("--locality", action="store_true", help="measure the verdict of terms that have no place")
    parser.add_argument("--retrieval", action="store_true", help="measure retrieval on phantoms")
    parser.add_argument("--scale", action="store_true", help="measure a million regions")
    parser.add_argument("--seeds", type=int, default=5, help="of phantoms, reports and mappers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    parser.add_argument("--docs", action="store_true", help="write docs/linking.md from all that is measured so far")
    parser.add_argument(
        "--work", type=Path, default=Path(gettempdir()) / "phenotype-linking", help="kept images, results"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each; 0 for this one alone")
    parser.add_argument("--only", default="", help="only jobs whose 'kind mapper noise seed' contains this")
    parser.add_argument("--noises", default=",".join(NOISES), help=f"with commas, of {', '.join(NOISES)}")
    parser.add_argument("--mappers", default="", help="names with commas; all where empty")
    parser.add_argument("--kinds", default=",".join(TERMS), help=f"with commas, of {', '.join(TERMS)}")
    parser.add_argument("--again", default="", help="mappers whose results are thrown away first, with commas")
    parser.add_argument("--share", type=float, default=1.0, help="of the images, to try it out")
    args = parser.parse_args()
    for given, known, what in (
        (args.noises, NOISES, "noise"),
        (args.kinds, TERMS, "kind"),
        (args.mappers, (*names(""),), "mapper"),
    ):
        for name in set(given.split(",")) - {""} - set(known):
            parser.error(f"no {what} is called {name!r}; there are {', '.join(known)}")
    if not (args.demo or args.shenzhen or args.locality or args.retrieval or args.scale or args.docs):
        parser.error("nothing is asked for: --demo, --shenzhen, --locality, --retrieval, --scale or --docs")
    if args.test and not args.shenzhen:
        parser.error("--test needs the folder to learn from: --shenzhen TRAIN_DIR")
    args.work.mkdir(parents=True, exist_ok=True)
    again = set(args.again.split(",")) - {""}
    rows = Rows(args.work / "results.jsonl", lambda row: row["mapper"] in again)
    kept = args.work / "parts.json"
    parts = json.loads(kept.read_text()) if kept.exists() else {}
    asked = {}
    if args.demo:
        run(
            to_do(args, rows),
            measure,
            (args.work, args.share),
            rows,
            processes=args.jobs,
            told=lambda job: " ".join(map(str, job)),
            brief=lambda row: f"{row['finish']} {row['region_auroc']:.3f}",
        )
        asked["linking"] = summary(rows.last(*KEYS, share=args.share))
    if args.shenzhen:
        from linking_shenzhen import measure as measure_shenzhen

        asked["shenzhen"] = _part(measure_shenzhen(args.shenzhen, args.test), "shenzhen")
    if args.locality:
        from linking_locality import measure as measure_locality

        asked["locality"] = measure_locality(args.work, range(args.seeds), args.share)
    if args.retrieval:
        from linking_retrieval import measure as measure_retrieval

        asked["retrieval"] = _part(measure_retrieval(args.work, range(args.seeds), args.share), "retrieval")
    if args.scale:
        from linking_scale import measure as measure_scale

        asked["scale"] = measure_scale()
    kept.write_text(json.dumps(parts | {name: part for name, part in asked.items() if name != "linking"}))
    if args.json:
        args.json.write_text(json.dumps(asked, indent=1) + "\n")
    if args.docs:
        write_docs(rows.last(*KEYS, share=args.share), parts | asked, DOCS)


def _part(found, name):
    """What a benchmark found, whether or not it put its own name around it."""
    return found.get(name, found)


def to_do(args, rows):
    """Jobs (kind, mapper, noise, seed) that are not done yet."""
    jobs = []
    for seed in range(args.seeds):
        for kind in args.kinds.split(","):
            chosen = [name for name in names(kind) if not args.mappers or name in args.mappers.split(",")]
            for noise in args.noises.split(","):
                # what is told the truth reads no report
                jobs += [(kind, name, noise, seed) for name in chosen if name != CEILING or noise == "clean"]
    done = {(row["kind"], row["mapper"], row["noise"], row["seed"]) for row in rows.rows if row["share"] == args.share}
    return [job for job in jobs if args.only in " ".join(map(str, job)) and job not in done]


if __name__ == "__main__":
    main()
