"""Learn term maps from the regions of images and the states of their terms, and put them onto images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phenotype.linking.evidence import Evidence, evidence, fit_parts, image_score, without
from phenotype.linking.ferns import FernMapper
from phenotype.linking.maps import peak, pixel_boxes, pixel_map, side_of
from phenotype.linking.places import Usual, cells
from phenotype.models.files import read_manifest, read_tensors, write_manifest, write_tensors

Floats = NDArray[np.float32]
MAP = (64, 64)  # a map is drawn on this grid to find its peak
SAMPLE = 20_000  # regions that the questions of the ferns are balanced on
LEAST = 10  # images that deny a term, to know what it scores where it is not


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of an image: their vectors (n, d), the last two columns of which are the row and column in the box
    around the body; their slices (n,), boxes (n, 4) as fractions of the image, and the fold of its patient."""

    vectors: Floats
    slices: NDArray[np.int32]
    boxes: Floats
    fold: int
    frontal: bool  # whether left and right of the image are those of the patient

    @property
    def places(self) -> NDArray[np.int64]:
        """The cell of the body that each region lies in."""
        return cells(self.vectors[:, -2:])


@dataclass(frozen=True, slots=True)
class MappedTerm:
    """Where in an image a term is seen."""

    concept: str
    score: float
    slice: int
    row: float
    column: float
    side: str
    regions: Floats


@dataclass(frozen=True, slots=True)
class TermMappers:
    """What is learned: what regions usually look like at each place, one mapper for each group of folds, and what each
    usually scores at each place of images that have not the term.

    A mapper is kept for each group, so that every image, new ones too, is scored by one that has not seen its patient.
    """

    concepts: tuple[str, ...]
    groups: int
    location: (
        int  # copies of the place among the descriptors, so that the questions of the ferns are about it more often
    )
    look: Usual
    mappers: dict[int, FernMapper]
    scores: dict[int, Usual]

    def map(self, regions: Regions) -> list[MappedTerm]:
        """The map of each concept over one image."""
        profile = self.profile(regions)
        scores = image_score(profile)
        return [
            _mapped(concept, float(scores[c]), np.ascontiguousarray(profile[:, c]), regions)
            for c, concept in enumerate(self.concepts)
        ]

    def profile(self, regions: Regions) -> Floats:
        """How strongly each concept is seen in each region (n, concepts): in standard deviations above what is usual
        at that place in images without it."""
        group = self.group_of(regions)
        profile = self.mappers[group].score(describe(regions, self.look, self.location))
        return self.scores[group].deviations(regions.places, profile)

    def group_of(self, regions: Regions) -> int:
        """The group of the image's patient; any, where no image of that group was learned from."""
        group = regions.fold % self.groups
        return group if group in self.mappers else min(self.mappers)


def describe(regions: Regions, look: Usual, location: int) -> Floats:
    """Descriptors (n, d - 2 + 2 * location): how far each region looks from what is usual at its place, and where it
    is."""
    strange = look.deviations(regions.places, regions.vectors)[:, :-2]
    return np.hstack([strange, *[regions.vectors[:, -2:]] * location]).astype(np.float32)


