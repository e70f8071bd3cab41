"""Learn term maps from the regions of images and what their reports say, and put them onto images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phenotype.linking.calibration import Calibration, Call, calibrate
from phenotype.linking.emission import Emission, table
from phenotype.linking.evidence import Evidence, evidence, image_score
from phenotype.linking.faithful import Deletion, Locality, deletion, locality
from phenotype.linking.location import Location
from phenotype.linking.mapper import DENIED, POSSIBLE, PRESENT, STATES, UNMENTIONED, Bag, TermMapper
from phenotype.linking.mappers import MAPPERS
from phenotype.linking.maps import side_of
from phenotype.linking.neighbours import smoothed
from phenotype.linking.places import Usual, cells
from phenotype.models.files import ModelFileError, read_manifest, read_tensors, write_manifest, write_tensors

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

FAR = 6.0  # standard deviations from what is usual; what is further is as far
MIDDLE = 0.02  # of the image's width, to either side of its middle: neither right nor left
PLAIN = 30  # images of which no term is asserted, to know what is usual
LEAST = 10  # images that deny a term, to know what it scores where it is not
_SAMPLE = 500  # images that tell what is usual
_POSSIBLE_FROM = 0.25  # a label at least as probable as this, and no more than 1 less it, is in doubt
_UNMENTIONED = 0.1  # how probable a term is taken to be that nobody mentions


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of an image: their vectors (n, d), the last columns of which say where they are: row and column in
    the box around the body or in the common space, with the slice before them where `axes` is 3; their slices (n,),
    boxes (n, 4) as fractions of the image, and the fold of its patient."""

    vectors: Floats
    slices: NDArray[np.int32]
    boxes: Floats
    fold: int
    frontal: bool  # whether left and right of the image are those of the patient
    axes: int = 2

    @property
    def is_volume(self) -> bool:
        """Whether the regions are of several slices."""
        return self.axes == 3 or bool(np.any(self.slices != self.slices[:1]))

    @property
    def positions(self) -> Floats:
        """Where in the body each region is (n, axes), 0 to 1."""
        return self.vectors[:, -self.axes :]

    @property
    def apart(self) -> NDArray[np.float64]:
        """Positions (n, 3) by which regions are neighbours: of flat ones, only those of the same slice."""
        if self.axes == 3:
            return self.positions.astype(np.float64)
        return np.hstack([self.slices[:, None], self.positions]).astype(np.float64)

    @property
    def places(self) -> NDArray[np.int64]:
        """The cell of the body that each region lies in."""
        return cells(self.positions)


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of an image: the state of each term, how probable the labellers hold it, and where it may be."""

    states: NDArray[np.int8]  # (n_terms,) index into STATES
    probabilities: Floats  # (n_terms,)
    where: NDArray[np.bool_] | None = None  # (n_terms, n regions); see Bag


def said(labels: NDArray[np.floating], where: NDArray[np.bool_] | None = None) -> Said:
    """From labels (n_terms,): the probability of each term, NaN where it is not mentioned."""
    states = np.full(labels.shape, POSSIBLE, np.int8)
    states[labels > 1 - _POSSIBLE_FROM] = PRESENT
    states[labels < _POSSIBLE_FROM] = DENIED
    states[np.isnan(labels)] = UNMENTIONED
    return Said(states, np.where(np.isnan(labels), _UNMENTIONED, labels).astype(np.float32), where)


def weighed(told: Sequence[tuple[str, float] | None], where: NDArray[np.bool_] | None = None) -> Said:
    """From what the labellers hold of each term together: its state and probability; None where nobody speaks of it."""
    states = [STATES.index(own[0]) if own else UNMENTIONED for own in told]
    probabilities = [own[1] if own else _UNMENTIONED for own in told]
    return Said(np.array(states, np.int8), np.array(probabilities, np.float32), where)


@dataclass(frozen=True, slots=True)
class MappedTerm:
    """Where in an image a term is seen, and whether it is."""

    concept: str
    score: float  # mean of the highest regions, in standard deviations from what is usual at their places
    probability: float
    call: Call  # a map called "not here" shows where the term would be, if it were
    slice: int
    row: float
    column: float
    side: str
    deletion: float  # how far the score falls without the highest twentieth of the regions
    deletion_random: float  # and without as many at random
    regions: Floats


@dataclass(frozen=True, slots=True)
class TermMappers:
    """What is learned, for each group of folds from the patients of all others: what regions usually look like at each
    place, a mapper, what it usually scores at each place of images that have not the term, and what a score says of the
    image. So every image, new ones too, is scored by what has not seen its patient.
    """

    concepts: tuple[str, ...]
    mapper: str  # its name in MAPPERS
    groups: int
    looks: dict[int, Usual]
    mappers: dict[int, TermMapper]
    scores: dict[int, Usual]
    calibrations: dict[int, list[Calibration]]  # of each group a list of the concepts'

    def map(self, regions: Regions) -> list[MappedTerm]:
        """The map of each concept over one image."""
        profile = self.profile(regions)
        scores = image_score(profile)
        tests = self.deletions(regions, profile)
        return [
            _mapped(concept, float(scores[c]), np.ascontiguousarray(profile[:, c]), regions, own, tests[c])
            for c, (concept, own) in enumerate(
                zip(self.concepts, self.calibrations[self.group_of(regions)], strict=True)
            )
        ]

    def profile(self, regions: Regions) -> Floats:
        """How strongly each concept is seen in each region and its neighbours (n, concepts): in standard deviations
        above what is usual at that place in images without it."""
        return self._standardised(regions, describe(regions, self.looks[self.group_of(regions)]))

    def deletions(self, regions: Regions, profile: Floats) -> list[Deletion]:
        """The deletion test of each concept in an image with this profile: see `faithful.deletion`."""
        usual = np.zeros_like(regions.vectors)  # nothing strange about any region
        usual[:, -regions.axes :] = regions.positions
        return deletion(image_score, profile, self._standardised(regions, usual))

    def group_of(self, regions: Regions) -> int:
        """The group of the image's patient; any, where no image of that group was learned from."""
        group = regions.fold % self.groups
        return group if group in self.mappers else min(self.mappers)

    def threshold(self, term: int) -> float | None:
        """The probability from which on an image is called to have the term: the median of the groups'; None where
        images are too few to call any."""
        found = [own[term] for own in self.calibrations.values() if np.isfinite(own[term].here)]
        return float(np.median([own.curve(own.here) for own in found])) if found else None

    def _standardised(self, regions: Regions, described: Floats) -> Floats:
        group = self.group_of(regions)
        scores = smoothed(self.mappers[group].score(described), regions.apart)
        return self.scores[group].deviations(regions.places, scores)


