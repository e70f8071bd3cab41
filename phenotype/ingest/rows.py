"""What is read of a file as rows of the database: surrogates outside, names and numbers in the vault."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from db.tables import (
    Base,
    Instance,
    Patient,
    Report,
    Series,
    Study,
    VaultInstance,
    VaultPatient,
    VaultReport,
    VaultSeries,
    VaultStudy,
)
from phenotype.identity import content_hash, fold, shifted, surrogate
from phenotype.ingest.arrays import LOCALISER
from phenotype.ingest.contents import DicomFile, Record, day

# What tables may say of a picture: in place of a view anything may stand
_VIEWS = "PA AP LATERAL OBLIQUE AXIAL LLD RLD FRONTAL COSTAL CC MLO ML LM LMO XCC XCCL XCCM FB SIO ISO"
VIEWS = frozenset(_VIEWS.split())
PICTURE = "picture"  # stands for the SOP class of what has none
_ORDER = (Patient, VaultPatient, Study, VaultStudy, Series, VaultSeries, Instance, VaultInstance, Report, VaultReport)

Values = dict[str, Any]


@dataclass(slots=True)
class Rows:
    """Rows to insert, by table, parents before children; each key once."""

    of: dict[type[Base], dict[str, Values]] = field(default_factory=lambda: {table: {} for table in _ORDER})

    def add(self, table: type[Base], key: str, /, **values: Any) -> None:
        """A row under its key; the first one stays."""
        self.of[table].setdefault(key, values)


@dataclass(frozen=True, slots=True)
class Place:
    """The surrogates of an object, and of all that it belongs to."""

    patient: str
    study: str
    series: str
    instance: str
    pixels: str  # keyed hash


def place(key: bytes, content: str, head: DicomFile, namespace: str = "", person: tuple[str, ...] = ()) -> Place:
    """Where an object belongs.

    Its own surrogate comes from its UID, its pixels and what decides its place: an object sent again, in other bytes
    but with the same pixels and the same place, is the same instance; anything else under its UID is another.
    `content` is the file's keyed hash and stands for the pixels of what has none of its own. `namespace` keeps apart
    numbers that mean something within one delivery only.
    """
    patient, study, series = _place(
        key, namespace, head.issuer, head.patient_number, head.study_uid, head.series_uid, head.modality,
        head.series_number, head.frame_of_reference, person,
        *("" if head.study_uid else part for part in _examination(head)),
    )  # fmt: skip
    decides = (
        *(head.sop_class, head.number, head.rows, head.columns, head.frames, head.localiser),
        *(head.position, head.orientation, head.spacing, head.thickness, head.accession, head.study_date),
    )
    pixels = content_hash(key, head.pixel_digest) if head.pixel_digest else content
    instance = surrogate(key, "instance", head.sop_uid, pixels, patient, series, repr(decides))
    return Place(patient, study, series, instance, pixels)


def somebody_else(known: tuple[str, str], head: DicomFile) -> bool:
    """Whether an object under a patient's number is of another person than the one known by (birth date, sex): both the
    year of birth and the sex must differ, since either alone is mistyped often enough."""
    born, sex = known
    told = head.birth_date[:4]
    return bool(born and sex and told and head.sex) and born[:4] != told and sex != head.sex


@lru_cache(maxsize=4096)  # the thousand slices of a study ask the same
def _place(
    key: bytes, namespace: str, issuer: str, number: str, study_uid: str, series_uid: str, modality: str,
    series_number: str, frame_of_reference: str, person: tuple[str, ...], *examination: str,
) -> tuple[str, str, str]:  # fmt: skip
    where = (namespace, issuer, number, *person)
    if study_uid:
        study = surrogate(key, "study", study_uid)
    else:
        study = surrogate(key, "study without uid", *where, *examination)
    # nobody's number is nobody's: unknown patients are never taken for one another
    patient = surrogate(key, "patient", *where) if number else surrogate(key, "patient of", study)
    told = (series_uid,) if series_uid else (modality, series_number, frame_of_reference)
    series = surrogate(key, "series" if series_uid else "series without uid", study, *told)
    return patient, study, series


def add_object(rows: Rows, key: bytes, file_id: str, at: Place, head: DicomFile, owner: str) -> None:
    """The patient, study, series and instance of one object. `owner` is the patient whose study it is: of an object
    under another name no patient is written down."""
    if at.study not in rows.of[Study] and at.patient == owner:
        _add_study(rows, key, at, head)
    if at.series not in rows.of[Series]:
        rows.add(
            Series,
            at.series,
            id=at.series,
            study_id=at.study,
            modality=head.modality,
            modality_basis=head.modality_basis,
            body_part=head.body_part,
            body_part_basis=head.body_part_basis,
        )
        rows.add(
            VaultSeries, at.series, series_id=at.series, series_uid=head.series_uid, description=head.series_description
        )
    rows.add(
        Instance,
        at.instance,
        id=at.instance,
        series_id=at.series,
        file_id=file_id,
        sop_class=head.sop_class,
        number=head.number,
        rows=head.rows,
        columns=head.columns,
        frames=head.frames,
        transfer_syntax=head.transfer_syntax,
        pixel_hash=at.pixels,
        acquisition=head.acquisition,
        lossy=head.lossy,
        burned_in=head.burned_in,
        view=LOCALISER if head.localiser else head.view,
        view_basis=head.view_basis,
        position=_list(head.position),
        orientation=_list(head.orientation),
        spacing=_list(head.spacing),
        thickness=head.thickness,
    )
    rows.add(VaultInstance, at.instance, instance_id=at.instance, sop_instance_uid=head.sop_uid)


def _add_study(rows: Rows, key: bytes, at: Place, head: DicomFile) -> None:
    rows.add(Patient, at.patient, id=at.patient, sex=head.sex, fold=fold(key, at.patient))
    rows.add(
        VaultPatient,
        at.patient,
        patient_id=at.patient,
        record_number=head.patient_number,
        issuer=head.issuer,
        name=head.patient_name,
        birth_date=head.birth_date,
    )
    rows.add(
        Study,
        at.study,
        id=at.study,
        patient_id=at.patient,
        shifted_date=shifted(key, at.patient, day(head.study_date)),
        age_years=head.age_years,
    )
    rows.add(
        VaultStudy,
        at.study,
        study_id=at.study,
        study_uid=head.study_uid,
        accession=head.accession,
        study_date=head.study_date,
        study_time=head.study_time,
        description=head.study_description,
    )


def _examination(head: DicomFile) -> tuple[str, ...]:
    """What tells examinations apart where de-identification has taken their UIDs. With nothing left to go by, each
    object is one of its own: two people must never become one."""
    if head.accession:
        return "accession", head.accession
    if head.frame_of_reference:
        return "frame", head.frame_of_reference, head.study_date
    if head.patient_number and head.study_date:
        return "time", head.study_date, head.study_time
    return "object", head.sop_uid


def picture_head(uid: str, rows: int, columns: int, listed: Record, modality: str) -> DicomFile:
    """What a table says of a picture, in the shape of a header."""
    return DicomFile(
        sop_class=PICTURE,
        sop_uid=uid,
        study_uid="",
        series_uid="",
        transfer_syntax="",
        modality=modality,
        rows=rows,
        columns=columns,
        frames=1,
        patient_number=listed.patient,
        sex=listed.sex,
        age_years=listed.age_years,
        accession=listed.accession,
        study_date=listed.date,
        view=listed.view if listed.view in VIEWS else "",
    )


WHOLE = ("", "final")  # what is delivered without a word about its state counts as final


def report_id(key: bytes, row: Record) -> str:
    """The same words about the same examination are one report, in whatever format they came; other words about it are
    another, and so is the same text as a preliminary, corrected, added or cancelled version."""
    status = "" if row.status in WHOLE else row.status
    number = row.accession or row.study_uid
    about = [number] if number else ["", row.issuer, row.date]  # "normal" is said of one patient on many days
    return surrogate(key, "report", row.patient, *about, row.text, *([status] if status else []))


def thread_of(key: bytes, identity: str, row: Record) -> str:
    """What the versions of one report share: the source's name for it, or the examination where the source tells
    versions apart; a report of which neither is said is the only version of itself."""
    if row.key:
        return surrogate(key, "thread", row.key)
    about = row.accession or row.study_uid
    return surrogate(key, "thread about", row.patient, about) if row.status and about else identity


def add_report(rows: Rows, key: bytes, identity: str, file_id: str, row: Record, kind: str, language: str) -> None:
    """A report, not yet matched to a study."""
    rows.add(
        Report,
        identity,
        id=identity,
        study_id=None,
        file_id=file_id,
        match="unmatched",
        matched_by="",
        kind=kind,
        thread=thread_of(key, identity, row),
        ordinal=0,  # counted when reports are matched
        status=row.status,
        language=_language_of(row.language) or language,
        length=len(row.text),
    )
    rows.add(
        VaultReport,
        identity,
        report_id=identity,
        accession=row.accession,
        study_uid=row.study_uid,
        patient_number=row.patient,
        issuer=row.issuer,
        name=row.name,
        birth_date=row.birth,
        study_date=row.date,
        modality=row.modality,
        key=row.key,
        issued=row.issued,
        text=row.text,
    )


def _language_of(told: str) -> str:
    """A code of two letters, perhaps with a country; other words in its place may be anything, and are left out."""
    code = {"deu": "de", "ger": "de", "eng": "en"}.get(told, told).replace("_", "-")
    return code if re.fullmatch(r"[a-z]{2}(-[a-z]{2})?", code) else ""


def _list(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)
