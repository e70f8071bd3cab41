"""Which images there are, and where their files lie."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.tables import (
    Cohort,
    CohortStudy,
    Image,
    ImageInstance,
    Instance,
    Patient,
    Study,
    VaultExportFile,
)

CHUNK = 5000  # ids in one IN (...)


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """An image and, in order, the files (path, zip member) that it is read from. Paths are personal data."""

    image_id: str
    kind: str
    modality: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CohortImage:
    """An image of a cohort's study."""

    image_id: str
    study_id: str
    patient_id: str
    split: str
    fold: int


def image_files(session: Session, ids: Sequence[str]) -> dict[str, ImageFiles]:
    """The files of these images, by image id."""
    found: dict[str, ImageFiles] = {}
    for start in range(0, len(ids), CHUNK):
        some = list(ids[start : start + CHUNK])
        images = {
            i.id: (i.kind, i.modality)
            for i in session.execute(select(Image.id, Image.kind, Image.modality).where(Image.id.in_(some)))
        }
        files: dict[str, list[tuple[str, str]]] = {image: [] for image in images}
        rows = session.execute(
            select(ImageInstance.image_id, VaultExportFile.path, VaultExportFile.member)
            .join(Instance, Instance.id == ImageInstance.instance_id)
            .join(VaultExportFile, VaultExportFile.file_id == Instance.file_id)
            .where(ImageInstance.image_id.in_(some))
            .order_by(ImageInstance.image_id, ImageInstance.position)
        )
        for image, path, member in rows:
            files[image].append((path, member))
        found |= {image: ImageFiles(image, *images[image], tuple(files[image])) for image in images}
    return {image: found[image] for image in ids if image in found}


def cohort_images(session: Session, cohort_id: str, images_run: str) -> list[CohortImage]:
    """The images of a cohort of the kind that it means, as put together by one run, ordered by image id."""
    kind = session.scalars(select(Cohort.images).where(Cohort.id == cohort_id)).one()
    query = (
        select(Image.id, Image.study_id, Study.patient_id, CohortStudy.split, Patient.fold)
        .join(CohortStudy, CohortStudy.study_id == Image.study_id)
        .join(Study, Study.id == Image.study_id)
        .join(Patient, Patient.id == Study.patient_id)
        .where(CohortStudy.cohort_id == cohort_id, Image.run_id == images_run)
        .order_by(Image.id)
    )
    if kind != "any":
        query = query.where(Image.kind == kind)
    return [CohortImage(*row) for row in session.execute(query)]
