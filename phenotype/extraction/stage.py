"""Extract, Label and Cohort: this room's door to the database."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import String, and_, cast, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from db.queries.labels import PATHOLOGY
from db.queries.sentences import read_reports as reports_of
from db.queries.versions import CURRENT
from db.tables import (
    Cohort,
    CohortStudy,
    Concept,
    Finding,
    Image,
    Label,
    Modifier,
    Patient,
    Reading,
    Report,
    Run,
    Section,
    Sentence,
    Site,
    Study,
    Task,
    TextScore,
    VaultReport,
)
from db.write import insert_rows
from nlp import lexicon
from nlp.values import Mention
from phenotype.extraction.classify import as_read, classify
from phenotype.extraction.labels import Said, label_study
from phenotype.extraction.reading import AUTO, read_reports
from phenotype.stage import Refused, Stage, Subjects, done_by, find_run, knob, run_of


@dataclass(frozen=True)
class Extract(Stage):
    """Read the reports: findings with their place in the text, what is said of them, and why."""

    language: str = knob(AUTO, "the language of the reports, as in 'de'; 'auto' reads each in its own")
    lexicon: str = knob("", "your own words, read after the built-in ones: a table or a folder", recipe=False)
    lexicon_version: str = knob("", "a digest of all words and rules", hidden=True)

    name: ClassVar[str] = "extract"
    subject: ClassVar[str] = "report_id"
    results: ClassVar = (Reading, Section, Sentence, Finding, Modifier)
    batch: ClassVar[int] = 200
    revision: ClassVar[int] = 2

    @property
    def words(self) -> Path | None:
        """The user's own lexicon."""
        return Path(self.lexicon) if self.lexicon else None

    def resolve(self, session: Session, home: Path) -> Self:
        """With the lexicon's digest; its concepts and places are written down, so that findings can refer to them."""
        try:
            languages = lexicon.languages(self.words)
            concepts, sites = lexicon.concepts(self.words), lexicon.sites(self.words)
            chosen = languages if self.language == AUTO else (self.language,)
            versions = [lexicon.version(language, self.words) for language in chosen]
        except (OSError, ValueError) as error:
            raise Refused("lexicon", str(error)) from None
        if not set(chosen) <= set(languages):
            known = ", ".join(languages)
            raise Refused("language", f"there are no words for '{self.language}'; use 'auto', or one of {known}")
        before = [*session.scalars(select(Concept)), *session.scalars(select(Site))]  # so that merging asks no more
        for thing in (*(Concept(**asdict(c)) for c in concepts), *(Site(**asdict(p)) for p in sites)):
            session.merge(thing)
        del before
        version = versions[0] if len(versions) == 1 else hashlib.sha256("".join(versions).encode()).hexdigest()[:16]
        return replace(super().resolve(session, home), lexicon_version=version)

    def subjects(self) -> Subjects:
        """Every report; where one language is asked for, those that may be in it."""
        reports = select(Report.id, literal("")).where(Report.status != "cancelled")
        return reports if self.language == AUTO else reports.where(Report.language.in_((self.language, "")))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Report id to text, and to the language that its delivery names."""
        query = select(Report.id, VaultReport.text, Report.language).join(VaultReport).where(Report.id.in_(ids))
        return {report: (words, language) for report, words, language in session.execute(query)}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Report id to nlp.values.Reading, or to why it cannot be read."""
        return read_reports(inputs, self.language, self.words, self.lexicon_version)

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row for each reading, section, sentence, finding, and modifier of a finding."""
        readings, sections, sentences, findings, modifiers = [], [], [], [], []
        for report_id, reading in outputs.items():
            common = {"run_id": self.run_id, "report_id": report_id}
            readings.append(common | {"language": reading.language})
            sections += [common | {"start": s.start, "end": s.end, "name": s.name} for s in reading.sections]
            sentences += [common | {"start": s.start, "end": s.end} for s in reading.sentences]
            for mention in reading.mentions:
                findings.append(common | {name: getattr(mention, name) for name in _SAME})
                findings[-1]["concept_id"] = mention.concept
                own = common | {"concept_id": mention.concept, "finding_start": mention.start}
                modifiers += [
                    own | {"kind": told.kind, "value": told.value, "start": told.start, "end": told.end}
                    for told in mention.evidence
                ]
        insert_rows(session, Reading, readings)
        insert_rows(session, Section, sections)
        insert_rows(session, Sentence, sentences)
        insert_rows(session, Finding, findings)
        insert_rows(session, Modifier, modifiers)


# columns of Finding that a mention has under the same name, and those that labels are made from
_SAME = tuple(name for name in Mention._fields if name in Finding.__table__.columns)
_SAID = tuple("concept_id" if f.name == "concept" else f.name for f in fields(Said))


@dataclass(frozen=True)
class Classify(Stage):
    """Let a text classifier read the reports as well, learned from the findings in other patients' reports.

    Where the two readers disagree, a person should look: `phenotype disagreements` lists them."""

    findings: str = run_of("extract", "the run whose findings are learned from")
    least: int = knob(20, "how many reports must assert a concept for it to be learned")
    strength: float = knob(10.0, "of the classifier: the inverse of its regularisation")
    upstream: str = knob("", "a digest of what the run built upon had done", hidden=True)

    name: ClassVar[str] = "classify"
    subject: ClassVar[str] = ""  # all that the run has stored
    results: ClassVar = (TextScore,)

    def resolve(self, session: Session, home: Path) -> Self:
        """With the findings known, and what was read: new reports make a new run."""
        if self.least < 2 or self.strength <= 0:
            raise Refused("classify", "'least' must be 2 or more, and 'strength' more than nothing")
        stage = super().resolve(session, home)
        return replace(stage, upstream=done_by(session, [stage.findings]))

    def subjects(self) -> Subjects:
        """One: all reports that were read."""
        return select(literal(self.run_id), literal(""))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The reports by sentences with what was found in them; what each concept is a kind of; those to learn."""
        concepts = session.execute(select(Concept.id, Concept.parent, Concept.category).order_by(Concept.id)).all()
        return {
            ids[0]: (
                {row.report: as_read(row) for row in reports_of(session, self.findings, _SAID)},
                {row.id: row.parent for row in concepts},
                [row.id for row in concepts if row.category in PATHOLOGY],
            )
        }

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Report id to its scores."""
        return {
            run: classify(reports, parents, concepts, least=self.least, strength=self.strength)
            for run, (reports, parents, concepts) in inputs.items()
        }

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row for each report and concept that has something to say."""
        for scores in outputs.values():
            rows = (
                {"run_id": self.run_id, "report_id": report, "concept_id": s.concept, "said": s.said}
                | {"probability": s.probability}
                for report, own in scores.items()
                for s in own
            )
            insert_rows(session, TextScore, rows)


