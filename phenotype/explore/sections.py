"""What a page says, section by section: answers of `db.queries` beside pictures, as values that a template can print.

A section without data carries the commands that make it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from db.queries import gallery, overview
from phenotype.explore import charts, pictures
from phenotype.explore.films import Films, Unseen
from phenotype.explore.pictures import Scale, View

FINDINGS = 30  # concepts in the table of findings
TERMS = 8  # concepts with maps
SEEN_MOST = 3  # images of each at most
ENRICHED = 12  # terms in the table of a phenotype
EXEMPLARS = 5
MEAN_OF = 12  # images in the mean of a phenotype
DEVIATIONS = Scale(2.0, 8.0)  # colours of calibrated anomaly maps: standard deviations


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, or the reason why there is none."""

    uri: str
    alt: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Card:
    """An image as it is, and with what was found in it."""

    pictures: tuple[Picture, ...]
    study: str
    image: str
    place: str
    facts: tuple[str, ...]
    reported: str


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run: what it did, and its recipe in short."""

    stage: str
    label: str
    run: str
    state: str
    done: int
    failed: int
    recipe: str


@dataclass(frozen=True, slots=True)
class Overview:
    """What there is, what became of it, what was run and what failed."""

    counts: tuple[overview.Counts, ...]
    files: tuple[overview.FileState, ...]
    runs: tuple[RunLine, ...]
    failures: tuple[overview.FailureReason, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What the reports say most often; `most` studies is the longest bar."""

    rows: tuple[gallery.FindingCount, ...]
    most: int
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnomalyModel:
    """What one model found furthest from normal."""

    label: str
    cards: tuple[Card, ...]
    scale: Scale
    unit: str
    histogram: charts.Histogram


