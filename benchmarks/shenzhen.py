"""The whole pipeline over 406 real chest radiographs with their radiologists' readings, timed and measured.

    python benchmarks/shenzhen.py [OUT] [--executor processes:2] [--no-words]

Makes the export with ../shared/tools/make_pacs_export.py, runs the standard pipeline over it, and prints

- the time of each stage,
- the AUROC of anomaly scores for tuberculosis: normal studies kept aside against all with tuberculosis, beside that of
  plain brightness (a shortcut that this set has),
- the AUROC of the side of the term map of tuberculosis, for studies whose reading names one side: that of the higher
  score, the mean of the highest tenth of the regions of each lung of the thorax; without --no-words the maps of other
  patients have learned from the words for sides too,
- phenotypes, and how tuberculosis is distributed over them.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score
from sqlalchemy import text

from db.queries.images import image_files
from db.session import open_database
from db.tables import Alignment, Region, Run, TermMap
from phenotype.imaging import thorax
from phenotype.imaging.dicom import read_pixels
from phenotype.imaging.files import FileRef
from phenotype.imaging.grids import apply
from phenotype.imaging.window import standardize
from phenotype.linking.maps import SIDES, field_scores

SHARED = Path(__file__).resolve().parents[2] / "shared"
SIDE_TERM = "tuberculosis"
BEYOND = 0.016  # of the thorax, that regions may reach out of its lungs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", default=Path(tempfile.gettempdir()) / "shenzhen")
    parser.add_argument("--executor", default="here")
    parser.add_argument("--no-words", action="store_true", help="hide words for sides and places from training")
    parser.add_argument("--page", action="store_true", help="also write the page")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    export = args.out / "export"
    if not export.exists():
        subprocess.run([sys.executable, SHARED / "tools" / "make_pacs_export.py", export], check=True)
    phenotype = [sys.executable, "-m", "phenotype", "--db", f"sqlite:///{args.out / 'x.db'}"]
    pipeline = args.out / "pipeline.toml"
    if not pipeline.exists():
        subprocess.run([*phenotype, "init", export, "--out", pipeline], check=True)
    if args.no_words:
        told = pipeline.read_text(encoding="utf-8")
        pipeline = args.out / "no-words.toml"
        pipeline.write_text(told.replace('run = "link"', 'run = "link"\nwords = false'), encoding="utf-8")
    started = time.monotonic()
    subprocess.run([*phenotype, "--executor", args.executor, "run", pipeline], check=True)
    print(f"phenotype run: {time.monotonic() - started:.0f} s")
    if args.page:
        subprocess.run([*phenotype, "page", args.out / "page.html"], check=True)
    print(json.dumps(measure(args.out), indent=1))


def measure(out):
    """The figures as a dict."""
    truth = {
        row["accession_number"]: int(row["tuberculosis"])
        for row in csv.DictReader((out / "export.truth" / "truth.csv").open(encoding="utf-8"))
    }
    database = open_database(f"sqlite:///{out / 'x.db'}")
    found = {}
    with database.reading() as session:

        def ask(query):
            return session.execute(text(query)).all()

        accession = dict(ask("SELECT study_id, accession FROM vault_study"))
        normal = dict(ask("SELECT study, split FROM cohort_view WHERE cohort = 'normal'"))
        images = dict(ask("SELECT study, image FROM image_view"))
        counted = [s for s in images if truth[accession[s]] or normal.get(s) == "holdout"]
        disease = [truth[accession[s]] for s in counted]
        found["studies"] = {
            "tuberculosis": sum(disease),
            "normal kept aside": len(disease) - sum(disease),
            "normal learned": sum(split == "train" for split in normal.values()),
            "reported normal, with tuberculosis": sum(truth[accession[s]] for s in normal),
        }
        for (model,) in ask("SELECT DISTINCT model FROM anomaly_view"):
            score = dict(ask(f"SELECT study, score FROM anomaly_view WHERE model = '{model}'"))
            found[f"AUROC tuberculosis, {model}"] = roc_auc_score(disease, [score[s] for s in counted])
            p = dict(ask(f"SELECT study, p_value FROM anomaly_view WHERE model = '{model}'"))
            found[f"share of tuberculosis with p <= 0.05, {model}"] = np.mean(
                [p[s] <= 0.05 for s, sick in zip(counted, disease, strict=True) if sick]
            )
        sources = image_files(session, [images[s] for s in counted])
        bright = [brightness(sources[images[s]]) for s in counted]
        found["AUROC tuberculosis, mean brightness"] = roc_auc_score(disease, bright)
        found["term maps"] = [
            tuple(row) for row in ask("SELECT finding, positives, auroc, verdict FROM term_evidence_view")
        ]
        found["side of the term map"] = side(session, ask)
        for phenotype, name, stability in ask("SELECT number, name, stability FROM phenotype_view ORDER BY number"):
            members = [s for (s,) in ask(f"SELECT study FROM membership_view WHERE phenotype_number = {phenotype}")]
            share = np.mean([truth[accession[s]] for s in members])
            found[f"phenotype {phenotype}"] = (
                f"{name}; {len(members)} studies, stability {stability:.2f}, {share:.0%} tuberculosis"
            )
    return found


def brightness(image):
    """Mean grey value of the standardized image."""
    pixels = read_pixels([FileRef(*file) for file in image.files]).pixels
    return float(standardize(pixels, image.modality, 64)[0].mean())


def side(session, ask):
    """How well the map of the term tells the side that the reading names, with a bootstrap interval over studies."""
    query = f"SELECT study, side FROM label_view WHERE concept = '{SIDE_TERM}' AND value = 'present'"
    named = {study: word for study, word in ask(query) if word in SIDES}
    (run,) = ask("SELECT id FROM current_run WHERE stage = 'map'")[0]
    recipe = session.get_one(Run, run).recipe
    lungs = binary_dilation(thorax.lungs() > 0, iterations=round(BEYOND * thorax.SIDE))
    contrast, right, peaks = [], [], []
    for image, study, peak in ask(f"SELECT image, study, side FROM term_map_view WHERE concept = '{SIDE_TERM}'"):
        if study not in named:
            continue
        scores = session.get_one(TermMap, (run, image, SIDE_TERM)).regions
        boxes = session.get_one(Region, (recipe["embeddings"], image)).boxes
        forward = session.get_one(Alignment, (recipe["space"], image)).forward
        places = apply(forward, (boxes[:, :2] + boxes[:, 2:]) / 2)
        at = np.clip((places * thorax.SIDE).astype(int), 0, thorax.SIDE - 1)
        inside = lungs[at[:, 0], at[:, 1]]
        top, _, height, _ = thorax.LUNGS
        of_right, of_left = field_scores(scores[inside], places[inside], (top, top + height), zones=1)[0]
        contrast.append(of_right - of_left)
        right.append(named[study] == "right")
        peaks.append(peak == named[study])
    contrast, right = np.array(contrast), np.array(right)
    rng, drawn = np.random.default_rng(0), []
    while len(drawn) < 1000:
        own = rng.integers(0, len(right), len(right))
        if 0 < right[own].sum() < len(own):
            drawn.append(roc_auc_score(right[own], contrast[own]))
    return {
        "studies": len(right),
        "AUROC right": roc_auc_score(right, contrast),
        "interval": np.quantile(drawn, (0.025, 0.975)).tolist(),
        "peak on that side": np.mean(peaks),
    }


if __name__ == "__main__":
    main()
