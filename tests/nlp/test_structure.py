"""Sections, sentences and offsets, on reports as they are dictated and on texts that no one dictates."""

import csv
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.language import Language

from nlp.pipeline import load_pipeline, read
from nlp.values import Reading

NLP = load_pipeline()
REPORT = """EXAM: CHEST PA AND LATERAL

INDICATION: Cough, rule out pneumonia. History of tuberculosis.
COMPARISON: None.

FINDINGS:
Heart size is normal. There is no pneumothorax, pleural
effusion or focal consolidation. A 7 mm nodule in the left upper
lobe, see series 3, approx. 2.5 cm above Dr. Smith's marker.
IMPRESSION:
1. Left upper lobe nodule.
2. No acute disease.
ADDENDUM: A right rib fracture is also seen."""


def one(text: str, nlp: Language = NLP) -> Reading:
    (reading,) = read(nlp, [text])
    return reading


def sentences(text: str) -> list[str]:
    return [text[s.start : s.end] for s in one(text).sentences]


def check_offsets(text: str, reading: Reading) -> None:
    at = 0
    for span in (*reading.sections, *reading.sentences):
        assert 0 <= span.start <= span.end <= len(text)
    for sentence in reading.sentences:
        assert at <= sentence.start < sentence.end
        at = sentence.end
    for m in reading.mentions:
        assert m.sentence_start <= m.start < m.end <= m.sentence_end
        assert (m.cue_start is None) == (m.cue_end is None) == (m.rule == "")
        assert 0 <= m.certainty <= 1
        assert m.assertion != "absent" or m.certainty == 0


