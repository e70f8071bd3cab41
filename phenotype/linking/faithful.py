"""Is a map what the score rests on? The deletion test, and whether a finding is seen at a place at all.

Where the regions that a map marks are replaced by what is usual at their place, the score of the image must fall, and
by more than when as many regions are replaced at random (V. Petsiuk et al., "RISE", BMVC 2018, for pixels). Where
the score falls little whichever regions are replaced, the evidence is everywhere, and the map is none. Few findings are
as even as that: an enlarged heart and inflated lungs show more at some places than at others (docs/linking.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Locality = Literal["local", "not local", ""]

SHARE = 0.05  # of an image's regions, replaced in the deletion test
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.6)  # how much must be replaced, is sought among these
LARGEST = 0.2  # evidence is local where a fifth of the image holds half of it
LEAST = 5  # images that a verdict needs


@dataclass(frozen=True, slots=True)
class Deletion:
    """What replacing regions does to the score of a term in an image."""

    top: float  # how far the score falls where the highest regions of the map are replaced
    random: float  # where as many are replaced at random, on average
    half: float  # share of the image that must be replaced, highest regions first, until half of the evidence is gone

    @property
    def ratio(self) -> float:
        """How many times more the highest regions carry; infinite where random ones carry nothing."""
        if self.top <= 0:
            return 0.0
        return self.top / self.random if self.random > 0 else np.inf


def deletion(
    score: Callable[[Doubles], Doubles],
    profile: NDArray[np.floating],
    usual: NDArray[np.floating],
    *,
    share: float = SHARE,
    draws: int = 10,
    seed: int = 0,
) -> list[Deletion]:
    """The deletion test of each term in one image.

    `profile` (n, n_terms) are the scores of its regions, the map; `usual` (n, n_terms) what would be scored there if
    every region looked as is usual at its place. `score` makes the score of an image (n_terms,) of scores of regions
    (n, n_terms). The evidence is the score above that of the image that looks usual everywhere; without any, `half` is
    NaN.
    """
    n, terms = profile.shape
    whole, empty = score(np.asarray(profile, float)), score(np.asarray(usual, float))
    order = np.argsort(-profile, axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(n)[:, None].repeat(terms, axis=1), axis=0)

    def without(highest: int) -> Doubles:
        return score(np.where(rank < highest, usual, profile))

    k = max(1, round(share * n))
    top = whole - without(k)
    rng = np.random.default_rng(seed)
    fall = np.zeros(terms)
    for _ in range(draws):
        gone = np.zeros((n, 1), bool)
        gone[rng.choice(n, k, replace=False)] = True
        fall += (whole - score(np.where(gone, usual, profile))) / draws
    half = np.where(whole > empty, 1.0, np.nan)
    for part in sorted(SHARES, reverse=True):
        left = without(max(1, round(part * n))) - empty
        half = np.where((whole > empty) & (left <= (whole - empty) / 2), part, half)
    return [Deletion(float(a), float(b), float(c)) for a, b, c in zip(top, fall, half, strict=True)]


def locality(tests: Sequence[Deletion]) -> Locality:
    """Whether a term is seen at a place: of the deletion tests in images that are found to have it, out of fold.

    "local" where in most of them a fifth of the image holds half of the evidence and the highest regions carry more
    than random ones; "not local" where not; empty with fewer than LEAST images.
    """
    halves = np.array([test.half for test in tests])
    ratios = np.array([test.ratio for test in tests])
    judged = np.isfinite(halves)
    if judged.sum() < LEAST:
        return ""
    at_a_place = (halves[judged] <= LARGEST) & (ratios[judged] > 1)
    return "local" if at_a_place.mean() > 0.5 else "not local"
