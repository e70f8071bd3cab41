"""The planted truth read back, and scores of what a pipeline made of the export.

Scoring functions take plain mappings keyed by accession number; they know no database.
"""

import csv
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from phenotype.demo.lesions import KINDS


@dataclass(frozen=True, slots=True)
class TrueStudy:
    """What was planted into one study; `rows` and `columns` are of the written image."""

    accession: str
    patient_id: str
    modality: str
    phenotype: str
    rows: int
    columns: int
    has_report: bool
    planted: frozenset[str]

    @property
    def abnormal(self) -> bool:
        """Any planted lesion but a device."""
        return any(KINDS[finding] != "device" for finding in self.planted)


@dataclass(frozen=True, slots=True)
class TrueLesion:
    """One lesion; `box` is (top, left, bottom, right) as parts (0..1) of a radiograph's height and width.

    `box` is None for CT, for diseases without a place and for what a report invented. `low` and `high` are corners
    (x, y, z) in mm of a lesion in a CT volume, else None.
    """

    accession: str
    finding: str
    kind: str
    side: str
    zone: str
    size_mm: float | None
    planted: bool
    reported: bool
    box: tuple[float, float, float, float] | None
    low: tuple[float, float, float] | None
    high: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class TrueFinding:
    """One thing that a report says: assertion is present, absent or uncertain."""

    accession: str
    concept: str
    assertion: str
    side: str
    zone: str


@dataclass(frozen=True, slots=True)
class Truth:
    """All that is known about an export."""

    studies: tuple[TrueStudy, ...]
    lesions: tuple[TrueLesion, ...]
    findings: tuple[TrueFinding, ...]
    troubles: tuple[tuple[str, str], ...]

    @property
    def by_accession(self) -> dict[str, TrueStudy]:
        """The studies by accession number."""
        return {study.accession: study for study in self.studies}


@dataclass(frozen=True, slots=True)
class Counts:
    """Right, superfluous and missed labels, with their F1 (nan where there was nothing to find and nothing found)."""

    right: int
    superfluous: int
    missed: int

    @property
    def f1(self) -> float:
        total = 2 * self.right + self.superfluous + self.missed
        return 2 * self.right / total if total else float("nan")


@dataclass(frozen=True, slots=True)
class FindingScores:
    """`micro` pools all labels; `macro` is the mean F1 of the concepts that the truth has at least once."""

    micro: float
    macro: float
    concepts: Mapping[str, Counts]


