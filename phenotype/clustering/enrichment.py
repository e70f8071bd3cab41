"""Which terms are over-represented in which cluster, and does it hold in patients that the clusters were not found in?

A test of a cluster against a term is only as good as its ignorance: clusters found from descriptors that have seen the
reports (term scores of a mapper trained on them, say) are enriched in those reports' terms also when reports and images
have nothing to do with each other. In such a case the only honest test is in held-out patients, and `enrich` refuses to
make another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom

Unmentioned = Literal["exclude", "absent"]

NO_TERM = "no term over-represented"


@dataclass(frozen=True, slots=True)
class Cases:
    """Cases with the cluster each belongs to (n,), -1 for none, and what is known of its terms (n, n_terms).

    A state is the probability that the term is there: 1 present, 0 denied, NaN not mentioned; it counts as present from
    0.5 on.
    """

    clusters: NDArray[Any]
    states: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Enrichment:
    """A cluster and a term: how much more often they meet than if they did not care for each other."""

    cluster: int
    term: int  # column of the states
    cases: int  # of the cluster, with the term
    cluster_known: int  # cases of the cluster whose state of the term counts
    present: int  # cases with the term, in all
    known: int  # cases whose state counts, in all
    expected: float  # cases that chance would give: cluster_known * present / known
    fold: float  # cases / expected
    odds_ratio: float  # with 1/2 added to each of the four counts (Haldane and Anscombe): finite and nearer to 1
    p_value: float  # hypergeometric, of as many cases or more
    q_value: float  # Benjamini-Hochberg over all pairs tested
    held_out_fold: float | None  # the same in held-out cases; None where they are too few to tell, or there are none
    held_out_p: float | None
    replicated: bool | None  # more often in held-out cases too, with p at or below `replication_level`; None as above


def enrich(
    found: Cases,
    held_out: Cases | None = None,
    *,
    descriptors_saw_reports: bool,
    unmentioned: Unmentioned = "exclude",
    least: int = 5,
    replication_level: float = 0.05,
) -> list[Enrichment]:
    """Test every cluster against every term; results by cluster, then by p-value.

    found      cases that the clusters were found in
    held_out   cases of other patients, assigned to the clusters afterwards
    unmentioned  what it says when a term is not mentioned. "exclude" (the default): nothing; only cases whose reports
               affirm or deny the term are counted. "absent": it counts as denied, which is right where reports list
               what is there and pass over the rest, and the only contrast where nothing is ever denied.
    least      pairs are tested if at least so many cases have the term, so many have not, and so many of the cluster
               are known: a choice made without looking at where they fall. Held-out cases tell under the same rule.

    With `descriptors_saw_reports`, tests are made in the held-out cases alone (ValueError without), p and q are theirs
    and nothing is left to replicate in: the held-out fields are None.
    """
    if least < 1:
        raise ValueError("least is at least 1")
    if descriptors_saw_reports and held_out is None:
        raise ValueError("descriptors that have seen the reports can only be tested in held-out patients")
    if descriptors_saw_reports and held_out is not None:
        found, held_out = held_out, None
    tested = _test(found, unmentioned, least)
    again = {} if held_out is None else _test(held_out, unmentioned, least)
    pairs = sorted(tested, key=lambda pair: (pair[0], tested[pair].p, pair[1]))
    q_values = false_discovery_control([tested[pair].p for pair in pairs]) if pairs else []
    rows = []
    for pair, q in zip(pairs, q_values, strict=True):
        test, repeat = tested[pair], again.get(pair)
        rows.append(
            Enrichment(
                *pair,
                cases=test.cases,
                cluster_known=test.cluster_known,
                present=test.present,
                known=test.known,
                expected=test.expected,
                fold=test.cases / test.expected,
                odds_ratio=test.odds_ratio,
                p_value=test.p,
                q_value=float(q),
                held_out_fold=None if repeat is None else repeat.cases / repeat.expected,
                held_out_p=None if repeat is None else repeat.p,
                replicated=None if repeat is None else repeat.more and repeat.p <= replication_level,
            )
        )
    return rows


def name_cluster(
    rows: Iterable[Enrichment], cluster: int, terms: Sequence[str], *, level: float = 0.05, most: int = 3
) -> str:
    """Name a cluster by its over-represented terms: q at or below `level`, not refuted in held-out cases, highest fold
    first, at most `most` of them; or "no term over-represented".
    """
    kept = [
        row
        for row in rows
        if row.cluster == cluster and row.fold > 1 and row.q_value <= level and row.replicated is not False
    ]
    kept.sort(key=lambda row: (-row.fold, row.p_value, row.term))
    return ", ".join(terms[row.term] for row in kept[:most]) or NO_TERM


@dataclass(frozen=True, slots=True)
class _Test:
    cases: int
    cluster_known: int
    present: int
    known: int
    p: float

    @property
    def expected(self) -> float:
        return self.cluster_known * self.present / self.known

    @property
    def more(self) -> bool:
        return self.cases > self.expected

    @property
    def odds_ratio(self) -> float:
        with_term, without = self.cases + 0.5, self.cluster_known - self.cases + 0.5
        others_with = self.present - self.cases + 0.5
        others_without = self.known - self.cluster_known - (self.present - self.cases) + 0.5
        return with_term * others_without / (without * others_with)


def _test(group: Cases, unmentioned: Unmentioned, least: int) -> dict[tuple[int, int], _Test]:
    """The hypergeometric test of every pair that has enough cases, by (cluster, term)."""
    clusters, states = np.asarray(group.clusters), np.asarray(group.states, np.float64)
    if states.ndim != 2 or clusters.shape != states.shape[:1]:
        raise ValueError("needs clusters (n,) and states (n, n_terms)")
    known = np.ones(states.shape, bool) if unmentioned == "absent" else ~np.isnan(states)
    present = states >= 0.5  # false for NaN
    numbers = np.unique(clusters[clusters >= 0])
    member = clusters[:, None] == numbers  # (n, k); cases of no cluster are among the others of every test
    cluster_known = member.T.astype(np.int64) @ known
    cases = member.T.astype(np.int64) @ present
    all_known, all_present = known.sum(axis=0), present.sum(axis=0)
    p = hypergeom.sf(cases - 1, all_known, all_present, cluster_known)
    enough = (all_present >= least) & (all_known - all_present >= least) & (cluster_known >= least)
    return {
        (int(numbers[i]), int(t)): _Test(
            int(cases[i, t]), int(cluster_known[i, t]), int(all_present[t]), int(all_known[t]), float(min(1.0, p[i, t]))
        )
        for i, t in np.argwhere(enough)
    }
