"""Every table, in the order the data flows.

Glossary
    Export, ExportFile   a delivery of files, and each file in it: written down first, then worked through
    ExportRecord         one thing that a delivered file says: a report, or an image listed by its name
    Transfer             a series asked for from a live PACS, and what became of it
    Patient, Study, Series, Instance   as in DICOM; a Patient is a pseudonym
    Image                what is read as one array: a radiograph, or the stack of slices of one series
    Report               a version of the text written about a study; Section and Sentence are offsets into it
    Reading              that a report was read, and in which language
    Concept, Site        a finding or device, and a place in the body, of the lexicon, with their codes
    Finding              one concept that a report asserts, denies or doubts, with its place in the text
    Modifier             words that say something of a finding: its site, side, size, change ...
    TextScore            how probably a report asserts a concept, by a classifier that learned from other patients
    Label                what the findings of a study say of a concept: a value and a confidence
    Cohort               a named, frozen selection of studies, split by patient
    Region, Embedding    the parts of an Image that were looked at, and their vectors from one model
    Anomaly              how far an Image is from normal, and where
    Alignment, Organ     how an Image lies in the common space, and the organs that travelled onto it from the reference
    FollowUp, Track      an Image registered to the one before of the same patient, and places followed between them
    WeakLabel            how probable a concept is in a study, given all that several labellers say
    Labeller, Emission   how far each labeller is to be trusted; how reports word what is there and what is not
    TermMap              how strongly a concept is seen in each region of an image
    ExpertRegion         where a person has drawn a concept into an image; ExpertRecord: what became of each thing drawn
    Agreement            how well the maps of a concept agree with a person, or two persons with each other
    Phenotype, Membership, Enrichment   a cluster, who belongs to it, which concepts are over-represented in it
    Run, Task            one stage under one recipe; its outcome on one subject

Rules kept here
    Personal data (names, record numbers, dates, paths, UIDs, report text) stands in tables whose name begins with
    `vault`, and nowhere else. Every id is a keyed surrogate or a digest, made by the client: a stage that was killed
    and run again writes the same rows. Every result row has its Run and goes with it.
"""

from datetime import date, datetime
from typing import Any

from numpy.typing import NDArray
from sqlalchemy import JSON, CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, LargeBinary, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.types import Array, UtcTime


