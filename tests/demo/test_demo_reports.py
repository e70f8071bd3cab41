"""The invented reports: what their truth says stands in their words."""

import re
from datetime import date

import numpy as np
import pytest

from phenotype.demo import phrases
from phenotype.demo.cases import draw_studies
from phenotype.demo.lesions import KINDS, Lesion, radiograph
from phenotype.demo.reports import Occasion, Written, write_report

WORDS = {
    "nodule": "nodule",
    "consolidation": "consolidation",
    "pleural_effusion": "effusion|pleural fluid",
    "pneumothorax": "pneumothorax",
    "cardiomegaly": "cardiomegaly|heart|cardiac|cardiomediastinal",
    "hyperinflation": "hyperinflat|hyperexpan",
    "fibrosis_ild": "fibro|interstitial",
    "pulmonary_edema": "edema|oedema",
    "vascular_congestion": "congestion",
    "pacemaker": "pacemaker",
    "central_line": "central",
    "pneumonia": "pneumonia",
}
DENYING = re.compile(r"\bno\b|without|negative|normal|unremarkable|resolved|no longer")


@pytest.fixture(scope="module")
def written() -> list[tuple[tuple[Lesion, ...], Written]]:
    texts = []
    for study in draw_studies(160, 10, 7):
        lesions = study.lesions
        if study.view is not None and lesions:
            lesions = tuple(p.lesion for p in radiograph(study.person.build, study.view, lesions)[1])
        occasion = Occasion(study.modality, study.previous)
        texts.append((lesions, write_report(np.random.default_rng(study.seed), lesions, occasion)))
    return texts


def test_every_mention_stands_in_the_text(written):
    for _, report in written:
        text = report.text.lower()
        for mention in report.mentions:
            assert re.search(WORDS.get(mention.concept, "."), text), mention
            if mention.side and mention.side != "bilateral":
                assert mention.side in text
            if mention.assertion == "absent":
                assert DENYING.search(text)


def test_reported_lesions_are_mentioned_on_their_side(written):
    called = {
        "consolidation": {"consolidation", "airspace_disease", "opacity", "infiltrate", "pneumonia"},
        "edema_congestion": {"pulmonary_edema", "vascular_congestion"},
    }
    for lesions, report in written:
        for lesion, reported in zip(lesions, report.reported, strict=True):
            names = called.get(lesion.finding, {lesion.finding})
            said = [m for m in report.mentions if m.concept in names and m.assertion != "absent"]
            if not reported:
                continue
            assert said, (lesion, report.text)
            if lesion.side and lesion.finding != "fibrosis_ild":
                assert any(m.side in (lesion.side, "bilateral") for m in said)
            if lesion.finding in ("nodule", "consolidation"):
                assert any(m.zone == lesion.zone for m in said if m.side == lesion.side)


def test_no_report_contradicts_itself(written):
    for _, report in written:
        present = {m.concept for m in report.mentions if m.assertion == "present"}
        assert not present & {m.concept for m in report.mentions if m.assertion == "absent"}


def test_misses_doubts_and_inventions_are_as_rare_as_promised():
    missed = lesions_seen = doubted = invented = 0
    plan = (Lesion("nodule", "left", "upper", 12.0), Lesion("cardiomegaly", size=150.0))
    for seed in range(1500):
        report = write_report(np.random.default_rng(seed), plan, Occasion("CR", None))
        missed += sum(not r for r in report.reported)
        lesions_seen += len(plan)
        doubted += sum(m.assertion == "uncertain" for m in report.mentions)
        invented += report.invented is not None
        if report.invented:
            assert report.invented.finding not in {lesion.finding for lesion in plan}
    assert 0.035 < missed / lesions_seen < 0.065
    assert 0.05 < doubted / lesions_seen < 0.11
    assert 0.003 < invented / 1500 < 0.03


def test_the_style_varies(written):
    texts = [report.text for _, report in written]
    assert len(set(texts)) > 0.95 * len(texts)
    assert any(t.isupper() for t in texts)
    assert any(t.islower() for t in texts)
    assert any(re.search(r"^2\. ", t, re.M) for t in texts)
    assert any("findings" not in t.lower() for t in texts)
    assert any("impression" not in t.lower() for t in texts)
    assert any(re.search(r"\d cm", t, re.I) for t in texts)
    assert any(re.search(r"\d mm", t, re.I) for t in texts)
    assert any(m.assertion == "uncertain" for _, r in written for m in r.mentions)


def test_a_comparison_gives_the_date():
    report = write_report(np.random.default_rng(1), (), Occasion("CR", date(2019, 3, 5)))
    assert "05 march 2019" in report.text.lower() or "comparison" not in report.text.lower()


def test_the_letterhead_comes_first():
    report = write_report(np.random.default_rng(2), (), Occasion("CR", None, "Patient: Ada Invented"))
    assert report.text.lower().startswith("patient: ada invented")


@pytest.mark.parametrize("bank", [phrases.PRESENT, phrases.UNCERTAIN, phrases.IMPRESSION])
def test_banks_speak_of_planted_findings(bank):
    assert set(bank) <= set(KINDS)
    for sentences in bank.values():
        assert all(re.fullmatch(r"[a-z_+?-]*\|.+\.", s) for s in sentences)


def test_every_planted_finding_can_be_said():
    assert set(phrases.PRESENT) == set(KINDS)
