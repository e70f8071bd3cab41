"""One mapper, one noise, one seed: learned, mapped onto test images, judged against the truth."""

import time
from functools import lru_cache

import numpy as np
import torch
from linking_phantoms import PATCH, PROBABLE, phantoms, reports
from linking_regions import descriptors
from torch.nn import functional

from phenotype.linking import figures
from phenotype.linking.calibration import calibrate, calibration_error
from phenotype.linking.evidence import image_score
from phenotype.linking.faithful import deletion
from phenotype.linking.mapper import DENIED, POSSIBLE, Bag
from phenotype.linking.mappers import DEFAULT, MAPPERS, build
from phenotype.linking.neighbours import smoothed
from phenotype.linking.places import Usual, cells

CEILING = "supervised"  # told the truth of every region it learns from
RESAMPLES = 400
USUAL = 400  # images learned from that tell what a term usually scores at a place
FINISHES = ("mapped", "bare")  # as `phenotype map` draws it; the mapper's scores as they are
FIGURES = ("region_auroc", "region_ap", "pointing", "miou", "bag_auroc")


def names(kind):
    """The mappers, the default first, and the ceiling."""
    flat = ("patch-cnn",) if kind == "volumes" else ()  # made for images, not for cubes
    return [name for name in dict.fromkeys([DEFAULT, *MAPPERS]) if name not in flat] + [CEILING]