class Base(DeclarativeBase):
    """The tables. Constraints have names from the first migration on, so that SQLite can alter them later."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012  (SQLAlchemy reads it off the class)
        datetime: UtcTime,
        NDArray[Any]: Array,
        dict[str, Any]: JSON,
        list[float]: JSON(none_as_null=True),  # nothing is NULL, not the JSON text 'null'
    }


def _reference(column: str, **options: Any) -> Any:
    """A foreign key that goes with its parent."""
    return mapped_column(ForeignKey(column, ondelete="CASCADE"), **options)


def _one_of(name: str, *values: str) -> CheckConstraint:
    return CheckConstraint(f"{name} IN ({', '.join(repr(v) for v in values)})", name=name)


# ---------------------------------------------------------------- what was run


class Run(Base):
    """One stage under one recipe. The id is a digest of both, so the same recipe continues the same run."""

    __tablename__ = "run"
    __table_args__ = (
        _one_of("state", "running", "finished", "interrupted"),
        Index("ix_run_stage_label", "stage", "label"),
    )
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    stage: Mapped[str]
    label: Mapped[str] = mapped_column(default="")  # tells runs of one stage apart for people: a model, a cohort
    recipe: Mapped[dict[str, Any]]
    software: Mapped[dict[str, Any]]
    state: Mapped[str]
    started_at: Mapped[datetime]
    opened_at: Mapped[datetime]  # the last time it was started or continued: decides which run is current
    finished_at: Mapped[datetime | None]


class Task(Base):
    """The outcome of a run on one subject. A subject whose version changed since is done again."""

    __tablename__ = "task"
    __table_args__ = (_one_of("state", "done", "failed"),)
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    subject_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[str] = mapped_column(default="")
    state: Mapped[str]
    reason: Mapped[str | None]  # a code and a message without personal data
    traceback: Mapped[str | None]  # files, lines and functions; never values
    finished_at: Mapped[datetime]


# ---------------------------------------------------------------- what was delivered


class VaultKey(Base):
    """The secret from which surrogates and date shifts are made: one row, 32 random bytes, made with the database."""

    __tablename__ = "vault_key"
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary)


class Export(Base):
    """A delivery: a folder or an archive."""

    __tablename__ = "export"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str]  # folder, zip, tar, file; dicomweb, receiver: a folder that a live PACS fills
    registered_at: Mapped[datetime]


class VaultExport(Base):
    """Where a delivery lies."""

    __tablename__ = "vault_export"
    export_id: Mapped[str] = _reference("export.id", primary_key=True)
    path: Mapped[str]
    origin: Mapped[str] = mapped_column(default="")  # of what a live PACS sent: its address and what was asked for


class ExportFile(Base):
    """A file of a delivery, in exactly one state."""

    __tablename__ = "export_file"
    __table_args__ = (
        _one_of("state", "found", "ingested", "duplicate", "conflict", "quarantined", "ignored"),
        Index("ix_export_file_state", "state"),
        Index("ix_export_file_content_hash", "content_hash"),
    )
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    export_id: Mapped[str] = _reference("export.id", index=True)
    size: Mapped[int]  # bytes
    # dicom, picture, or the format of its reports; unread: its name decided; empty until read
    kind: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(default="found")
    reason: Mapped[str] = mapped_column(default="")
    content_hash: Mapped[str | None]  # keyed: equal for equal bytes, of no use without the key
    same_as: Mapped[str | None]  # the file that a duplicate or conflict repeats


class VaultExportFile(Base):
    """Where a file lies: a path, and the member where the path is an archive."""

    __tablename__ = "vault_export_file"
    file_id: Mapped[str] = _reference("export_file.id", primary_key=True)
    path: Mapped[str]
    member: Mapped[str] = mapped_column(default="")


class ExportRecord(Base):
    """One thing that a delivered file says (a row of a table, a message, a resource), in exactly one state."""

    __tablename__ = "export_record"
    __table_args__ = (_one_of("state", "ingested", "duplicate", "conflict", "quarantined", "ignored"),)
    file_id: Mapped[str] = _reference("export_file.id", primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # counted from 1, the header left out
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    report_id: Mapped[str | None]


class VaultListedImage(Base):
    """What a delivered table says of a picture (PNG, JPEG) that has no header of its own."""

    __tablename__ = "vault_listed_image"
    export_id: Mapped[str] = _reference("export.id", primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)  # the file's name as the table gives it
    accession: Mapped[str]
    patient_number: Mapped[str]
    sex: Mapped[str] = mapped_column(default="")
    age_years: Mapped[float | None]
    view: Mapped[str] = mapped_column(default="")
    study_date: Mapped[str] = mapped_column(default="")


class Transfer(Base):
    """A series asked for from a live PACS. It is received only when every instance was read back from the disk."""

    __tablename__ = "transfer"
    __table_args__ = (_one_of("state", "wanted", "received", "failed"),)
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    export_id: Mapped[str] = _reference("export.id", index=True)
    state: Mapped[str] = mapped_column(default="wanted")
    reason: Mapped[str] = mapped_column(default="")  # a code; of the last attempt that failed
    expected: Mapped[int | None]  # instances, as the PACS counts them
    received: Mapped[int] = mapped_column(default=0)  # instances that lie on the disk and were read back
    attempts: Mapped[int] = mapped_column(default=0)
    changed_at: Mapped[datetime]


class VaultTransfer(Base):
    """What the PACS calls a series that was asked for."""

    __tablename__ = "vault_transfer"
    transfer_id: Mapped[str] = _reference("transfer.id", primary_key=True)
    study_uid: Mapped[str]
    series_uid: Mapped[str]


class VaultAccess(Base):
    """Who looked at personal data, when, and by which way: paths of files, texts of reports."""

    __tablename__ = "vault_access"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    who: Mapped[str]  # the account of the operating system
    way: Mapped[str]  # the command or route
    what: Mapped[str]  # surrogates and counts of what was shown


# ---------------------------------------------------------------- who and what was examined


class Patient(Base):
    """A pseudonym. `fold` (0-9) is fixed before anything is learned; every split follows it."""

    __tablename__ = "patient"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    sex: Mapped[str] = mapped_column(default="")  # F, M, O or empty
    fold: Mapped[int]


class VaultPatient(Base):
    """Who a pseudonym is."""

    __tablename__ = "vault_patient"
    patient_id: Mapped[str] = _reference("patient.id", primary_key=True)
    record_number: Mapped[str]
    issuer: Mapped[str] = mapped_column(default="")
    name: Mapped[str] = mapped_column(default="")
    birth_date: Mapped[str] = mapped_column(default="")


class Study(Base):
    """An examination. `shifted_date` keeps the intervals between a patient's studies, not the dates."""

    __tablename__ = "study"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    patient_id: Mapped[str] = _reference("patient.id", index=True)
    shifted_date: Mapped[date | None]
    age_years: Mapped[float | None]


