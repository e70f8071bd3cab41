"""The ledger of files: each is written down before it is read, and ends in exactly one state."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, TypeVar, cast

from sqlalchemy import Table, bindparam, func, select, update
from sqlalchemy.orm import Session

from db.session import vault_key
from db.tables import (
    Export,
    ExportFile,
    ExportRecord,
    Instance,
    Patient,
    Report,
    Series,
    Study,
    VaultExportFile,
    VaultInstance,
    VaultListedImage,
    VaultPatient,
)
from db.write import delete_rows, insert_rows
from phenotype.executors import Refused
from phenotype.identity import content_hash
from phenotype.ingest.contents import DicomFile, PictureFile, Read, Record, Records
from phenotype.ingest.rows import Place, Rows, add_object, add_report, picture_head, place, report_id, somebody_else

CHUNK = 5000  # files in one transaction of the ledger, ids in one IN (...)
NOT_LISTED = "not_listed"  # the reason of a picture that stands in no table
UNREAD = "unread"  # the kind of a file whose name or size decided

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conservation:
    """What became of everything that was found: files by state, and by state and reason."""

    found: int
    states: dict[str, int]
    reasons: dict[tuple[str, str], int]


def conservation(session: Session) -> Conservation:
    """Check that nothing was lost, and count what became of each file.

    Raises Refused("ledger") where a file has no final state, where an object was taken in without leaving an instance
    (or the reverse), or where a duplicate has no original.
    """
    kinds = (ExportFile.state, ExportFile.reason)
    counted = session.execute(select(*kinds, func.count()).group_by(*kinds).order_by(*kinds))
    reasons = {(state, reason): count for state, reason, count in counted}
    states: Counter[str] = Counter()
    for (state, _), count in reasons.items():
        states[state] += count
    # what a PACS pushes at this moment waits its turn
    unread = select(func.count()).select_from(ExportFile).join(Export).where(ExportFile.state == "found")
    left = session.scalar(unread.where(Export.kind != "receiver"))
    if left:
        raise Refused("ledger", f"{left} files have no final state: run `phenotype ingest` again")
    taken = ExportFile.state.in_(("ingested", "conflict"))
    objects = session.scalar(
        select(func.count()).select_from(ExportFile).where(taken, ExportFile.kind.in_(("dicom", "picture")))
    )
    instances = session.scalar(select(func.count()).select_from(Instance).join(ExportFile).where(taken))
    if objects != instances or instances != session.scalar(select(func.count()).select_from(Instance)):
        raise Refused("ledger", f"{objects} objects were taken in, but there are {instances} instances of them")
    original = ExportFile.__table__.alias()
    orphans = session.scalar(
        select(func.count())
        .select_from(ExportFile)
        .outerjoin(original, original.c.id == ExportFile.same_as)
        .where(ExportFile.state.in_(("duplicate", "conflict")), original.c.id.is_(None))
    )
    if orphans:
        raise Refused("ledger", f"{orphans} duplicates have no original")
    return Conservation(sum(states.values()), dict(sorted(states.items())), reasons)


def quarantine(session: Session, file_id: str, reason: str) -> None:
    """A file that could not be read at all. What was taken in before stays as it is."""
    waiting = ExportFile.state.in_(("found", "quarantined"))
    values = {"state": "quarantined", "reason": reason}
    session.execute(update(ExportFile).where(ExportFile.id == file_id, waiting).values(values))


_FILES = cast(Table, ExportFile.__table__)
# keyed by `id`, which an UPDATE may not be given under its own name
_SETTLE = (
    update(_FILES)
    .where(_FILES.c.id == bindparam("file"))
    .values({name: bindparam(name) for name in ("kind", "state", "reason", "content_hash", "same_as")})
)


@dataclass(frozen=True, slots=True)
class _Known:
    """An instance as the database knows it, and the file it came in."""

    instance: str
    pixels: str | None
    file: str
    state: str


class Batch:
    """One batch of read files on its way into the tables. Files are taken in their order: the first one counts."""

    def __init__(self, session: Session, ids: list[str], language: str, pictures: str) -> None:
        self.session, self.language, self.pictures = session, language, pictures
        self.key, self.rows = vault_key(session), Rows()
        place = VaultExportFile
        query = select(ExportFile.id, ExportFile.export_id, place.path, place.member).join(place)
        self.place = {row[0]: row[1:] for row in session.execute(query.where(ExportFile.id.in_(ids)))}

    def write(self, outputs: dict[str, Read]) -> None:
        """Everything of the batch."""
        hashes = {f: content_hash(self.key, read.digest) for f, read in outputs.items() if read.digest}
        first = self._by_content(set(hashes.values()))
        states: dict[str, dict[str, Any]] = {}
        fresh: dict[str, Read] = {}
        for file_id, read in outputs.items():
            state, reason, same_as = read.state, read.reason, None
            refusal = _refused(read.content)
            if refusal:
                state, reason, fresh[file_id] = "quarantined", refusal, read
            elif read.content is not None:
                if first.setdefault(hashes[file_id], file_id) == file_id:
                    fresh[file_id] = read
                else:
                    state, same_as = "duplicate", first[hashes[file_id]]
                    if isinstance(read.content, Records):  # the same list may stand beside other pictures
                        insert_rows(self.session, VaultListedImage, self._listings(file_id, read.content.rows))
            states[file_id] = {
                "file": file_id,
                "kind": read.kind,
                "state": state,
                "reason": reason,
                "content_hash": hashes.get(file_id),
                "same_as": same_as,
            }
        for file_id, read in fresh.items():
            if isinstance(read.content, Records):
                self._table(file_id, read.kind, read.content)
        self._objects(self._heads(fresh, states), hashes, states)
        for table, rows in self.rows.of.items():
            insert_rows(self.session, table, rows.values())
        self.session.connection().execute(_SETTLE, list(states.values()))

    def _by_content(self, hashes: set[str]) -> dict[str, str]:
        """Keyed hash -> the file that was taken in with this content."""
        query = select(ExportFile.content_hash, ExportFile.id, ExportFile.state)
        found = self.session.execute(query.where(ExportFile.content_hash.in_(hashes)))
        # asked for the states as well, SQLite takes their index and looks through all files, batch after batch
        return {content: file_id for content, file_id, state in found if content and state in ("ingested", "conflict")}

    def _objects(
        self, heads: dict[str, tuple[DicomFile, str]], hashes: dict[str, str], states: dict[str, dict[str, Any]]
    ) -> None:
        """Each object as an instance, a duplicate of one, or a conflict with one: nothing is overwritten."""
        places = self._places(heads, hashes)
        known = self._known({head.sop_uid for head, _ in heads.values()})
        owners = self._owners({at.study for at in places.values()})
        for file_id, at in places.items():
            head = heads[file_id][0]
            under = known[head.sop_uid]
            own = _Known(at.instance, at.pixels, file_id, "ingested")
            same = next((k for k in under if k.instance == at.instance and k.file != file_id), None)
            first = next((k for k in under if k.state == "ingested" and k.file != file_id), None)
            owner = owners.setdefault(at.study, (at.patient, file_id))
            if same is not None:  # other bytes, such as another meta header, around the same object
                states[file_id] |= {"state": "duplicate", "reason": "same_object", "same_as": same.file}
                continue
            if owner[0] != at.patient:  # two people must never become one, nor one examination belong to two
                holder = owner[1] or self._file_of(at.study)
                own = replace(own, state="conflict")
                states[file_id] |= {"state": "conflict", "reason": "other_patient", "same_as": holder}
            elif first is not None:
                reason = "other_header" if first.pixels == own.pixels else "other_pixels"
                own = replace(own, state="conflict")
                states[file_id] |= {"state": "conflict", "reason": reason, "same_as": first.file}
            under.append(own)
            add_object(self.rows, self.key, file_id, at, head, owner[0])
        self._forget(set(states), {row["id"] for row in self.rows.of[Instance].values()})

    def _places(self, heads: dict[str, tuple[DicomFile, str]], hashes: dict[str, str]) -> dict[str, Place]:
        """Where each object belongs; a second person under one number is a patient of their own."""
        places = {f: place(self.key, hashes[f], head, namespace) for f, (head, namespace) in heads.items()}
        query = select(Patient.id, VaultPatient.birth_date, Patient.sex).join(VaultPatient)
        query = query.where(Patient.id.in_({at.patient for at in places.values()}))
        people = {patient: (born, sex) for patient, born, sex in self.session.execute(query)}
        for file_id, at in places.items():
            head, namespace = heads[file_id]
            if somebody_else(people.setdefault(at.patient, (head.birth_date, head.sex)), head):
                person = (head.birth_date[:4], head.sex)
                places[file_id] = place(self.key, hashes[file_id], head, namespace, person)
        return places

    def _known(self, uids: set[str]) -> dict[str, list[_Known]]:
        """UID -> the instances under it, in the order of their files."""
        query = (
            select(VaultInstance.sop_instance_uid, Instance.id, Instance.pixel_hash, ExportFile.id, ExportFile.state)
            .join(Instance, Instance.id == VaultInstance.instance_id)
            .join(ExportFile, ExportFile.id == Instance.file_id)
            .where(VaultInstance.sop_instance_uid.in_(uids))
            .order_by(ExportFile.id)
        )
        known: dict[str, list[_Known]] = defaultdict(list)
        for uid, instance, pixels, file_id, state in self.session.execute(query):
            known[uid].append(_Known(instance, pixels, file_id, state))
        return known

    def _owners(self, studies: set[str]) -> dict[str, tuple[str, str]]:
        """Study -> whose it is, for those that are there."""
        query = select(Study.id, Study.patient_id).where(Study.id.in_(studies))
        return {study: (patient, "") for study, patient in self.session.execute(query)}

    def _file_of(self, study: str) -> str | None:
        """A file that was taken in for a study."""
        query = select(Instance.file_id).join(Series).join(ExportFile, ExportFile.id == Instance.file_id)
        query = query.where(Series.study_id == study, ExportFile.state == "ingested")
        return self.session.scalar(query.order_by(Instance.file_id).limit(1))

    def _forget(self, files: set[str], kept: set[str]) -> None:
        """What an earlier run read otherwise from these files goes."""
        query = select(Instance.id).where(Instance.file_id.in_(files))
        stale = [instance for instance in self.session.scalars(query) if instance not in kept]
        if stale:
            delete_rows(self.session, Instance, id=stale)

    def _heads(self, fresh: dict[str, Read], states: dict[str, dict[str, Any]]) -> dict[str, tuple[DicomFile, str]]:
        """The headers of this batch's objects, and the namespace of their numbers; pictures get theirs from a table."""
        heads: dict[str, tuple[DicomFile, str]] = {}
        for file_id, read in fresh.items():
            if isinstance(read.content, DicomFile):
                heads[file_id] = read.content, ""
            elif isinstance(read.content, PictureFile):
                listed = self._listed(file_id)
                if listed is None:
                    states[file_id] |= {"state": "quarantined", "reason": NOT_LISTED}
                    continue
                export_id = self.place[file_id][0]
                uid = f"{export_id}/{listed.image}"
                size = read.content
                heads[file_id] = picture_head(uid, size.rows, size.columns, listed, self.pictures), export_id
        return heads

    def _listed(self, file_id: str) -> Record | None:
        """What a table of the same delivery says of a picture: under the longest part of its path that is named."""
        export_id, path, member = self.place[file_id]
        parts = PurePosixPath(path, *PurePosixPath(member).parts[1:]).parts
        names = ["/".join(parts[-n:]) for n in range(1, len(parts))]
        query = select(VaultListedImage).where(
            VaultListedImage.export_id == export_id, VaultListedImage.name.in_(names)
        )
        found = max(self.session.scalars(query), key=lambda row: len(row.name), default=None)
        if found is None:
            return None
        return Record(
            0,
            accession=found.accession,
            patient=found.patient_number,
            image=found.name,
            date=found.study_date,
            sex=found.sex,
            age_years=found.age_years,
            view=found.view,
        )

    def _table(self, file_id: str, kind: str, table: Records) -> None:
        """The reports and listed pictures of a table, and a record of each of its rows."""
        export_id = self.place[file_id][0]
        says = [row for row in table.rows if _withdraws(row) or (row.text and not row.refusal)]
        identities = {row.number: report_id(self.key, row) for row in says}
        known = self._reports_of_others(file_id, set(identities.values()))
        self._forget_reports(file_id, set(identities.values()))
        query = select(VaultListedImage.name, VaultListedImage.accession)
        rows = self.session.execute(query.where(VaultListedImage.export_id == export_id))
        listed = dict(rows.all())
        seen: set[tuple[str, str]] = set()  # what this table itself has said before
        records, pictures = [], []
        for row in table.rows:
            identity = identities.get(row.number)
            state, reason = "ingested", ""
            if row.refusal and identity is None:
                state, reason = "quarantined", row.refusal
            elif row.image and listed.setdefault(row.image, row.accession) != row.accession:
                state, reason = "conflict", "listed_twice"
            elif (identity is None or identity in known) and (not row.image or (row.image, row.accession) in seen):
                state = "duplicate"
            if state != "quarantined" and identity and identity not in known:
                known.add(identity)
                add_report(self.rows, self.key, identity, file_id, row, kind, self.language)
            if state != "quarantined" and row.image:
                seen.add((row.image, row.accession))
                pictures.append(row)  # of two that contradict each other, the first stays
            records.append(
                {"file_id": file_id, "number": row.number, "state": state, "reason": reason, "report_id": identity}
            )
        insert_rows(self.session, VaultListedImage, self._listings(file_id, pictures))
        delete_rows(self.session, ExportRecord, file_id=file_id)  # of the same table under other columns
        insert_rows(self.session, ExportRecord, records)

    def _reports_of_others(self, file_id: str, identities: set[str]) -> set[str]:
        """Those of these reports that another file has brought."""
        known: set[str] = set()
        for chunk in chunks(identities):
            query = select(Report.id).where(Report.id.in_(chunk), Report.file_id != file_id)
            known |= set(self.session.scalars(query))
        return known

    def _forget_reports(self, file_id: str, said: set[str]) -> None:
        """What an earlier run read otherwise from this file goes, unless another file says it too."""
        stale = set(self.session.scalars(select(Report.id).where(Report.file_id == file_id))) - said
        for chunk in chunks(sorted(stale)):
            query = select(ExportRecord.report_id, func.min(ExportRecord.file_id)).group_by(ExportRecord.report_id)
            query = query.where(ExportRecord.report_id.in_(chunk), ExportRecord.file_id != file_id)
            elsewhere = dict(self.session.execute(query).all())
            delete_rows(self.session, Report, id=[report for report in chunk if report not in elsewhere])
            for report, other in elsewhere.items():
                self.session.execute(update(Report).where(Report.id == report).values(file_id=other))

    def _listings(self, file_id: str, rows: Iterable[Record]) -> Iterator[dict[str, Any]]:
        """Rows of VaultListedImage from those rows of a table that name a picture."""
        for row in rows:
            if row.image and not row.refusal:
                yield {
                    "export_id": self.place[file_id][0],
                    "name": row.image,
                    "accession": row.accession,
                    "patient_number": row.patient,
                    "sex": row.sex,
                    "age_years": row.age_years,
                    "view": row.view,
                    "study_date": row.date,
                }


def _withdraws(row: Record) -> bool:
    """Whether a record takes a report back: then it needs no words."""
    return row.status == "cancelled" and row.refusal == "no_text" and bool(row.key or row.accession)


def _refused(content: object) -> str:
    """Why nothing that a file of reports says can be used: the commonest reason; empty where something can."""
    if not isinstance(content, Records) or not content.rows:
        return ""
    if any(not row.refusal or _withdraws(row) for row in content.rows):
        return ""
    return Counter(row.refusal for row in content.rows).most_common(1)[0][0]


def chunks(items: Iterable[T]) -> Iterator[list[T]]:
    """The items in lists of a size that one statement or transaction takes."""
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
