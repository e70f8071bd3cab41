"""What normal statements about organs deny, what they leave alone, and names that share a word after "and"."""

from functools import cache

import pytest

from nlp.pipeline import load_pipeline, read
from nlp.values import Mention

pipeline = cache(load_pipeline)


def mentions(text: str) -> tuple[Mention, ...]:
    (reading,) = read(pipeline(), [text])
    return reading.mentions


def denied(text: str) -> set[str]:
    return {m.concept for m in mentions(text) if m.implied}


def test_a_denial_tells_its_organ_its_state_and_its_rule() -> None:
    text = "Pulmonary nodule. The heart size is within normal limits."
    (nodule, denial) = mentions(text)
    assert (nodule.concept, nodule.implied) == ("nodule", False)
    assert (denial.concept, denial.assertion, denial.certainty, denial.implied) == ("cardiomegaly", "absent", 0.0, True)
    assert text[denial.start : denial.end] == "heart size"
    assert denial.cue_start is not None
    assert text[denial.cue_start : denial.cue_end] == "within normal limits"
    assert denial.rule == "normal_heart"


def test_the_side_of_an_organ_is_that_of_the_denial() -> None:
    assert {m.side for m in mentions("The left lung is clear.") if m.implied} == {"left"}


@pytest.mark.parametrize(
    "text",
    [
        "Heart size is not normal.",
        "Heart size is at the upper limits of normal.",
        "The heart was normal previously.",
        "Lungs are not entirely clear.",
        "INDICATION: The heart was normal.",
        "Normal study, heart failure is known.",
        "The heart and lungs.",
        "Clear. Normal.",
    ],
)
def test_no_normal_statement(text: str) -> None:
    assert denied(text) == set()


def test_what_the_sentence_says_goes_before() -> None:
    assert "pleural_effusion" not in denied("The pleura is normal without effusion.")
    # the broader and the more special concept are left alone too
    assert "opacity" not in denied("Lungs are clear except for a ground glass opacity in the left base.")
    assert "consolidation" in denied("Lungs are clear except for a ground glass opacity in the left base.")


def test_an_organ_with_a_predicate_of_its_own_is_none_of_the_list() -> None:
    assert denied("Normal heart, lungs hyperinflated.") == {"cardiomegaly"}
    assert "cardiomegaly" not in denied("The heart is enlarged, and the lungs are clear.")


def test_denials_do_not_disturb_what_is_said() -> None:
    (effusion, *rest) = mentions("Small left effusion, heart and mediastinum are normal.")
    assert (effusion.concept, effusion.side, effusion.severity) == ("pleural_effusion", "left", "mild")
    assert rest
    assert all(m.implied and not m.side for m in rest)


@pytest.mark.parametrize(
    ("text", "concepts"),
    [
        ("Pleural and pericardial effusions.", {"pleural_effusion", "pericardial_effusion"}),
        ("Centrilobular and paraseptal emphysema.", {"centrilobular_emphysema", "paraseptal_emphysema"}),
        (
            "Hilar, mediastinal or axillary lymphadenopathy.",
            {"hilar_lymphadenopathy", "mediastinal_lymphadenopathy", "axillary_lymphadenopathy"},
        ),
        ("Rib and clavicle fractures.", {"rib_fracture", "clavicle_fracture"}),
        ("Calcified hilar and mediastinal lymph nodes.", {"calcified_lymph_node", "lymph_node"}),
        ("Atelectasis and pleural effusion.", {"atelectasis", "pleural_effusion"}),
    ],
)
def test_names_share_their_head(text: str, concepts: set[str]) -> None:
    assert {m.concept for m in mentions(text)} == concepts
    assert {m.assertion for m in mentions("No " + text.lower())} == {"absent"}
