"""The results of the sample: cohorts, vectors, anomalies, term maps, phenotypes, and how the runs went."""

from datetime import timedelta
from typing import Any

import numpy as np
from sample import IMAGE, NOW, OLD_EXTRACT, REPORT, RUN_ID, STUDY, TABLE_FILE, UNMATCHED, Rows, surrogate
from sample_cases import CASES, NORMAL, RADIOGRAPHS, SCORED, STORIES, Case, labels_of, positive, split_of

from db import tables as t


def add_results(rows: Rows) -> None:
    """All of them."""
    add_second_opinion(rows)
    add_cohorts(rows)
    add_features(rows)
    add_terms(rows)
    add_common_space(rows)
    add_weak_labels(rows)
    add_experts(rows)
    add_phenotypes(rows)
    add_tasks(rows)


def add_second_opinion(rows: Rows) -> None:
    """What the classifier makes of some reports: it agrees, it sees more, it sees less."""
    for number, concept, said, probability in (
        (1, "cardiomegaly", "present", 0.97),
        (5, "nodule", "uncertain", 0.55),
        (7, "nodule", "", 0.81),
        (8, "pleural_effusion", "present", 0.93),
        (12, "pleural_effusion", "absent", 0.62),
        (13, "cardiomegaly", "present", 0.04),
    ):
        own = {"run_id": RUN_ID["classify"], "report_id": REPORT[number, 0]}
        rows.add(t.TextScore, **own, concept_id=concept, said=said, probability=probability)


def add_cohorts(rows: Rows) -> None:
    """All radiographs, and those reported normal."""
    for name, members in {"all": RADIOGRAPHS, "normal": NORMAL}.items():
        cohort = RUN_ID[f"cohort {name}"]
        rows.add(t.Cohort, id=cohort, name=name, images="radiograph", size=len(members))
        for case in members:
            rows.add(t.CohortStudy, cohort_id=cohort, study_id=STUDY[case.number], split=split_of(case))


def add_features(rows: Rows) -> None:
    """Four by four regions an image with their vectors, and how far it is from normal."""
    rng = np.random.default_rng(20260301)
    corners = np.stack(np.meshgrid(np.arange(4), np.arange(4), indexing="ij"), -1).reshape(-1, 2) / 4
    boxes = np.hstack([corners, corners + 0.25]).astype(np.float32)
    for case in RADIOGRAPHS:
        own = {"run_id": RUN_ID["embed"], "image_id": IMAGE[case.number]}
        rows.add(t.Region, **own, count=16, slices=np.zeros(16, np.int32), boxes=boxes)
        whole = rng.normal(len(positive(case)), 1, 32).astype(np.float32)
        rows.add(t.Embedding, **own, whole=whole, regions=rng.normal(size=(16, 8)).astype(np.float32))
    for case in SCORED:
        odd = case.number == STORIES["most anomalous of those reported normal"]
        score = 9.5 if odd else 1 + 2 * len(positive(case)) + float(rng.uniform(0, 0.5))
        rows.add(
            t.Anomaly,
            run_id=RUN_ID["score"],
            image_id=IMAGE[case.number],
            score=score,
            p_value=round(1 / (1 + score**2), 4),
            peak_slice=0,
            peak_row=0.7,
            peak_column=0.3,
            map=rng.random((8, 8)).astype(np.float16),
        )


def add_terms(rows: Rows) -> None:
    """Two terms that are mapped, and one that is too rare."""
    for values in (
        ("pleural_effusion", 7, 17, 0.91, 0.80, 0.98, "evidence", "local", 0.74, 0.4, 5.2),
        ("cardiomegaly", 6, 17, 0.62, 0.41, 0.80, "no evidence", "not local", 0.60, 0.5, 1.1),
        ("nodule", 1, 17, None, None, None, "too few", "", None, None, None),
    ):
        names = ("concept_id", "positives", "studies", "auroc", "auroc_low", "auroc_high", "verdict")
        names += ("local", "location_auroc", "threshold", "deletion_ratio")
        rows.add(t.TermEvidence, run_id=RUN_ID["link"], **dict(zip(names, values, strict=True)))
    for case in RADIOGRAPHS:
        for concept in ("pleural_effusion", "cardiomegaly"):
            _add_map(rows, case, concept)


