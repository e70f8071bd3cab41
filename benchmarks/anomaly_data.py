"""The images of `benchmarks/anomaly.py`: two sets of radiographs and the demo's phantoms, as the pipeline sees them."""

import csv
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from lesions import plant
from PIL import Image

from phenotype.demo.cases import draw_studies
from phenotype.demo.lesions import radiograph
from phenotype.features import places
from phenotype.imaging.window import Frame, resize, standardize, window_of

LESION_SEED = 7
PHANTOMS = 600
REVISION = 2  # raised when the same film gives another view than before
TRUTH = 64  # side of the masks that all maps are compared with


@dataclass(frozen=True)
class Film:
    """One image: its file, or its number among the phantoms; whose it is, and which part it belongs to."""

    where: str
    patient: str
    sick: bool
    test: bool  # of the set's own test part, where it has one


class Images:
    """A `Source` over views (n, side, side)."""

    def __init__(self, views):
        self.views = views

    def __len__(self):
        return len(self.views)

    def take(self, indices):
        return np.asarray(self.views[indices], np.float32)[:, None]


@dataclass(frozen=True)
class Split:
    """Places in the views of a set: healthy to learn from, healthy to calibrate on, healthy and sick to test."""

    train: np.ndarray
    held_out: np.ndarray
    healthy: np.ndarray
    sick: np.ndarray
    patients: np.ndarray  # of all


class Dataset:
    """A set of images, decoded once into views kept in `work`."""

    def __init__(self, name, folder, work):
        self.name, self.folder, self.work = name, folder, work
        self.films = {"kermany": _kermany, "shenzhen": _shenzhen, "demo": _phantoms}[name](folder)
        told = repr(REVISION) + repr([(film.where, film.patient, film.sick, film.test) for film in self.films])
        self.key = hashlib.sha256(told.encode()).hexdigest()[:12]
        parts = {part: sum(p(film) for film in self.films) for part, p in PARTS.items()}
        if min(parts["healthy"], parts["sick"]) < 10:
            raise SystemExit(f"{name}: at least 10 healthy and 10 sick images are needed in {folder}, not {parts}")

    def split(self, seed):
        """Patients are never divided. A set with a test part of its own keeps it; else a quarter of the healthy."""
        patients = np.array([film.patient for film in self.films])
        sick = np.array([film.sick for film in self.films])
        test = np.array([film.test for film in self.films])
        known = sorted(set(patients[~sick & ~test]))
        order = np.random.default_rng([seed, 2026]).permutation(len(known))
        place = {patient: at / len(known) for patient, at in zip(known, order, strict=True)}
        at = np.array([place.get(patient, 2.0) for patient in patients])
        cuts = (0.8, 1.0) if test.any() else (0.6, 0.75)
        healthy = ~sick & ~test
        ill = set(patients[sick])  # nobody who is sick at another time is learned from
        clean = healthy & ~np.isin(patients, sorted(ill))
        return Split(
            train=np.flatnonzero(clean & (at < cuts[0])),
            held_out=np.flatnonzero(clean & (at >= cuts[0]) & (at < cuts[1])),
            healthy=np.flatnonzero(~sick & (test if test.any() else healthy & (at >= cuts[1]))),
            sick=np.flatnonzero(sick & (test | ~test.any())),
            patients=patients,
        )

    def views(self, size):
        """All films as (n, size, size) in [0, 1]."""
        return self._kept(f"{size}", size, lambda n: self._view(n, size))

    def planted(self, size):
        """The healthy films with a lesion each: views (n, size, size), and masks (n, 64, 64); nothing of the sick.

        Of phantoms, the sick ones as they are, whose lesions are known.
        """
        masks = self._kept("masks", TRUTH, lambda n: self._planted(n, TRUTH)[1]).astype(bool)
        if self.name == "demo":
            return self.views(size), masks
        return self._kept(f"{size}-planted", size, lambda n: self._planted(n, size)[0]), masks

    def _kept(self, what, size, make):
        path = self.work / f"{self.name}-{self.key}-{what}.npy"
        self.work.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):  # another job may want the same
            if not path.exists():
                made = np.zeros((len(self.films), size, size), np.float16)
                for n in range(len(self.films)):
                    made[n] = make(n)
                with path.with_suffix(".part").open("wb") as file:
                    np.save(file, made)
                path.with_suffix(".part").replace(path)
        return np.load(path, mmap_mode="r")

    def _pixels(self, n):
        film = self.films[n]
        if self.name == "demo":
            study = _studies()[int(film.where)]
            return np.asarray(radiograph(study.person.build, study.view, study.lesions)[0], np.float32)
        with Image.open(self.folder / film.where) as file:
            return np.asarray(file.convert("L"), np.float32)

    def _view(self, n, size):
        pixels = self._pixels(n)
        return standardize(pixels, "CR", size, *_framed(pixels))[0]

    def _planted(self, n, size):
        """The view of a film with a lesion, and the lesion's mask; zeros where there is none."""
        film, nothing = self.films[n], np.zeros((TRUTH, TRUTH), bool)
        if film.sick != (self.name == "demo"):
            return np.zeros((size, size)), nothing
        pixels = self._pixels(n)
        (low, high), box = _framed(pixels)
        part = pixels[box[0] : box[2], box[1] : box[3]]
        if self.name == "demo":
            study = _studies()[int(film.where)]
            without = np.asarray(radiograph(study.person.build, study.view, ())[0], np.float32)
            change = resize(np.abs(part - without[box[0] : box[2], box[1] : box[3]]), TRUTH, TRUTH)
            return np.zeros((size, size)), change > 0.5 * change.max()
        own = int.from_bytes(hashlib.sha256(film.where.encode()).digest()[:4], "big")
        seen = np.clip((part - low) / max(high - low, 1e-6), 0, 1)
        seen, mask = plant(seen, np.random.default_rng([LESION_SEED, own]))
        share = resize(mask.astype(np.float32), TRUTH, TRUTH)
        return standardize(seen, "CR", size, (0.0, 1.0), (0, 0, *seen.shape))[0], share > 0.5 * share.max()


