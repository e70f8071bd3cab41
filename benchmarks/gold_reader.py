"""The report reader in the form that a scorer of gold sets wants: `read(text)` and `assertion(sentence, start, end)`.

What belongs to the label sets, not to reading, stands here: which of the reader's concepts a label set codes under
which of its own, and which places it knows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cache
from typing import Any

from spacy.language import Language

from nlp.pipeline import load_pipeline
from nlp.pipeline import read as read_reports
from nlp.scan import Found, Notes, notes_of

_DEVICES = (
    "catheter_device", "central_line", "port", "endotracheal_tube", "tracheostomy", "feeding_tube", "chest_tube",
    "pacemaker", "defibrillator", "stent", "valve_prosthesis", "joint_prosthesis",
)  # fmt: skip
_MATERIAL = ("surgical_material", "sternal_wires", "clip", "suture")

# concepts that the label sets have no name for -> the labels that they are coded under
LABELS: dict[str, tuple[str, ...]] = {
    "left_atrial_enlargement": ("cardiomegaly",),
    "heart_failure": ("edema_congestion",),
    "hemothorax": ("pleural_effusion",),
    "empyema": ("pleural_effusion",),
    "discoid_atelectasis": ("atelectasis",),
    "ground_glass": ("opacity",),
    "interstitial_opacity": ("opacity",),
    "lung_cancer": ("mass",),
    "micronodule": ("nodule",),
    "tree_in_bud": ("nodule",),
    "emphysema": ("emphysema_copd",),
    "bulla": ("emphysema_copd",),
    "vascular_calcification": ("ct_arterial_calcification", "calcinosis"),
    "coronary_calcification": ("ct_coronary_calcification",),
    "atherosclerosis": ("atherosclerosis", "ct_arterial_calcification"),
    "fibrous_lesion": ("ct_fibrotic_sequela", "fibrosis_ild"),
    "fibrosis_ild": ("fibrosis_ild", "ct_fibrotic_sequela"),
    "scar": ("scar", "ct_fibrotic_sequela"),
    "lymph_node": ("lymphadenopathy",),  # CT-RATE labels every lymph node that a report mentions
    "pleural_plaque": ("pleural_thickening",),
    "hiatal_hernia": ("hernia",),
    "diaphragmatic_hernia": ("hernia",),
    "rib_fracture": ("fracture",),
    "vertebral_fracture": ("fracture",),
    "clavicle_fracture": ("fracture",),
    "calcified_nodule": ("nodule", "calcinosis", "granuloma"),
    "covid": ("pneumonia",),
    "pneumonitis": ("pneumonia",),
    "aspiration": ("pneumonia",),
    **dict.fromkeys(_DEVICES, ("catheter_device", "ct_medical_material")),
    **dict.fromkeys(_MATERIAL, ("surgical_material", "ct_medical_material")),
}
# MeSH has lobes for zones: a middle zone is coded as the middle lobe on the right and as the lingula on the left
LOCATIONS = {
    "base": "base", "lower_lobe": "lower lobe", "middle_lobe": "middle lobe", "upper_lobe": "upper lobe",
    "lingula": "lingula", "apex": "apex", "hilum": "hilum", "costophrenic_angle": "costophrenic angle",
    "retrocardiac": "retrocardiac", "paratracheal": "paratracheal", "perihilar": "hilum",
    "upper_zone": "upper lobe", "lower_zone": "lower lobe",
}  # fmt: skip
_MIDDLE_ZONE = {"right": "middle lobe", "left": "lingula"}
# the coders of Open-i left most of what a report only weighs ("may represent", "cannot exclude") uncoded
_CODED_FROM = 0.75
_SIDES = {"left": {"left"}, "right": {"right"}, "bilateral": {"left", "right"}, "": set[str]()}


@cache
def _pipeline() -> Language:
    return load_pipeline()


def read(text: str) -> Iterator[dict[str, Any]]:
    """The findings of a report under the names of the label sets."""
    (reading,) = read_reports(_pipeline(), [text])
    for m in reading.mentions:
        if m.temporality == "historical" and m.section in ("indication", "comparison", "technique"):
            continue
        if m.assertion == "uncertain" and m.certainty < _CODED_FROM:
            continue
        for concept in LABELS.get(m.concept, (m.concept,)):
            yield {
                "concept": concept,
                "assertion": m.assertion,
                "sides": _SIDES[m.side],
                "severity": {m.severity} - {""},
                "location": {_MIDDLE_ZONE.get(m.side, "") if m.site == "middle_zone" else LOCATIONS.get(m.site, "")}
                - {""},
            }


def assertion(sentence: str, start: int, end: int) -> str:
    """What a sentence says of the phrase that stands at these offsets, whatever it names."""
    nlp = _pipeline()
    doc = nlp.make_doc(sentence)
    for name, component in nlp.pipeline:
        doc = component(doc)
        if name == "report_concepts":
            phrase = _put_in(notes_of(doc), start, end)
        if name == "report_context":
            break
    return phrase.assertion


def _put_in(notes: Notes, start: int, end: int) -> Found:
    """A mention made of any words, in place of those that the lexicon finds there."""
    first = min(bisect_right(notes.ends, start), len(notes.ids) - 1)
    at = bisect_right([a for a, _ in notes.sentences], first) - 1
    last = min(max(bisect_left(notes.starts, end), first + 1), notes.sentences[at][1])
    phrase = Found(0, ((first, last),))
    others = [m for m in notes.found[at] if m.end <= first or m.start >= last]
    notes.found[at] = sorted([*others, phrase], key=lambda m: m.parts)
    return phrase
