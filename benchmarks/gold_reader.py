"""The report reader in the form that a scorer of gold sets wants: `read(text)` and `assertion(sentence, start, end)`.

What belongs to the label sets, not to reading, stands here: which of the reader's concepts a label set codes under
which of its own, and which places it knows.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cache
from typing import Any

from spacy.language import Language

from nlp.lexicon import concepts
from nlp.pipeline import load_pipeline
from nlp.reader import Reader
from nlp.scan import Found, Notes, notes_of
from nlp.values import Evidence, Mention

_DEVICES = (
    "catheter_device", "central_line", "port", "endotracheal_tube", "tracheostomy", "feeding_tube", "chest_tube",
    "pacemaker", "defibrillator", "stent", "valve_prosthesis", "joint_prosthesis",
)  # fmt: skip
_MATERIAL = ("surgical_material", "sternal_wires", "clip", "suture")

# concepts that the label sets have no name for -> the labels that they are coded under
LABELS: dict[str, tuple[str, ...]] = {
    "lung_cancer": ("mass",),
    "vascular_calcification": ("ct_arterial_calcification", "calcinosis"),
    "coronary_calcification": ("ct_coronary_calcification",),
    "atherosclerosis": ("atherosclerosis", "ct_arterial_calcification"),
    "fibrous_lesion": ("ct_fibrotic_sequela", "fibrosis_ild"),
    "fibrosis_ild": ("fibrosis_ild", "ct_fibrotic_sequela"),
    "scar": ("scar", "ct_fibrotic_sequela"),
    "lymph_node": ("lymphadenopathy",),  # CT-RATE labels every lymph node that a report mentions
    "calcified_nodule": ("nodule", "calcinosis", "granuloma"),
    "infection": ("pneumonia",),  # of a chest radiograph
    # what MeSH has headings of its own for: Markings, Diaphragm/flattened, Heart Ventricles, Breast Implants ...
    **dict.fromkeys(
        (
            "vascular_crowding",
            "diaphragm_flattening",
            "left_ventricular_enlargement",
            "breast_implant",
            "dish",
            "increased_markings",
            "density",
        ),
        (),
    ),
    "edema": ("edema", "edema_congestion"),  # of a chest radiograph
    # one label set has the narrow label, the others the broad one
    "pulmonary_edema": ("edema", "edema_congestion"),
    "emphysema": ("emphysema", "emphysema_copd"),
    **dict.fromkeys(_DEVICES, ("catheter_device", "ct_medical_material")),
    **dict.fromkeys(_MATERIAL, ("surgical_material", "ct_medical_material")),
    **dict.fromkeys(
        ("spine_degenerative", "osteophyte", "spondylolisthesis", "disc_degeneration"), ("spine_degenerative",)
    ),
}
# the labels that have the name of a concept
_NAMED = frozenset({
    "cardiomegaly", "pleural_effusion", "pneumothorax", "atelectasis", "opacity", "airspace_disease", "consolidation",
    "infiltrate", "pneumonia", "edema_congestion", "nodule", "mass", "granuloma", "calcinosis", "scar",
    "emphysema_copd", "hyperinflation", "hypoinflation", "pleural_thickening", "costophrenic_blunting",
    "diaphragm_elevation", "hernia", "fracture", "scoliosis_kyphosis", "aortic_tortuosity", "pericardial_effusion",
    "lymphadenopathy", "mosaic_attenuation", "peribronchial_thickening", "bronchiectasis", "septal_thickening",
})  # fmt: skip


def _rolled_up() -> dict[str, tuple[str, ...]]:
    """Every concept with its labels: its own, or else those of the nearest broader concept that has any."""
    parents = {c.id: c.parent for c in concepts()}
    labels = {}
    for concept in parents:
        broader = concept
        while broader not in LABELS and broader not in _NAMED and parents[broader]:
            broader = parents[broader]
        labels[concept] = LABELS.get(broader, (broader,))
    return labels


_CODED = _rolled_up()
# MeSH has lobes for zones: a middle zone is coded as the middle lobe on the right and as the lingula on the left
LOCATIONS = {
    "base": "base", "lower_lobe": "lower lobe", "middle_lobe": "middle lobe", "upper_lobe": "upper lobe",
    "lingula": "lingula", "apex": "apex", "hilum": "hilum", "costophrenic_angle": "costophrenic angle",
    "retrocardiac": "retrocardiac", "paratracheal": "paratracheal", "perihilar": "hilum",
    "upper_zone": "upper lobe", "lower_zone": "lower lobe",
}  # fmt: skip
_MIDDLE_ZONE = {"right": "middle lobe", "left": "lingula"}
# the coders of Open-i left most of what a report only weighs ("may represent", "cannot exclude") uncoded
_CODED_FROM = {"en": 0.75}  # other sets count all that is weighed as uncertain
_CODED_BOTH = ("or", "versus")  # but they coded both of "atelectasis or scar"
_SIDES = {"left": {"left"}, "right": {"right"}, "bilateral": {"left", "right"}, "": set[str]()}


@cache
def _reader() -> Reader:
    return Reader()  # in the language that it finds


@cache
def _pipeline() -> Language:
    return load_pipeline()


def read(text: str) -> Iterator[dict[str, Any]]:
    """The findings of a report under the names of the label sets."""
    (reading,) = _reader().read_chunk([text])
    coded_from = _CODED_FROM.get(reading.language, 0.0)
    for m in reading.mentions:
        if m.temporality == "historical" and m.section in ("indication", "comparison", "technique"):
            continue
        if m.experiencer == "other" or m.temporality == "hypothetical":
            continue
        if m.assertion == "uncertain" and m.certainty < coded_from and m.rule not in _CODED_BOTH:
            continue
        labels = _CODED[m.concept]
        if "fibrosis_ild" in labels and "fibro" in text[m.start : m.end].lower():
            labels += ("fibrosis",)  # a label of one set; the others have one for all interstitial disease
        for concept in labels:
            yield {
                "concept": concept,
                "assertion": m.assertion,
                "sides": _sides(m),
                "severity": {m.severity} - {""},
                "location": {_location(e, m) for e in m.evidence if e.kind == "site"} - {""},
            }


def _sides(m: Mention) -> set[str]:
    """MeSH has no side for the lingula."""
    lingula = {(e.start, e.end) for e in m.evidence if e.kind == "site" and e.value == "lingula"}
    told = [_SIDES[e.value] for e in m.evidence if e.kind == "side" and (e.start, e.end) not in lingula]
    return set().union(*told) if told and m.side == "bilateral" else _SIDES[m.side]


def _location(site: Evidence, m: Mention) -> str:
    if site.value != "middle_zone":
        return LOCATIONS.get(site.value, "")
    sides = [e for e in m.evidence if e.kind == "side"]  # "right midlung and left upper lung": the one beside it
    side = min(sides, key=lambda e: abs(e.start - site.start)).value if sides else m.side
    return _MIDDLE_ZONE.get(side, "middle lobe")


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
