"""What the mentions of a study add up to."""

import pytest

from phenotype.extraction.labels import Said, label_study


def said(concept, assertion="present", *, section="findings", certainty=None, **told):
    sure = {"present": 1.0, "uncertain": 0.5, "absent": 0.0}[assertion] if certainty is None else certainty
    values = {"temporality": "current", "side": ""} | told
    return Said(concept=concept, assertion=assertion, certainty=sure, section=section, **values)


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
    assert (label.side, label.mentions, label.confidence, label.implied) == ("bilateral", 2, 0.92, False)
    (label,) = label_study([said("effusion", side="left"), said("effusion", "absent", side="right")], {})
    assert label.side == "left"


def test_confidence_is_that_of_the_decisive_mentions():
    mentions = [said("mass", "uncertain", certainty=0.3), said("mass", "uncertain", certainty=0.75)]
    assert label_study(mentions, {})[0].confidence == label_study(mentions[1:], {})[0].confidence
    assert 0.3 < label_study(mentions, {})[0].confidence <= 0.75


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


@pytest.mark.parametrize(
    "mention",
    [
        said("nodule", experiencer="other"),
        said("nodule", temporality="hypothetical"),
        said("nodule", "absent", temporality="historical"),
        said("nodule", temporality="historical", change="resolved"),
    ],
)
def test_someone_elses_and_hypothetical_findings_are_no_labels(mention):
    assert values([mention]) == {}


@pytest.mark.parametrize("change", ["resolved", "removed"])
def test_what_is_gone_is_denied_today(change):
    assert values([said("effusion", "absent", temporality="historical", change=change)]) == {"effusion": "absent"}
    assert values([said("effusion", "absent", change=change), said("effusion", section="comparison")]) == {
        "effusion": "absent"
    }


def test_a_normal_statement_denies_only_what_nobody_speaks_of():
    normal = said("effusion", "absent", section="impression", implied=True)
    assert values([normal]) == {"effusion": "absent"}
    assert values([normal, said("effusion", certainty=1.0)]) == {"effusion": "present"}
    assert values([normal, said("effusion", "uncertain")]) == {"effusion": "uncertain"}
    assert values([normal, said("hydrothorax")], {"hydrothorax": "effusion"}) == {
        "effusion": "present",
        "hydrothorax": "present",
    }


def test_nothing_new_is_a_weak_denial():
    nothing_new = said("nodule", "absent", section="impression", change="new")
    assert values([nothing_new, said("nodule")]) == {"nodule": "present"}
    assert values([nothing_new]) == {"nodule": "absent"}


def sure(*mentions, second=None):
    (label,) = label_study(mentions, {}, second)
    return label.confidence


def test_confidence_orders_as_a_reader_would():
    """From what is surely there to what is surely not."""
    ordered = [
        sure(said("nodule"), said("nodule", section="impression")),
        sure(said("nodule", section="impression")),
        sure(said("nodule")),
        sure(said("nodule", section="other")),
        sure(said("nodule"), said("nodule", "absent")),
        sure(said("nodule", "uncertain", certainty=0.6)),
        sure(said("nodule", "uncertain", certainty=0.4)),
        sure(said("nodule", "absent", change="new")),
        sure(said("nodule"), said("nodule", "absent", section="impression")),
        sure(said("nodule", "absent", implied=True)),
        sure(said("nodule", "absent")),
    ]
    assert ordered == sorted(ordered, reverse=True)
    assert len(set(ordered)) == len(ordered)
    assert 0 <= ordered[-1] < 0.05
    assert 0.95 < ordered[0] <= 1


def test_a_second_reader_moves_the_confidence_and_no_value():
    for assertion in ("present", "uncertain", "absent"):
        mention = said("nodule", assertion)
        low, alone, high = (sure(mention, second=s) for s in ({"nodule": 0.0}, None, {"nodule": 1.0}))
        assert low < alone < high
        assert {x.value for s in ({"nodule": 0.0}, {"nodule": 1.0}) for x in label_study([mention], {}, s)} == {
            assertion
        }
    assert label_study([], {}, {"nodule": 1.0}) == []
