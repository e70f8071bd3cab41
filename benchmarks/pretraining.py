"""How much unsupervised pretraining helps a classifier that is told few labels: accuracy over the number of labels.

    python benchmarks/pretraining.py [--out docs] [--seeds 5]

The task is Kermany's NORMAL against PNEUMONIA at 64 x 64 pixels. All images with labels come from the set's official
test part (the only one here with pneumonia), split by patient, anew for each seed: a third to test on, labels from the
rest, as many of each class. Three starts of the same network, fine-tuned alike:

    random   weights as they are drawn
    other    a denoising autoencoder's, trained without labels on images of other sources: Shenzhen's radiographs,
             phantom radiographs, MedPix's CT and MR slices
    same     the same, trained without labels on the healthy radiographs of the same source (Kermany's training part)

Writes pretraining.json and pretraining.png to --out and prints the table. Needs ../shared/data; about 4 CPU minutes.
"""

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from phenotype.demo.cases import draw_studies
from phenotype.demo.lesions import radiograph
from phenotype.imaging.window import standardize
from phenotype.models import build
from phenotype.models.train import train

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZE, LABELS = 64, (10, 20, 50, 100, 140)
PRETRAINING = {"steps": 500, "batch_size": 32, "learning_rate": 2e-3}
FINE_TUNING = {"steps": 150, "batch_size": 16, "learning_rate": 1e-3}
STARTS = ("random", "other", "same")


class Images:
    """A source over an array, with classes where there are any."""

    def __init__(self, array, classes=None):
        self.array, self.classes = array, classes

    def __len__(self):
        return len(self.array)

    def take(self, indices):
        return self.array[indices]

    def targets(self, indices):
        return self.classes[indices]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if not DATA.exists():
        sys.exit(f"needs the data at {DATA}")
    started = time.process_time()
    found = measure(args.seeds)
    found["cpu_seconds"] = round(time.process_time() - started)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "pretraining.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, args.out / "pretraining.png")
    print(table(found))


def measure(seeds):
    """Balanced accuracies and AUROCs (labels x seeds) of each start, and how many images each has seen."""
    x, y, patients = labelled()
    unlabelled = {"other": other_sources(), "same": kermany("train/NORMAL")[0]}
    pretrained = {name: pretrain(images) for name, images in unlabelled.items()}
    found = {
        "images": {name: len(images) for name, images in unlabelled.items()},
        "labelled": {"normal": int((y == 0).sum()), "pneumonia": int(y.sum()), "patients": len(set(patients))},
        "labels": LABELS,
        "seeds": seeds,
    }
    figures = {start: np.zeros((2, len(LABELS), seeds)) for start in STARTS}
    for seed in range(seeds):
        pool, test = split(patients, seed)
        for at, count in enumerate(LABELS):
            chosen = draw_labels(y, pool, count, seed)
            for start in STARTS:
                model = fine_tune(pretrained.get(start), Images(x[chosen], y[chosen]), seed)
                p = model.probabilities(torch.from_numpy(x[test]))[:, 1].numpy()
                right = (p > 0.5) == (y[test] == 1)
                balanced = np.mean([right[y[test] == c].mean() for c in (0, 1)])
                figures[start][:, at, seed] = balanced, roc_auc_score(y[test], p)
    for row, metric in enumerate(("balanced_accuracy", "auroc")):
        found[metric] = {start: figures[start][row].round(4).tolist() for start in STARTS}
    return found


# ---- images


def seen(path):
    """A picture file as the models see it: (1, size, size) in [0, 1]."""
    pixels = np.asarray(Image.open(path).convert("L"), dtype=np.float32)
    return standardize(pixels, "DX", SIZE)[0][None]


def kermany(folder):
    """Images (n, 1, size, size) of a folder of the set, in order of their names, and the patients (n,)."""
    files = sorted((DATA / "kermany" / folder).iterdir())
    # person100_bacteria_475, IM-0037-0001, NORMAL2-IM-1018-0001: the patient is what stands before the picture's number
    patients = [
        f.stem.split("_")[0] if f.stem.startswith("person") else f.stem.removeprefix("NORMAL2-")[:7] for f in files
    ]
    return np.stack([seen(f) for f in files]), patients


