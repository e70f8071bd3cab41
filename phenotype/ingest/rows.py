"""What is read of a file as rows of the database: surrogates outside, names and numbers in the vault."""

from __future__ import annotations

from dataclasses import dataclass, field
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
from phenotype.ingest.arrays import LOCALISER
from phenotype.ingest.contents import DicomFile, Record, day
from phenotype.identity import content_hash, fold, shifted, surrogate

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


def add_object(rows: Rows, key: bytes, file_id: str, content: str, head: DicomFile, namespace: str = "") -> None:
    """The patient, study, series and instance of one object.

    `content` is the file's keyed hash: two objects of one UID and different content are two instances. `namespace`
    keeps apart numbers that mean something within one delivery only.
    """
    where = (namespace, head.issuer, head.patient_number)
    if head.study_uid:
        study_id = surrogate(key, "study", head.study_uid)
    else:
        study_id = surrogate(key, "study without uid", *where, *_examination(head))
    # nobody's number is nobody's: unknown patients are never taken for one another
    patient_id = surrogate(key, "patient", *where) if head.patient_number else surrogate(key, "patient of", study_id)
    told = (head.series_uid,) if head.series_uid else (head.modality, head.series_number, head.frame_of_reference)
    series_id = surrogate(key, "series" if head.series_uid else "series without uid", study_id, *told)
    instance_id = surrogate(key, "instance", head.sop_uid, content)

    rows.add(Patient, patient_id, id=patient_id, sex=head.sex, fold=fold(key, patient_id))
    rows.add(
        VaultPatient,
        patient_id,
        patient_id=patient_id,
        record_number=head.patient_number,
        issuer=head.issuer,
        name=head.patient_name,
        birth_date=head.birth_date,
    )
    rows.add(
        Study,
        study_id,
        id=study_id,
        patient_id=patient_id,
        shifted_date=shifted(key, patient_id, day(head.study_date)),
        age_years=head.age_years,
    )
    rows.add(
        VaultStudy,
        study_id,
        study_id=study_id,
        study_uid=head.study_uid,
        accession=head.accession,
        study_date=head.study_date,
        study_time=head.study_time,
        description=head.study_description,
    )
    rows.add(
        Series,
        series_id,
        id=series_id,
        study_id=study_id,
        modality=head.modality,
        modality_basis=head.modality_basis,
        body_part=head.body_part,
        body_part_basis=head.body_part_basis,
    )
    rows.add(
        VaultSeries, series_id, series_id=series_id, series_uid=head.series_uid, description=head.series_description
    )
    rows.add(
        Instance,
        instance_id,
        id=instance_id,
        series_id=series_id,
        file_id=file_id,
        sop_class=head.sop_class,
        number=head.number,
        rows=head.rows,
        columns=head.columns,
        frames=head.frames,
        transfer_syntax=head.transfer_syntax,
        pixel_hash=content_hash(key, head.pixel_digest) if head.pixel_digest else None,
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
    rows.add(VaultInstance, instance_id, instance_id=instance_id, sop_instance_uid=head.sop_uid)


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
        view=listed.view,
    )


def report_id(key: bytes, row: Record) -> str:
    """The same words about the same examination are one report; other words about it are another."""
    return surrogate(key, "report", row.patient, row.accession, row.text)


def thread_of(key: bytes, identity: str, row: Record) -> str:
    """What the versions of one report share; a report without a name of its own is the only version of itself."""
    return surrogate(key, "thread", row.patient, row.key) if row.key else identity


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
        language=row.language or language,
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


def _list(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)
