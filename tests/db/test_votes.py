"""What several labellers say of a study, and where its reports say that findings are."""

from collections import defaultdict

from sample import RUN_ID, STUDY
from sample_cases import RADIOGRAPHS, labels_of

from db.queries.votes import votes, whereabouts


def test_labellers_vote_on_the_studies_of_a_cohort(filled):
    with filled.reading() as session:
        found = list(votes(session, RUN_ID["label"], RUN_ID["cohort all"]))
    by_labeller = defaultdict(list)
    for vote in found:
        by_labeller[vote.labeller].append(vote)
    assert {"rules", "findings", "classifier"} <= set(by_labeller) <= {"rules", "findings", "impression", "classifier"}
    rules = {(vote.study, vote.concept): vote.value for vote in by_labeller["rules"]}
    assert rules == {
        (STUDY[case.number], concept): label["value"]
        for case in RADIOGRAPHS
        for concept, label in labels_of(case).items()
        if not label.get("implied")
    }
    by_number = {(vote.study, vote.concept): vote.probability for vote in by_labeller["classifier"]}
    assert by_number[STUDY[1], "cardiomegaly"] == 0.97
    assert all(vote.value == "" for vote in by_labeller["classifier"])
    asserted = [vote for vote in by_labeller["findings"] if vote.value == "present"]
    assert asserted
    assert all(vote.probability > 0.5 for vote in asserted)
    assert all(vote.probability < 0.5 for vote in by_labeller["findings"] if vote.value == "absent")


def test_sides_are_those_of_what_is_asserted(filled):
    with filled.reading() as session:
        found = list(whereabouts(session, RUN_ID["label"], RUN_ID["cohort all"]))
    said = {(place.study, place.concept, place.side) for place in found}
    expected = {
        (STUDY[case.number], concept, label["side"])
        for case in RADIOGRAPHS
        for concept, label in labels_of(case).items()
        if concept == "pleural_effusion" and label["value"] == "present" and label["side"] in ("left", "right")
    }
    assert len(expected) > 3
    assert expected <= said