@dataclass(frozen=True, slots=True)
class Learned:
    """The mappers, and what they are worth on images that they have not learned from."""

    terms: TermMappers
    evidence: list[Evidence]  # of each concept: do image scores tell images with the term from those without?
    location: list[Evidence]  # the same of the place alone
    local: list[Locality]  # is it seen at a place?
    deletion_ratio: list[float | None]  # how many times more the highest regions carry than random ones, in the median
    emission: Emission  # how reports speak of what is there
    scores: Doubles  # (images, concepts) out of fold
    probabilities: Doubles  # (images, concepts) out of fold, calibrated without the image's fold


def describe(regions: Regions, look: Usual) -> Floats:
    """Descriptors (n, d): how far each region looks from what is usual at its place, and where it is."""
    strange = np.clip(look.deviations(regions.places, regions.vectors), -FAR, FAR)
    return np.hstack([strange[:, : -regions.axes], regions.positions]).astype(np.float32)


def usual_look(images: Sequence[tuple[Regions, Said]]) -> Usual:
    """What regions usually look like at each place: told by the images of which no term is asserted, lest what is
    frequent in disease be usual; by all where those are few."""
    plain = [regions for regions, told in images if (told.states > POSSIBLE).all()]
    shown = plain if len(plain) >= PLAIN else [regions for regions, _ in images]
    return Usual.of(((r.places, r.vectors) for r in shown), shown[0].vectors.shape[1], shown[0].axes)


def fit_folds(new: Callable[[], TermMapper], bags: Sequence[Bag], folds: NDArray[np.int64]) -> dict[int, TermMapper]:
    """For each fold a new mapper that has learned from the bags of all others; of one fold alone, a ValueError."""
    names = _two_or_more(folds)
    return {f: new().fit([bag for bag, own in zip(bags, folds, strict=True) if own != f]) for f in names}


def _two_or_more(folds: NDArray[np.int64]) -> list[int]:
    names: list[int] = np.unique(folds).tolist()
    if len(names) < 2:
        raise ValueError("cross-fitting needs bags of at least two folds")
    return names


