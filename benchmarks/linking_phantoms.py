"""Invented radiographs and CT volumes whose lesions are known, as regions, and reports that are wrong now and then.

The pictures are the demo's (`phenotype.demo`), seen as the pipeline sees them: framed by the body, in squares of 128.
They are hard on purpose. Of all regions less than one in fifty shows a given finding; findings come together (a large
heart with fluid, fibrosis with nodules); pacemakers, lines, electrodes, wires and letters are there and no report names
them, nor the inflated and the congested lungs that change the whole image; nodules begin at 10 mm, four pixels.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from anomaly_data import _framed
from filelock import FileLock

from phenotype.demo.cases import draw_studies
from phenotype.demo.lesions import DRAW, radiograph, reshape
from phenotype.demo.thorax import Thorax
from phenotype.demo.volume import draw_volume
from phenotype.imaging.regions import box_of, grid
from phenotype.imaging.window import resize, standardize

REVISION = 1  # raised when the same seed gives other images than before
SIZE, PATCH, STRIDE = 128, 24, 8  # pixels of a radiograph's view: 14 x 14 regions
CUBE, STEP = (3, 8, 8), (2, 8, 8)  # voxels of a volume (slice, row, column), about 27 x 30 x 30 mm
VISIBLE = 0.35  # of a lesion's strongest extent, as in the demo's boxes
SHOWS = 0.3  # a region shows a lesion where they share this part of whichever is smaller
HOUNSFIELD = 60  # that a lesion changes a voxel by, to be there

TERMS = {
    "radiographs": ("nodule", "pleural_effusion", "consolidation", "pneumothorax", "cardiomegaly", "fibrosis_ild"),
    "volumes": ("nodule", "pleural_effusion"),
}
DIFFUSE = ("hyperinflation", "edema_congestion")  # both lungs; drawn, but no report here names them
NOT_LOCAL = ("cardiomegaly",)  # the heart is where it always is; that it is large shows all around
COUNTS = {"radiographs": (1200, 200, 400), "volumes": (200, 40, 80)}  # to learn from, to tune on, to test
PARTS = ("train", "validation", "test")

STATES = ("present", "possible", "denied", "unmentioned")
PROBABLE = np.array([0.9, 0.5, 0.05, 0.1], np.float32)  # what rules make of them that know nothing of the reader
NOISES = {  # of reports: findings missed, findings invented
    "clean": (0.0, 0.0),
    "asym10": (0.10, 0.04),
    "asym20": (0.20, 0.08),
    "sym10": (0.10, 0.10),
    "sym20": (0.20, 0.20),
}


@dataclass(frozen=True)
class Phantoms:
    """Images and their truth. Regions of image i are those where `image` is i."""

    kind: str
    pixels: np.ndarray  # (images, 128, 128) float16 radiographs; (images, 32, 96, 96) int16 volumes, padded with air
    body: np.ndarray  # (images, 4) box of the body in a radiograph, (images, 6) in a volume: first corner, last corner
    image: np.ndarray  # (regions,)
    corners: np.ndarray  # (regions, 2) or (regions, 3): first pixel of each region
    truth: np.ndarray  # (regions, terms) bool: shows a lesion of the term
    part: np.ndarray  # (images,) 0, 1, 2: see PARTS; patients are never divided
    patient: np.ndarray  # (images,)

    @property
    def terms(self):
        return TERMS[self.kind]

    @property
    def present(self):
        """(images, terms): what there is in each image."""
        found = np.zeros((len(self.part), len(self.terms)), bool)
        np.logical_or.at(found, self.image, self.truth)
        return found

    def rows(self, i):
        """The regions of image i, as a slice: those of an image follow each other."""
        return slice(*np.searchsorted(self.image, [i, i + 1]).tolist())

    def of(self, part):
        """Numbers of the images of a part."""
        return np.flatnonzero(self.part == PARTS.index(part))


def phantoms(kind, seed, work, share=1.0):
    """The phantoms of a seed, drawn once and kept in `work`; `share` of their number."""
    counts = _counts(kind, share)
    work.mkdir(parents=True, exist_ok=True)
    told = repr((REVISION, kind, seed, counts, SIZE, PATCH, STRIDE, CUBE, STEP, SHOWS))
    path = Path(work) / f"{kind}-{seed}-{hashlib.sha256(told.encode()).hexdigest()[:10]}.npz"
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            made = (_radiographs if kind == "radiographs" else _volumes)(seed, counts)
            with path.with_suffix(".part").open("wb") as file:
                np.savez(file, **made)
            path.with_suffix(".part").replace(path)
    with np.load(path) as kept:
        return Phantoms(kind, **{name: kept[name] for name in kept.files})


def diffuse(seed, share=1.0):
    """Which radiographs of a seed have each finding of DIFFUSE (images, findings)."""
    studies = _studies(seed, _counts("radiographs", share))
    return np.array([[any(lesion.finding == name for lesion in s.lesions) for name in DIFFUSE] for s in studies])


def reports(present, noise, seed):
    """What reports say (images, terms), as indices into STATES, of what there is.

    Some findings are missed and some invented (NOISES). Of wrong assertions 70 % are hedged, of right ones 15 %. What
    is rightly not asserted is denied every other time, what was missed in three of ten; else it is not mentioned.
    """
    rng = np.random.default_rng([seed, 17, list(NOISES).index(noise)])
    missed, invented = NOISES[noise]
    flip = rng.random(present.shape) < np.where(present, missed, invented)
    asserted = present ^ flip
    hedged = rng.random(present.shape) < np.where(flip, 0.7, 0.15)
    silent = rng.random(present.shape) < np.where(flip, 0.7, 0.5)
    return np.where(asserted, np.where(hedged, 1, 0), np.where(silent, 3, 2)).astype(np.int8)


def _counts(kind, share):
    return tuple(max(20, round(share * n)) for n in COUNTS[kind])


def _studies(seed, counts):
    return [study for study in draw_studies(2 * sum(counts), 0, 1000 + seed) if not _left_out(study)][: sum(counts)]


def _radiographs(seed, counts):
    studies = _studies(seed, counts)
    boxes = grid((SIZE, SIZE), PATCH, STRIDE)
    pixels = np.zeros((len(studies), SIZE, SIZE), np.float16)
    truth = np.zeros((len(studies), len(boxes), len(TERMS["radiographs"])), bool)
    for n, study in enumerate(studies):
        film = np.asarray(radiograph(study.person.build, study.view, study.lesions)[0], np.float32)
        window, box = _framed(film)
        pixels[n] = standardize(film, "CR", SIZE, window, box)[0]
        for term, extent in _extents(study):
            seen = resize(extent[box[0] : box[2], box[1] : box[3]].astype(np.float64), SIZE, SIZE)
            truth[n, :, TERMS["radiographs"].index(term)] |= _shown(seen, boxes[:, :2], (PATCH, PATCH))
    return {
        "pixels": pixels,
        "body": np.tile(np.array([0, 0, SIZE, SIZE], np.int32), (len(studies), 1)),  # the view is framed by the body
        "image": np.repeat(np.arange(len(studies), dtype=np.int32), len(boxes)),
        "corners": np.tile(boxes[:, :2], (len(studies), 1)),
        "truth": truth.reshape(-1, truth.shape[-1]),
        **_parted(studies, counts),
    }


def _left_out(study):
    """Every other patient with a large heart or fibrosis: they would show in three regions of a hundred."""
    return study.person.group in ("heart failure", "fibrosis") and study.person.number % 2 == 0


def _extents(study):
    """Each lesion that has a place: its term, and where in the film it is."""
    local = [lesion for lesion in study.lesions if lesion.finding in TERMS["radiographs"]]
    if local:
        thorax = Thorax(reshape(study.person.build, study.lesions), study.view)
        for lesion in local:
            extent = DRAW[lesion.finding](thorax, lesion, np.random.default_rng(lesion.seed))[0].extent
            yield lesion.finding, extent > VISIBLE * extent.max()


def _volumes(seed, counts):
    # The demo draws volumes of its first patients: with radiographs for twice as many, each is of another patient.
    studies = draw_studies(2 * sum(counts), sum(counts), 2000 + seed)
    volumes = [study for study in studies if study.modality == "CT"]
    pixels = np.full((len(volumes), 32, 96, 96), -1000, np.int16)
    body, image, corners, truth = [], [], [], []
    for n, study in enumerate(volumes):
        hu, _, _ = draw_volume(study.person.build, study.lesions, study.seed)
        pixels[n, : len(hu)] = hu
        box = _body(hu)
        starts = _cubes(box)
        seen = np.zeros((len(starts), len(TERMS["volumes"])), bool)
        for k, lesion in enumerate(study.lesions):
            without = draw_volume(study.person.build, study.lesions[:k] + study.lesions[k + 1 :], study.seed)[0]
            changed = np.abs(hu.astype(np.int32) - without) > HOUNSFIELD
            seen[:, TERMS["volumes"].index(lesion.finding)] |= _shown(changed, starts, CUBE)
        body.append(box)
        image.append(np.full(len(starts), n, np.int32))
        corners.append(starts)
        truth.append(seen)
    return {
        "pixels": pixels,
        "body": np.array(body, np.int32),
        "image": np.concatenate(image),
        "corners": np.concatenate(corners),
        "truth": np.concatenate(truth),
        **_parted(volumes, counts),
    }


def _body(hu):
    """First and last corner (6,) of what is not air."""
    solid = hu > -300
    rows = box_of(solid.any(axis=0))
    slices = np.flatnonzero(solid.any(axis=(1, 2)))
    return [int(slices[0]), rows[0], rows[1], int(slices[-1]) + 1, rows[2], rows[3]]


def _cubes(box):
    """First voxels (n, 3) of cubes in the body's box."""
    axes = zip(box[:3], box[3:], CUBE, STEP, strict=True)
    starts = [np.arange(low, high - side + 1, step) for low, high, side, step in axes]
    return np.stack([axis.ravel() for axis in np.meshgrid(*starts, indexing="ij")], axis=1).astype(np.int32)


def _shown(extent, corners, sides):
    """Which regions (n,) show what lies in `extent` (0..1 at each pixel): see SHOWS."""
    whole = float(extent.sum())
    if not whole:
        return np.zeros(len(corners), bool)
    sums = np.pad(extent.astype(np.float64), [(1, 0)] * extent.ndim)
    for axis in range(extent.ndim):
        sums = sums.cumsum(axis=axis)
    inside = np.zeros(len(corners))
    for corner in np.ndindex(*(2,) * extent.ndim):  # inclusion and exclusion over the corners of each region
        at = tuple(corners[:, a] + sides[a] * corner[a] for a in range(extent.ndim))
        inside += (-1.0) ** (extent.ndim - sum(corner)) * sums[at]
    return inside >= SHOWS * min(whole, float(np.prod(sides)))


def _parted(studies, counts):
    """The part of each image, and its patient: all images of a patient are in the part of the first."""
    names = np.array([study.person.patient_id for study in studies])
    _, first, patient = np.unique(names, return_index=True, return_inverse=True)
    return {"part": np.searchsorted(np.cumsum(counts)[:2], first[patient], "right"), "patient": patient}