def labelled():
    """Images, classes (1 is pneumonia) and patients of the official test part."""
    normal, normal_patients = kermany("test/NORMAL")
    sick, sick_patients = kermany("test/PNEUMONIA")
    classes = np.repeat(np.array([0, 1], dtype=np.int64), [len(normal), len(sick)])
    return np.concatenate([normal, sick]), classes, np.array(normal_patients + sick_patients)


def other_sources():
    """Shenzhen's radiographs, 300 phantom radiographs, MedPix's CT and MR slices."""
    with (DATA / "medpix" / "cases.csv").open(encoding="utf-8") as file:
        slices = sorted({DATA / "medpix" / row["image"] for row in csv.DictReader(file)})
    files = [*sorted((DATA / "shenzhen" / "images").glob("*.png")), *slices]
    phantoms = [radiograph(s.person.build, s.view, s.lesions)[0] for s in draw_studies(300, 0, seed=0)]
    return np.stack([*(seen(f) for f in files), *(standardize(p, "DX", SIZE)[0][None] for p in phantoms)])


# ---- learning


def split(patients, seed):
    """Indices of the images to draw labels from, and of those to test on: no patient is in both."""
    names = np.random.default_rng([seed, 0]).permutation(sorted(set(patients)))
    tested = np.isin(patients, names[: len(names) // 3])
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def draw_labels(y, pool, count, seed):
    """Indices of `count` images of the pool, half of each class; those of a smaller count are among them."""
    rng = np.random.default_rng([seed, 1])
    drawn = [rng.permutation(pool[y[pool] == c]) for c in (0, 1)]
    if min(map(len, drawn)) < count // 2:
        raise ValueError(f"{count} labels, half of each class, are more than seed {seed} has")
    return np.concatenate([d[: count // 2] for d in drawn])


def learn(model, images, seed, **plan):
    """`model`, trained."""
    with tempfile.TemporaryDirectory() as folder:
        train(model, images, folder=Path(folder), seed=seed, checkpoint_every=10**6, **plan)
    return model


def pretrain(images):
    """A denoising autoencoder of the images."""
    return learn(build("dae", SIZE), Images(images), 0, **PRETRAINING)


def fine_tune(pretrained, images, seed):
    """A classifier, from random weights or from what was learnt without labels."""
    model = build("classifier", SIZE, seed=seed)
    if pretrained is not None:
        model.initialise_from(pretrained)
    return learn(model, images, seed, **FINE_TUNING)


# ---- what comes out


def gain(found, start, metric="balanced_accuracy"):
    """Mean gain over the random start (labels,), and its standard error over seeds: the same splits are compared."""
    difference = np.array(found[metric][start]) - np.array(found[metric]["random"])
    return difference.mean(1), difference.std(1, ddof=1) / np.sqrt(difference.shape[1])


def table(found):
    """A table in Markdown."""
    lines = ["| labels | random | other sources | same source | gain, other | gain, same |", "| --- " * 6 + "|"]
    gains = {start: gain(found, start) for start in STARTS[1:]}
    for at, count in enumerate(found["labels"]):
        cells = [
            f"{np.mean(found['balanced_accuracy'][s][at]):.3f} ({np.mean(found['auroc'][s][at]):.3f})" for s in STARTS
        ]
        cells += [f"{mean[at]:+.3f} ± {error[at]:.3f}" for mean, error in gains.values()]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(found, path):
    """The curves, with the standard error of the mean over seeds."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharex=True, layout="constrained")
    names = {"random": "random start", "other": "pretrained, other sources", "same": "pretrained, same source"}
    for axis, metric in zip(axes, ("balanced_accuracy", "auroc"), strict=True):
        for start, colour in zip(STARTS, ("0.4", "tab:blue", "tab:orange"), strict=True):
            values = np.array(found[metric][start])
            error = values.std(1, ddof=1) / np.sqrt(values.shape[1])
            axis.errorbar(
                found["labels"], values.mean(1), error, label=names[start], color=colour, marker="o", capsize=3
            )
        axis.set(xscale="log", xticks=found["labels"], xlabel="labelled images", ylabel=metric.replace("_", " "))
        axis.set_xticks(found["labels"], [str(count) for count in found["labels"]])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
