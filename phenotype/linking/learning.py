"""Learn term maps from the regions of images and the states of their terms, and put them onto images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phenotype.linking.evidence import Evidence, cross_fit, evidence, image_score
from phenotype.linking.ferns import FernMapper
from phenotype.linking.maps import peak, pixel_boxes, pixel_map, side_of
from phenotype.models.files import read_manifest, read_tensors, write_manifest, write_tensors

Floats = NDArray[np.float32]
MAP = (64, 64)  # a map is drawn on this grid to find its peak
SAMPLE = 20_000  # regions that the questions of the ferns are balanced on


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of an image: their vectors (n, d), slices (n,), boxes (n, 4) as fractions, and its patient's fold."""

    vectors: Floats
    slices: NDArray[np.int32]
    boxes: Floats
    fold: int
    frontal: bool  # whether left and right of the image are those of the patient


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


def describe(regions: Regions, location: int) -> Floats:
    """Descriptors (n, d + 2 * location): the vectors and `location` copies of the place of the region's centre.

    A question of a fern is about one or two columns, so that copies make the place be asked about more often.
    """
    centre = (regions.boxes[:, :2] + regions.boxes[:, 2:]) / 2
    return np.hstack([regions.vectors, *[centre] * location]).astype(np.float32)


def learn(
    mapper: FernMapper,
    bags: Sequence[tuple[Regions, NDArray[np.float64]]],
    patients: NDArray[np.str_],
    *,
    groups: int,
    location: int,
    folder: Path,
    concepts: Sequence[str],
    seed: int,
) -> list[Evidence]:
    """Fit one mapper for each group of folds, on the images of all others; returns the evidence for each concept.

    A mapper is kept for each group, so that every image, new ones too, is scored by one that has not seen its patient.
    """
    described = [(describe(regions, location), states) for regions, states in bags]
    rng = np.random.default_rng(seed)
    everything = np.concatenate([vectors for vectors, _ in described])
    mapper.prepare(everything[rng.choice(len(everything), min(SAMPLE, len(everything)), replace=False)])
    fold = [regions.fold % groups for regions, _ in bags]
    mappers = cross_fit(mapper, described, fold)
    scores = np.stack([image_score(mappers[f].score(v)) for f, (v, _) in zip(fold, described, strict=True)])
    states = np.stack([states for _, states in bags])
    _save(folder, mappers, concepts, groups, location)
    return [evidence(scores[:, c], states[:, c], patients, seed=seed) for c in range(len(concepts))]


@dataclass(frozen=True, slots=True)
class TermMappers:
    """What `learn` left in its folder."""

    concepts: tuple[str, ...]
    mappers: dict[int, FernMapper]
    groups: int
    location: int

    def map(self, regions: Regions) -> list[MappedTerm]:
        """The map of each concept over one image."""
        fold = regions.fold % self.groups
        mapper = self.mappers.get(fold) or self.mappers[min(self.mappers)]
        profile = mapper.score(describe(regions, self.location)).astype(np.float32)
        scores = image_score(profile)
        return [
            _mapped(concept, float(scores[c]), np.ascontiguousarray(profile[:, c]), regions)
            for c, concept in enumerate(self.concepts)
        ]


def _mapped(concept: str, score: float, values: Floats, regions: Regions) -> MappedTerm:
    found = int(regions.slices[int(values.argmax())])
    there = regions.slices == found
    top = peak(pixel_map(values[there], pixel_boxes(regions.boxes[there], MAP), MAP))
    side = side_of(top.column, MAP[1], margin=1.0) if regions.frontal else ""
    return MappedTerm(concept, score, found, (top.row + 0.5) / MAP[0], (top.column + 0.5) / MAP[1], side, values)


def _save(folder: Path, mappers: dict[int, FernMapper], concepts: Sequence[str], groups: int, location: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{group}/{name}": torch.from_numpy(np.ascontiguousarray(array))
        for group, mapper in mappers.items()
        for name, array in mapper.to_arrays().items()
    }
    entry = write_tensors(folder / "ferns.safetensors", tensors)
    settings = {"concepts": list(concepts), "groups": groups, "location": location, "mappers": sorted(mappers)}
    write_manifest(folder / "ferns.json", {"format": 1, **settings, "tensors": entry})


@lru_cache(maxsize=2)
def load(folder: Path) -> TermMappers:
    """The term mappers in a folder, verified; ModelFileError where they are not as they were written."""
    manifest = read_manifest(folder / "ferns.json")
    tensors = {name: tensor.numpy() for name, tensor in read_tensors(folder, manifest["tensors"]).items()}
    mappers = {
        group: FernMapper.from_arrays(
            {name.partition("/")[2]: a for name, a in tensors.items() if name.startswith(f"{group}/")}
        )
        for group in manifest["mappers"]
    }
    return TermMappers(tuple(manifest["concepts"]), mappers, manifest["groups"], manifest["location"])
