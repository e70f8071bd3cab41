"""A small database of mapped images, for the tests of retrieval and of experts."""

from datetime import UTC, datetime

import numpy as np

from db import tables as t
from db.write import insert_rows

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SIDE = 8  # regions along each side of an image
RUNS = {"assemble": "a" * 16, "embed": "e" * 16, "link": "b" * 16, "map": "c" * 16, "label": "d" * 16}
CONCEPTS = {"nodule": "Nodule", "pleural_effusion": "Pleural effusion", "cardiomegaly": "Cardiomegaly"}
STUDY_UID = "1.2.3"


def image_id(number):
    return f"{number:016x}"


def accession(number):
    return f"ACC-{number:04d}"


def boxes():
    corners = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2) / SIDE
    return np.hstack([corners, corners + 1 / SIDE]).astype(np.float32)


def lesion(number):
    """The region of the lesion of an image; None in every other one."""
    return None if number % 2 else (number * 7) % (SIDE * SIDE)


def kind(number):
    """Two kinds of lesions, that look alike in their first feature alone."""
    return number // 2 % 2


def fill(database, images=40, *, calls=True):
    """Images of as many patients; a lesion of two kinds in every other one, which its map shows and its features too.

    The last image is a volume of three slices with positions, whose instances are 9.0, 9.1 and 9.2.
    """
    rng = np.random.default_rng(7)
    rows = {}

    def add(table, **values):
        rows.setdefault(table, []).append(values)

    recipes = {"map": {"embeddings": RUNS["embed"], "link": RUNS["link"]}}
    for stage, run in RUNS.items():
        times = {"started_at": NOW, "opened_at": NOW, "finished_at": NOW}
        recipe = recipes.get(stage, {})
        add(t.Run, id=run, stage=stage, label="", recipe=recipe, software={}, state="finished", **times)
        own = {"run_id": run, "subject_id": "x", "state": "done", "reason": None, "traceback": None}
        add(t.Task, **own, version="", finished_at=NOW)
    add(t.Export, id="f" * 16, kind="folder", registered_at=NOW)
    add(t.ExportFile, id="f" * 16, export_id="f" * 16, size=1)
    for concept, name in CONCEPTS.items():
        add(t.Concept, id=concept, name=name, category="finding", snomed={"nodule": "4711"}.get(concept, ""))
        evidence = {"positives": 9, "studies": 20, "auroc": 0.9, "auroc_low": 0.8, "auroc_high": 0.95}
        verdict = "no evidence" if concept == "cardiomegaly" else "evidence"
        add(t.TermEvidence, run_id=RUNS["link"], concept_id=concept, verdict=verdict, **evidence)
    for number in range(images + 1):
        volume = number == images
        own = image_id(number)
        add(t.Patient, id=own, fold=number % 10)
        add(t.Study, id=own, patient_id=own)
        add(t.VaultStudy, study_id=own, study_uid=f"{STUDY_UID}.{number}", accession=accession(number))
        add(t.Series, id=own, study_id=own, modality="CT" if volume else "DX")
        add(t.VaultSeries, series_id=own, series_uid=f"{STUDY_UID}.{number}.0")
        size = (16, 24) if volume else (100, 200)
        for position in range(3 if volume else 1):
            instance = f"{number:08x}{position:08x}"
            place = [-10.0, -20.0, 30.0 + 5 * position] if volume else None
            add(
                t.Instance,
                id=instance,
                series_id=own,
                file_id="f" * 16,
                sop_class="",
                rows=size[0],
                columns=size[1],
                position=place,
                orientation=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0] if volume else None,
                spacing=[2.0, 1.0],
            )
            uid = f"9.{position}" if volume else f"8.{number}"
            add(t.VaultInstance, instance_id=instance, sop_instance_uid=uid)
            add(t.ImageInstance, image_id=own, position=position, instance_id=instance)
        add(
            t.Image,
            id=own,
            run_id=RUNS["assemble"],
            series_id=own,
            study_id=own,
            kind="volume" if volume else "radiograph",
            modality="CT" if volume else "DX",
            view="" if volume else "PA",
            slices=3 if volume else 1,
            rows=size[0],
            columns=size[1],
            left_out_reasons={},
        )
        if not volume:
            _features(add, number, own, rng, calls=calls)
    with database.writing() as session:
        order = [table.name for table in t.Base.metadata.sorted_tables]
        for table, some in sorted(rows.items(), key=lambda pair: order.index(pair[0].__tablename__)):
            assert insert_rows(session, table, some) == len(some)


def _features(add, number, own, rng, *, calls):
    n, where = SIDE * SIDE, lesion(number)
    there = np.zeros(n, np.float32)
    if where is not None:
        there[where] = 1
    features = rng.normal(size=(n, 5)).astype(np.float32)
    features[:, 0] += 6 * there
    add(t.Region, run_id=RUNS["embed"], image_id=own, count=n, slices=np.zeros(n, np.int32), boxes=boxes())
    add(t.Embedding, run_id=RUNS["embed"], image_id=own, whole=features.mean(axis=0), regions=features)
    row, column = (boxes()[where, :2] + 0.5 / SIDE).tolist() if where is not None else (0.5, 0.5)
    for concept in CONCEPTS:
        seen = there * (concept == list(CONCEPTS)[kind(number)])
        scores = rng.normal(0, 0.3, n).astype(np.float32) + 5 * seen
        present = bool(seen.any())
        add(
            t.TermMap,
            run_id=RUNS["map"],
            image_id=own,
            concept_id=concept,
            score=float(scores.max()),
            peak_slice=0,
            peak_row=row if present else 0.01,
            peak_column=column if present else 0.01,
            regions=scores,
            probability=0.9 if present else 0.1,
            call=("here" if present else "not here") if calls else "",
        )
        value = "present" if present else "absent"
        add(t.Label, run_id=RUNS["label"], study_id=own, concept_id=concept, value=value, confidence=1.0, mentions=1)