def learn(
    mapper: FernMapper,
    bags: Sequence[tuple[Regions, NDArray[np.float64]]],
    patients: NDArray[np.str_],
    *,
    concepts: Sequence[str],
    groups: int,
    location: int,
    seed: int,
) -> tuple[TermMappers, list[Evidence]]:
    """Fit one mapper for each group of folds on the images of all others; also the evidence for each concept.

    `bags` holds the regions of each image and the states (concepts,) of its study; `mapper` has no questions yet.
    ValueError where the patients are in fewer than three groups.
    """
    look = Usual.of(((r.places, r.vectors) for r, _ in bags), bags[0][0].vectors.shape[1])
    described = [(describe(regions, look, location), states) for regions, states in bags]
    rng = np.random.default_rng(seed)
    everything = np.concatenate([vectors for vectors, _ in described])
    mapper.prepare(everything[rng.choice(len(everything), min(SAMPLE, len(everything)), replace=False)])
    group = np.array([regions.fold % groups for regions, _ in bags])
    parts = fit_parts(mapper, described, group.tolist())
    mappers = {g: without(parts, g) for g in parts}
    places = [regions.places for regions, _ in bags]
    states = np.stack([states for _, states in bags])
    usual: dict[int, Usual] = {}
    for g in parts:
        # Nested: what is usual for the images of a group is told by other groups, each scored by a mapper that knows
        # neither. Ferns that had counted an image would find it more usual than it is.
        inner = {other: without(parts, g, other) for other in parts if other != g}
        others = np.flatnonzero(group != g).tolist()
        profiles = {i: inner[int(group[i])].score(described[i][0]) for i in others}
        usual[g] = _usual_scores(places, profiles, states)
    terms = TermMappers(tuple(concepts), groups, location, look, mappers, usual)
    scores = np.stack([image_score(terms.profile(regions)) for regions, _ in bags])
    return terms, [evidence(scores[:, c], states[:, c], patients, seed=seed) for c in range(len(concepts))]


def _usual_scores(
    places: Sequence[NDArray[np.int64]], profiles: dict[int, NDArray[np.float64]], states: NDArray[np.float64]
) -> Usual:
    """What each term usually scores at each place of images that have it not: denied, or if that is seldom said, at
    least not asserted. `profiles` by the number of the image."""
    columns = []
    for term in range(states.shape[1]):
        without_it = [i for i in profiles if states[i, term] < 0.5]
        if len(without_it) < LEAST:
            without_it = [i for i in profiles if not states[i, term] >= 0.5]
        columns.append(Usual.of(((places[i], profiles[i][:, term : term + 1]) for i in without_it), 1))
    return Usual(np.hstack([c.mean for c in columns]), np.hstack([c.deviation for c in columns]))


def _mapped(concept: str, score: float, values: Floats, regions: Regions) -> MappedTerm:
    found = int(regions.slices[int(values.argmax())])
    there = regions.slices == found
    top = peak(pixel_map(values[there], pixel_boxes(regions.boxes[there], MAP), MAP))
    side = side_of(top.column, MAP[1], margin=1.0) if regions.frontal else ""
    return MappedTerm(concept, score, found, (top.row + 0.5) / MAP[0], (top.column + 0.5) / MAP[1], side, values)


def save(terms: TermMappers, folder: Path) -> None:
    """Write what was learned as safetensors beside a manifest with its hash."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = dict(terms.look.to_arrays("look"))
    for group, mapper in terms.mappers.items():
        arrays |= {f"{group}/ferns/{name}": array for name, array in mapper.to_arrays().items()}
        arrays |= terms.scores[group].to_arrays(f"{group}/scores")
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    settings = {"concepts": list(terms.concepts), "groups": terms.groups, "location": terms.location}
    entry = write_tensors(folder / "ferns.safetensors", tensors)
    write_manifest(folder / "ferns.json", {"format": 1, **settings, "mappers": sorted(terms.mappers), "tensors": entry})


@lru_cache(maxsize=2)
def load(folder: Path) -> TermMappers:
    """The term mappers in a folder, verified; ModelFileError where they are not as they were written."""
    manifest = read_manifest(folder / "ferns.json")
    arrays = {name: tensor.numpy() for name, tensor in read_tensors(folder, manifest["tensors"]).items()}
    mappers, scores = {}, {}
    for group in manifest["mappers"]:
        start = f"{group}/ferns/"
        mappers[group] = FernMapper.from_arrays({n[len(start) :]: a for n, a in arrays.items() if n.startswith(start)})
        scores[group] = Usual.from_arrays(arrays, f"{group}/scores")
    look = Usual.from_arrays(arrays, "look")
    return TermMappers(tuple(manifest["concepts"]), manifest["groups"], manifest["location"], look, mappers, scores)