def learn(
    new: Callable[[], TermMapper],
    images: Sequence[tuple[Regions, Said]],
    patients: NDArray[np.str_],
    *,
    concepts: Sequence[str],
    mapper: str,
    groups: int,
    seed: int,
) -> Learned:
    """Fit one mapper for each group of folds on the images of all others, and judge what they make of their own.

    `new` makes a mapper that has learned nothing, `mapper` is its name in MAPPERS. Nothing that scores an image has
    seen its patient; the calibration of a group is fitted to scores of other groups, each by its own mapper. ValueError
    where the patients are in fewer than two groups.
    """
    _, patient = np.unique(patients, return_inverse=True)
    group = np.array([regions.fold % groups for regions, _ in images])
    terms = TermMappers(tuple(concepts), mapper, groups, {}, {}, {}, {})
    for g in _two_or_more(group):
        others = [images[i] for i in np.flatnonzero(group != g).tolist()]
        look = usual_look(others)
        bags = [
            Bag(describe(r, look), s.states, s.probabilities, s.where, int(p))
            for (r, s), p in zip(others, patient[group != g], strict=True)
        ]
        terms.looks[g], terms.mappers[g] = look, new().fit(bags)
        terms.scores[g] = _usual_scores(terms.mappers[g], bags, others, seed)
    profiles = [terms.profile(regions) for regions, _ in images]
    scores = np.stack([image_score(profile) for profile in profiles])
    states = np.stack([s.states for _, s in images])
    probabilities = np.stack([s.probabilities for _, s in images]).astype(np.float64)
    emission = _emission(list(terms.mappers.values()), states, probabilities)
    calibrated = np.empty_like(scores)
    for g, fitted in terms.mappers.items():
        own, others = group == g, group != g
        tables = getattr(fitted, "emission_", None)
        terms.calibrations[g] = [
            calibrate(scores[others, t], states[others, t], tables, t) for t in range(len(concepts))
        ]
        calibrated[own] = np.stack([c.curve(scores[own, t]) for t, c in enumerate(terms.calibrations[g])], axis=1)
    labels = np.where(states == UNMENTIONED, np.nan, probabilities)
    alone = _by_place(images, group)
    tests = _tests(terms, images, profiles, states, scores)
    return Learned(
        terms,
        [evidence(scores[:, t], labels[:, t], patients, seed=seed) for t in range(len(concepts))],
        [evidence(alone[:, t], labels[:, t], patients, seed=seed) for t in range(len(concepts))],
        [locality(of_term) for of_term in tests],
        [_median_ratio(of_term) for of_term in tests],
        emission,
        scores,
        calibrated,
    )