@dataclass(frozen=True, slots=True)
class Pointing:
    """How often the strongest point of a map lies in a lesion, and how often a random point of the image would."""

    hits: int
    tried: int
    rate: float
    chance: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two groupings: 1 is the same, about 0 is chance (nmi: normalised by the mean of the entropies)."""

    adjusted_rand: float
    nmi: float
    studies: int


def read_truth(folder: Path) -> Truth:
    """Read the folder that `write_export` left beside the export (OUT.truth). Raises OSError where it is not there."""
    studies = tuple(
        TrueStudy(
            accession=row["accession_number"],
            patient_id=row["patient_id"],
            modality=row["modality"],
            phenotype=row["phenotype"],
            rows=int(row["rows"]),
            columns=int(row["columns"]),
            has_report=row["has_report"] == "1",
            planted=frozenset(finding for finding in KINDS if row[finding] == "1"),
        )
        for row in _rows(folder / "truth.csv")
    )
    sizes = {study.accession: (study.rows, study.columns) for study in studies}
    findings = (
        TrueFinding(row["accession_number"], row["concept"], row["assertion"], row["side"], row["zone"])
        for row in _rows(folder / "findings.csv")
    )
    return Truth(
        studies=studies,
        lesions=tuple(_lesion(row, sizes[row["accession_number"]]) for row in _rows(folder / "lesions.csv")),
        findings=tuple(findings),
        troubles=tuple((row["what"], row["trouble"]) for row in _rows(folder / "troubles.csv")),
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _lesion(row: Mapping[str, str], size: tuple[int, int]) -> TrueLesion:
    rows, columns = size

    def corner(which: str) -> tuple[float, float, float] | None:
        x, y, z = (row[f"{which}_{axis}_mm"] for axis in "xyz")
        return (float(x), float(y), float(z)) if x else None

    edges = [row[edge] for edge in ("top", "left", "bottom", "right")]
    top, left, bottom, right = (int(edge) if edge else 0 for edge in edges)
    return TrueLesion(
        accession=row["accession_number"],
        finding=row["finding"],
        kind=row["kind"],
        side=row["side"],
        zone=row["zone"],
        size_mm=float(row["size_mm"]) if row["size_mm"] else None,
        planted=row["planted"] == "1",
        reported=row["reported"] == "1",
        box=(top / rows, left / columns, bottom / rows, right / columns) if edges[0] else None,
        low=corner("low"),
        high=corner("high"),
    )


def true_labels(findings: Sequence[TrueFinding]) -> dict[str, dict[str, str]]:
    """What each report says of each concept: present goes before uncertain before absent."""
    rank = {"absent": 0, "uncertain": 1, "present": 2}
    labels: dict[str, dict[str, str]] = {}
    for f in findings:
        of = labels.setdefault(f.accession, {})
        of[f.concept] = max(of.get(f.concept, "absent"), f.assertion, key=rank.__getitem__)
    return labels


def score_findings(
    labels: Mapping[str, Mapping[str, str]],
    truth: Truth,
    *,
    assertion: str = "present",
    same: Mapping[str, str] | None = None,
) -> FindingScores:
    """F1 of study labels (accession -> concept -> assertion) against what the reports say.

    Only studies with a report count, and only concepts that the truth mentions anywhere; a study that is missing from
    `labels` has none. `same` renames concepts on both sides, to count near-synonyms as one. Denials count for concepts
    that the report speaks of: "the lungs are clear" denies more than anyone would list.
    """
    name = same or {}
    said = true_labels(truth.findings)
    vocabulary = {name.get(c, c) for of in said.values() for c in of}
    tally: dict[str, list[int]] = {concept: [0, 0, 0] for concept in sorted(vocabulary)}
    for study in truth.studies:
        if not study.has_report:
            continue
        true = {name.get(c, c) for c, a in said.get(study.accession, {}).items() if a == assertion}
        found = {name.get(c, c) for c, a in labels.get(study.accession, {}).items() if a == assertion} & vocabulary
        if assertion == "absent":
            found &= {name.get(c, c) for c in said.get(study.accession, {})}
        for column, concepts in enumerate((true & found, found - true, true - found)):
            for concept in concepts:
                tally[concept][column] += 1
    counts = {concept: Counts(*of) for concept, of in tally.items() if any(of)}
    pooled = Counts(*(sum(of[k] for of in tally.values()) for k in range(3)))
    each = [c.f1 for c in counts.values() if c.right + c.missed]
    return FindingScores(pooled.f1, float(np.mean(each)) if each else float("nan"), counts)


def score_anomalies(
    scores: Mapping[str, float], truth: Truth, *, counts: Callable[[TrueStudy], bool] | None = None
) -> float:
    """AUROC of anomaly scores (accession -> score, higher is stranger) for any planted lesion that is no device.

    `counts` chooses other positives, such as one finding. Studies without a score are left out; nan where only one
    class is left.
    """
    positive = counts or (lambda study: study.abnormal)
    known = [study for study in truth.studies if study.accession in scores]
    sick = np.array([scores[s.accession] for s in known if positive(s)])
    well = np.sort([scores[s.accession] for s in known if not positive(s)])
    if not len(sick) or not len(well):
        return float("nan")
    below, upto = np.searchsorted(well, sick, "left"), np.searchsorted(well, sick, "right")
    return float((below + upto).sum() / (2 * len(sick) * len(well)))  # Mann-Whitney, ties count half


def score_pointing(
    peaks: Mapping[tuple[str, str], tuple[float, float]],
    truth: Truth,
    *,
    same: Mapping[str, str] | None = None,
    margin: float = 0.0,
) -> Pointing:
    """Pointing game (Zhang et al., IJCV 2018): is the peak of a term map inside a lesion of that finding?

    `peaks` maps (accession, concept) to (row, column), each 0..1 of the radiograph's height and width. Pairs without a
    planted lesion that has a place are left out. `same` maps concepts to the planted finding that they stand for
    (opacity -> consolidation), `margin` widens the boxes, as part of the image.
    """
    name = same or {}
    boxes: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for lesion in truth.lesions:
        if lesion.planted and lesion.box:
            top, left, bottom, right = lesion.box
            wide = (max(top - margin, 0), max(left - margin, 0), min(bottom + margin, 1), min(right + margin, 1))
            boxes.setdefault((lesion.accession, lesion.finding), []).append(wide)
    hits, areas = 0, []
    for (accession, concept), (row, column) in peaks.items():
        of = boxes.get((accession, name.get(concept, concept)))
        if not of:
            continue
        hits += any(top <= row < bottom and left <= column < right for top, left, bottom, right in of)
        areas.append(_union(of))
    tried = len(areas)
    nan = float("nan")
    return Pointing(hits, tried, hits / tried if tried else nan, float(np.mean(areas)) if tried else nan)


def _union(boxes: Sequence[tuple[float, float, float, float]]) -> float:
    """The area that boxes cover together, on a grid of 256 x 256."""
    grid = (np.arange(256) + 0.5) / 256
    covered = np.zeros((256, 256), bool)
    for top, left, bottom, right in boxes:
        covered |= ((grid >= top) & (grid < bottom))[:, None] & ((grid >= left) & (grid < right))
    return float(covered.mean())


def score_phenotypes(memberships: Mapping[str, Hashable], truth: Truth) -> Agreement:
    """Agreement of clusters (accession -> cluster) with the planted groups.

    Adjusted Rand index (Hubert and Arabie 1985) and normalised mutual information. Studies without a cluster are left
    out; what a clustering calls noise counts as a cluster of its own if it is passed.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    known = [study for study in truth.studies if study.accession in memberships]
    if not known:
        return Agreement(float("nan"), float("nan"), 0)
    groups = [study.phenotype for study in known]
    clusters = [str(memberships[study.accession]) for study in known]
    return Agreement(
        float(adjusted_rand_score(groups, clusters)), float(normalized_mutual_info_score(groups, clusters)), len(known)
    )
