"""What the mentions of a study add up to."""

import pytest

from phenotype.extraction.labels import Said, label_study


def said(concept, assertion="present", *, section="findings", temporality="current", certainty=None, side=""):
    sure = {"present": 1.0, "uncertain": 0.5, "absent": 0.0}[assertion] if certainty is None else certainty
    return Said(concept, assertion, temporality, sure, section, side)


def values(mentions, parents=None):
    return {label.concept: label.value for label in label_study(mentions, parents or {})}


@pytest.mark.parametrize(
    ("mentions", "value"),
    [
        ([said("nodule")], "present"),
        ([said("nodule", "absent")], "absent"),
        ([said("nodule", "absent"), said("nodule")], "present"),
        ([said("nodule", "absent"), said("nodule", "uncertain")], "uncertain"),
        ([said("nodule"), said("nodule", "absent", section="impression")], "absent"),
        ([said("nodule", "absent", section="impression"), said("nodule", section="addendum")], "present"),
        ([said("nodule", "uncertain", section="other"), said("nodule", section="impression")], "present"),
    ],
)
def test_the_decisive_word(mentions, value):
    assert values(mentions) == {"nodule": value}
    assert values(mentions[::-1]) == {"nodule": value}, "the order of mentions does not matter"


def test_what_is_not_of_today_is_no_label():
    assert values([said("pneumonia", section="indication"), said("nodule", temporality="historical")]) == {}
    assert values([said("effusion", section="comparison"), said("effusion", "absent")]) == {"effusion": "absent"}


def test_sides_add_up():
    (label,) = label_study([said("effusion", side="left"), said("effusion", side="right")], {})
    assert (label.side, label.mentions, label.confidence, label.implied) == ("bilateral", 2, 1.0, False)
    (label,) = label_study([said("effusion", side="left"), said("effusion", "absent", side="right")], {})
    assert label.side == "left"


def test_confidence_is_that_of_the_decisive_mentions():
    mentions = [said("mass", "uncertain", certainty=0.3), said("mass", "uncertain", certainty=0.75)]
    assert label_study(mentions, {})[0].confidence == 0.75


def test_the_narrower_implies_the_broader():
    parents = {"rib_fracture": "fracture", "fracture": "bone_lesion"}
    labels = {label.concept: label for label in label_study([said("rib_fracture", side="left")], parents)}
    assert {c: (x.value, x.side, x.implied) for c, x in labels.items()} == {
        "rib_fracture": ("present", "left", False),
        "fracture": ("present", "left", True),
        "bone_lesion": ("present", "left", True),
    }


def test_a_denial_implies_nothing():
    assert values([said("rib_fracture", "absent")], {"rib_fracture": "fracture"}) == {"rib_fracture": "absent"}


def test_what_is_said_of_the_broader_itself_stands():
    mentions = [said("nodule"), said("opacity", "absent")]
    assert values(mentions, {"nodule": "opacity"}) == {"nodule": "present", "opacity": "absent"}


def test_parents_in_a_circle_end():
    assert values([said("a")], {"a": "b", "b": "a"}) == {"a": "present", "b": "present"}
