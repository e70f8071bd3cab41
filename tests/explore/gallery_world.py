"""A small database with everything a page shows: real files on disk, runs of every stage, planted personal data."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from db import tables as t
from db.session import Database
from db.write import insert_rows

STUDIES = 24
PEAK = (0.25, 0.75)  # where the anomaly and term maps are highest: fractions of rows and columns
PERSONAL = {
    "name": "Zweistein^Albertine",
    "birth": "19471203",
    "number": "MRN-5550117",
    "accession": "ACC-778899",
    "uid": "1.2.826.0.1.3680043.8.498.777",
    "date": "20191117",
    "text": "Reizhusten seit dem Umzug",
    "traceback": "somewhere/private.py",
}


@dataclass(frozen=True)
class World:
    """A database and the folder with its images."""

    database: Database
    folder: Path
    url: str


def write_slice(path: Path, pixels: np.ndarray, z: float) -> None:
    """A CT slice of Hounsfield units."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.MediaStorageSOPClassUID = d.SOPClassUID = CTImageStorage
    d.file_meta.MediaStorageSOPInstanceUID = d.SOPInstanceUID = f"{PERSONAL['uid']}.{int(z)}"
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.PatientName, d.PatientID, d.AccessionNumber = PERSONAL["name"], PERSONAL["number"], PERSONAL["accession"]
    d.Modality, d.Rows, d.Columns, d.SamplesPerPixel = "CT", *pixels.shape, 1
    d.PhotometricInterpretation, d.BitsAllocated, d.BitsStored, d.HighBit = "MONOCHROME2", 16, 16, 15
    d.PixelRepresentation, d.RescaleSlope, d.RescaleIntercept = 1, 1, 0
    d.ImagePositionPatient, d.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
    d.PixelSpacing, d.SliceThickness = [1, 1], 1
    d.PixelData = pixels.astype("<i2").tobytes()
    d.save_as(path, enforce_file_format=True)


def _run(number: int, stage: str, label: str = "", **recipe: Any) -> dict[str, Any]:
    when = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=number)
    times = {"started_at": when, "opened_at": when, "finished_at": when}
    return {"id": stage, "stage": stage, "label": label, "recipe": recipe, "software": {}, "state": "finished"} | times


def runs() -> list[dict[str, Any]]:
    """A run of each stage, the stage's name for an id."""
    return [
        _run(0, "ingest", language="en"),
        _run(1, "assemble"),
        _run(2, "extract", "en"),
        _run(3, "label", findings="extract"),
        _run(4, "cohort", "all", called="all"),
        _run(5, "train", "f-anogan-image", cohort="cohort", model="f-anogan", steps=1500),
        _run(6, "score", "f-anogan-image", model="train"),
        _run(7, "embed", whole="train", patches="train"),
        _run(8, "link", embeddings="embed", labels="label", cohort="cohort"),
        _run(9, "map", link="link", embeddings="embed"),
        _run(10, "cluster", embeddings="embed", labels="label", cohort="cohort", seed=0, upstream="abc"),
    ]


def boxes() -> np.ndarray:
    """A grid of overlapping regions: boxes of a quarter of the image, an eighth apart."""
    edge = np.arange(7) / 8
    top, left = (v.ravel() for v in np.meshgrid(edge, edge, indexing="ij"))
    return np.stack([top, left, top + 0.25, left + 0.25], axis=1).astype(np.float32)


