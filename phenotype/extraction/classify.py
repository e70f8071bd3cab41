"""A second reader: a classifier of the words of sentences, trained on what the rules made of other patients' reports.

It knows nothing of phrases, cues or scopes. Where it is sure of a finding that the rules did not see, a phrase may be
missing from the lexicon; where it does not believe one that they saw, a denial may have been overlooked. Every report
is judged by models that saw no report of its patient, so that none agrees only because it has learned the answer by
heart. Words are hashed: no word of a report is kept in a model, and no model is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from db.queries.sentences import ReportRow
from phenotype.extraction.labels import NOT_TODAY, Said, is_of_today, label_study

PARTS = 5  # of the patients; each is judged by what was learned from the others
COUNTS_FROM = 0.75  # the certainty from which a doubted finding is one to learn from
KEPT_FROM = 0.1  # pairs that the rules say nothing of and the classifier finds less probable are not written down
FEATURES = 2**18
_WORD = r"\b\w+\b"


@dataclass(frozen=True, slots=True)
class ReadSentence:
    """The words of a sentence of a finding-bearing section, and what the rules found in it."""

    text: str
    said: tuple[Said, ...]


@dataclass(frozen=True, slots=True)
class ReadReport:
    """A report as the classifier gets it; `part` (0 to 4) is the same for all reports of a patient."""

    part: int
    sentences: tuple[ReadSentence, ...]


@dataclass(frozen=True, slots=True)
class Score:
    """How probably a report asserts a concept; `said` is what the rules say: present, absent, uncertain, or nothing."""

    concept: str
    said: str
    probability: float


def as_read(row: ReportRow) -> ReadReport:
    """What the classifier gets of a report: its sentences of today. One of no known patient is a patient of its own."""
    sentences = (s for s in row.sentences if s.section not in NOT_TODAY)
    part = int(row.report[:8], 16) if row.fold is None else row.fold
    said = tuple(ReadSentence(s.text, tuple(Said(*f) for f in s.findings)) for s in sentences)
    return ReadReport(part % PARTS, said)


def classify(
    reports: Mapping[str, ReadReport],
    parents: Mapping[str, str],
    concepts: Sequence[str],
    *,
    least: int,
    strength: float,
) -> dict[str, list[Score]]:
    """Report id to its scores, for those of `concepts` that at least `least` reports assert.

    `strength` is the inverse of the regularisation. A finding counts for the broader concepts as well.
    """
    said = {report: _said(own, parents) for report, own in reports.items()}
    learned = [c for c in concepts if sum(own.get(c) == "present" for own in said.values()) >= least]
    scores: dict[str, list[Score]] = {report: [] for report in reports}
    if not learned:
        return scores
    table = _Sentences(list(reports.values()), parents)
    for concept in learned:
        probable = table.out_of_part(concept, strength)
        for (report, own), p in zip(said.items(), probable.tolist(), strict=True):
            if p >= KEPT_FROM or concept in own:
                scores[report].append(Score(concept, own.get(concept, ""), round(p, 4)))
    return scores


def _said(report: ReadReport, parents: Mapping[str, str]) -> dict[str, str]:
    mentions = [mention for sentence in report.sentences for mention in sentence.said]
    return {label.concept: label.value for label in label_study(mentions, parents)}


class _Sentences:
    """The different sentences of all reports: many are written again and again."""

    def __init__(self, reports: Sequence[ReadReport], parents: Mapping[str, str]) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        numbers: dict[str, int] = {}
        places = [
            (at, numbers.setdefault(s.text, len(numbers)), report.part, _asserted(s.said, parents))
            for at, report in enumerate(reports)
            for s in report.sentences
        ]
        hashing = HashingVectorizer(
            n_features=FEATURES, ngram_range=(1, 2), binary=True, alternate_sign=False, token_pattern=_WORD
        )
        self.words = hashing.transform(numbers)
        self.reports = len(reports)
        self.report = np.array([p[0] for p in places], np.int64)
        self.sentence = np.array([p[1] for p in places], np.int64)
        self.part = np.array([p[2] for p in places], np.int64)
        self.asserted = [p[3] for p in places]
        self.often = np.zeros((PARTS, len(numbers)))
        np.add.at(self.often, (self.part, self.sentence), 1)

    def out_of_part(self, concept: str, strength: float) -> NDArray[np.float64]:
        """For each report the highest probability of its sentences, by the model of the other patients."""
        from sklearn.linear_model import LogisticRegression

        there = np.array([concept in asserted for asserted in self.asserted], bool)
        positive = np.zeros_like(self.often)
        np.add.at(positive, (self.part[there], self.sentence[there]), 1)
        probable = np.zeros(self.reports)
        for part in range(PARTS):
            yes, all_of_it = (count.sum(0) - count[part] for count in (positive, self.often))
            no = all_of_it - yes
            if not yes.any() or not no.any():
                continue
            rows = np.concatenate([yes.nonzero()[0], no.nonzero()[0]])
            target = np.repeat([1, 0], [np.count_nonzero(yes), np.count_nonzero(no)])
            weight = np.concatenate([yes[yes > 0], no[no > 0]])
            model: Any = LogisticRegression(C=strength, solver="liblinear", random_state=0)
            model.fit(self.words[rows], target, sample_weight=weight)
            own = self.part == part
            judged, where = np.unique(self.sentence[own], return_inverse=True)
            if judged.size:
                of_sentence = model.predict_proba(self.words[judged])[:, 1]
                np.maximum.at(probable, self.report[own], of_sentence[where])
        return probable


def _asserted(said: Sequence[Said], parents: Mapping[str, str]) -> frozenset[str]:
    """The concepts that a sentence asserts, with the broader ones."""
    found: set[str] = set()
    for mention in said:
        concept = mention.concept
        if is_of_today(mention) and (
            mention.assertion == "present" or (mention.assertion == "uncertain" and mention.certainty >= COUNTS_FROM)
        ):
            while concept and concept not in found:
                found.add(concept)
                concept = parents.get(concept, "")
    return frozenset(found)
