"""The people of the sample and their reports: invented names, invented words.

Reports are written with their mentions marked, as in `Small [right effusion](pleural_effusion present right mild).`
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

STORIES = {
    "denied, then asserted": 4,  # study numbers
    "doubted, then confirmed": (5, 6),
    "most anomalous of those reported normal": 7,
    "peak on the other side than the report says": 11,
    "two reports": 16,
    "no report": 17,
}

SITES = {  # id: name, kind, parent, RadLex, SNOMED CT
    "lung": ("Lung", "organ", "thorax", "RID1301", "39607008"),
    "lower_lobe": ("Lower lobe", "lobe", "lung", "", ""),
    "thorax": ("Thorax", "region", "", "RID1243", ""),
    "upper_lobe": ("Upper lobe", "lobe", "lung", "", ""),
}

CONCEPTS = {  # id: name, category, parent, RadLex, MeSH, SNOMED CT
    "atelectasis": ("Atelectasis", "finding", "", "RID28493", "", ""),
    "cardiomegaly": ("Cardiomegaly", "finding", "", "", "", "287272002"),
    "catheter_device": ("Catheter, tube or implanted device", "device", "", "", "", ""),
    "consolidation": ("Consolidation", "finding", "", "", "", ""),
    "nodule": ("Nodule", "finding", "", "", "", "27925004"),
    "normal_study": ("Normal study", "normal", "", "", "", ""),
    "pacemaker": ("Pacemaker", "device", "catheter_device", "", "", "14106009"),
    "pleural_effusion": ("Pleural effusion", "finding", "", "RID34539", "D010996", "60046008"),
    "pneumothorax": ("Pneumothorax", "finding", "", "RID5352", "D011030", "36118008"),
}

NAMES = (
    "Quastenflosser^Adelheid",
    "Wimmelbach^Ottokar",
    "Sonnenfroh^Irmhild",
    "Krautwurst^Leberecht",
    "Mondschein^Walburga",
    "Zapfenstreich^Kunibert",
    "Heuschreck^Mechthild",
    "Taubenschlag^Eustach",
    "Nebelkraehe^Rosamunde",
    "Dudelsack^Hartwin",
    "Federspiel^Gerlinde",
    "Pfeffersack^Ansgar",
)
FOLDS = (0, 1, 2, 8, 3, 4, 9, 5, 6, 8, 7, 9)  # of the patients; 8 and 9 are kept aside
BIRTH_YEARS = (1941, 1950, 1962, 1988, 1938, 1975, 1955, 1947, 1969, 1944, 1991, 1952)


REPORTS = """\
patient 1, day 0, radiograph
[Mild cardiomegaly](cardiomegaly present mild). Small [right pleural effusion](pleural_effusion present right mild).
No [pneumothorax](pneumothorax absent).

patient 1, day 14, radiograph
The [right pleural effusion](pleural_effusion present right moderate increased) has grown.
[Cardiomegaly](cardiomegaly present stable) as before.

patient 2, day 0, radiograph
[Normal chest](normal_study present). No [pleural effusion](pleural_effusion absent).

patient 2, day 30, radiograph
New [left pleural effusion](pleural_effusion present left moderate new).
[Left basal atelectasis](atelectasis present left).

patient 3, day 0, radiograph
Possible [nodule](nodule uncertain left 8mm) in the left upper lobe. No [effusion](pleural_effusion absent).

patient 3, day 60, volume
[Solid nodule](nodule present left 9mm <8mm increased) in the left upper lobe, from 8 mm.
History of [pneumothorax](pneumothorax present historical).

patient 4, day 0, radiograph
[Normal study](normal_study present).

patient 5, day 0, radiograph
[Bilateral pleural effusions](pleural_effusion present bilateral moderate)
with [marked cardiomegaly](cardiomegaly present severe).

patient 5, day 7, radiograph
Residual [left effusion](pleural_effusion present left mild). [Cardiomegaly](cardiomegaly present).
Dual-lead [pacemaker](pacemaker present left).

patient 6, day 0, radiograph
[Normal chest](normal_study present). No [nodule](nodule absent) and no [consolidation](consolidation absent).

patient 7, day 0, radiograph
[Right pleural effusion](pleural_effusion present right moderate). No [cardiomegaly](cardiomegaly absent).

patient 7, day 90, radiograph
The [effusion](pleural_effusion absent resolved) has resolved. [Normal heart](cardiomegaly absent implied),
[clear lungs](normal_study present).

patient 8, day 0, radiograph
[Cardiomegaly](cardiomegaly present moderate). [Pacemaker](pacemaker present left) in place.

patient 9, day 0, radiograph
[Consolidation](consolidation present right) of the right lower lobe. No [pleural effusion](pleural_effusion absent).

patient 9, day 10, radiograph
The [consolidation](consolidation absent) has cleared; [linear atelectasis](atelectasis present right) remains.

patient 10, day 0, volume
[Left pleural effusion](pleural_effusion present left mild).
+
Two [nodules](nodule present right 12mm n2) in the right lower lobe were seen on review.

patient 10, day 21, radiograph

patient 11, day 0, radiograph
[Normal study](normal_study present).
No [pleural effusion](pleural_effusion absent) or [pneumothorax](pneumothorax absent).
A sister had a [pneumothorax](pneumothorax present other).