def fill(database: Database, folder: Path, names: dict[str, str]) -> None:
    """Studies 0..22 are radiographs (PNG; the file of study 21 is missing), 23 a CT volume of five slices."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    studies = [f"study{i:02d}" for i in range(STUDIES)]
    rows: dict[type[t.Base], list[dict[str, Any]]] = {}

    def add(table: type[t.Base], **row: Any) -> None:
        rows.setdefault(table, []).append(row)

    add(t.Export, id="export", kind="folder", registered_at=datetime(2020, 1, 1, tzinfo=UTC))
    add(t.VaultExport, export_id="export", path=str(folder))
    add(t.Cohort, id="cohort", name="all", images="any", size=STUDIES)
    for concept, category in (("effusion", "finding"), ("nodule", "finding"), ("tube", "device"), ("normal", "normal")):
        add(t.Concept, id=concept, name=names.get(concept, concept), category=category)
    for number in (1, 2):
        common = {"run_id": "cluster", "size": 12, "stable": number == 1, "stability": 0.9 if number == 1 else 0.4}
        add(t.Phenotype, id=f"cluster-{number}", number=number, name=names.get(f"group{number}", "effusion"), **common)
        for concept, q in (("effusion", 0.001), ("nodule", 0.6)):
            test = {"run_id": "cluster", "phenotype_id": f"cluster-{number}", "concept_id": concept, "p_value": q / 2}
            replicated = {"effusion": True, "nodule": None}[concept]
            add(t.Enrichment, **test, cases=9, expected=4.5, fold=2.0, q_value=q, replicated=replicated)
    for concept, auroc, verdict in (
        ("effusion", 0.83, "evidence"),
        ("nodule", 0.52, "no evidence"),
        ("tube", None, "too few"),
    ):
        low, high = (None, None) if auroc is None else (auroc - 0.1, auroc + 0.1)
        evidence = {"run_id": "link", "concept_id": concept, "positives": 12, "studies": STUDIES, "verdict": verdict}
        add(t.TermEvidence, **evidence, auroc=auroc, auroc_low=low, auroc_high=high)

    for i, study in enumerate(studies):
        ct = i == 23
        patient, series, image = f"patient{i:02d}", f"series{i:02d}", f"image{i:02d}"
        add(t.Patient, id=patient, sex="F", fold=i % 10)
        vault = {"record_number": f"{PERSONAL['number']}{i}", "birth_date": PERSONAL["birth"], "name": PERSONAL["name"]}
        add(t.VaultPatient, patient_id=patient, **vault)
        add(t.Study, id=study, patient_id=patient, shifted_date=None, age_years=72.0)
        hospital = {"study_uid": PERSONAL["uid"], "accession": f"{PERSONAL['accession']}{i}"}
        add(t.VaultStudy, study_id=study, **hospital, study_date=PERSONAL["date"])
        add(t.Series, id=series, study_id=study, modality="CT" if ct else "CR")
        shape = (40, 40) if ct else (80, 64)
        what = {"kind": "volume" if ct else "radiograph", "modality": "CT" if ct else "CR", "view": "" if ct else "PA"}
        size = {"slices": 5 if ct else 1, "rows": shape[0], "columns": shape[1], "spacing": None, "orientation": None}
        parents = {"run_id": "assemble", "series_id": series, "study_id": study, "left_out_reasons": {}}
        add(t.Image, id=image, **parents, **what, **size)
        for z in range(5 if ct else 1):
            file, instance = f"file{i:02d}.{z}", f"instance{i:02d}.{z}"
            path = folder / f"{PERSONAL['name']}-{i}-{z}.{'dcm' if ct else 'png'}"
            if ct:
                write_slice(path, np.full(shape, -1350 + 300 * z), float(z))
            elif i != 21:
                Pillow.fromarray(rng.integers(60, 90, shape, dtype=np.uint8)).save(path)
            state = {"size": 1, "kind": "picture", "state": "ingested", "reason": "", "same_as": None}
            add(t.ExportFile, id=file, export_id="export", content_hash=None, **state)
            add(t.VaultExportFile, file_id=file, path=str(path), member="")
            place = {"position": None, "orientation": None, "spacing": None, "thickness": None, "number": z}
            size = {"rows": shape[0], "columns": shape[1], "sop_class": "picture", "series_id": series}
            add(t.Instance, id=instance, file_id=file, **size, **place)
            add(t.ImageInstance, image_id=image, position=z, instance_id=instance)
        told = {"thread": f"thread{i:02d}", "match": "matched", "length": 99}
        add(t.Report, id=f"report{i:02d}", study_id=study, file_id=f"file{i:02d}.0", **told)
        add(t.VaultReport, report_id=f"report{i:02d}", accession=PERSONAL["accession"], text=PERSONAL["text"])
        ill = i % 2 == 0 if i < 22 else ct
        said = {"run_id": "label", "study_id": study, "confidence": 1.0, "mentions": 1}
        add(t.Label, concept_id="effusion", value="present" if ill else "absent", **said)
        add(t.Label, concept_id="normal", value="absent" if ill else "present", **said)
        add(t.CohortStudy, cohort_id="cohort", study_id=study, split="holdout" if i % 10 > 7 else "train")
        found = {"image_id": image, "peak_slice": 3 if ct else 0, "peak_row": PEAK[0], "peak_column": PEAK[1]}
        seen = np.zeros((16, 16), np.float16)
        seen[4, 12] = 9.0  # around PEAK
        add(t.Anomaly, run_id="score", score=float(i), p_value=1 / (i + 1), map=seen, **found)
        vector = rng.normal(size=6) + 4 * ill
        add(
            t.Embedding,
            run_id="embed",
            image_id=image,
            whole=vector.astype(np.float32),
            regions=np.zeros((49, 2), np.float32),
        )
        centre = boxes()[:, :2] + 0.125
        scores = (0.5 * np.exp(-20 * ((centre - PEAK) ** 2).sum(axis=1))).astype(np.float32)
        slices = np.full(49, 3 * ct, np.int32)
        places = boxes()
        if ct:  # another slice, seen elsewhere
            scores, slices = np.concatenate([scores, scores[::-1] / 2]), np.concatenate([slices, slices - 2])
            places = np.concatenate([places, places])
        add(t.Region, run_id="embed", image_id=image, count=len(slices), slices=slices, boxes=places)
        for concept in ("effusion", "nodule", "tube"):
            add(t.TermMap, run_id="map", concept_id=concept, score=i / 10, side="left", regions=scores, **found)
        member = {"phenotype_id": f"cluster-{1 if ill else 2}", "probability": 0.5 + i / 100, "split": "train"}
        add(t.Membership, run_id="cluster", study_id=study, **member)
    done = {"version": "", "finished_at": datetime(2020, 1, 1, tzinfo=UTC)}
    failed = {"state": "failed", "reason": names.get("reason", "decode: damaged"), "traceback": PERSONAL["traceback"]}
    add(t.Task, run_id="score", subject_id="image21", **failed, **done)
    with database.writing() as session:
        words = names.get("recipe", "")
        insert_rows(
            session,
            t.Run,
            [
                run | {"label": names.get(run["stage"], run["label"]), "recipe": run["recipe"] | {"columns": words}}
                for run in runs()
            ],
        )
        for table in t.Base.metadata.sorted_tables:
            for kind, some in rows.items():
                if kind.__table__ is table:
                    insert_rows(session, kind, some)