def test_sections_of_a_whole_report() -> None:
    reading = one(REPORT)
    names = [s.name for s in reading.sections]
    assert names == ["technique", "indication", "comparison", "findings", "impression", "addendum"]
    findings = next(s for s in reading.sections if s.name == "findings")
    assert REPORT[findings.start : findings.end].startswith("Heart size")
    assert REPORT[findings.start : findings.end].endswith("marker.")
    said = {(m.concept, m.section): (m.assertion, m.temporality) for m in reading.mentions}
    assert said["pneumonia", "indication"] == ("uncertain", "hypothetical")
    assert said["tuberculosis", "indication"] == ("present", "historical")
    assert said["pleural_effusion", "findings"] == ("absent", "current")
    assert said["nodule", "findings"] == said["nodule", "impression"] == ("present", "current")
    assert said["normal_study", "impression"] == ("present", "current")
    assert said["rib_fracture", "addendum"] == ("present", "current")
    check_offsets(REPORT, reading)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("No effusion.", ["findings"]),
        ("Cardiomegaly. IMPRESSION: Cardiomegaly.", ["findings", "impression"]),
        ("Findings\nNo effusion.\nImpression\nNormal.", ["findings", "impression"]),
        ("HISTORY: cough. FINDINGS: clear. CONCLUSION: normal.", ["indication", "findings", "impression"]),
        ("IMPRESSION No acute disease", ["impression"]),
        ("IMPRESSION - No acute disease", ["impression"]),
        ("CXR: no effusion\nIMP: normal", ["findings", "impression"]),
        ("FINDINGS AND IMPRESSION: nodule", ["findings"]),
        ("FINDINGS/IMPRESSION:\nNodule", ["findings"]),
        ("Reason for exam: cough\nTECHNIQUE/COMPARISON: none\nResult: clear", ["indication", "technique", "findings"]),
        ("HISTORY OF PRESENT ILLNESS: cough.\nPHYSICAL EXAM: clear", ["indication", "findings"]),
        ("Clinical information: cough\nObservations: clear\nOpinion: normal", ["indication", "findings", "impression"]),
        ("PAST MEDICAL HISTORY: TB\nFINAL DIAGNOSIS: nodule", ["indication", "impression"]),
        ("Nodule.\nADDENDUM #2 (12/01/2020): Effusion", ["findings", "addendum"]),
        ("Impression (preliminary): nodule", ["impression"]),
        ("**FINDINGS:** nodule\n**IMPRESSION** nodule", ["other", "findings", "impression"]),
        ("CLINICAL HISTORY: Cough EXAMINATION: Chest FINDINGS: Nodule", ["indication", "technique", "findings"]),
        ("HISTORY: Cough.\nLUNGS: Clear.\nHEART: Large.", ["indication", "findings"]),
        ("INDICATION: Cough.\n\nThe heart is large.", ["indication", "findings"]),
        ("INDICATION:\n\nCough.\n\nFINDINGS:\n\nLarge heart.", ["indication", "findings"]),
        ("TECHNIQUE: Two views.\nThe heart is large.", ["technique", "findings"]),
        ("INDICATION: Cough.\nThe heart is large. Small effusion.", ["indication", "findings"]),
        ("INDICATION: Cough.\nPneumonia?\nThe heart is large.", ["indication", "findings"]),
        ("HISTORY: 65 year old man\nwith cough and fever", ["indication"]),
        ("HISTORY: Known COPD.\nOld tuberculosis.\nFINDINGS: Effusion.", ["indication", "findings"]),
        ("HISTORY: Known COPD.\nOld scar.\nQUESTION: Mass?\nEffusion.", ["indication", "indication", "findings"]),
        ("The impression: of a nodule", ["findings"]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_headings(text: str, names: list[str]) -> None:
    assert [s.name for s in one(text).sections] == names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No pneumothorax\nCardiomegaly", ["No pneumothorax", "Cardiomegaly"]),
        ("no effusion\nno mass", ["no effusion", "no mass"]),
        ("No evidence of\npneumothorax.", ["No evidence of\npneumothorax."]),
        ("1.There is a nodule.2.No mass;3.scar", ["1.There is a nodule.", "2.No mass;", "3.scar"]),
        ("1. Nodule. 2. No mass.", ["1. Nodule.", "2. No mass."]),
        ("- nodule\n- no mass", ["- nodule", "- no mass"]),
        ("Nodule of 4.5 cm. Dr. Smith was told.", ["Nodule of 4.5 cm.", "Dr. Smith was told."]),
        ("No effusion.No mass.", ["No effusion.", "No mass."]),
        ("Scar.. No mass.", ["Scar..", "No mass."]),
        ("? nodule. Scar?", ["? nodule.", "Scar?"]),
        ("1) Nodule\n2) No mass", ["1) Nodule", "2) No mass"]),
        ("• nodule • no mass", ["• nodule", "• no mass"]),
        ("* nodule\n* no mass", ["* nodule", "* no mass"]),
        ("Nodule in the [...] lobe. ___ mass.", ["Nodule in the [...] lobe.", "___ mass."]),
        (
            "THERE IS NO EVIDENCE OF A PNEUMOTHORAX OR A PLEURAL\nEFFUSION.",
            ["THERE IS NO EVIDENCE OF A PNEUMOTHORAX OR A PLEURAL\nEFFUSION."],
        ),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_report_whose_findings_have_no_heading() -> None:
    text = """FINAL REPORT
 INDICATION:  ___ year old with fever, evaluate for pneumonia.  History of tuberculosis.

 COMPARISON:  ___.

 Frontal and lateral views.  There is no pneumothorax.  Small left
 effusion.

 IMPRESSION:  Small effusion."""
    reading = one(text)
    assert [s.name for s in reading.sections] == ["findings", "indication", "comparison", "findings", "impression"]
    said = [(m.concept, m.section, m.assertion, m.temporality) for m in reading.mentions]
    assert said == [
        ("pneumonia", "indication", "uncertain", "hypothetical"),
        ("tuberculosis", "indication", "present", "historical"),
        ("pneumothorax", "findings", "absent", "current"),
        ("pleural_effusion", "findings", "present", "current"),
        ("pleural_effusion", "impression", "present", "current"),
    ]
    check_offsets(text, reading)


def test_organs_before_a_colon_are_sentences_and_no_sections() -> None:
    text = "FINDINGS:\nLUNGS: No nodule. Effusion.\nHeart: Enlarged.\nBones: Old rib fracture.\nIMPRESSION: Effusion."
    reading = one(text)
    assert [s.name for s in reading.sections] == ["findings", "impression"]
    assert sentences(text) == [
        "LUNGS: No nodule.",
        "Effusion.",
        "Heart: Enlarged.",
        "Bones: Old rib fracture.",
        "Effusion.",
    ]


def test_a_denial_does_not_reach_the_next_line() -> None:
    said = {m.concept: m.assertion for m in one("No pneumothorax\nCardiomegaly\nNo effusion").mentions}
    assert said == {"pneumothorax": "absent", "cardiomegaly": "present", "pleural_effusion": "absent"}


def test_the_words_that_decided_are_told() -> None:
    text = "There is no evidence of pneumothorax."
    (mention,) = one(text).mentions
    assert mention.cue_start is not None
    assert text[mention.cue_start : mention.cue_end] == "no evidence of"
    assert mention.rule == "no"


def test_readings_come_in_the_order_of_the_texts() -> None:
    texts = ["No mass.", "", "Nodule.", "Effusion."] * 50
    got = [[t[m.start : m.end] for m in r.mentions] for t, r in zip(texts, read(NLP, iter(texts)), strict=True)]
    assert got == [["mass"], [], ["Nodule"], ["Effusion"]] * 50


WORDS = (
    "no effusion nodule, heart enlarged . ; : \n 1. possible left right lobe is seen and FINDINGS: 3 x 4 cm not ( XXXX"
    " INDICATION: or if mother had \n\n - ?"
)


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS.split(" ")), max_size=60).map(" ".join)))
def test_any_text_is_read(text: str) -> None:
    reading = one(text)
    check_offsets(text, reading)
    assert reading == one(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 20_000,
        "\N{GRINNING FACE}" * 100_000,
        "a" * 1_000_000,
        "left nodule " * 20_000,
        "heart enlarged " * 20_000,
        "no " * 100_000,
        "\n" * 200_000,
        "." * 100_000,
        "1. " * 50_000,
        "FINDINGS: " * 20_000,
        "INDICATION: a\n" * 20_000,
        "no evidence of:\n- " * 10_000,
        "nodule or " * 20_000,
        "XXXX nodule " * 20_000,
        "is seen, nodule and " * 10_000,
        "9,9x" * 50_000,
        "half a character \ud800 and no effusion",
    ],
    ids=lambda text: text[:8].encode("unicode_escape").decode(),
)
def test_time_is_linear_in_the_text(text: str) -> None:
    start = time.process_time()
    check_offsets(text, one(text))
    assert time.process_time() - start < 5


def test_real_readings_of_tuberculosis(shared_data: Path) -> None:
    lines = (shared_data / "shenzhen" / "readings.csv").read_text(encoding="utf-8-sig").splitlines()[1:]
    for row in csv.reader(lines):
        reading, ill = row[5], row[6] == "1"
        mentions = one(reading).mentions
        found = {m.concept for m in mentions if m.assertion == "present"}
        assert (found == {"normal_study"}) != ill, reading
        if ill and reading.lower().startswith(("ptb", "secondary ptb", "left", "right", "bilateral")):
            first = min(mentions, key=lambda m: m.start)
            side = next(
                s for s in ("bilateral", "left", "right") if s in reading.lower().split(",")[0].replace("thel", "")
            )
            zone = next(
                (f"{z}_zone" for z in ("upper", "middle", "lower") if f"{z} " in reading.lower().split(",")[0]), ""
            )
            if " with " not in reading and not reading.startswith("Right pneumothorax"):
                assert (first.side, first.site) == (side, zone), reading