def _add_map(rows: Rows, case: Case, concept: str) -> None:
    label: dict[str, Any] = labels_of(case).get(concept, {})
    seen = label.get("value") == "present"
    side = "left" if seen and label["side"] == "left" else "right"
    if concept == "cardiomegaly":
        side = "midline"
    elif case.number == STORIES["peak on the other side than the report says"]:
        side = "left"
    values = np.linspace(0, 0.8 if seen else 0.2, 16, dtype=np.float32)
    rows.add(
        t.TermMap,
        run_id=RUN_ID["map"],
        image_id=IMAGE[case.number],
        concept_id=concept,
        score=round(float(values[-5:].mean()), 4),
        peak_slice=0,
        peak_row=0.8,
        peak_column={"right": 0.25, "midline": 0.5, "left": 0.75}[side],
        side=side,
        regions=values,
        probability=0.85 if seen else 0.1,
        call="here" if seen else "not here",
        deletion=0.5 if seen else 0.05,
        deletion_random=0.1,
    )


def add_common_space(rows: Rows) -> None:
    """How each radiograph lies in the reference, the heart in it, and one patient's places followed."""
    points = np.stack(np.meshgrid(*[np.linspace(0, 1, 3, dtype=np.float32)] * 2, indexing="ij"), -1)
    for case in RADIOGRAPHS:
        own = {"run_id": RUN_ID["normalize"], "image_id": IMAGE[case.number]}
        whole = {"low": [0.0, 0.0], "high": [1.0, 1.0]}
        reason = "" if case in SCORED else "lungs_not_found: the box around the body was taken"
        about = {"route": "body" if reason else "direct", "quality": 0.3 if reason else 0.9, "accepted": not reason}
        rows.add(t.Alignment, **own, **about, **whole, reason=reason, forward=points, backward=points)
        rows.add(t.Organ, **own, organ="heart", volume_ml=600.0, share=1.0, low=[0.5, 0.4], high=[0.8, 0.7])
    later, earlier = (IMAGE[case.number] for case in RADIOGRAPHS[:2])
    own = {"run_id": RUN_ID["follow"], "image_id": later, "earlier_id": earlier}
    rows.add(t.FollowUp, **own, days=90, route="direct", quality=0.8, accepted=True)
    places = {"slice": 0, "row": 0.8, "column": 0.25, "earlier_slice": 0, "earlier_row": 0.79, "earlier_column": 0.26}
    sizes = {"size_mm": 80.0, "earlier_size_mm": 60.0, "score": 0.7, "earlier_score": 0.5}
    rows.add(t.Track, **own, concept_id="pleural_effusion", number=1, **places, **sizes)


def add_weak_labels(rows: Rows) -> None:
    """What two labellers add up to, and how reports word it."""
    run = {"run_id": RUN_ID["weigh"], "concept_id": "pleural_effusion"}
    for case in RADIOGRAPHS:
        value = labels_of(case).get("pleural_effusion", {}).get("value")
        state = {"present": "present", "uncertain": "possible", "absent": "denied", None: "unmentioned"}[value]
        probability = {"present": 0.97, "possible": 0.6, "denied": 0.02, "unmentioned": 0.1}[state]
        rows.add(t.WeakLabel, **run, study_id=STUDY[case.number], state=state, probability=probability)
    rows.add(t.Labeller, **run, labeller="rules", sensitivity=0.95, specificity=0.98, coverage=0.8)
    rows.add(t.Labeller, **run, labeller="classifier", sensitivity=0.85, specificity=0.9, coverage=1.0)
    emission = run | {"run_id": RUN_ID["link"]}
    for state, here, elsewhere in zip(
        ("present", "possible", "denied", "unmentioned"), (0.7, 0.15, 0.05, 0.1), (0.02, 0.05, 0.43, 0.5), strict=True
    ):
        rows.add(t.Emission, **emission, state=state, if_present=here, if_absent=elsewhere)


def add_experts(rows: Rows) -> None:
    """What a reader has drawn, a line of the file that could not be used, and how well the map agrees."""
    file = surrogate("experts", "boxes")
    image, concept = IMAGE[RADIOGRAPHS[0].number], "pleural_effusion"
    box = {"slice": 0, "top": 0.7, "left": 0.1, "bottom": 0.9, "right": 0.4, "mask": None}
    own = {"id": surrogate("drawn", "1"), "file_id": file, "image_id": image, "concept_id": concept}
    rows.add(t.ExpertRegion, **own, reader="A", **box)
    refused = "image_unknown: the row names an image that is not in the database"
    rows.add(t.ExpertRecord, file_id=file, number=1, reader="A", state="ingested", reason="")
    rows.add(t.ExpertRecord, file_id=file, number=2, reader="A", state="quarantined", reason=refused)
    who = {"run_id": RUN_ID["map"], "concept_id": concept, "reader": "A", "against": "map"}
    rows.add(t.Agreement, **who, figure="pointing", value=0.7, low=0.4, high=0.9, count=10)


