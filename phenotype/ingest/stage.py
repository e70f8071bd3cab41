"""The room's door to the database: files are written down, read and put together into images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sqlalchemy import String, case, cast, func, literal, or_, select
from sqlalchemy.orm import Session

from db.tables import ExportFile, Image, ImageInstance, Instance, Series, VaultExportFile
from db.write import insert_rows
from phenotype.executors import Compute
from phenotype.imaging.files import FileRef
from phenotype.ingest import sources
from phenotype.ingest.arrays import Assembled, InstanceRow, SeriesRow, assemble
from phenotype.ingest.contents import Read
from phenotype.ingest.ledger import UNREAD, Batch, Conservation, conservation, quarantine
from phenotype.ingest.matching import match_reports
from phenotype.ingest.registering import Registered, register
from phenotype.ingest.tables import COLUMNS
from phenotype.sandbox import Limits
from phenotype.stage import Failure, Refused, Stage, Subjects, knob

__all__ = ["Assemble", "Conservation", "Ingest", "Registered", "conservation", "match_reports", "register"]


@dataclass(frozen=True)
class Ingest(Stage):
    """Read every file that was written down: images, reports, lists of pictures."""

    columns: str = knob("", f"columns of report tables under other names, as in text=Befund; of {'/'.join(COLUMNS)}")
    language: str = knob("", "the language of the reports, as in 'de'; nothing lets `extract` find it out")
    names: str = knob("", "what the names of text files say, as in {patient}/{accession}.txt; nothing: the accession")
    pictures: str = knob("CR", "the modality of PNG and JPEG files, which do not say it")
    only: tuple[str, ...] | None = knob(None, "the deliveries that are meant", recipe=False, hidden=True)

    name: ClassVar[str] = "ingest"
    subject: ClassVar[str] = "file_id"
    batch: ClassVar[int] = 256  # each costs some twenty statements and a wait for the disk
    limits: ClassVar[Limits | None] = Limits()  # of one file; what it is made of is not known before it is read

    def subjects(self) -> Subjects:
        """Files, tables first since pictures need them, then by where they lie.

        What a knob says is said of the deliveries that are named with it; of others, only what was never read is."""
        place = VaultExportFile
        ends = [or_(place.path.ilike(f"%{end}"), place.member.ilike(f"%{end}")) for end in sorted(sources.TABLES)]
        table_first = case((or_(*ends), 0), else_=1).label("table_first")
        query = (
            select(ExportFile.id, literal("").label("version"), table_first, place.path, place.member)
            .join(place, place.file_id == ExportFile.id)
            .where(ExportFile.kind != UNREAD)
        )
        if self.only is None:
            return query
        return query.where(or_(ExportFile.export_id.in_(self.only), ExportFile.state == "found"))

    def read(self, session: Session, ids: list[str]) -> dict[str, FileRef]:
        """Where the files lie."""
        place = VaultExportFile
        found = session.execute(select(place.file_id, place.path, place.member).where(place.file_id.in_(ids)))
        refs = {file_id: FileRef(path, member) for file_id, path, member in found}
        return {file_id: refs[file_id] for file_id in ids}

    def compute(self, inputs: dict[str, FileRef]) -> dict[str, Read]:
        """Digest, header or rows of each file."""
        return self.work()(inputs)

    def work(self) -> Compute:
        """`compute` without this class, whose tables a worker need not know."""
        from phenotype.ingest.reading import ReadFiles

        return ReadFiles(self._columns(), self.names)

    def store(self, session: Session, outputs: dict[str, Read]) -> None:
        """Patients, studies, series, instances, reports, and the one state of each file."""
        Batch(session, list(outputs), self.language, self.pictures).write(outputs)

    def refuse(self, session: Session, failures: dict[str, Failure]) -> None:
        """A file that could not be read at all is quarantined, and tried again the next time."""
        for file_id, failure in failures.items():
            quarantine(session, file_id, failure.reason.split(":")[0])

    def _columns(self) -> dict[str, str]:
        pairs = [pair.partition("=") for pair in self.columns.split(",") if pair.strip()]
        unknown = [what for what, _, name in pairs if what.strip() not in COLUMNS or not name]
        if unknown:
            raise Refused("columns", f"write columns as in accession=ACC_NO,text=Befund; of {', '.join(COLUMNS)}")
        return {what.strip(): name.strip() for what, _, name in pairs}

    def resolve(self, session: Session, home: Path) -> Ingest:
        """As it is; columns and names that make no sense are refused before anything is read."""
        self._columns()
        if self.names:
            from phenotype.ingest.reports.files import pattern

            pattern(self.names)
        return super().resolve(session, home)


_PLACE = [f.name for f in fields(InstanceRow)]


@dataclass(frozen=True)
class Assemble(Stage):
    """Put the instances of each series together into images."""

    name: ClassVar[str] = "assemble"
    subject: ClassVar[str] = "series_id"
    results: ClassVar[tuple[type[Image], ...]] = (Image,)
    batch: ClassVar[int] = 16  # of perhaps a thousand slices each

    def subjects(self) -> Subjects:
        """Series, done again when an instance has come."""
        return (
            select(Series.id, cast(func.count(Instance.id), String).label("version"))
            .join(Instance, Instance.series_id == Series.id)
            .join(ExportFile, ExportFile.id == Instance.file_id)
            .where(ExportFile.state == "ingested")  # of instances with one UID and different content, the first
            .group_by(Series.id)
        )

    def read(self, session: Session, ids: list[str]) -> dict[str, SeriesRow]:
        """The series with the instances that were taken in without conflict."""
        columns = [getattr(Instance, name) for name in _PLACE]
        query = (
            select(Instance.series_id, *columns)
            .join(ExportFile, ExportFile.id == Instance.file_id)
            .where(Instance.series_id.in_(ids), ExportFile.state == "ingested")
            .order_by(Instance.id)
        )
        instances: dict[str, list[InstanceRow]] = {series_id: [] for series_id in ids}
        for series_id, *values in session.execute(query):
            known: list[Any] = [tuple(v) if isinstance(v, list) else v for v in values]  # JSON knows lists
            instances[series_id].append(InstanceRow(*known))
        series = session.execute(select(Series.id, Series.study_id, Series.modality).where(Series.id.in_(ids)))
        found = {row[0]: SeriesRow(row[0], row[1], row[2], tuple(instances[row[0]])) for row in series}
        return {series_id: found[series_id] for series_id in ids}

    def compute(self, inputs: dict[str, SeriesRow]) -> dict[str, tuple[SeriesRow, list[Assembled]]]:
        """The images of each series."""
        return {series_id: (series, assemble(series)) for series_id, series in inputs.items()}

    def store(self, session: Session, outputs: dict[str, tuple[SeriesRow, list[Assembled]]]) -> None:
        """Images and their instances."""
        images, parts = [], []
        for series, assembled in outputs.values():
            for image in assembled:
                # of surrogates, so there is nothing to guess
                image_id = hashlib.sha256(" ".join((self.run_id, *image.instances)).encode()).hexdigest()[:16]
                images.append(
                    {
                        "id": image_id,
                        "run_id": self.run_id,
                        "series_id": series.id,
                        "study_id": series.study_id,
                        "kind": image.kind,
                        "modality": series.modality,
                        "view": image.view,
                        "slices": image.slices,
                        "rows": image.rows,
                        "columns": image.columns,
                        "spacing": list(image.spacing) or None,
                        "orientation": list(image.orientation) if image.orientation else None,
                        "left_out": sum(image.left_out.values()),
                        "left_out_reasons": image.left_out,
                    }
                )
                parts += [
                    {"image_id": image_id, "position": position, "instance_id": instance}
                    for position, instance in enumerate(image.instances)
                ]
        insert_rows(session, Image, images)
        insert_rows(session, ImageInstance, parts)