@dataclass(frozen=True, slots=True)
class Anomalies:
    """The models that scored images."""

    models: tuple[AnomalyModel, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Term:
    """A concept with its evidence, and the images in which it is seen most."""

    evidence: gallery.Evidence
    cards: tuple[Card, ...]
    scale: Scale


@dataclass(frozen=True, slots=True)
class Terms:
    """The concepts that maps were learned for: with evidence and shown, with evidence but no room, and without."""

    shown: tuple[Term, ...]
    others: tuple[gallery.Evidence, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Group:
    """A phenotype with its tests and its likeliest members."""

    row: gallery.PhenotypeRow
    enriched: tuple[gallery.EnrichmentRow, ...]
    tested: int
    cards: tuple[Card, ...]
    mean: Picture | None
    mean_of: int


@dataclass(frozen=True, slots=True)
class Groups:
    """The phenotypes, and where their studies lie."""

    groups: tuple[Group, ...]
    scatter: charts.Scatter | None
    commands: tuple[str, ...]


@dataclass(slots=True)
class Sections:
    """Builds the sections of one page, on one session, so that they speak of one moment."""

    session: Session
    images: int
    cache: Path | None = None
    films: Films = field(init=False)

    def __post_init__(self) -> None:
        self.films = Films(self.session, self.cache)

    # ------------------------------------------------------------ overview and findings

    def overview(self) -> Overview:
        """Counts, files, runs and failures."""
        states = {state.run: state for state in overview.run_states(self.session)}
        runs = []
        for run in gallery.current_runs(self.session):
            state = states[run.id]
            line = (run.stage, run.label, run.id, state.state, state.done, state.failed, in_short(run.recipe))
            runs.append(RunLine(*line))
        files = tuple(overview.file_states(self.session))
        return Overview(
            tuple(overview.counts(self.session)),
            files,
            tuple(runs),
            tuple(overview.failure_reasons(self.session)),
            () if files or runs else ("phenotype ingest EXPORT",),
        )

    def findings(self) -> Findings:
        """The commonest findings and devices."""
        rows = tuple(gallery.finding_counts(self.session, FINDINGS))
        most = max((row.present + row.uncertain + row.denied for row in rows), default=0)
        labelled = bool(gallery.current_runs(self.session, "label"))
        return Findings(rows, most, () if labelled else ("phenotype extract", "phenotype label"))

    # ------------------------------------------------------------ anomalies

    def anomalies(self) -> Anomalies:
        """For each model that scored images: the highest scores, and all of them as a histogram."""
        models = []
        for run in gallery.current_runs(self.session, "score"):
            scored = gallery.top_anomalies(self.session, run.id, self.images)
            if not scored:
                continue
            calibrated = all(one.p_value is not None for one in scored)
            scale = DEVIATIONS if calibrated else _scale([one.map.ravel() for one in scored])
            unit = "standard deviations above what is usual there in normal images" if calibrated else "of the raw map"
            groups = _by_report(gallery.anomaly_scores(self.session, run))
            cards = self._anomaly_cards(scored, scale)
            models.append(AnomalyModel(run.label or run.id, cards, scale, unit, charts.histogram(groups)))
        commands = ("phenotype train --model f-anogan --cohort normal", "phenotype score")
        return Anomalies(tuple(models), () if models else commands)

    def _anomaly_cards(self, scored: Sequence[gallery.ScoredImage], scale: Scale) -> tuple[Card, ...]:
        reported = self._reported([one.image for one in scored])
        cards = []
        for one in scored:
            facts = [f"score {one.score:.3g}"]
            if one.p_value is not None:
                facts.append(f"p = {one.p_value:.2g}")
            both = self._with_map(one.image, one.map, scale, "anomaly map")
            cards.append(_card(one.image, both, facts, reported))
        return tuple(cards)

    # ------------------------------------------------------------ term maps

    def terms(self) -> Terms:
        """The concepts that maps were learned for; those with evidence upon images."""
        maps = next(iter(gallery.current_runs(self.session, "map")), None)
        link = next(iter(gallery.current_runs(self.session, "link")), None)
        if maps:  # shown with what they were learned from, also where something newer has been learned since
            link = gallery.run_recipe(self.session, maps.recipe.get("link", ""))
        found = gallery.term_evidence(self.session, link.id) if link else []
        if link is None or not found:
            return Terms((), (), ("phenotype link", "phenotype map"))
        shown: list[Term] = []
        others: list[gallery.Evidence] = []
        for evidence in found:
            if maps is None or evidence.verdict != "evidence" or len(shown) == TERMS:
                others.append(evidence)
                continue
            top = gallery.top_mapped(self.session, maps, link, evidence.concept, min(self.images, SEEN_MOST))
            shown.append(self._term(evidence, top))
        return Terms(tuple(shown), tuple(others), () if maps else ("phenotype map",))

    def _term(self, evidence: gallery.Evidence, top: Sequence[gallery.MappedImage]) -> Term:
        scale = _scale([one.scores for one in top])
        reported = self._reported([one.image for one in top])
        cards = []
        for one in top:
            facts = [f"score {one.score:.3g}"] + ([f"patient's {one.side}"] if one.side in ("left", "right") else [])
            facts += ["midline"] if one.side == "midline" else []
            if one.call and one.probability is not None:
                facts.append(f"{one.call} (probability {one.probability:.2f})")
            grid = pictures.region_map(one.scores, one.boxes, (128, 128))
            both = self._with_map(one.image, grid, scale, f"map of {evidence.name}")
            cards.append(_card(one.image, both, facts, reported))
        return Term(evidence, tuple(cards), scale)

    # ------------------------------------------------------------ phenotypes

    def phenotypes(self) -> Groups:
        """The phenotypes, with their likeliest members; and all studies in the plane of their vectors."""
        runs = gallery.current_runs(self.session, "cluster")
        rows = gallery.phenotypes(self.session, runs[-1].id) if runs else []
        if not rows:
            return Groups((), None, ("phenotype cluster",))
        cluster = runs[-1]
        images = gallery.described_images(self.session, cluster)
        tests = gallery.enrichments(self.session, cluster.id)
        groups = [self._group(row, [i for i in images if i.phenotype == row.id], tests) for row in rows]
        cloud = None
        if len(images) > 2:
            labels = [(row.id, str(row.number), row.name) for row in rows]
            if any(image.phenotype is None for image in images):
                labels.append(("", "", "in no phenotype"))
            vectors = np.array([image.vector for image in images], np.float64)
            cloud = charts.scatter(vectors, [image.phenotype or "" for image in images], labels)
        return Groups(tuple(groups), cloud, ())

    def _group(
        self,
        row: gallery.PhenotypeRow,
        members: Sequence[gallery.DescribedImage],
        tests: Sequence[gallery.EnrichmentRow],
    ) -> Group:
        own = [test for test in tests if test.phenotype == row.id]
        typical = _most_typical(members)
        exemplars = typical[:EXEMPLARS]
        self.films.fetch([one.image for one in typical[:MEAN_OF]])
        reported = self._reported([one.image for one in exemplars])
        cards = [
            _card(one.image, (self._picture(one.image),), [f"membership {one.probability:.2f}"], reported)
            for one in exemplars
        ]
        enriched = [test for test in own if test.fold > 1][:ENRICHED]
        mean, count = self._mean(row, typical[:MEAN_OF])
        return Group(row, tuple(enriched), len(own), tuple(cards), mean, count)

    def _mean(self, row: gallery.PhenotypeRow, members: Sequence[gallery.DescribedImage]) -> tuple[Picture | None, int]:
        """The mean of the radiographs of one projection; slices of volumes have nothing in common to average."""
        radiographs = [one.image for one in members if one.image.kind == "radiograph"]
        alike = [image for image in radiographs if image.view == radiographs[0].view]
        views = [self.films.view(image) for image in alike]
        seen = [view.pixels for view in views if isinstance(view, View)]
        if len(seen) < 3:
            return None, len(seen)
        mean = np.asarray(np.mean(seen, axis=0, dtype=np.float64), np.float32)
        alt = f"Mean of {len(seen)} radiographs of phenotype {row.number}"
        return Picture(pictures.data_uri(pictures.grey(mean)), alt), len(seen)

    # ------------------------------------------------------------ pictures

    def _reported(self, images: Sequence[gallery.ShownImage]) -> dict[str, gallery.Said]:
        self.films.fetch(images)
        return gallery.said(self.session, sorted({image.study for image in images}))

    def _picture(self, image: gallery.ShownImage) -> Picture:
        seen = self.films.view(image)
        alt = f"{_what(image)} of study {image.study}"
        if isinstance(seen, Unseen):
            return Picture("", alt, seen.reason)
        return Picture(pictures.data_uri(pictures.grey(seen.pixels)), alt)

    def _with_map(
        self, image: gallery.ShownImage, values: NDArray[np.floating], scale: Scale, name: str
    ) -> tuple[Picture, ...]:
        """The image, and the image under its map with a ring around the peak."""
        seen = self.films.view(image)
        if isinstance(seen, Unseen):
            return (self._picture(image),)
        drawn = pictures.ring(pictures.overlay(seen, values, scale), seen, image.row, image.column)
        where = f"highest {image.row:.0%} from the top and {image.column:.0%} from the left"
        return self._picture(image), Picture(pictures.data_uri(drawn), f"The same image with its {name}, {where}")


# ---------------------------------------------------------------- in words


def in_short(recipe: dict[str, object]) -> str:
    """A recipe as words: what is empty left out, ids of runs shortened."""
    kept = {k: v for k, v in recipe.items() if v not in ("", 0, None, False) and k not in ("upstream", "members")}
    return ", ".join(f"{key} {_short(value)}" for key, value in kept.items())


def _short(value: object) -> str:
    text = str(value)
    is_digest = isinstance(value, str) and len(text) >= 16 and set(text) <= set("0123456789abcdef")
    return text[:8] if is_digest else text


def _what(image: gallery.ShownImage) -> str:
    names = {"radiograph": "Radiograph", "volume": f"Slice {image.slice + 1}", "frames": f"Frame {image.slice + 1}"}
    return names.get(image.kind, "Image")


def _card(
    image: gallery.ShownImage, shown: tuple[Picture, ...], facts: Sequence[str], reported: dict[str, gallery.Said]
) -> Card:
    place = f"{_what(image)}{f', {image.view}' if image.view else ''}"
    return Card(shown, image.study, image.id, place, tuple(facts), _in_words(reported.get(image.study)))


def _in_words(said: gallery.Said | None) -> str:
    if said is None:
        return "no report was read"
    words = []
    if said.present:
        words.append("reported: " + ", ".join(said.present))
    if said.uncertain:
        words.append("in doubt: " + ", ".join(said.uncertain))
    if said.normal:
        words.insert(0, "reported without findings")
    return "; ".join(words)


def _by_report(scores: Sequence[gallery.ImageScore]) -> list[tuple[str, list[float]]]:
    """Scores of studies reported normal, learned from and not, of studies with findings, and without a report."""
    return [
        ("Reported normal, learned from", [s.score for s in scores if s.normal and s.learned]),
        ("Reported normal, kept aside", [s.score for s in scores if s.normal and not s.learned]),
        ("With findings", [s.score for s in scores if s.normal is False]),
        ("Without a report", [s.score for s in scores if s.normal is None]),
    ]


def _scale(values: Sequence[NDArray[np.floating]]) -> Scale:
    """From the median of all values, or 0 where that is higher, to nearly their greatest."""
    finite = np.concatenate([np.asarray(v, np.float64) for v in values]) if values else np.zeros(1)
    finite = finite[np.isfinite(finite)]
    if finite.size == 0:
        return Scale(0.0, 1.0)
    low, high = max(0.0, float(np.median(finite))), float(np.quantile(finite, 0.995))
    return Scale(low, high) if high > low else Scale(float(finite.min()), float(finite.max()) + 1e-6)


def _most_typical(members: Sequence[gallery.DescribedImage]) -> list[gallery.DescribedImage]:
    """One image a study, the likeliest members first; between equals, those nearest to the middle of the group."""
    if not members:
        return []
    vectors = np.array([one.vector for one in members], np.float64)
    spread = vectors.std(axis=0)
    distance = (((vectors - np.median(vectors, axis=0)) / np.where(spread > 0, spread, 1.0)) ** 2).sum(axis=1)
    order = sorted(range(len(members)), key=lambda i: (-round(members[i].probability, 2), float(distance[i]), i))
    first: dict[str, gallery.DescribedImage] = {}
    for i in order:
        first.setdefault(members[i].image.study, members[i])
    return list(first.values())
