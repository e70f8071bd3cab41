"""Retrieval of regions on invented radiographs, by look, by meaning and by both; and a million regions.

    python benchmarks/linking_retrieval.py WORK [--seeds 5] [--scale] [--json FILE]

Queries are regions that show a lesion, searched among all regions of other patients; one that shows the same kind of
lesion is right. The weight between look and meaning is chosen on validation images.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from linking_measure import Finish, images
from linking_phantoms import PROBABLE, reports
from linking_regions import descriptors

from phenotype.linking.figures import draws
from phenotype.linking.mapper import Bag
from phenotype.linking.mappers import build
from phenotype.linking.retrieval import (
    Exact,
    Inverted,
    Space,
    Standard,
    average_precision_at,
    highest,
    ndcg_at,
    nearest,
    precision_at,
)

QUERIES = 400
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # tried on validation images
MAPPERS = ("combined", "ferns")
NOISES = ("clean", "asym20")
ROWS, COLUMNS, TERMS, ASKED = 1_000_000, 64, 6, 1000


@dataclass(frozen=True)
class Row:
    """Mean figures of one way to search, over the queries of one seed; `weight` is that of the meaning."""

    seed: int
    noise: str
    profile: str
    way: str
    weight: float
    map50: float
    p10: float
    ndcg10: float
    gain: float | None = None  # nDCG of both over the best of the others, with its interval over patients
    gain_low: float | None = None
    gain_high: float | None = None


def measure(work, seeds, share=1.0, mappers=MAPPERS, noises=NOISES):
    """Figures of each way to search, as rows."""
    found = []
    for seed in seeds:
        seen = images("radiographs", seed, work, share)
        ph = seen.ph
        features = np.asarray(descriptors(ph, seed, work))
        for noise in noises:
            said = reports(seen.present, noise, seed)
            train = ph.of("train")
            bags = [Bag(seen.regions[i], said[i], PROBABLE[said[i]], patient=int(ph.patient[i])) for i in train]
            for name in mappers:
                mapper = build(name, seed=seed, place=seen.axes).fit(bags)
                # the map as `phenotype map` stores it is the profile that is searched
                finish = Finish(seen, mapper, name, said, np.random.default_rng([seed, 29]))
                profile = np.zeros((len(features), len(ph.terms)), np.float32)
                for i in (*ph.of("validation"), *ph.of("test")):
                    profile[ph.rows(i)] = finish(i, mapper.score(seen.of(i, name)))
                strange = np.concatenate(seen.regions)
                found += _ways(ph, features, strange, profile, seed, noise, name)
                print(*(asdict(row) for row in found[-4:]), sep="\n", file=sys.stderr, flush=True)
    return {"retrieval": [asdict(row) for row in found]}


def _ways(ph, features, strange, profile, seed, noise, name):
    """A row for each way: by look, by how unusual the look is for its place, by meaning, and by look and meaning."""
    on_validation = {w: _search(ph, features, profile, w, "validation", seed)[2].mean() for w in WEIGHTS}
    best = max(WEIGHTS, key=on_validation.__getitem__)
    rows, each = [], {}
    ways = {
        "look": (features, 0.0),
        "unusual look": (strange, 0.0),
        "meaning": (features, 1.0),
        "both": (features, best),
    }
    for way, (looks, weight) in ways.items():
        ap, p, ndcg, patients = _search(ph, looks, profile, weight, "test", seed)
        each[way] = ndcg
        rows.append([seed, noise, name, way, weight, float(ap.mean()), float(p.mean()), float(ndcg.mean())])
    people, whose = np.unique(patients, return_inverse=True)
    times = draws(len(people), seed=seed)[:, whose]
    alone = np.max([times @ each[way] for way in ways if way != "both"], axis=0)
    gains = times @ each["both"] / alone
    rows[-1] += [float(gains[0]), *(float(q) for q in np.quantile(gains[1:], [0.025, 0.975]))]
    return [Row(*row) for row in rows]


def _search(ph, features, profile, weight, part, seed):
    """Average precision, precision and nDCG of each query, and its patient."""
    here = np.isin(ph.image, ph.of(part))
    truth, patient = ph.truth[here], ph.patient[ph.image[here]].astype(np.int64)
    space = Space(Standard.of([features[here]]), Standard.of([profile[here]]), weight)
    vectors = space.vectors(features[here], profile[here])
    rng = np.random.default_rng([seed, 5])
    shown = np.flatnonzero(truth.any(axis=1))
    queries = np.sort(rng.choice(shown, min(QUERIES, len(shown)), replace=False))
    found = nearest(vectors[queries], [(vectors, patient)], 50, patient[queries]).rows
    right = (truth[found] & truth[queries][:, None, :]).any(axis=2)
    same = (truth[queries].astype(int) @ truth.T.astype(int)) > 0
    total = (same & (patient[None, :] != patient[queries][:, None])).sum(axis=1)
    ap, ndcg = average_precision_at(right, 50, total), ndcg_at(right, 10, total)
    kept = total > 0
    return ap[kept], precision_at(right, 10)[kept], ndcg[kept], patient[queries][kept]


# ------------------------------------------------------------------------------------------------ a million regions


def _clustered():
    """Vectors about 200 centres, in rows as regions come: 200 of each image."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (200, COLUMNS)).astype(np.float32)
    vectors = np.empty((ROWS, COLUMNS), np.float32)
    for start in range(0, ROWS, 10_000):  # in parts, so that making them is not the peak of the memory
        part = vectors[start : start + 10_000]
        part[:] = rng.normal(0, 0.7, part.shape) + centres[rng.integers(0, len(centres), len(part))]
    return vectors, np.repeat(np.arange(ROWS // 200), 200)


def _timed(work):
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def _one(what):
    """One measurement, in a process of its own, so that the memory is its own."""
    vectors, patients = _clustered()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rng = np.random.default_rng(1)
    told = {}
    if what in ("fit", "map"):
        from phenotype.linking.ferns import FernMapper

        labels = (rng.random((ROWS // 200, TERMS)) < 0.2).astype(float)
        bags = ((vectors[200 * i : 200 * i + 200], labels[i]) for i in range(ROWS // 200))
        mapper, took = _timed(lambda: FernMapper().fit(bags))
        if what == "map":
            _, took = _timed(lambda: mapper.score(vectors))
    elif what == "term":
        scores = vectors[:, 0].copy()
        blocks = [(scores[i : i + 40_000], patients[i : i + 40_000]) for i in range(0, ROWS, 40_000)]
        _, took = _timed(lambda: highest(blocks, 10))
    else:
        queries = rng.choice(ROWS, ASKED, replace=False)
        index = Exact()
        if what == "inverted":
            index, took = _timed(lambda: Inverted(vectors[rng.choice(ROWS, 100_000, replace=False)], ROWS))
            told["train_s"] = took["cpu_s"]
        _, took = _timed(lambda: index.add(vectors, patients))
        told["add_s"] = took["cpu_s"]
        found, took = _timed(lambda: index.search(vectors[queries], 10))
        own, other = _timed(lambda: index.search(vectors[queries[:100]], 10, patients[queries[:100]]))
        told["cpu_s_100_without_own_patient"] = other["cpu_s"]
        if what == "inverted":
            told["recall10"] = _recall(nearest(vectors[queries], [(vectors, patients)], 10).rows, found.rows)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "x.ivf"
                index.write(path)
                told["index_mb"] = path.stat().st_size / 1e6
        assert not (patients[own.rows] == patients[queries[:100]][:, None]).any()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return told | took | {"memory_mb": (peak - before) / 1e3, "vectors_mb": vectors.nbytes / 1e6}


def _recall(wanted, got):
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(wanted.tolist(), got.tolist(), strict=True)]))


def scale():
    """Fit and map of the ferns, and searches, over a million regions; memory is what came on top of the vectors."""
    found = {}
    for what in ("fit", "map", "term", "exact", "inverted"):
        ended = subprocess.run([sys.executable, __file__, "--one", what], capture_output=True, text=True, check=True)
        found[what] = json.loads(ended.stdout)
        print(what, found[what], file=sys.stderr, flush=True)
    return {"scale": {"rows": ROWS, "columns": COLUMNS, "terms": TERMS, "queries": ASKED} | found}


def main():
    """As the first lines of this file say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, nargs="?", help="where the phantoms are kept")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the phantoms")
    parser.add_argument("--scale", action="store_true", help="measure a million regions too")
    parser.add_argument("--json", type=Path, help="write the figures")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        sys.stdout.write(json.dumps(_one(asked.one)))
        return
    found = measure(asked.work, range(asked.seeds), asked.share) if asked.work else {}
    found |= scale() if asked.scale else {}
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
