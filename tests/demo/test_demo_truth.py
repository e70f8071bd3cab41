"""The scores, against examples worked out by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from phenotype.demo.truth import (
    Counts,
    TrueFinding,
    TrueLesion,
    TrueStudy,
    Truth,
    score_anomalies,
    score_findings,
    score_phenotypes,
    score_pointing,
    true_labels,
)


def study(accession: str, phenotype: str = "healthy", planted: tuple[str, ...] = (), has_report: bool = True):
    return TrueStudy(accession, "P" + accession, "CR", phenotype, 100, 200, has_report, frozenset(planted))


def lesion(accession: str, finding: str, box, planted: bool = True):
    return TrueLesion(accession, finding, "focal", "left", "upper", 10.0, planted, True, box, None, None)


def truth(studies=(), lesions=(), findings=()) -> Truth:
    return Truth(tuple(studies), tuple(lesions), tuple(TrueFinding(*f, "", "") for f in findings), ())


def test_labels_put_present_first():
    said = [
        ("a", "nodule", "absent"),
        ("a", "nodule", "present"),
        ("a", "nodule", "uncertain"),
        ("b", "mass", "absent"),
    ]
    assert true_labels(truth(findings=said).findings) == {"a": {"nodule": "present"}, "b": {"mass": "absent"}}


def test_finding_f1_by_hand():
    known = truth(
        [study("a"), study("b"), study("c"), study("mute", has_report=False)],
        findings=[
            ("a", "nodule", "present"),
            ("b", "nodule", "present"),
            ("b", "pneumothorax", "absent"),
            ("c", "pleural_effusion", "present"),
            ("mute", "nodule", "present"),
        ],
    )
    labels = {
        "a": {"nodule": "present", "unheard_of": "present"},  # right; not in the truth's vocabulary
        "b": {"nodule": "absent", "pneumothorax": "present"},  # missed; superfluous
        "c": {"pleural_effusion": "present"},
        "mute": {"nodule": "absent"},  # has no report: does not count
    }
    scores = score_findings(labels, known)
    assert scores.concepts == {
        "nodule": Counts(1, 0, 1),
        "pleural_effusion": Counts(1, 0, 0),
        "pneumothorax": Counts(0, 1, 0),
    }
    assert scores.micro == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores.macro == pytest.approx((2 / 3 + 1) / 2)
    assert score_findings(labels, known, assertion="absent").micro == pytest.approx(0)  # one denied, another found
    assert math.isnan(score_findings({}, truth([study("a")])).macro)


def test_synonyms_count_as_one_where_asked():
    known = truth([study("a")], findings=[("a", "opacity", "present")])
    labels = {"a": {"consolidation": "present"}}
    assert score_findings(labels, known).micro == 0
    assert score_findings(labels, known, same={"opacity": "consolidation"}).micro == 1


def test_finding_f1_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    concepts = ["nodule", "mass", "opacity"]
    true, found = rng.random((50, 3)) < 0.4, rng.random((50, 3)) < 0.4
    known = truth(
        [study(str(n)) for n in range(50)],
        findings=[
            (str(n), c, "present" if true[n, k] else "absent") for n in range(50) for k, c in enumerate(concepts)
        ],
    )
    labels = {str(n): {c: "present" for k, c in enumerate(concepts) if found[n, k]} for n in range(50)}
    scores = score_findings(labels, known)
    assert scores.micro == pytest.approx(f1_score(true, found, average="micro"))
    assert scores.macro == pytest.approx(f1_score(true, found, average="macro"))


def test_auroc_by_hand_and_against_scikit_learn():
    known = truth(
        [
            study("a", planted=("nodule",)),
            study("b", planted=("nodule", "pacemaker")),
            study("c"),
            study("d", planted=("pacemaker",)),  # a device alone is no lesion
            study("unscored", planted=("nodule",)),
        ]
    )
    assert score_anomalies({"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0}, known) == pytest.approx(3 / 4)
    assert score_anomalies({"a": 1.0, "c": 1.0}, known) == pytest.approx(0.5)
    assert math.isnan(score_anomalies({"a": 1.0}, known))
    devices = score_anomalies(
        {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.0}, known, counts=lambda s: "pacemaker" in s.planted
    )
    assert devices == 0
    rng = np.random.default_rng(1)
    sick = rng.random(80) < 0.5
    scores = np.round(rng.normal(sick * 0.7), 1)  # with ties
    many = truth([study(str(n), planted=("nodule",) if sick[n] else ()) for n in range(80)])
    expected = roc_auc_score(sick, scores)
    assert score_anomalies({str(n): float(scores[n]) for n in range(80)}, many) == pytest.approx(expected)


def test_pointing_by_hand():
    known = truth(
        lesions=[
            lesion("a", "nodule", (0.0, 0.0, 0.5, 0.5)),
            lesion("a", "nodule", (0.5, 0.5, 1.0, 1.0)),
            lesion("b", "nodule", (0.25, 0.25, 0.75, 0.75)),
            lesion("c", "nodule", None),  # no place
            lesion("d", "nodule", (0.0, 0.0, 1.0, 1.0), planted=False),  # invented
            lesion("e", "consolidation", (0.0, 0.0, 0.5, 1.0)),
        ]
    )
    peaks = {
        ("a", "nodule"): (0.6, 0.6),  # in the second box
        ("b", "nodule"): (0.8, 0.5),  # just below
        ("c", "nodule"): (0.5, 0.5),
        ("d", "nodule"): (0.5, 0.5),
        ("e", "opacity"): (0.1, 0.1),  # another word
    }
    game = score_pointing(peaks, known)
    assert (game.hits, game.tried, game.rate) == (1, 2, 0.5)
    assert game.chance == pytest.approx((0.5 + 0.25) / 2, abs=1e-3)
    assert score_pointing(peaks, known, margin=0.1).hits == 2
    named = score_pointing(peaks, known, same={"opacity": "consolidation"})
    assert (named.hits, named.tried) == (2, 3)
    assert math.isnan(score_pointing({}, known).rate)


def test_phenotypes_by_hand():
    known = truth(
        [study("a"), study("b"), study("c", "fibrosis"), study("d", "fibrosis"), study("left out", "fibrosis")]
    )
    same = score_phenotypes({"a": 7, "b": 7, "c": "x", "d": "x"}, known)
    assert (same.adjusted_rand, same.nmi, same.studies) == (pytest.approx(1), pytest.approx(1), 4)
    crossed = score_phenotypes({"a": 0, "b": 1, "c": 0, "d": 1}, known)
    assert crossed.adjusted_rand == pytest.approx(-0.5)  # no pair together in both: (0 - 2*2/6) / (2 - 2*2/6)
    assert crossed.nmi == pytest.approx(0, abs=1e-9)
    assert score_phenotypes({}, known).studies == 0
