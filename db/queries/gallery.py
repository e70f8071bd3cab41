"""What a page of results shows: current runs, scored images with their maps, terms with their evidence, phenotypes.

Everything here is of the current run of each stage and of the runs that it built upon, and holds no personal data.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import and_, case, func, select, text
from sqlalchemy.orm import Session

from db.queries.labels import PATHOLOGY
from db.tables import (
    Anomaly,
    CohortStudy,
    Concept,
    Embedding,
    Enrichment,
    Image,
    Label,
    Membership,
    Phenotype,
    Region,
    Run,
    TermEvidence,
    TermMap,
)

_IMAGE = (Image.id, Image.study_id, Image.kind, Image.view)


@dataclass(frozen=True, slots=True)
class RunRecipe:
    """A run with its recipe, which names the runs that it built upon."""

    id: str
    stage: str
    label: str
    recipe: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FindingCount:
    """In how many studies the reports themselves assert, doubt and deny a concept; what only follows is not counted."""

    name: str
    category: str
    present: int
    uncertain: int
    denied: int


@dataclass(frozen=True, slots=True)
class Said:
    """What the reports of a study say: names of concepts asserted and doubted; `normal` if no finding is either."""

    present: tuple[str, ...]
    uncertain: tuple[str, ...]
    normal: bool


@dataclass(frozen=True, slots=True)
class ShownImage:
    """An image to be shown, and a place in it: the slice, and row and column as fractions."""

    id: str
    study: str
    kind: str
    view: str
    slice: int
    row: float
    column: float


@dataclass(frozen=True, slots=True)
class ScoredImage:
    """An image with its anomaly score, its p-value if the model was calibrated, and the map (rows, columns)."""

    image: ShownImage
    score: float
    p_value: float | None
    map: NDArray[Any]


@dataclass(frozen=True, slots=True)
class ImageScore:
    """The anomaly score of an image; whether its study's reports call it normal (None: no report was read), and whether
    the model has learned from the study."""

    score: float
    normal: bool | None
    learned: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """Whether the map of a concept tells studies apart that it was not learned from."""

    concept: str
    name: str
    positives: int
    studies: int
    auroc: float | None
    low: float | None
    high: float | None
    verdict: str
    local: str = ""  # whether the term is seen at a place: local, not local, or empty
    location: float | None = None  # the area of a mapper that knows nothing but places
    deletion: float | None = None  # how many times more the highest regions carry than random ones


@dataclass(frozen=True, slots=True)
class MappedImage:
    """An image with the score of a term, the side of its peak, what is called and how probable it is, and the scores
    (n,) and boxes (n, 4) of the regions in the slice of the peak. Boxes are top, left, bottom, right as fractions."""

    image: ShownImage
    score: float
    side: str
    call: str
    probability: float | None
    scores: NDArray[Any]
    boxes: NDArray[Any]


@dataclass(frozen=True, slots=True)
class PhenotypeRow:
    """A phenotype of the current run of `cluster`."""

    id: str
    number: int
    name: str
    size: int
    stability: float
    stable: bool


@dataclass(frozen=True, slots=True)
class EnrichmentRow:
    """How much more often a concept is reported in a phenotype than elsewhere."""

    phenotype: str
    name: str
    cases: int
    expected: float
    fold: float
    q_value: float
    replicated: bool | None


@dataclass(frozen=True, slots=True)
class DescribedImage:
    """An image that was clustered: its vector, and the phenotype of its study (None where it belongs to none)."""

    image: ShownImage
    vector: NDArray[Any]
    phenotype: str | None
    probability: float


# ---------------------------------------------------------------- runs and reports


def current_runs(session: Session, stage: str = "") -> list[RunRecipe]:
    """The current runs of a stage, or of all, in the order they were first started."""
    ids = session.scalars(text("SELECT id FROM current_run")).all()
    query = select(Run.id, Run.stage, Run.label, Run.recipe).where(Run.id.in_(ids)).order_by(Run.started_at, Run.id)
    return [RunRecipe(*row) for row in session.execute(query.where(Run.stage == stage) if stage else query)]


def run_recipe(session: Session, run_id: str) -> RunRecipe | None:
    """A run by its id, current or not."""
    run = session.get(Run, run_id)
    return RunRecipe(run.id, run.stage, run.label, run.recipe) if run else None


def finding_counts(session: Session, limit: int) -> list[FindingCount]:
    """The concepts that most studies are labelled with, those asserted most often first."""
    values = [func.sum(case((Label.value == v, 1), else_=0)) for v in ("present", "uncertain", "absent")]
    query = (
        select(Concept.name, Concept.category, *values)
        .join(Label, Label.concept_id == Concept.id)
        .where(Label.run_id.in_(_current(session, "label")), ~Label.implied, Concept.category.in_(PATHOLOGY))
        .group_by(Concept.id, Concept.name, Concept.category)
        .order_by(values[0].desc(), values[1].desc(), values[2].desc(), Concept.name)
        .limit(limit)
    )
    return [FindingCount(*row) for row in session.execute(query)]


def said(session: Session, studies: Sequence[str]) -> dict[str, Said]:
    """What the reports of these studies say; a study whose reports were not read is left out."""
    query = (
        select(Label.study_id, Concept.name, Concept.category, Label.value)
        .join(Concept, Concept.id == Label.concept_id)
        .where(Label.run_id.in_(_current(session, "label")), ~Label.implied, Label.study_id.in_(list(studies)))
        .order_by(Label.study_id, Concept.name)
    )
    names: dict[str, dict[str, list[str]]] = {}
    abnormal: set[str] = set()
    for study, name, category, value in session.execute(query):
        own = names.setdefault(study, {"present": [], "uncertain": [], "absent": []})
        if category in PATHOLOGY:
            own[value].append(name)
        if category == "finding" and value != "absent":
            abnormal.add(study)
    return {s: Said(tuple(n["present"]), tuple(n["uncertain"]), s not in abnormal) for s, n in names.items()}


# ---------------------------------------------------------------- anomalies


def top_anomalies(session: Session, run_id: str, limit: int) -> list[ScoredImage]:
    """The images that a run scored highest."""
    place = (Anomaly.peak_slice, Anomaly.peak_row, Anomaly.peak_column)
    query = (
        select(*_IMAGE, *place, Anomaly.score, Anomaly.p_value, Anomaly.map)
        .join(Anomaly, Anomaly.image_id == Image.id)
        .where(Anomaly.run_id == run_id)
        .order_by(Anomaly.score.desc(), Image.id)
        .limit(limit)
    )
    rows: Iterable[Any] = session.execute(query)
    return [ScoredImage(ShownImage(*row[:7]), *row[7:]) for row in rows]


def anomaly_scores(session: Session, run: RunRecipe) -> list[ImageScore]:
    """The scores of all images of a run of `score`, ascending."""
    model = run_recipe(session, run.recipe.get("model", "").split("+")[0])  # several have learned from one cohort
    learned = and_(
        CohortStudy.study_id == Image.study_id,
        CohortStudy.cohort_id == (model.recipe.get("cohort", "") if model else ""),
        CohortStudy.split == "train",
    )
    abnormal = and_(Concept.category == "finding", Label.value != "absent")
    states = (
        select(Label.study_id, func.max(case((abnormal, 1), else_=0)).label("abnormal"))
        .join(Concept, Concept.id == Label.concept_id)
        .where(Label.run_id.in_(_current(session, "label")))
        .group_by(Label.study_id)
        .subquery()
    )
    query = (
        select(Anomaly.score, states.c.abnormal, CohortStudy.study_id)
        .join(Image, Image.id == Anomaly.image_id)
        .outerjoin(states, states.c.study_id == Image.study_id)
        .outerjoin(CohortStudy, learned)
        .where(Anomaly.run_id == run.id)
        .order_by(Anomaly.score, Anomaly.image_id)
    )
    rows = session.execute(query)
    return [ImageScore(s, None if ill is None else not ill, study is not None) for s, ill, study in rows]


# ---------------------------------------------------------------- term maps


def term_evidence(session: Session, link_run: str) -> list[Evidence]:
    """The evidence for each concept that a run of `link` has learned, the strongest first."""
    rank = case({"evidence": 0, "no evidence": 1}, value=TermEvidence.verdict, else_=2)
    names = ["positives", "studies", "auroc", "auroc_low", "auroc_high", "verdict"]
    names += ["local", "location_auroc", "deletion_ratio"]
    query = (
        select(Concept.id, Concept.name, *(getattr(TermEvidence, name) for name in names))
        .join(TermEvidence, TermEvidence.concept_id == Concept.id)
        .where(TermEvidence.run_id == link_run)
        .order_by(rank, func.coalesce(TermEvidence.auroc, 0.0).desc(), Concept.name)
    )
    return [Evidence(*row) for row in session.execute(query)]


def top_mapped(session: Session, maps: RunRecipe, link: RunRecipe, concept: str, limit: int) -> list[MappedImage]:
    """The images in which a run of `map` sees a concept most, of studies reported to have it."""
    place = (TermMap.peak_slice, TermMap.peak_row, TermMap.peak_column)
    values = ("score", "side", "call", "probability")
    query = (
        select(*_IMAGE, *place, *(getattr(TermMap, n) for n in values), TermMap.regions, Region.slices, Region.boxes)
        .join(TermMap, TermMap.image_id == Image.id)
        .join(Region, and_(Region.image_id == Image.id, Region.run_id == maps.recipe.get("embeddings", "")))
        .join(Label, and_(Label.study_id == Image.study_id, Label.concept_id == TermMap.concept_id))
        .where(TermMap.run_id == maps.id, TermMap.concept_id == concept)
        .where(Label.run_id == link.recipe.get("labels", ""), Label.value == "present", ~Label.implied)
        .order_by(TermMap.score.desc(), Image.id)
        .limit(limit)
    )
    found = []
    rows: Iterable[Any] = session.execute(query)
    for *image, score, side, call, probability, regions, slices, boxes in rows:
        shown = ShownImage(*image)
        there = slices == shown.slice
        found.append(MappedImage(shown, score, side, call, probability, regions[there], boxes[there]))
    return found


# ---------------------------------------------------------------- phenotypes


def phenotypes(session: Session, run_id: str) -> list[PhenotypeRow]:
    """The phenotypes of a run of `cluster`, by number."""
    columns = (Phenotype.id, Phenotype.number, Phenotype.name, Phenotype.size, Phenotype.stability, Phenotype.stable)
    query = select(*columns).where(Phenotype.run_id == run_id).order_by(Phenotype.number)
    return [PhenotypeRow(*row) for row in session.execute(query)]


def enrichments(session: Session, run_id: str) -> list[EnrichmentRow]:
    """What was tested for over-representation in the phenotypes of a run, the surest first."""
    columns = (Enrichment.cases, Enrichment.expected, Enrichment.fold, Enrichment.q_value, Enrichment.replicated)
    query = (
        select(Enrichment.phenotype_id, Concept.name, *columns)
        .join(Concept, Concept.id == Enrichment.concept_id)
        .where(Enrichment.run_id == run_id)
        .order_by(Enrichment.q_value, Enrichment.fold.desc(), Concept.name)
    )
    return [EnrichmentRow(*row) for row in session.execute(query)]


def described_images(session: Session, cluster: RunRecipe) -> list[DescribedImage]:
    """The images whose vectors a run of `cluster` used, with the phenotypes of their studies, by study."""
    query = (
        select(*_IMAGE, Image.slices, Embedding.whole, Membership.phenotype_id, Membership.probability)
        .join(Embedding, Embedding.image_id == Image.id)
        .join(CohortStudy, CohortStudy.study_id == Image.study_id)
        .outerjoin(Membership, and_(Membership.study_id == Image.study_id, Membership.run_id == cluster.id))
        .where(Embedding.run_id == cluster.recipe.get("embeddings", ""))
        .where(CohortStudy.cohort_id == cluster.recipe.get("cohort", ""))
        .order_by(Image.study_id, Image.id)
    )
    rows: Iterable[Any] = session.execute(query)
    return [
        DescribedImage(ShownImage(image, study, kind, view, slices // 2, 0.5, 0.5), vector, phenotype, sure or 0.0)
        for image, study, kind, view, slices, vector, phenotype, sure in rows
    ]


def _current(session: Session, stage: str) -> Sequence[str]:
    return session.scalars(text("SELECT id FROM current_run WHERE stage = :stage"), {"stage": stage}).all()