patient 12, day 0, radiograph
A [right pleural effusion](pleural_effusion uncertain right) cannot be excluded.

patient 12, day 5, radiograph
[Right pleural effusion](pleural_effusion present right moderate), now certain. [Cardiomegaly](cardiomegaly present).
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A study: whose, how many days after the patient's first, which kind of image, and what its reports say."""

    number: int
    patient: int
    day: int
    kind: str
    reports: tuple[str, ...]


def _cases() -> Iterator[Case]:
    for number, block in enumerate(REPORTS.strip().split("\n\n"), 1):
        head, *lines = block.split("\n")
        patient, day, kind = head.split(", ")
        reports = " ".join(lines).split(" + ") if lines else []
        yield Case(number, int(patient.split()[1]), int(day.split()[1]), kind, tuple(reports))


CASES = tuple(_cases())
HEADING = "FINDINGS: "


def read_marked(marked: str) -> tuple[str, list[dict[str, Any]]]:
    """The plain text of a marked report, and its mentions as rows of Finding but for run, report and sentence."""
    text, at, mentions = HEADING, 0, []
    for match in re.finditer(r"\[([^]]+)\]\(([^)]+)\)", marked):
        text += marked[at : match.start()]
        concept, assertion, *rest = match[2].split()
        decided = assertion != "present"
        mention = {
            "start": len(text),
            "end": len(text) + len(match[1]),
            "concept_id": concept,
            "assertion": assertion,
            "temporality": "historical" if "historical" in rest else "current",
            "certainty": {"absent": 0.0, "uncertain": 0.4, "present": 1.0}[assertion],
            "section": "findings",
            "cue_start": len(HEADING) if decided else None,
            "cue_end": len(HEADING) + 2 if decided else None,
            "rule": {"absent": "no", "uncertain": "possible", "present": ""}[assertion],
            "side": next((side for side in ("left", "right", "bilateral") if side in rest), ""),
            "site": "lower_lobe" if "lower lobe" in marked else "upper_lobe" if "upper lobe" in marked else "",
            "severity": next((word for word in ("mild", "moderate", "severe") if word in rest), ""),
            "size_mm": next((float(word[:-2]) for word in rest if re.fullmatch(r"\d+mm", word)), None),
            "experiencer": "other" if "other" in rest else "patient",
            "implied": "implied" in rest,
            "prior_size_mm": next((float(word[1:-2]) for word in rest if re.fullmatch(r"<\d+mm", word)), None),
            "count": next((word[1:] for word in rest if re.fullmatch(r"n\d", word)), ""),
            "change": next((word for word in rest if word in ("new", "increased", "stable", "resolved")), ""),
        }
        mentions.append(mention)
        text, at = text + match[1], match.end()
    return text + marked[at:], mentions


def modifiers_of(text: str, mention: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The words that say something of a mention, as rows of Modifier but for run and report."""
    own = {"finding_start": mention["start"], "concept_id": mention["concept_id"]}
    inside = {"start": mention["start"], "end": mention["end"]}
    if mention["site"]:
        at = text.index(mention["site"].replace("_", " "))
        yield own | {"kind": "site", "value": mention["site"], "start": at, "end": at + len(mention["site"])}
    for kind in ("side", "severity", "change", "count"):
        if mention[kind]:
            yield own | inside | {"kind": kind, "value": mention[kind]}
    for kind, column in (("size", "size_mm"), ("prior_size", "prior_size_mm")):
        if mention[column]:
            yield own | inside | {"kind": kind, "value": str(mention[column])}


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of a report begin and end, its heading left out."""
    start = len(HEADING)
    for match in re.finditer(r"\.(?= |$)", text):
        yield start, match.end()
        start = match.end() + 1


def labels_of(case: Case) -> dict[str, dict[str, Any]]:
    """Concept to what the reports of a study add up to, as a row of Label but for run and study."""
    mentions = [mention for report in case.reports for mention in read_marked(report)[1]]
    labels: dict[str, dict[str, Any]] = {}
    for mention in mentions:
        if mention["temporality"] == "current" and mention["experiencer"] == "patient":
            label = {"value": mention["assertion"], "confidence": mention["certainty"], "side": mention["side"]}
            concept = mention["concept_id"]
            labels[concept] = label | {"concept_id": concept, "mentions": 1, "implied": False}
            broader = CONCEPTS[concept][2]
            if broader and mention["assertion"] != "absent":
                labels[broader] = label | {"concept_id": broader, "mentions": 1, "implied": True}
    return labels


def positive(case: Case) -> list[str]:
    """The findings that a study's reports assert or doubt."""
    labels = labels_of(case).values()
    found = [label["concept_id"] for label in labels if label["value"] != "absent"]
    return [concept for concept in found if CONCEPTS[concept][1] == "finding"]


def split_of(case: Case) -> str:
    """The part that a study's patient plays."""
    return "holdout" if FOLDS[case.patient - 1] >= 8 else "train"


RADIOGRAPHS = tuple(case for case in CASES if case.kind == "radiograph")
SCORED = tuple(case for case in RADIOGRAPHS if case.number not in (13, 17))  # two images could not be decoded
NORMAL = tuple(case for case in RADIOGRAPHS if case.reports and not positive(case))


def accession(number: int) -> str:
    """The accession number of a study."""
    return f"AKZ-2025-88{number:03d}"