class VaultStudy(Base):
    """What a study is called in the hospital."""

    __tablename__ = "vault_study"
    study_id: Mapped[str] = _reference("study.id", primary_key=True)
    study_uid: Mapped[str]
    accession: Mapped[str] = mapped_column(index=True)
    study_date: Mapped[str] = mapped_column(default="")
    study_time: Mapped[str] = mapped_column(default="")
    description: Mapped[str] = mapped_column(default="")


class Series(Base):
    """One acquisition of a study."""

    __tablename__ = "series"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    study_id: Mapped[str] = _reference("study.id", index=True)
    modality: Mapped[str]
    # header; class: the SOP class says otherwise, and counts; secondary: a capture that names where it was taken
    modality_basis: Mapped[str] = mapped_column(default="")
    body_part: Mapped[str] = mapped_column(default="")
    # header, description (the header is silent), both, contradicted (the description counts); empty: nothing is said
    body_part_basis: Mapped[str] = mapped_column(default="")


class VaultSeries(Base):
    """What a series is called in the hospital."""

    __tablename__ = "vault_series"
    series_id: Mapped[str] = _reference("series.id", primary_key=True)
    series_uid: Mapped[str]
    description: Mapped[str] = mapped_column(default="")


class Instance(Base):
    """One object of a series (a radiograph, a slice, a multi-frame), with what is needed to put slices in order."""

    __tablename__ = "instance"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    series_id: Mapped[str] = _reference("series.id", index=True)
    file_id: Mapped[str] = _reference("export_file.id", index=True)
    sop_class: Mapped[str]  # the keyword of the SOP class, or "picture"
    number: Mapped[int | None]
    rows: Mapped[int]
    columns: Mapped[int]
    frames: Mapped[int] = mapped_column(default=1)
    transfer_syntax: Mapped[str] = mapped_column(default="")  # its UID; empty for a picture
    pixel_hash: Mapped[str | None]  # keyed: equal for equal stored pixels, whatever the header says
    acquisition: Mapped[str] = mapped_column(default="")  # numbers that tell stacks in one series apart
    lossy: Mapped[bool] = mapped_column(default=False)  # was compressed with loss at some time
    burned_in: Mapped[str] = mapped_column(
        default=""
    )  # text in the pixels: declared, denied, likely (by kind), or empty
    view: Mapped[str] = mapped_column(default="")  # PA, AP, LATERAL ...
    view_basis: Mapped[str] = mapped_column(default="")  # header, code, description, contradicted; empty
    position: Mapped[list[float] | None]  # ImagePositionPatient, mm
    orientation: Mapped[list[float] | None]  # ImageOrientationPatient, six direction cosines
    spacing: Mapped[list[float] | None]  # between rows, between columns, mm
    thickness: Mapped[float | None]  # mm