def _framed(pixels):
    """The window and the box that the pipeline sees a radiograph through."""
    found = places.find([pixels], "CR", "image")
    body = found.over(found.body, Frame((1.0, 1.0), (0.0, 0.0)), found.shape)[0]
    return window_of("", "CR", [pixels[body] if body.any() else pixels]), found.box()


PARTS = {"healthy": lambda film: not film.sick, "sick": lambda film: film.sick}


def _kermany(folder):
    """`labels.csv` (image, split, label); the first of equal files, those of the test part first."""
    rows = _rows(folder, "labels.csv")
    films = []
    for row in sorted(rows, key=lambda row: row["split"] != "test"):
        name = Path(row["image"]).name
        found = re.match(r"(?:NORMAL2-)?IM-\d+|person\d+", name)
        patient = found.group(0) if found else name
        films.append(Film(row["image"], patient, row["label"] != "NORMAL", row["split"] == "test"))
    return _unique(folder, films)


def _shenzhen(folder):
    """`readings.csv` (accession, image, reading, tuberculosis): normal is what was read as "normal"."""
    films = []
    for row in _rows(folder, "readings.csv"):
        sick = row["tuberculosis"].strip() == "1"
        if sick or row["reading"].strip().lower().rstrip(".") == "normal":
            films.append(Film(row["image"], row["accession"], sick, False))
    return _unique(folder, films)


def _phantoms(folder):
    return [Film(str(n), s.person.patient_id, bool(s.lesions), False) for n, s in enumerate(_studies())]


_drawn = {}


def _studies():
    if not _drawn:
        _drawn.update(enumerate(draw_studies(PHANTOMS, 0, 11)))
    return list(_drawn.values())


def _rows(folder, name):
    path = folder / name
    if not path.exists():
        raise SystemExit(f"{path} is missing; --help says how a folder must look")
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _unique(folder, films):
    seen, kept, missing = set(), [], 0
    for film in films:
        try:
            digest = hashlib.sha256((folder / film.where).read_bytes()).digest()
        except FileNotFoundError:
            missing += 1
            continue
        if digest not in seen:
            seen.add(digest)
            kept.append(film)
    if missing:
        print(f"{folder.name}: {missing} images of the list are not there")
    return kept