def _usual_scores(
    mapper: TermMapper,
    bags: Sequence[Bag],
    images: Sequence[tuple[Regions, Said]],
    seed: int,
) -> Usual:
    """What each term usually scores at each place of images that have it not: denied, or if that is seldom said, at
    least not asserted. Told by a sample of the images learned from."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:_SAMPLE]).tolist()
    profiles = {i: smoothed(mapper.score(bags[i].regions), images[i][0].apart) for i in chosen}
    columns = []
    for term in range(bags[0].states.size):
        without_it = [i for i in chosen if bags[i].states[term] == DENIED]
        if len(without_it) < LEAST:
            without_it = [i for i in chosen if bags[i].states[term] > POSSIBLE]
        found = Usual.of(
            ((images[i][0].places, profiles[i][:, term : term + 1]) for i in without_it), 1, images[0][0].axes
        )
        columns.append(found)
    return Usual(np.hstack([c.mean for c in columns]), np.hstack([c.deviation for c in columns]))


def _emission(mappers: Sequence[TermMapper], states: NDArray[np.int8], probabilities: Doubles) -> Emission:
    """The mean of the tables that the mappers learned; of mappers that learn none, that of the labellers."""
    tables = [found for m in mappers if (found := getattr(m, "emission_", None)) is not None]
    if not tables:
        return table(states, probabilities)
    return Emission(
        np.mean([t.if_present for t in tables], axis=0),
        np.mean([t.if_absent for t in tables], axis=0),
        np.mean([t.prevalence for t in tables], axis=0),
    )


def _by_place(images: Sequence[tuple[Regions, Said]], group: NDArray[np.int64]) -> Doubles:
    """Scores (images, concepts), out of fold, of a mapper that sees nothing but the place."""
    axes = images[0][0].axes
    bags = [Bag(r.positions, s.states, s.probabilities, s.where) for r, s in images]
    alone = fit_folds(lambda: Location(place=axes), bags, group)
    return np.stack([alone[int(g)].image_score(bag.regions) for bag, g in zip(bags, group, strict=True)])


def _tests(
    terms: TermMappers,
    images: Sequence[tuple[Regions, Said]],
    profiles: Sequence[Floats],
    states: NDArray[np.int8],
    scores: Doubles,
) -> list[list[Deletion]]:
    """For each concept the deletion tests in the images that assert it and score above half of those that do not."""
    asserted = states <= POSSIBLE
    low = [np.median(scores[~has, t]) if (~has).any() else np.inf for t, has in enumerate(asserted.T)]
    found: list[list[Deletion]] = [[] for _ in terms.concepts]
    for i in np.flatnonzero((asserted & (scores > low)).any(axis=1)).tolist():
        own = terms.deletions(images[i][0], profiles[i])
        for t in np.flatnonzero(asserted[i] & (scores[i] > low)).tolist():
            found[t].append(own[t])
    return found


def _median_ratio(tests: Sequence[Deletion]) -> float | None:
    """None without a test, or where random regions carry nothing in the median."""
    ratio = float(np.median([test.ratio for test in tests])) if tests else np.inf
    return ratio if np.isfinite(ratio) else None


def _mapped(
    concept: str, score: float, values: Floats, regions: Regions, calibration: Calibration, test: Deletion
) -> MappedTerm:
    # The centre of the highest region, not the peak of a map drawn of them all: at the border of what is seen fewer
    # regions overlap, so that the mean of those that cover a pixel is highest there.
    top = int(values.argmax())
    row, column = (regions.boxes[top, :2] + regions.boxes[top, 2:]) / 2
    return MappedTerm(
        concept,
        score,
        float(calibration.curve(score)),
        calibration.call(score),
        int(regions.slices[top]),
        float(row),
        float(column),
        side_of(float(column), 1, midline=0.5, margin=MIDDLE) if regions.frontal else "",
        test.top,
        test.random,
        values,
    )


def save(terms: TermMappers, folder: Path) -> None:
    """Write what was learned as safetensors beside a manifest with its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {}
    for group, mapper in terms.mappers.items():
        arrays |= terms.looks[group].to_arrays(f"{group}/look")
        arrays |= {f"{group}/mapper/{name}": array for name, array in mapper.to_arrays().items()}
        arrays |= terms.scores[group].to_arrays(f"{group}/scores")
        for number, own in enumerate(terms.calibrations[group]):
            arrays |= {f"{group}/calibration/{number}/{name}": array for name, array in own.to_arrays().items()}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    settings = {"concepts": list(terms.concepts), "mapper": terms.mapper, "groups": terms.groups}
    entry = write_tensors(folder / "terms.safetensors", tensors)
    learned = sorted(terms.mappers)
    kept = {"mappers": learned, "looks": "of each group", "tensors": entry}
    write_manifest(folder / "terms.json", {"format": 1, **settings, **kept})


@lru_cache(maxsize=2)
def load(folder: Path) -> TermMappers:
    """The term mappers in a folder, verified; ModelFileError where they are not as they were written."""
    manifest = read_manifest(folder / "terms.json")
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(folder, manifest["tensors"]).items()}

    def below(start: str) -> dict[str, NDArray[np.generic]]:
        return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}

    concepts, mapper = tuple(manifest["concepts"]), manifest["mapper"]
    if "looks" not in manifest:
        raise ModelFileError("terms.json is of an earlier version: learn the terms again with `phenotype link`")
    looks, mappers, scores, calibrations = {}, {}, {}, {}
    for group in manifest["mappers"]:
        mappers[group] = MAPPERS[mapper].from_arrays(below(f"{group}/mapper/"))
        looks[group], scores[group] = (Usual.from_arrays(arrays, f"{group}/{name}") for name in ("look", "scores"))
        calibrations[group] = [
            Calibration.from_arrays(below(f"{group}/calibration/{number}/")) for number in range(len(concepts))
        ]
    return TermMappers(concepts, mapper, manifest["groups"], looks, mappers, scores, calibrations)