@dataclass(frozen=True)
class LabelStudies(Stage):
    """Say for each study what its reports say of each concept: present, absent or uncertain."""

    findings: str = run_of("extract", "the run whose findings are used")
    second: str = knob(
        "",
        "the run of 'classify' that has a say in the confidence; nothing for the newest on these findings, or 'none'",
    )

    name: ClassVar[str] = "label"
    subject: ClassVar[str] = "study_id"
    results: ClassVar = (Label,)
    batch: ClassVar[int] = 500
    revision: ClassVar[int] = 2

    def resolve(self, session: Session, home: Path) -> Self:
        """With both readers known; there need not be a second."""
        stage = super().resolve(session, home)
        if self.second == "none":
            return replace(stage, second="")
        if self.second:
            return replace(stage, second=find_run(session, "classify", self.second))
        fruitful = exists().where(Task.run_id == Run.id, Task.state == "done")
        runs = select(Run).where(Run.stage == "classify", fruitful).order_by(Run.opened_at.desc(), Run.id)
        fitting = (run.id for run in session.scalars(runs) if run.recipe.get("findings") == stage.findings)
        return replace(stage, second=next(fitting, ""))

    def subjects(self) -> Subjects:
        """Studies with reports that were read; one whose current reports are others since is labelled again."""
        read = and_(Task.run_id == self.findings, Task.state == "done", Task.subject_id == Report.id)
        counted = cast(func.count(CURRENT.c.id), String)
        version = counted + func.coalesce(func.min(CURRENT.c.id) + func.max(CURRENT.c.id), "")
        return (
            select(Report.study_id, version)
            .join(Task, read)
            .outerjoin(CURRENT, CURRENT.c.id == Report.id)
            .where(Report.study_id.is_not(None))
            .group_by(Report.study_id)
        )

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Study id to its mentions, what every concept is a kind of, and how probable the second reader finds each."""
        query = select(Report.study_id, *(getattr(Finding, name) for name in _SAID)).join(
            Report, Report.id == Finding.report_id
        )
        query = query.join(CURRENT, CURRENT.c.id == Report.id)
        query = query.where(Finding.run_id == self.findings, Report.study_id.in_(ids))
        parents = {row.id: row.parent for row in session.execute(select(Concept.id, Concept.parent))}
        mentions: dict[str, list[Said]] = {study: [] for study in ids}
        rows: Iterable[Any] = session.execute(query.order_by(Finding.report_id, Finding.start, Finding.concept_id))
        for study, *said in rows:
            mentions[study].append(Said(*said))
        scores = select(Report.study_id, TextScore.concept_id, func.max(TextScore.probability))
        scores = scores.join(Report, Report.id == TextScore.report_id).join(CURRENT, CURRENT.c.id == Report.id)
        scores = scores.where(TextScore.run_id == self.second, Report.study_id.in_(ids))
        second: dict[str, dict[str, float]] = {study: {} for study in ids}
        pairs: Iterable[Any] = session.execute(scores.group_by(Report.study_id, TextScore.concept_id))
        for study, concept, probability in pairs:
            second[study][concept] = probability
        return {study: (own, parents, second[study]) for study, own in mentions.items()}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Study id to its labels."""
        return {study: label_study(*said) for study, said in inputs.items()}

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row for each study and concept."""
        rows = []
        for study, labels in outputs.items():
            for label in labels:
                row = asdict(label) | {"run_id": self.run_id, "study_id": study}
                row["concept_id"] = row.pop("concept")
                rows.append(row)
        insert_rows(session, Label, rows)


@dataclass(frozen=True)
class SelectCohort(Stage):
    """Freeze a selection of studies under a name, split by patient into those to learn from and those kept aside."""

    called: str = knob("all", "the cohort's name")
    reports: str = knob("any", "'any' study, with or without a report; or only studies reported 'normal'")
    images: str = knob("radiograph", "studies with a 'radiograph', a 'volume', or 'any' image")
    holdout: int = knob(2, "how many of the ten folds of patients are kept aside")
    labels: str = run_of("label", "the run whose labels say what is normal")
    members: str = knob("", "a digest of the studies selected", hidden=True)

    name: ClassVar[str] = "cohort"
    subject: ClassVar[str] = "id"

    @property
    def label(self) -> str:
        """The cohort's name."""
        return self.called

    def resolve(self, session: Session, home: Path) -> Self:
        """With the studies selected now. New data makes a new cohort; an old one never changes."""
        if self.reports not in ("any", "normal"):
            raise Refused("reports", f"'{self.reports}' selects nothing; use 'any' or 'normal'")
        if self.images not in ("any", "radiograph", "volume"):
            raise Refused("images", f"'{self.images}' is no kind of image; use 'radiograph', 'volume' or 'any'")
        if not 0 <= self.holdout <= 9:
            raise Refused("holdout", f"{self.holdout} of ten folds cannot be kept aside; use 0 to 9")
        stage = super().resolve(session, home) if self.reports == "normal" else replace(self, home=str(home))
        members = list(session.scalars(stage._selection()))
        if not members:
            raise Refused("cohort", f"no study fits: images '{self.images}', reports '{self.reports}'")
        return replace(stage, members=hashlib.sha256("".join(members).encode()).hexdigest()[:16])

    def _selection(self) -> Subjects:
        query = select(Study.id).order_by(Study.id)
        image = select(Image.id).where(Image.study_id == Study.id)
        if self.images != "any":
            image = image.where(Image.kind == self.images)
        query = query.where(exists(image))
        if self.reports == "normal":
            labels = select(Label.study_id).where(Label.run_id == self.labels, Label.study_id == Study.id)
            seen = labels.join(Concept, Concept.id == Label.concept_id)
            seen = seen.where(or_(Label.value == "present", Label.value == "uncertain"), Concept.category == "finding")
            query = query.where(exists(labels), ~exists(seen))
        return query

    def subjects(self) -> Subjects:
        """One: the selection."""
        return select(literal(self.run_id), literal(""))

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """The studies selected, each with the fold of its patient."""
        folds = self._selection().join(Patient, Patient.id == Study.patient_id).add_columns(Patient.fold)
        return {ids[0]: [tuple(row) for row in session.execute(folds)]}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Study to split; a patient is on one side only."""
        return {
            cohort: {study: "holdout" if fold >= 10 - self.holdout else "train" for study, fold in studies}
            for cohort, studies in inputs.items()
        }

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """The cohort and its studies."""
        for cohort, splits in outputs.items():
            row = {"id": cohort, "name": self.called, "images": self.images, "size": len(splits)}
            insert_rows(session, Cohort, [row])
            rows = [{"cohort_id": cohort, "study_id": study, "split": split} for study, split in splits.items()]
            insert_rows(session, CohortStudy, rows)
