"""How reports speak of what is there: the emission table.

For each term, how often a report asserts, doubts, denies or does not mention it, given that it is there and given that
it is not. Reports err and leave out, and not to mention is not to deny; once the table is known, an image can be
learned from by the likelihood of its report's words instead of by labels taken for true:

    P(state | image) = P(state | there) P(there | image) + P(state | not there) (1 - P(there | image))

The table is estimated from the data, by expectation maximisation as for noisy raters (A. P. Dawid and A. M. Skene 1979;
with an image model in place of the class frequencies, V. C. Raykar et al., "Learning from crowds", JMLR 2010). What the
labellers hold anchors it: their probabilities give the first table, which stays as a Dirichlet prior of some
pseudo-counts, so that a model that has learned little can neither turn "present" and "denied" round nor empty a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from phenotype.linking.mapper import DENIED, POSSIBLE, PRESENT, STATES

Doubles = NDArray[np.float64]

# Least probability of a state: a table estimated from some hundred reports excludes nothing.
_FLOOR = 1e-4
# Pseudo-counts of "as often as in all reports" in each row: a term that two reports deny has no certain row.
_SMOOTH = 2.0
# Images that the labellers' table counts as for reports of findings that are not there.
_FEW = 10.0
# Share of findings that reports do not assert, at most, as far as labellers are believed.
_MISSED = 0.2


@dataclass(frozen=True, slots=True)
class Emission:
    """The table of each term, and how frequent the term is."""

    if_present: Doubles  # (n_terms, states) P(state | the term is there); rows sum to 1
    if_absent: Doubles  # (n_terms, states) P(state | it is not)
    prevalence: Doubles  # (n_terms,)

    def likelihood(self, states: NDArray[np.int8]) -> tuple[Doubles, Doubles]:
        """P(state | there) and P(state | not there) of states (n, n_terms): two arrays of that shape."""
        terms = np.arange(states.shape[1])
        return self.if_present[terms, states], self.if_absent[terms, states]

    def posterior(self, states: NDArray[np.int8], image: Doubles | None = None) -> Doubles:
        """How probable each term is (n, n_terms), given the report and how probable the image alone makes it.

        `image` (n, n_terms); None takes the prevalence, so that the report alone speaks.
        """
        before = np.broadcast_to(self.prevalence, states.shape) if image is None else image
        there, not_there = self.likelihood(states)
        joint = there * before
        return np.asarray(joint / (joint + not_there * (1 - before)))

    def log_likelihood(self, states: NDArray[np.int8], image: Doubles) -> Doubles:
        """Log-probability of each report's state (n, n_terms), given how probable the image makes the term."""
        there, not_there = self.likelihood(states)
        return np.asarray(np.log(there * image + not_there * (1 - image)))

    def rows(self, concepts: Sequence[str]) -> list[tuple[str, str, float, float]]:
        """The table as rows: concept, state, P(state | there), P(state | not there)."""
        return [
            (concept, state, float(self.if_present[t, s]), float(self.if_absent[t, s]))
            for t, concept in enumerate(concepts)
            for s, state in enumerate(STATES)
        ]

    def to_arrays(self) -> dict[str, Doubles]:
        """Plain arrays, to be kept."""
        return {"if_present": self.if_present, "if_absent": self.if_absent, "prevalence": self.prevalence}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `to_arrays` gave."""
        return cls(*(np.asarray(arrays[name], np.float64) for name in ("if_present", "if_absent", "prevalence")))


def anchored(states: NDArray[np.int8], probabilities: Doubles, *, doubt: float = 0.25) -> Emission:
    """The first table, of what the labellers hold (n, n_terms), who are rather too sure of themselves.

    How findings that are there are spoken of is taken as the labellers have it, but that reports do not assert no more
    than a share of them (_MISSED): of a rare finding, one in ten of all reports that do not mention it would be more
    than all that assert it. How often reports invent one is taken with doubt: there the share `doubt` of the
    probabilities is replaced by how frequent the term is. A table that takes assertions for nearly always right agrees
    with all of them, and images are then learned to agree too.
    """
    asserted = states <= POSSIBLE
    told = (probabilities * asserted).sum(axis=0)
    untold = (probabilities * ~asserted).sum(axis=0)
    most = _MISSED / (1 - _MISSED) * told
    held = np.where(asserted, probabilities, probabilities * np.minimum(1, most / np.maximum(untold, 1e-9)))
    often = held.mean(axis=0, keepdims=True)
    sure, doubtful = table(states, held), table(states, (1 - doubt) * held + doubt * often)
    return Emission(sure.if_present, doubtful.if_absent, sure.prevalence)


def table(
    states: NDArray[np.int8],
    probabilities: Doubles,
    prior: Emission | None = None,
    counts: tuple[Doubles | float, float] = (0.0, 0.0),
) -> Emission:
    """The table that states (n, n_terms) and probabilities of the terms (n, n_terms) make: the M-step.

    The rows of `prior` count as `counts` images, (there, not there). Where the result would read "present" as a sign
    of absence, or "denied" as one of presence, the prior stands.
    """
    said = states[..., None] == np.arange(len(STATES))
    overall = (said.sum(axis=0) + 1.0) / (len(states) + len(STATES))
    columns = []
    for weight, before, count in (
        (probabilities, None if prior is None else prior.if_present, counts[0]),
        (1 - probabilities, None if prior is None else prior.if_absent, counts[1]),
    ):
        added = _SMOOTH * overall if before is None else _SMOOTH * overall + count * before
        rows = np.maximum(np.einsum("nt,nts->ts", weight, said) + added, 1e-12)
        rows = np.maximum(rows / rows.sum(axis=1, keepdims=True), _FLOOR)
        columns.append(rows / rows.sum(axis=1, keepdims=True))
    there, not_there = columns
    prevalence = (probabilities.sum(axis=0) + 1.0) / (len(states) + 2.0)
    if prior is not None:
        turned = (there[:, PRESENT] < not_there[:, PRESENT]) | (there[:, DENIED] > not_there[:, DENIED])
        there = np.where(turned[:, None], prior.if_present, there)
        not_there = np.where(turned[:, None], prior.if_absent, not_there)
        prevalence = np.where(turned, prior.prevalence, prevalence)
    return Emission(there, not_there, np.asarray(prevalence))


def estimate(
    states: NDArray[np.int8], anchor: Emission, image: Doubles, *, weight: float = 1.0, steps: int = 20
) -> Emission:
    """The table that makes the reports (n, n_terms) most probable, given what the image alone makes of each term.

    `image` (n, n_terms) must be probabilities of a model that has not learned from these images, or it will agree with
    every report. `anchor` is the labellers' table. Its rows of findings that are there count `weight` times as many
    images as the labellers hold to have the finding: what an image model cannot see, it would otherwise put down to
    findings that reports deny. Its rows of findings that are not there count as few.
    """
    there = weight * len(states) * anchor.prevalence[:, None]
    found = anchor
    for _ in range(steps):
        found = table(states, found.posterior(states, image), anchor, (there, _FEW))
    return found
