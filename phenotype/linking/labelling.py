"""Weak supervision: several labellers who err, made into one probability for each study and concept.

A labeller says of a study that a concept is there, possibly there, or not there, or says nothing: rules on the whole
report, a section of it, a text classifier, a table that someone made, a function (`vote_by`). How far each is to be
trusted is learned from how they agree, concept by concept (A. P. Dawid and A. M. Skene 1979; A. Ratner et al.,
"Snorkel", VLDB 2017), with a Dirichlet prior from all concepts together, so that rare ones borrow from frequent ones.

Who says nothing says nothing: an abstention counts neither for nor against, and where all abstain there is no
probability. Against the known faults of label models: the prevalence is estimated but kept near what the labellers say,
so that a rare concept is not drawn to one half nor to nothing; a labeller can at worst be worthless and never reversed;
labellers that say the same, since one learned from the other, share one voice; and nobody is overruled by the balance
of a concept where none contradicts.
"""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from db.queries.votes import Vote
from phenotype.linking.mapper import DENIED, POSSIBLE, PRESENT, UNMENTIONED

Doubles = NDArray[np.float64]

Labeller = Callable[[str, Sequence[Vote]], Mapping[str, float]]
"""A function of the user: a study and what the others say of it -> concepts to how probable it finds them (0 to 1)."""

_VALUES = {"present": (1.0, 0.0, 0.0), "uncertain": (0.0, 1.0, 0.0), "absent": (0.0, 0.0, 1.0)}
# What a labeller of whom nothing is known says where a concept is there, and where it is not: rather right than not.
_FIRST = np.array([[0.80, 0.12, 0.08], [0.03, 0.07, 0.90]])
_OF_ALL, _OF_CONCEPTS = 300.0, 40.0  # studies that this counts as, and that the mean over the concepts counts as
_BALANCE = 100.0  # studies that the share of asserting votes counts as, for the prevalence
_UNANIMOUS = 0.75  # what nobody contradicts is at least so probable, or, denied, so improbable
_ALIKE = 0.9  # agreement from which two labellers are taken to be less than two


class BadVotes(ValueError):
    """Votes that cannot be read; the message says which line and why."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How a labeller does on a concept, by what all together hold to be so."""

    concept: str
    labeller: str
    sensitivity: float  # of the studies it speaks of that have the concept, how many it asserts; doubt counts half
    specificity: float  # of those that have it not, how many it denies; doubt counts half
    coverage: float  # of all studies, how many it speaks of


@dataclass(frozen=True, slots=True)
class WeakLabels:
    """What the labellers together hold of each study and concept."""

    studies: tuple[str, ...]
    concepts: tuple[str, ...]
    probabilities: Doubles  # (studies, concepts); NaN where nobody says anything
    states: NDArray[np.int8]  # (studies, concepts) what is said: index into STATES
    accuracies: list[Accuracy]


def vote_by(name: str, labeller: Labeller, votes: Iterable[Vote], studies: Sequence[str]) -> list[Vote]:
    """The votes of a function of the user, which may look at what others say; BadVotes for no probability."""
    of: dict[str, list[Vote]] = {study: [] for study in studies}
    for vote in votes:
        if vote.study in of:
            of[vote.study].append(vote)
    found = []
    for study, said in of.items():
        for concept, probability in sorted(labeller(study, said).items()):
            found.append(Vote(study, concept, name, "", _probability(probability, f"{name} on one study")))
    return found