def add_phenotypes(rows: Rows) -> None:
    """Three clusters: with effusion, with something else, with nothing."""
    names = {1: "Pleural effusion, Cardiomegaly", 2: "Consolidation", 3: "nothing over-represented"}
    groups: dict[int, list[Case]] = {1: [], 2: [], 3: []}
    for case in RADIOGRAPHS:
        found = positive(case)
        groups[1 if "pleural_effusion" in found else 2 if found else 3].append(case)
    ids = {k: f"{RUN_ID['cluster']}-{k}" for k in groups}
    run = {"run_id": RUN_ID["cluster"]}
    for k, members in groups.items():
        stability = round(0.95 - 0.15 * k, 2)
        about = {"number": k, "name": names[k], "size": len(members), "stability": stability}
        rows.add(t.Phenotype, **run, id=ids[k], **about, stable=stability >= 0.75)
        for case in members:
            own = {"study_id": STUDY[case.number], "phenotype_id": ids[k], "split": split_of(case)}
            rows.add(t.Membership, **run, **own, probability=0.9)
    for k, concept, cases, expected, p, q, replicated in (
        (1, "pleural_effusion", 8, 3.2, 0.0003, 0.002, True),
        (1, "cardiomegaly", 5, 2.4, 0.011, 0.033, None),
        (2, "consolidation", 1, 0.2, 0.04, 0.08, False),
        (3, "pleural_effusion", 0, 3.2, 1.0, 1.0, None),
    ):
        pair = {"phenotype_id": ids[k], "concept_id": concept}
        tests = {"p_value": p, "q_value": q, "replicated": replicated}
        numbers = {"cases": cases, "expected": expected, "fold": round(cases / expected, 3)}
        rows.add(t.Enrichment, **run, **pair, **numbers, **tests)


def add_tasks(rows: Rows) -> None:
    """What became of each subject."""
    files = [surrogate("file", name) for name in (*STUDY, "twin", "rival")]
    radiographs = [IMAGE[case.number] for case in RADIOGRAPHS]
    subjects: dict[str, list[str]] = {
        "ingest": [TABLE_FILE, *files],
        "assemble": list(IMAGE.values()),
        "extract": list(REPORT.values()),
        "classify": [RUN_ID["classify"]],
        "label": [STUDY[case.number] for case in CASES if case.reports],
        "weigh": [RUN_ID["cohort all"]],
        "normalize": radiographs,
        "cohort all": [RUN_ID["cohort all"]],
        "cohort normal": [RUN_ID["cohort normal"]],
        "train normal": [RUN_ID["cohort normal"]],
        "train whole": [RUN_ID["cohort all"]],
        "train patches": [RUN_ID["cohort all"]],
        "embed": radiographs,
        "score": [IMAGE[case.number] for case in SCORED],
        "link": [RUN_ID["cohort all"]],
        "map": radiographs,
        "follow": radiographs[:1],
        "cluster": [RUN_ID["cohort all"]],
    }
    states: list[tuple[str, str, str | None]] = [
        (RUN_ID[name], s, None) for name, some in subjects.items() for s in some
    ]
    unreadable = "unreadable: the image cannot be decoded"
    states += [(RUN_ID["score"], IMAGE[c.number], unreadable) for c in RADIOGRAPHS if c not in SCORED]
    states += [
        (RUN_ID["ingest"], surrogate("file", "torn"), "truncated: fewer pixels than the header promises"),
        (RUN_ID["ingest"], surrogate("file", "bare"), "not_listed: no table says whose picture this is"),
        (RUN_ID["extract"], UNMATCHED, "TimeoutError"),
        (OLD_EXTRACT, REPORT[1, 0], "ValueError"),
    ]
    for run, subject, reason in states:
        rows.add(
            t.Task,
            run_id=run,
            subject_id=subject,
            state="failed" if reason else "done",
            reason=reason,
            traceback="phenotype/executors.py:69 attempt" if reason else None,
            finished_at=NOW + timedelta(minutes=30),
        )
