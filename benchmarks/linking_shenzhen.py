"""Does the map of "tuberculosis" lie on the side and zone that the reading names? Real radiographs, words hidden.

    python benchmarks/linking_shenzhen.py [TRAIN_DIR] [--test TEST_DIR] [--mapper NAME] [--json FILE]

Folders as ../shared/data/shenzhen. Of a reading only the state of the term is learned from, never a side, site or any
other word. Without TEST_DIR patients are cross-validated (five folds, two draws of them), with it all of TRAIN_DIR is
learned from, the images of TEST_DIR are mapped, and only then are its readings opened.

Radiographs are laid onto their mean (`models.alignment`, which sees no reading) and cropped; regions are patches of
32 of 320 pixels at two scales whose centre is in the lungs, described by texture and by its difference from the
mirrored place (`imaging.descriptors`), in standard deviations from what is usual there in images that have not the
term (`linking.places`); a mapper learns from these. The side is that of the higher score: the mean of the highest tenth
of the regions of each half. Zones are thirds of the lungs' height.

Beside it: how much brighter one half of the image is, the same of the aligned crop, and chance: for a zone, the share
of zones that the reading names, and the share that the zone named most often would get.
"""

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.metrics import roc_auc_score

from nlp.reader import Reader
from phenotype.imaging import descriptors
from phenotype.imaging.regions import box_of, grid
from phenotype.imaging.window import resize
from phenotype.linking.mapper import DENIED, PRESENT, Bag
from phenotype.linking.mappers import MAPPERS, build
from phenotype.linking.maps import SIDES, ZONES, field_scores
from phenotype.linking.places import Usual, cells
from phenotype.models.alignment import Alignment

SHENZHEN = Path(__file__).resolve().parents[2] / "shared" / "data" / "shenzhen"
TERM = "tuberculosis"
COARSE = 256  # side of the images that the mean is made of
SIDE, PATCH, STRIDE, SCALES = 320, 32, 16, (1, 2)  # of the crop and its regions
BEYOND = 6  # pixels that regions may reach out of the mean's lungs
FOLDS, DRAWS = 5, 2
FAR = 6.0  # standard deviations from what is usual; what is further is as far