def read_votes(path: Path) -> list[Vote]:
    """Votes from a CSV table: study, concept, labeller, and value (present, absent, uncertain) or probability.

    BadVotes names the line that cannot be read, without its content.
    """
    found = []
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file)
        missing = {"study", "concept", "labeller"} - set(table.fieldnames or ())
        if missing or not {"value", "probability"} & set(table.fieldnames or ()):
            raise BadVotes(f"{path.name} needs the columns study, concept, labeller, and value or probability")
        for number, row in enumerate(table, 2):
            where = f"{path.name}, line {number}"
            value, told = (row.get("value") or "").strip(), (row.get("probability") or "").strip()
            if value and value not in _VALUES:
                raise BadVotes(f"{where}: the value is none of {', '.join(_VALUES)}")
            if not value and not told:
                continue  # abstains
            probability = _probability(told, where) if told else {"present": 1.0, "uncertain": 0.5}.get(value, 0.0)
            found.append(
                Vote(row["study"].strip(), row["concept"].strip(), row["labeller"].strip(), value, probability)
            )
    return found


def _probability(value: object, where: str) -> float:
    try:
        found = float(str(value))
    except ValueError:
        found = np.nan
    if not 0 <= found <= 1:
        raise BadVotes(f"{where}: a probability lies between 0 and 1")
    return found


def combine(votes: Iterable[Vote], studies: Sequence[str], concepts: Sequence[str], *, steps: int = 50) -> WeakLabels:
    """The probabilities that all labellers together make, and how far each is to be trusted.

    Votes on other studies and concepts are left out. Deterministic, whatever the order of votes.
    """
    row = {study: i for i, study in enumerate(studies)}
    column = {concept: i for i, concept in enumerate(concepts)}
    kept = [vote for vote in votes if vote.study in row and vote.concept in column]
    names = sorted({vote.labeller for vote in kept})
    number = {name: i for i, name in enumerate(names)}
    says = np.zeros((len(studies), len(concepts), len(names), 3))
    for vote in kept:
        at = says[row[vote.study], column[vote.concept], number[vote.labeller]]
        # of several mentions the one that asserts most counts
        shares = _shares(vote)
        if not at.any() or tuple(shares) > tuple(at):
            at[:] = shares
    probabilities, tables = label_model(says, steps=steps)
    spoken = says.sum(axis=3) > 0
    accuracies = [
        Accuracy(concept, name, *_accuracy(probabilities[:, c], says[:, c, k]), float(spoken[:, c, k].mean()))
        for c, concept in enumerate(concepts)
        for k, name in enumerate(names)
        if spoken[:, c, k].any()
    ]
    return WeakLabels(tuple(studies), tuple(concepts), probabilities, _states(says, tables), accuracies)


def _shares(vote: Vote) -> tuple[float, float, float]:
    """A vote as shares of "present", "possible" and "denied"; its certainty moves it towards "possible"."""
    if vote.value == "present":
        sure = min(max(2 * vote.probability - 1, 0.0), 1.0)
        return sure, 1 - sure, 0.0
    if vote.value in _VALUES:
        return _VALUES[vote.value]
    p = vote.probability
    return max(2 * p - 1, 0.0), 1 - abs(2 * p - 1), max(1 - 2 * p, 0.0)


def label_model(says: Doubles, *, steps: int = 50) -> tuple[Doubles, Doubles]:
    """Expectation maximisation over votes (studies, concepts, labellers, 3), shares of present, possible and denied.

    Zeros abstain. Returns probabilities (studies, concepts), NaN where all abstain, and the table of each labeller
    (concepts, labellers, 2, 3): how it votes where the concept is there, and where it is not.
    """
    spoken = says.sum(axis=3)  # 1 where a labeller speaks
    speakers = spoken.sum(axis=2)
    voice = _voices(says, spoken)  # (concepts, labellers)
    asserting = (says[..., 0] + says[..., 1] / 2).sum(axis=2) / np.maximum(speakers, 1)
    known = speakers > 0
    counted = known.sum(axis=0)
    share = np.clip((asserting * known).sum(axis=0) / np.maximum(counted, 1), 0.01, 0.99)
    probable = np.where(known, np.clip(asserting, 0.05, 0.95), share)
    tables = np.broadcast_to(_FIRST, (*says.shape[1:3], 2, 3))
    asserted, denied = says[..., 0].sum(axis=2), says[..., 2].sum(axis=2)
    least = np.where((asserted > speakers / 2) & (denied == 0), _UNANIMOUS, 0.0)
    most = np.where((denied == speakers) & known, 1 - _UNANIMOUS, 1.0)
    for _ in range(steps):
        before = probable
        tables = _tables(says, probable)
        balance = ((probable * known).sum(axis=0) + _BALANCE * share) / (counted + _BALANCE)
        odds = np.log(balance / (1 - balance))
        evidence = np.einsum("nclv,cl,clv->nc", says, voice, np.log(tables[..., 0, :] / tables[..., 1, :]))
        probable = np.clip(1 / (1 + np.exp(-np.clip(odds + evidence, -30, 30))), least, most)
        if np.abs(probable - before).max(initial=0.0) < 1e-6:
            break
    return np.where(known, probable, np.nan), tables


