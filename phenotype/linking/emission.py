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

from phenotype.linking.mapper import DENIED, PRESENT, STATES

Doubles = NDArray[np.float64]

# Least probability of a state: a table estimated from some hundred reports excludes nothing.
_FLOOR = 1e-4
# Pseudo-counts of "as often as in all reports" in each row: a term that two reports deny has no certain row.
_SMOOTH = 2.0


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


def table(
    states: NDArray[np.int8], probabilities: Doubles, prior: Emission | None = None, counts: float = 0
) -> Emission:
    """The table that states (n, n_terms) and probabilities of the terms (n, n_terms) make: the M-step.

    `prior` counts as `counts` images. Where the result would read "present" as a sign of absence, or "denied" as one of
    presence, the prior stands.
    """
    said = states[..., None] == np.arange(len(STATES))
    overall = (said.sum(axis=0) + 1.0) / (len(states) + len(STATES))
    columns = []
    for weight, before in (
        (probabilities, None if prior is None else prior.if_present),
        (1 - probabilities, None if prior is None else prior.if_absent),
    ):
        added = _SMOOTH * overall if before is None else _SMOOTH * overall + counts * before
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
    states: NDArray[np.int8], anchor: Emission, image: Doubles, *, counts: float = 30.0, steps: int = 20
) -> Emission:
    """The table that makes the reports (n, n_terms) most probable, given what the image alone makes of each term.

    `image` (n, n_terms) must be probabilities of a model that has not learned from these images, or it will agree with
    every report. `anchor`, the labellers' table, counts as `counts` images for each row.
    """
    found = anchor
    for _ in range(steps):
        found = table(states, found.posterior(states, image), anchor, counts)
    return found
