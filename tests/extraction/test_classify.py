"""The second reader: it finds what the rules have no words for, and has never seen the patient that it judges."""

import random
from dataclasses import replace

import pytest
from sqlalchemy import select

from db.tables import Label, TextScore
from phenotype.extraction import classify as module
from phenotype.extraction.classify import PARTS, ReadReport, ReadSentence, classify
from phenotype.extraction.labels import Said
from phenotype.extraction.stage import Classify, Extract, LabelStudies
from phenotype.stage import Refused, run_stage


def said(concept, assertion="present"):
    certainty = {"present": 1.0, "uncertain": 0.5, "absent": 0.0}[assertion]
    return Said(concept, assertion, "current", certainty, "findings", "")


PHRASES = (
    ("There is a {} pleural effusion at the base", said("effusion")),
    ("Blunting of the {} costophrenic angle by fluid", said("effusion")),
    ("No pleural effusion on the {}", said("effusion", "absent")),
    ("The {} lung is clear", None),
    ("Heart size is within normal limits", None),
)


def corpus(reports=200, seed=0):
    """Reports of two sentences."""
    rng = random.Random(seed)
    made = {}
    for number in range(reports):
        sentences = []
        for words, mention in rng.sample(PHRASES, 2):
            text = words.format(rng.choice(("left", "right")))
            sentences.append(ReadSentence(text, (mention,) if mention else ()))
        made[f"r{number:03d}"] = ReadReport(number % PARTS, tuple(sentences))
    return made


def scores(reports, **knobs):
    found = classify(reports, {}, ["effusion"], **{"least": 10, "strength": 10.0} | knobs)
    return {report: {s.concept: s for s in own} for report, own in found.items()}


def test_it_agrees_with_clear_reports():
    reports = corpus()
    for report, own in scores(reports).items():
        mentions = {m.assertion for s in reports[report].sentences for m in s.said}
        score = own.get("effusion")
        expected = "present" if "present" in mentions else "absent" if mentions else ""
        if score is None:
            assert expected == ""
        else:
            assert score.said == expected
            assert (score.probability > 0.5) == (expected == "present")


def test_it_finds_what_the_rules_missed_and_doubts_what_they_misread():
    reports = corpus()
    missed = ReadReport(0, (ReadSentence("Blunting of the left pleural base by effusion", ()),))
    misread = ReadReport(1, (ReadSentence("The lung is clear, heart size is normal", (said("effusion"),)),))
    found = scores(reports | {"missed": missed, "misread": misread})
    assert (found["missed"]["effusion"].said, found["missed"]["effusion"].probability > 0.5) == ("", True)
    assert (found["misread"]["effusion"].said, found["misread"]["effusion"].probability < 0.5) == ("present", True)


def test_no_report_is_judged_by_a_model_that_saw_its_patient():
    """A word that only one part of the patients has is as good as unknown there, and known to the others."""
    reports = corpus()
    secret = ReadSentence("Quibbleform shadow", (said("effusion"),))
    own = {r: replace(x, sentences=(*x.sentences[:1], secret)) if x.part == 2 else x for r, x in reports.items()}
    probe = {f"probe{part}": ReadReport(part, (ReadSentence("Quibbleform shadow", ()),)) for part in range(PARTS)}
    found = scores(own | probe)
    sure = {part: own.probability if (own := found[f"probe{part}"].get("effusion")) else 0.0 for part in range(PARTS)}
    assert sure[2] < 0.5
    assert all(p > 0.9 for part, p in sure.items() if part != 2)


def test_rare_concepts_are_not_learned():
    assert all(not own for own in scores(corpus(), least=201).values())
    assert scores({}) == {}
    alone = {r: replace(x, part=3) for r, x in corpus().items()}  # nobody to learn from
    assert {own["effusion"].probability for own in scores(alone).values() if own} == {0.0}


def test_the_broader_concept_is_learned_from_the_narrower():
    found = classify(corpus(), {"effusion": "fluid"}, ["fluid"], least=10, strength=10.0)
    present = [s for own in found.values() for s in own if s.said == "present"]
    assert present
    assert {s.concept for s in present} == {"fluid"}


def test_the_order_of_reports_does_not_matter():
    reports = corpus()
    backwards = dict(reversed(reports.items()))
    one, other = scores(reports), scores(backwards)
    for report, own in one.items():
        for concept, score in own.items():
            assert other[report][concept].probability == pytest.approx(score.probability, abs=2e-3)


def test_what_a_row_becomes():
    from db.queries.sentences import ReportRow, SentenceRow

    finding = ("effusion", "present", "current", 1.0, "findings", "left", "patient", "", False)
    sentences = (SentenceRow("Effusion.", "findings", (finding,)), SentenceRow("Cough.", "indication", ()))
    read = module.as_read(ReportRow("00000007", 8, sentences))
    assert read == ReadReport(3, (ReadSentence("Effusion.", (Said(*finding),)),))
    assert module.as_read(ReportRow("00000007", None, ())).part == 7 % PARTS


# ---------------------------------------------------------------- the stage


def test_the_stage_and_its_say_in_labels(database):
    home = database.path.parent
    run_stage(Extract(language="en"), database, home)
    alone = run_stage(LabelStudies(), database, home)
    first = run_stage(Classify(least=2), database, home)
    assert (first.done, first.failed) == (1, 0)
    both = run_stage(LabelStudies(), database, home)
    assert both.run_id != alone.run_id
    assert run_stage(LabelStudies(second="none"), database, home).run_id == alone.run_id
    assert run_stage(LabelStudies(second=first.run_id[:8]), database, home).run_id == both.run_id
    with database.reading() as session:
        rows = session.execute(select(TextScore.said, TextScore.probability).where(TextScore.run_id == first.run_id))
        found = rows.all()
        labels = {
            run: {(x.study_id, x.concept_id): x for x in session.scalars(select(Label).where(Label.run_id == run))}
            for run in (alone.run_id, both.run_id)
        }
    assert {said for said, _ in found} >= {"present", "absent"}
    assert all(0 <= probability <= 1 for _, probability in found)
    one, two = labels[alone.run_id], labels[both.run_id]
    assert {key: x.value for key, x in one.items()} == {key: x.value for key, x in two.items()}
    assert any(x.confidence != two[key].confidence for key, x in one.items())
    again = run_stage(Classify(least=2), database, home)
    assert (again.run_id, again.done, again.before) == (first.run_id, 0, 1)


def test_knobs_that_make_no_sense_are_refused(database):
    run_stage(Extract(language="en"), database, database.path.parent)
    for knobs in ({"least": 1}, {"strength": 0.0}):
        with pytest.raises(Refused, match="'least' must be 2 or more"):
            run_stage(Classify(**knobs), database, database.path.parent)