class Shots:
    """Images in the layout that an Alignment learns from."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def take(self, indices):
        """Images (n, 1, COARSE, COARSE)."""
        return np.stack([resize(self.images[i], COARSE, COARSE) for i in indices])[:, None].astype(np.float32)


def images_of(folder):
    """The images of a folder (n), grey values from 0 to 1 between the 1st and the 99th percentile; reads no reading."""
    with (folder / "readings.csv").open(encoding="utf-8") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    found = []
    for name in names:
        pixels = np.asarray(Image.open(folder / name).convert("L"), np.float32)
        low, high = np.percentile(pixels, (1, 99))
        found.append(np.clip((pixels - low) / max(high - low, 1), 0, 1))
    return found


def readings_of(folder):
    """What the product reads: state of the term, the one side named for it (0 right, 1 left, -1 none), its zones."""
    with (folder / "readings.csv").open(encoding="utf-8") as file:
        texts = [row["reading"] for row in csv.DictReader(file)]
    present, sides, zones = [], [], []
    for reading in Reader("en").read(texts):
        own = [m for m in reading.mentions if m.concept == TERM and m.assertion == "present"]
        named = {m.side for m in own}
        present.append(bool(own))
        sides.append(SIDES.index(named.pop()) if len(named) == 1 and named <= set(SIDES) else -1)
        zones.append({n for n, zone in enumerate(ZONES) if any(zone in m.site for m in own)})
    return np.array(present), np.array(sides), zones


class Regions:
    """The common space, learned from images alone, and regions of images in it."""

    def __init__(self, images, seed):
        self.space = Alignment(COARSE, SIDE)
        self.space.fit(Shots(images), seed)
        lungs = self.space.lungs[0, 0].numpy() > 0.5
        boxes = grid((SIDE, SIDE), PATCH, STRIDE)
        middle = (boxes[:, :2] + boxes[:, 2:]) // 2
        self.boxes = boxes[binary_dilation(lungs, iterations=BEYOND)[middle[:, 0], middle[:, 1]]]
        self.places = ((self.boxes[:, :2] + self.boxes[:, 2:]) / 2 / SIDE).astype(np.float32)
        top, _, bottom, _ = box_of(lungs)
        self.lungs = top / SIDE, bottom / SIDE

    def describe(self, images):
        """Descriptors (images, regions, d), and how much brighter the half of each crop is that shows the right."""
        vectors, brighter = [], []
        for image in images:
            x = torch.from_numpy(image)[None, None]
            crop = self.space.crops(x, self.space.place(x))[0, 0].float().numpy()
            seen = descriptors.texture(crop, self.boxes, SCALES)
            vectors.append(np.hstack([seen, descriptors.contralateral(seen, self.places)]))
            brighter.append(_brighter(crop))
        return np.stack(vectors), np.array(brighter)


def _brighter(image):
    half = image.shape[1] // 2
    return float(image[:, :half].mean() - image[:, half:].mean())


def made(name, vectors, seed):
    """A mapper; one that can is told that the second half of the features are differences from the mirrored place."""
    return build(name, seed=seed, late=vectors.shape[2] // 2)


def mapped(mapper, places, vectors, present, others):
    """Scores (others, regions) of images by what is learned from others and the state of their term."""
    where = cells(places)
    usual = Usual.of(((where, own) for own in vectors[~present]), vectors.shape[2])

    def strange(own):
        return np.clip(usual.deviations(where, own), -FAR, FAR)

    states = [np.array([PRESENT if there else DENIED], np.int8) for there in present]
    probabilities = [np.array([0.95 if there else 0.05], np.float32) for there in present]
    mapper.fit([Bag(strange(own), *said) for own, *said in zip(vectors, states, probabilities, strict=True)])
    return np.stack([mapper.score(strange(own))[:, 0] for own in others])


def draw_folds(present, seed):
    """A fold for each patient, the term as frequent in all."""
    rng = np.random.default_rng(seed)
    folds = np.empty(len(present), int)
    for kind in (False, True):
        own = rng.permutation(np.flatnonzero(present == kind))
        folds[own] = np.arange(len(own)) % FOLDS
    return folds


def fields_of(scores, regions):
    """Scores (images, 2 sides, 1 + 3 zones): of the whole lung, and of its zones as of ZONES."""
    return np.array(
        [np.vstack([field_scores(own, regions.places, regions.lungs, zones=n) for n in (1, 3)]).T for own in scores]
    )


def figures(fields, present, sides, zones, baselines, seed, resamples=1000):
    """The figures, of fields (draws, images, 2, 4), with bootstrap intervals over patients."""
    one = np.flatnonzero(sides >= 0)
    zoned = np.array([i for i in np.flatnonzero(present) if zones[i]], int)
    usual = max(range(len(ZONES)), key=lambda zone: sum(zone in zones[i] for i in zoned))
    named = np.zeros((len(sides), 2, len(ZONES)), bool)
    for i in zoned:
        named[i][:, sorted(zones[i])] = True
        if sides[i] >= 0:
            named[i, 1 - sides[i]] = False
    fields = np.asarray(fields)
    right = fields[:, :, 0, 0] - fields[:, :, 1, 0]
    image = fields[:, :, :, 0].max(axis=2)
    # the zone: of the named side where there is one, else of both, the highest
    there = np.where(
        (sides[:, None, None] < 0) | (np.arange(2)[:, None] == sides[:, None, None]), fields[..., 1:], -9e9
    )
    hit = named.any(axis=1)[np.arange(len(sides)), there.max(axis=2).argmax(axis=2)]
    best = fields[..., 1:].reshape(*fields.shape[:2], -1).argmax(axis=2)
    exact = named.reshape(len(sides), -1)[np.arange(len(sides)), best]

    def over(draw, function):
        return float(np.mean([function(k, draw) for k in range(len(fields))]))

    measures = {
        "side_auroc": (one, lambda k, at: roc_auc_score(sides[at] == 0, right[k, at])),
        "side_accuracy": (one, lambda k, at: np.mean((right[k, at] > 0) == (sides[at] == 0))),
        "image_auroc": (np.arange(len(sides)), lambda k, at: roc_auc_score(present[at], image[k, at])),
        "zone_accuracy": (zoned, lambda k, at: hit[k, at].mean()),
        "field_accuracy": (zoned, lambda k, at: exact[k, at].mean()),
    } | {
        name: (one, lambda _, at, bright=bright: roc_auc_score(sides[at] == 0, bright[at]))
        for name, bright in baselines.items()
    }
    rng = np.random.default_rng(seed)
    found, intervals = {}, {}
    for name, (at, function) in measures.items():
        found[name] = over(at, function)
        values = []
        for _ in range(resamples):
            drawn = at[rng.integers(0, len(at), len(at))]
            if name in ("side_auroc", "image_auroc", *baselines):
                kinds = present[drawn] if name == "image_auroc" else sides[drawn]
                if len(set(kinds.tolist())) < 2:
                    continue
            values.append(over(drawn, function))
        intervals[name] = [float(v) for v in np.quantile(values, (0.025, 0.975))]
    return {
        **found,
        "zone_chance": float(np.mean([len(zones[i]) / len(ZONES) for i in zoned])),
        "zone_most_frequent": float(np.mean([usual in zones[i] for i in zoned])),
        "field_chance": float(np.mean(named[zoned].sum(axis=(1, 2)) / (2 * len(ZONES)))),
        "intervals": intervals,
        "n": len(one),
        "n_right": int((sides == 0).sum()),
        "n_zone": len(zoned),
    }


def measure(train_dir=SHENZHEN, test_dir=None, seed=0, mapper="linear"):
    """The figures as a dict: see the head of this file."""
    started, before = time.process_time(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images = images_of(Path(train_dir))
        present, sides, zones = readings_of(Path(train_dir))
        regions = Regions(images, seed)
        vectors, cropped = regions.describe(images)
        if test_dir is None:
            fields = []
            for draw in range(DRAWS):
                folds = draw_folds(present, seed + draw)
                scores = np.zeros(vectors.shape[:2])
                for fold in range(FOLDS):
                    own, others = folds != fold, folds == fold
                    kind = made(mapper, vectors, seed)
                    scores[others] = mapped(kind, regions.places, vectors[own], present[own], vectors[others])
                fields.append(fields_of(scores, regions))
        else:
            images = images_of(Path(test_dir))
            others, cropped = regions.describe(images)
            scores = mapped(made(mapper, vectors, seed), regions.places, vectors, present, others)
            fields = [fields_of(scores, regions)]
            present, sides, zones = readings_of(Path(test_dir))  # only now
        bright = {"brightness_side_auroc": np.array([_brighter(i) for i in images]), "aligned_brightness": cropped}
        found = figures(fields, present, sides, zones, bright, seed)
    finally:
        torch.set_num_threads(before)
    return {"mapper": mapper, **found, "seconds": time.process_time() - started}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path, nargs="?", default=SHENZHEN)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--mapper", default="linear", choices=sorted(set(MAPPERS) - {"patch-cnn"}))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {"shenzhen": measure(args.train, args.test, args.seed, args.mapper)}
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
