"""Extract, Label and Cohort: this room's door to the database."""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sqlalchemy import String, and_, cast, exists, func, literal, or_, select
from sqlalchemy.orm import Session

from db.tables import (
    Cohort,
    CohortStudy,
    Concept,
    Finding,
    Image,
    Label,
    Patient,
    Report,
    Section,
    Sentence,
    Study,
    Task,
    VaultReport,
)
from db.write import insert_rows
from nlp import lexicon
from phenotype.extraction.labels import Said, label_study
from phenotype.stage import Refused, Stage, Subjects, knob, run_of

if TYPE_CHECKING:
    from spacy.language import Language


@dataclass(frozen=True)
class Extract(Stage):
    """Read the reports: findings with their place in the text, what is said of them, and why."""

    language: str = knob("en", "the language of the reports")
    lexicon: str = knob("", "a folder of your own lexicon and rules, read after the built-in ones", recipe=False)
    lexicon_version: str = knob("", "a digest of all words and rules", hidden=True)

    name: ClassVar[str] = "extract"
    subject: ClassVar[str] = "report_id"
    results: ClassVar = (Section, Sentence, Finding)
    batch: ClassVar[int] = 200

    @property
    def label(self) -> str:
        """The language."""
        return self.language

    @property
    def words(self) -> Path | None:
        """The user's own lexicon."""
        return Path(self.lexicon) if self.lexicon else None

    def resolve(self, session: Session, home: Path) -> Self:
        """With the lexicon's digest; its concepts are written down, so that findings can refer to them."""
        try:
            known = lexicon.concepts(self.words)
            version = lexicon.version(self.language, self.words)
        except (OSError, ValueError) as error:
            raise Refused("lexicon", str(error)) from None
        for concept in known:
            session.merge(Concept(**asdict(concept)))
        return replace(super().resolve(session, home), lexicon_version=version)

    def subjects(self) -> Subjects:
        """Every report in this language."""
        return select(Report.id, literal("")).where(Report.language == self.language)

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Report id to text."""
        rows = session.execute(select(VaultReport.report_id, VaultReport.text).where(VaultReport.report_id.in_(ids)))
        return {row.report_id: row.text for row in rows}

    def compute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Report id to nlp.values.Reading."""
        from nlp.pipeline import read

        readings = read(_pipeline(self.language, self.words, self.lexicon_version), inputs.values())
        return dict(zip(inputs, readings, strict=True))

    def store(self, session: Session, outputs: dict[str, Any]) -> None:
        """One row for each section, sentence and finding."""
        sections, sentences, findings = [], [], []
        for report_id, reading in outputs.items():
            common = {"run_id": self.run_id, "report_id": report_id}
            sections += [common | asdict(s) for s in reading.sections]
            sentences += [common | asdict(s) for s in reading.sentences]
            for mention in reading.mentions:
                row = common | asdict(mention)
                row["concept_id"] = row.pop("concept")
                findings.append(row)
        insert_rows(session, Section, sections)
        insert_rows(session, Sentence, sentences)
        insert_rows(session, Finding, findings)


@cache
def _pipeline(language: str, words: Path | None, _version: str) -> "Language":
    # loaded once in each process; the version is there so that an edited lexicon is loaded anew
    from nlp.pipeline import load_pipeline

    return load_pipeline(language, words)


@dataclass(frozen=True)
class LabelStudies(Stage):
    """Say for each study what its reports say of each concept: present, absent or uncertain."""

    findings: str = run_of("extract", "the run whose findings are used")

    name: ClassVar[str] = "label"
    subject: ClassVar[str] = "study_id"
    results: ClassVar = (Label,)
    batch: ClassVar[int] = 500

    def subjects(self) -> Subjects:
        """Studies with reports that were read; one with a new report since is labelled again."""
        read = and_(Task.run_id == self.findings, Task.state == "done", Task.subject_id == Report.id)
        count = cast(func.count(Report.id), String)
        return (
            select(Report.study_id, count)
            .join(Task, read)
            .where(Report.study_id.is_not(None))
            .group_by(Report.study_id)
        )

    def read(self, session: Session, ids: list[str]) -> dict[str, Any]:
        """Study id to its mentions, and what every concept is a kind of."""
        columns = (
            Report.study_id,
            Finding.concept_id,
            Finding.assertion,
            Finding.temporality,
            Finding.certainty,
            Finding.section,
            Finding.side,
        )
        query = select(*columns).join(Report, Report.id == Finding.report_id)
        query = query.where(Finding.run_id == self.findings, Report.study_id.in_(ids))
        parents = {row.id: row.parent for row in session.execute(select(Concept.id, Concept.parent))}
        mentions: dict[str, list[Said]] = {study: [] for study in ids}
        rows: Iterable[Any] = session.execute(query.order_by(Finding.report_id, Finding.start, Finding.concept_id))
        for study, *said in rows:
            mentions[study].append(Said(*said))
        return {study: (own, parents) for study, own in mentions.items()}

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