class Supervised:
    """A network of the mappers' size that is told which regions show a lesion: what the descriptors could give."""

    def __init__(self, truth, seed):
        self.truth, self.seed = truth, seed

    def fit(self, bags):
        torch.manual_seed(self.seed)
        x = np.concatenate([bag.regions for bag in bags])
        self.center, self.scale = x.mean(axis=0), x.std(axis=0) + 1e-6
        x, y = torch.from_numpy((x - self.center) / self.scale), torch.from_numpy(self.truth).float()
        self.network = torch.nn.Sequential(
            torch.nn.Linear(x.shape[1], 128), torch.nn.ReLU(), torch.nn.Linear(128, y.shape[1])
        )
        optimiser = torch.optim.AdamW(self.network.parameters(), 3e-3, weight_decay=1e-3)
        for _ in range(6):
            for rows in torch.randperm(len(x)).split(1024):
                loss = functional.binary_cross_entropy_with_logits(self.network(x[rows]), y[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        return self

    def score(self, regions):
        with torch.inference_mode():
            return self.network(torch.from_numpy((regions - self.center) / self.scale)).double().numpy()

    def image_score(self, regions):
        return image_score(self.score(regions))


class Images:
    """The phantoms of a seed as the mappers see them: how far each region is from what is usual at its place."""

    def __init__(self, kind, seed, work, share):
        self.ph = phantoms(kind, seed, work, share)
        self.axes = 2 if kind == "radiographs" else 3
        raw = descriptors(self.ph, seed, work)
        at = [self.ph.rows(i) for i in range(len(self.ph.part))]
        self.positions = [np.asarray(raw[rows, -self.axes :]) for rows in at]
        self.places = [cells(own) for own in self.positions]
        learned = ((self.places[i], raw[at[i]]) for i in self.ph.of("train"))
        look = Usual.of(learned, raw.shape[1], self.axes)
        self.regions = []
        for rows, place, position in zip(at, self.places, self.positions, strict=True):
            strange = look.deviations(place, raw[rows])[:, : -self.axes]
            self.regions.append(np.hstack([strange, position]).astype(np.float32))
        self.kind = kind
        self.truth = [self.ph.truth[rows] for rows in at]
        self.present = self.ph.present

    def of(self, i, name):
        """What a mapper gets of image i: descriptors; pixels of two scales for the network that takes them."""
        return two_scales(self.ph, i, self.positions[i]) if name == "patch-cnn" else self.regions[i]

    def usual_looks(self, i, name):
        """The regions of an image (n, d) with nothing strange about any; grey patches for what takes pixels."""
        if name == "patch-cnn":
            own = self.of(i, name)
            own[:, : -self.axes] = own[:, : -self.axes].mean()
            return own
        return np.hstack([np.zeros_like(self.regions[i][:, : -self.axes]), self.positions[i]])


def two_scales(ph, i, positions, side=16):
    """Patches of 16 and of 32 pixels about the centre of each region, both of 16 x 16 numbers, and its place."""
    view = np.pad(ph.pixels[i].astype(np.float32), side, mode="edge")
    centre = ph.corners[ph.rows(i)] + PATCH // 2 + side
    found = []
    for half in (side // 2, side):
        windows = np.lib.stride_tricks.sliding_window_view(view, (2 * half, 2 * half))
        cut = windows[centre[:, 0] - half, centre[:, 1] - half]
        step = 2 * half // side
        found.append(cut.reshape(len(cut), side, step, side, step).mean(axis=(2, 4)).reshape(len(cut), -1))
    return np.hstack([*found, positions]).astype(np.float32)


@lru_cache(maxsize=1)
def images(kind, seed, work, share):
    """Images, kept for the next mapper."""
    return Images(kind, seed, work, share)


def measure(kind, name, noise, seed, work, share=1.0, **settings):
    """Two rows of figures, of the map as `phenotype map` draws it and of the bare scores of the mapper."""
    torch.set_num_threads(1)
    seen = images(kind, seed, work, share)
    ph, said = seen.ph, reports(seen.present, noise, seed)
    bags = [Bag(seen.of(i, name), said[i], PROBABLE[said[i]], patient=int(ph.patient[i])) for i in ph.of("train")]
    begin = time.process_time()
    if name == CEILING:
        mapper = Supervised(np.concatenate([seen.truth[i] for i in ph.of("train")]), seed).fit(bags)
    else:
        mapper = build(name, seed=seed, place=seen.axes, **settings).fit(bags)
    fitted = time.process_time() - begin
    begin = time.process_time()
    finish = Finish(seen, mapper, name, said, np.random.default_rng([seed, 29]))
    judged = [*ph.of("validation"), *ph.of("test")]
    bare = {i: mapper.score(seen.of(i, name)) for i in judged}
    mapped = {i: finish(i, bare[i]) for i in judged}
    scored = (time.process_time() - begin) / (len(judged) + len(finish.chosen))
    about = {"kind": kind, "mapper": name, "noise": noise, "seed": seed, "share": share, "fit_seconds": fitted}
    about |= {"ms_per_image": 1000 * scored, "train": len(bags), "test": len(ph.of("test"))}
    faith = _trust(seen, mapper, name, finish, mapped, said)
    pooled = {"mapped": {i: image_score(mapped[i]) for i in judged}}
    pooled["bare"] = {i: mapper.image_score(seen.of(i, name)) for i in judged}
    rows = [
        about | {"finish": which} | _figures(seen, scores, pooled[which], seed) | (faith if which == "mapped" else {})
        for which, scores in (("mapped", mapped), ("bare", bare))
    ]
    emission = getattr(mapper, "emission_", None)
    if emission is not None:
        rows[0]["emission_error"] = _emission_error(emission, said, seen.present, ph.of("train"))
    return rows


class Finish:
    """Scores of an image averaged with their neighbours, in standard deviations of what is usual at their places."""

    def __init__(self, seen, mapper, name, said, rng):
        self.seen = seen
        train = seen.ph.of("train")
        self.chosen = np.sort(rng.choice(train, min(USUAL, len(train)), replace=False)).tolist()
        scores = {i: smoothed(mapper.score(seen.of(i, name)), seen.positions[i]) for i in self.chosen}
        columns = []
        for term in range(said.shape[1]):
            without = [i for i in self.chosen if said[i, term] == DENIED]
            if len(without) < 10:
                without = [i for i in self.chosen if said[i, term] > POSSIBLE]
            told = ((seen.places[i], scores[i][:, term : term + 1]) for i in without)
            columns.append(Usual.of(told, 1, seen.axes))
        self.usual = Usual(np.hstack([c.mean for c in columns]), np.hstack([c.deviation for c in columns]))

    def __call__(self, i, scores):
        """The map (n, terms) of image i."""
        return self.usual.deviations(self.seen.places[i], smoothed(scores, self.seen.positions[i]))


def _figures(seen, scores, pooled, seed):
    """Figures of each term and their means, with intervals over the test's patients."""
    test, validation = seen.ph.of("test"), seen.ph.of("validation")
    people, whose = np.unique(seen.ph.patient[test], return_inverse=True)
    times = figures.draws(len(people), RESAMPLES, seed)[:, whose]
    image = np.repeat(np.arange(len(test)), [len(scores[i]) for i in test])
    drawn = {name: [] for name in FIGURES}
    for term in range(len(seen.ph.terms)):
        values, truth = [scores[i][:, term] for i in test], [seen.truth[i][:, term] for i in test]
        ranking = figures.rank(np.concatenate(values), np.concatenate(truth), image, len(test))
        cut = figures.tune_threshold(
            [scores[i][:, term] for i in validation], [seen.truth[i][:, term] for i in validation]
        )
        overlaps = [figures.overlap(s, t, cut) for s, t in zip(values, truth, strict=True)]
        points = [figures.pointing(s, t) for s, t in zip(values, truth, strict=True)]
        of_image = np.array([pooled[i][term] for i in test])
        bag = figures.rank(of_image, seen.present[test, term], np.arange(len(test)), len(test))
        drawn["region_auroc"].append(figures.auroc(ranking, times))
        drawn["region_ap"].append(figures.average_precision(ranking, times))
        drawn["pointing"].append(figures.mean(points, times))
        drawn["miou"].append(figures.mean(overlaps, times))
        drawn["bag_auroc"].append(figures.auroc(bag, times))
    terms = {name: dict(zip(seen.ph.terms, (float(d[0]) for d in of), strict=True)) for name, of in drawn.items()}
    macro = {name: figures.macro(of) for name, of in drawn.items()}
    return {
        **{name: float(of[0]) for name, of in macro.items()},
        "terms": terms,
        "draws": {name: np.round(of[1:], 4).tolist() for name, of in macro.items()},
    }


def _trust(seen, mapper, name, finish, mapped, said):
    """What the calibrated probability of an image is worth, and the deletion test in images that are called to have a
    term. Probability and call are calibrated on reports of other images, and judged by the truth of the test's."""
    validation, test = seen.ph.of("validation"), seen.ph.of("test")
    own, scores = (np.stack([image_score(mapped[i]) for i in part]) for part in (validation, test))
    table = getattr(mapper, "emission_", None)
    ratios, calibrated = [], {}
    for t, term in enumerate(seen.ph.terms):
        calibration = calibrate(own[:, t], said[validation, t], table, t)
        truth, p = seen.present[test, t], calibration.curve(scores[:, t])
        calibrated[term] = {
            "error": calibration_error(p, truth),
            "brier": float(np.mean((p - truth) ** 2)),
            "brier_prevalence": float(
                truth.mean() * (1 - truth.mean())
            ),  # of one who knows nothing but how many have it
        }
        for i, score in zip(test, scores[:, t], strict=True):
            if calibration.call(float(score)) == "here":
                empty = finish(i, mapper.score(seen.usual_looks(i, name)))
                found = deletion(image_score, mapped[i][:, t : t + 1], empty[:, t : t + 1])[0]
                ratios.append(found.ratio)
    finite = np.minimum(ratios, 1e3)
    return {
        "calibrated": calibrated,
        "calls": len(ratios),
        "deletion_passed": float(np.mean(finite >= 3)) if ratios else None,
        "deletion_ratio": float(np.median(finite)) if ratios else None,
    }


def _emission_error(emission, said, present, train):
    """Largest error of the learned table over terms and states, against what these reports do."""
    worst = 0.0
    for term in range(said.shape[1]):
        for there, learned in ((True, emission.if_present), (False, emission.if_absent)):
            own = said[train, term][present[train, term] == there]
            if len(own):
                real = np.bincount(own, minlength=4) / len(own)
                worst = max(worst, float(np.abs(real - learned[term]).max()))
    return worst