class VaultInstance(Base):
    """The UID of an object."""

    __tablename__ = "vault_instance"
    instance_id: Mapped[str] = _reference("instance.id", primary_key=True)
    sop_instance_uid: Mapped[str] = mapped_column(index=True)


class Image(Base):
    """What is read as one array."""

    __tablename__ = "image"
    __table_args__ = (_one_of("kind", "radiograph", "volume", "frames"),)
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    run_id: Mapped[str] = _reference("run.id", index=True)
    series_id: Mapped[str] = _reference("series.id", index=True)
    study_id: Mapped[str] = _reference("study.id", index=True)
    kind: Mapped[str]
    modality: Mapped[str]
    view: Mapped[str] = mapped_column(default="")
    slices: Mapped[int]
    rows: Mapped[int]
    columns: Mapped[int]
    spacing: Mapped[list[float] | None]  # slices, rows, columns (a radiograph: rows, columns), mm
    orientation: Mapped[list[float] | None]
    left_out: Mapped[int] = mapped_column(default=0)  # instances of the series that do not belong to this array
    left_out_reasons: Mapped[dict[str, Any]]  # reason -> how many of them


class ImageInstance(Base):
    """The instances of an image, in order."""

    __tablename__ = "image_instance"
    image_id: Mapped[str] = _reference("image.id", primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[str] = _reference("instance.id", index=True)


class Report(Base):
    """A version of the text about a study; the text itself is in the vault. Versions of one report share a thread."""

    __tablename__ = "report"
    __table_args__ = (
        _one_of("match", "matched", "unmatched", "ambiguous"),
        _one_of("status", "", "preliminary", "final", "corrected", "addendum", "cancelled"),
        Index("ix_report_thread_ordinal", "thread", "ordinal"),
    )
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    study_id: Mapped[str | None] = _reference("study.id", index=True)
    file_id: Mapped[str] = _reference("export_file.id", index=True)
    match: Mapped[str] = mapped_column(default="unmatched")
    matched_by: Mapped[str] = mapped_column(default="")  # study_uid, accession, date; empty where it is not matched
    kind: Mapped[str] = mapped_column(default="table")  # the format that it came in
    thread: Mapped[str] = mapped_column(String(16))  # the same for all versions of one report
    ordinal: Mapped[int] = mapped_column(default=0)  # of the version in its thread, from 0
    status: Mapped[str] = mapped_column(default="")  # empty where the delivery says nothing: then it counts as final
    language: Mapped[str] = mapped_column(default="")  # as the delivery says; mostly it says nothing
    length: Mapped[int]  # characters


class VaultReport(Base):
    """The words of a report. Everything else quotes it by offsets, so that they go when this row goes."""

    __tablename__ = "vault_report"
    report_id: Mapped[str] = _reference("report.id", primary_key=True)
    accession: Mapped[str] = mapped_column(index=True)
    study_uid: Mapped[str] = mapped_column(default="", index=True)
    patient_number: Mapped[str] = mapped_column(default="")
    issuer: Mapped[str] = mapped_column(default="")  # of the patient's number
    name: Mapped[str] = mapped_column(default="")  # of the patient, as this source writes it
    birth_date: Mapped[str] = mapped_column(default="")
    study_date: Mapped[str] = mapped_column(default="")
    modality: Mapped[str] = mapped_column(default="")
    key: Mapped[str] = mapped_column(default="")  # what the source calls the report, whatever its version
    issued: Mapped[str] = mapped_column(default="")  # when this version was written, as text that sorts
    text: Mapped[str]


# ---------------------------------------------------------------- what the reports say


class Reading(Base):
    """A report that was read, and the language it was read in."""

    __tablename__ = "reading"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    report_id: Mapped[str] = _reference("report.id", primary_key=True, index=True)
    language: Mapped[str]


class Section(Base):
    """A section of a report, by offsets."""

    __tablename__ = "section"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    report_id: Mapped[str] = _reference("report.id", primary_key=True, index=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    end: Mapped[int]
    name: Mapped[str]


class Sentence(Base):
    """A sentence of a report, by offsets."""

    __tablename__ = "sentence"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    report_id: Mapped[str] = _reference("report.id", primary_key=True, index=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    end: Mapped[int]


class Concept(Base):
    """A concept of the lexicon; codes are empty where none could be verified."""

    __tablename__ = "concept"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    category: Mapped[str]
    region: Mapped[str] = mapped_column(default="")  # of the body: chest, abdomen ...
    parent: Mapped[str] = mapped_column(default="")
    radlex: Mapped[str] = mapped_column(default="")
    mesh: Mapped[str] = mapped_column(default="")
    snomed: Mapped[str] = mapped_column(default="")


class Site(Base):
    """A place in the body, and the place that it is part of."""

    __tablename__ = "site"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    kind: Mapped[str]  # lobe, zone, segment, bone, organ ...
    parent: Mapped[str] = mapped_column(default="")
    radlex: Mapped[str] = mapped_column(default="")
    snomed: Mapped[str] = mapped_column(default="")


class Finding(Base):
    """One mention of a concept in a report: what is said of it, where in the text, and by which rule that was read."""

    __tablename__ = "finding"
    __table_args__ = (
        _one_of("assertion", "present", "absent", "uncertain"),
        _one_of("temporality", "current", "historical", "hypothetical"),
        _one_of("experiencer", "patient", "other"),
        Index("ix_finding_concept_id_assertion", "concept_id", "assertion"),
    )
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    report_id: Mapped[str] = _reference("report.id", primary_key=True, index=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    end: Mapped[int]
    assertion: Mapped[str]
    temporality: Mapped[str]
    certainty: Mapped[float]
    section: Mapped[str]
    sentence_start: Mapped[int]
    sentence_end: Mapped[int]
    cue_start: Mapped[int | None]
    cue_end: Mapped[int | None]
    rule: Mapped[str] = mapped_column(default="")
    side: Mapped[str] = mapped_column(default="")
    site: Mapped[str] = mapped_column(default="")  # the most precise; all of them are Modifiers
    severity: Mapped[str] = mapped_column(default="")
    size_mm: Mapped[float | None]
    experiencer: Mapped[str] = mapped_column(default="patient")
    implied: Mapped[bool] = mapped_column(default=False)  # denied by a normal statement: "the heart is normal"
    prior_size_mm: Mapped[float | None]
    count: Mapped[str] = mapped_column(default="")  # how many: "2", "several"
    change: Mapped[str] = mapped_column(default="")  # since the examination before


class Modifier(Base):
    """Words that say something of a finding, and what they were read as."""

    __tablename__ = "modifier"
    __table_args__ = (
        ForeignKeyConstraint(
            ["run_id", "report_id", "finding_start", "concept_id"],
            ["finding.run_id", "finding.report_id", "finding.start", "finding.concept_id"],
            ondelete="CASCADE",
        ),
        Index("ix_modifier_kind_value", "kind", "value"),
    )
    run_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    report_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    finding_start: Mapped[int] = mapped_column(primary_key=True)
    concept_id: Mapped[str] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)  # site, side, severity, size, prior_size, count, change, prior
    value: Mapped[str] = mapped_column(primary_key=True)  # the id of a site, "left", "12.0x8.0" (mm), "new" ...
    end: Mapped[int]


class TextScore(Base):
    """What a classifier that learned from the findings of other patients makes of the words of a report.

    Pairs that the report does not speak of and the classifier finds improbable have no row."""

    __tablename__ = "text_score"
    __table_args__ = (_one_of("said", "", "present", "absent", "uncertain"),)
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    report_id: Mapped[str] = _reference("report.id", primary_key=True, index=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    said: Mapped[str]  # what the findings of the report add up to; empty where there are none
    probability: Mapped[float]


class Label(Base):
    """What the reports of a study say of a concept, with the confidence that it is there."""

    __tablename__ = "label"
    __table_args__ = (
        _one_of("value", "present", "absent", "uncertain"),
        Index("ix_label_concept_id_value", "concept_id", "value"),
    )
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    study_id: Mapped[str] = _reference("study.id", primary_key=True, index=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    value: Mapped[str]
    confidence: Mapped[float]
    side: Mapped[str] = mapped_column(default="")
    mentions: Mapped[int]
    implied: Mapped[bool] = mapped_column(default=False)  # said of a narrower concept alone


# ---------------------------------------------------------------- what the images show


class Cohort(Base):
    """A frozen selection of studies; its id is that of the run that selected them."""

    __tablename__ = "cohort"
    id: Mapped[str] = _reference("run.id", primary_key=True)
    name: Mapped[str]
    images: Mapped[str]  # the kind of image that is meant: radiograph, volume or any
    size: Mapped[int]


class CohortStudy(Base):
    """A study of a cohort, and the part that its patient plays: learned from, or kept aside."""

    __tablename__ = "cohort_study"
    __table_args__ = (_one_of("split", "train", "holdout"),)
    cohort_id: Mapped[str] = _reference("cohort.id", primary_key=True)
    study_id: Mapped[str] = _reference("study.id", primary_key=True, index=True)
    split: Mapped[str]


class Region(Base):
    """The regions of an image under one recipe: one row an image, since a row a region costs nine times the time."""

    __tablename__ = "region"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    count: Mapped[int]
    slices: Mapped[NDArray[Any]]  # (n,) int32: the slice of the image that each region lies in; 0 for a radiograph
    boxes: Mapped[NDArray[Any]]  # (n, 4) float32: top, left, bottom, right as fractions of the image's rows and columns
    # of supervoxels: (slices, rows, columns) int32 over the image, coarser than it: 0, or the region counted from 1
    labels: Mapped[NDArray[Any] | None] = mapped_column(Array)


class Embedding(Base):
    """The vectors of an image and of its regions, in the order of Region."""

    __tablename__ = "embedding"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    whole: Mapped[NDArray[Any]]  # (d,) float32
    regions: Mapped[NDArray[Any]]  # (n, e) float32


class Anomaly(Base):
    """How far an image is from the normal that a model has learned, and where."""

    __tablename__ = "anomaly"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    score: Mapped[float]
    p_value: Mapped[float | None]  # against normal studies kept aside
    peak_slice: Mapped[int]
    peak_row: Mapped[float]  # as a fraction of the image's rows
    peak_column: Mapped[float]
    map: Mapped[NDArray[Any]]  # (rows, columns) float16 of the slice with the peak, over the whole image


class Alignment(Base):
    """How an image lies in the common space of a reference.

    A grid holds, for points spread evenly over an array from corner to corner, where they lie in the other one, along
    (slices,) rows and columns as fractions; between points it is linear.
    """

    __tablename__ = "alignment"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    route: Mapped[str]  # direct, the template it went by, or the fallback that was taken
    quality: Mapped[float]  # 0 to 1
    accepted: Mapped[bool]  # the quality is at least the recipe's threshold
    reason: Mapped[str] = mapped_column(default="")  # why not, or what a fallback was taken for
    forward: Mapped[NDArray[Any]]  # over the image: its points in the reference, float32 (..., 2 or 3)
    backward: Mapped[NDArray[Any]]  # over the reference: its points in the image
    low: Mapped[list[float] | None]  # the corners of the part of the reference that is in view
    high: Mapped[list[float] | None]


class Organ(Base):
    """An organ that travelled from the reference onto an image."""

    __tablename__ = "organ"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    organ: Mapped[str] = mapped_column(primary_key=True)
    volume_ml: Mapped[float | None]  # None where the image has no size in mm
    share: Mapped[float]  # of the organ in the reference that is in view, 0 to 1
    low: Mapped[list[float] | None]  # its box in the image, as fractions
    high: Mapped[list[float] | None]


class FollowUp(Base):
    """An image registered to the one before of the same patient."""

    __tablename__ = "follow_up"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    earlier_id: Mapped[str] = _reference("image.id", index=True)
    days: Mapped[int | None]  # between the two; None where a study has no date
    route: Mapped[str]
    quality: Mapped[float]
    accepted: Mapped[bool]


class Track(Base):
    """A place where a concept is seen, followed from the earlier image to the later; places are fractions."""

    __tablename__ = "track"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    earlier_id: Mapped[str] = _reference("image.id", index=True)
    slice: Mapped[int]
    row: Mapped[float]
    column: Mapped[float]
    earlier_slice: Mapped[int]
    earlier_row: Mapped[float]
    earlier_column: Mapped[float]
    size_mm: Mapped[float | None]
    earlier_size_mm: Mapped[float | None]
    score: Mapped[float | None]
    earlier_score: Mapped[float | None]


# ---------------------------------------------------------------- what they say of each other


class WeakLabel(Base):
    """How probable a concept is in a study, given all that several labellers say of it."""

    __tablename__ = "weak_label"
    __table_args__ = (
        _one_of("state", "present", "possible", "denied", "unmentioned"),
        Index("ix_weak_label_concept_id_state", "concept_id", "state"),
    )
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    study_id: Mapped[str] = _reference("study.id", primary_key=True, index=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    state: Mapped[str]  # what the reports say
    probability: Mapped[float]


class Labeller(Base):
    """How far a labeller is to be trusted on a concept, learned from how labellers agree."""

    __tablename__ = "labeller"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    labeller: Mapped[str] = mapped_column(primary_key=True)
    sensitivity: Mapped[float]  # where it has a say
    specificity: Mapped[float]
    coverage: Mapped[float]  # the share of studies on which it has a say


class Emission(Base):
    """How reports word a concept that is there, and one that is not: learned from reports and images together."""

    __tablename__ = "emission"
    __table_args__ = (_one_of("state", "present", "possible", "denied", "unmentioned"),)
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    state: Mapped[str] = mapped_column(primary_key=True)
    if_present: Mapped[float]  # probability of this wording where the concept is there; the four add up to 1
    if_absent: Mapped[float]


class TermEvidence(Base):
    """Whether the map of a concept carries anything: how well its scores tell apart studies not learned from."""

    __tablename__ = "term_evidence"
    __table_args__ = (
        _one_of("verdict", "evidence", "no evidence", "too few"),
        _one_of("local", "", "local", "not local"),
    )
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    positives: Mapped[int]
    studies: Mapped[int]
    auroc: Mapped[float | None]
    auroc_low: Mapped[float | None]
    auroc_high: Mapped[float | None]
    verdict: Mapped[str]
    # local: the highest regions carry the term; not local: the image as a whole does, and its map means nothing
    local: Mapped[str] = mapped_column(default="")
    location_auroc: Mapped[float | None]  # of a map that knows of each region nothing but its place
    threshold: Mapped[float | None]  # the probability of an image from which on the term is called "here"
    deletion_ratio: Mapped[
        float | None
    ]  # median over called images: fall of the score, top regions against random ones


class TermMap(Base):
    """How strongly a concept is seen in each region of an image."""

    __tablename__ = "term_map"
    __table_args__ = (_one_of("call", "", "here", "not here", "undecided"),)
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    image_id: Mapped[str] = _reference("image.id", primary_key=True, index=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    score: Mapped[float]  # of the image, by a model that has not seen this patient
    peak_slice: Mapped[int]
    peak_row: Mapped[float]  # as a fraction of the image's rows
    peak_column: Mapped[float]
    side: Mapped[str] = mapped_column(default="")  # of the patient, where the projection tells
    regions: Mapped[NDArray[Any]]  # (n,) float32, in the order of Region: deviations from what is usual at each place
    probability: Mapped[float | None]  # that the image has the concept, calibrated on patients not learned from
    call: Mapped[str] = mapped_column(default="")
    # how far the image's score falls where the highest twentieth of the regions, or as many drawn at random, is
    # replaced by what is usual there
    deletion: Mapped[float | None]
    deletion_random: Mapped[float | None]


class ExpertRecord(Base):
    """What became of one thing that a file of expert regions holds."""

    __tablename__ = "expert_record"
    __table_args__ = (_one_of("state", "ingested", "quarantined"),)
    file_id: Mapped[str] = mapped_column(String(16), primary_key=True)  # a keyed digest of the file's bytes
    number: Mapped[int] = mapped_column(primary_key=True)
    reader: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")


class ExpertRegion(Base):
    """Where a person has drawn a concept into an image: a box, and a mask where there is one."""

    __tablename__ = "expert_region"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    file_id: Mapped[str] = mapped_column(String(16), index=True)
    image_id: Mapped[str] = _reference("image.id", index=True)
    concept_id: Mapped[str] = _reference("concept.id", index=True)
    reader: Mapped[str]
    slice: Mapped[int]
    top: Mapped[float]  # fractions of the image's rows and columns
    left: Mapped[float]
    bottom: Mapped[float]
    right: Mapped[float]
    mask: Mapped[NDArray[Any] | None] = mapped_column(Array)  # (rows, columns) bool over the whole slice, 512 at most


class Agreement(Base):
    """A figure of how well the maps of a concept agree with a person's regions, or two persons' with each other."""

    __tablename__ = "agreement"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)  # of the maps
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    reader: Mapped[str] = mapped_column(primary_key=True)
    against: Mapped[str] = mapped_column(primary_key=True)  # "map", or another reader
    figure: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    low: Mapped[float | None]
    high: Mapped[float | None]
    count: Mapped[int]


class Phenotype(Base):
    """A cluster of studies that nobody defined beforehand."""

    __tablename__ = "phenotype"
    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    run_id: Mapped[str] = _reference("run.id", index=True)
    number: Mapped[int]
    name: Mapped[str]  # its over-represented terms
    size: Mapped[int]
    stability: Mapped[float]  # mean Jaccard over bootstraps; 0.75 and more is called stable
    stable: Mapped[bool]


class Membership(Base):
    """Which phenotype a study belongs to."""

    __tablename__ = "membership"
    __table_args__ = (_one_of("split", "train", "holdout"),)
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    study_id: Mapped[str] = _reference("study.id", primary_key=True, index=True)
    phenotype_id: Mapped[str] = _reference("phenotype.id", index=True)
    probability: Mapped[float]
    split: Mapped[str]


class Enrichment(Base):
    """How much more often a concept is reported in a phenotype than elsewhere."""

    __tablename__ = "enrichment"
    run_id: Mapped[str] = _reference("run.id", primary_key=True)
    phenotype_id: Mapped[str] = _reference("phenotype.id", primary_key=True)
    concept_id: Mapped[str] = _reference("concept.id", primary_key=True)
    cases: Mapped[int]  # studies of the phenotype with the concept
    expected: Mapped[float]  # how many there would be if the concept did not care
    fold: Mapped[float]
    p_value: Mapped[float]
    q_value: Mapped[float]  # Benjamini-Hochberg over all pairs of the run
    replicated: Mapped[bool | None]  # seen again in the studies kept aside; empty where they are too few to tell


VAULT = frozenset(name for name in Base.metadata.tables if name.startswith("vault"))