def _tables(says: Doubles, probable: Doubles) -> Doubles:
    """How labellers vote (concepts, labellers, 2, 3), by the present probabilities: the M-step."""
    counts = np.stack([np.einsum("nclv,nc->clv", says, weight) for weight in (probable, 1 - probable)], axis=2)
    of_all = counts.sum(axis=0, keepdims=True) + _OF_ALL * _FIRST
    of_all /= of_all.sum(axis=3, keepdims=True)
    tables = counts + _OF_CONCEPTS * of_all
    tables /= tables.sum(axis=3, keepdims=True)
    # A labeller that would assert what is not there and deny what is knows nothing; it does not know the contrary.
    turned = (tables[..., 0, 0] < tables[..., 1, 0]) | (tables[..., 0, 2] > tables[..., 1, 2])
    level = (counts.sum(axis=2, keepdims=True) + _OF_CONCEPTS / 3) / (
        counts.sum(axis=(2, 3), keepdims=True) + _OF_CONCEPTS
    )
    return np.asarray(np.where(turned[..., None, None], level, tables))


def _voices(says: Doubles, spoken: Doubles) -> Doubles:
    """How much of a voice each labeller has (concepts, labellers): one, or shared with those that say the same.

    Two that agree as often as can be, share one. Independent labellers seldom agree in more than nine of ten votes
    unless they hardly err, and then sharing takes little away.
    """
    both = np.einsum("ncl,ncm->clm", spoken, spoken)
    same = np.einsum("nclv,ncmv->clm", np.sqrt(says), np.sqrt(says))
    alike = np.clip((same / np.maximum(both, 1) - _ALIKE) / (1 - _ALIKE), 0, 1) ** 2
    diagonal = np.arange(alike.shape[1])
    alike[:, diagonal, diagonal] = 1.0
    return np.asarray(1 / alike.sum(axis=2))


def _states(says: Doubles, tables: Doubles) -> NDArray[np.int8]:
    """What the labellers say together: the state of most of them, each by how much its assertions tell."""
    telling = np.log(tables[..., 0, 0] / tables[..., 1, 0])  # (concepts, labellers)
    total = np.einsum("nclv,cl->ncv", says, np.maximum(telling, 1e-3))
    states = np.array([PRESENT, POSSIBLE, DENIED], np.int8)[total.argmax(axis=2)]
    return np.where(total.any(axis=2), states, UNMENTIONED).astype(np.int8)


def _accuracy(probable: Doubles, says: Doubles) -> tuple[float, float]:
    """Sensitivity and specificity of votes (studies, 3)."""
    speaks = says.any(axis=1)
    p = np.where(speaks, np.nan_to_num(probable), 0.0)
    absent = np.where(speaks, 1 - np.nan_to_num(probable), 0.0)
    half = says[:, 1] / 2
    return (
        float((p * (says[:, 0] + half)).sum() / max(p.sum(), 1e-9)),
        float((absent * (says[:, 2] + half)).sum() / max(absent.sum(), 1e-9)),
    )
