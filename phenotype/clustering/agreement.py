"""How far two groupings of the same cases agree, corrected for chance."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score


@dataclass(frozen=True, slots=True)
class Agreement:
    """Adjusted Rand index (1 the same, about 0 chance) and normalised mutual information (0 to 1) of some cases."""

    cases: int
    adjusted_rand: float
    mutual_information: float


def agreement(found: NDArray[Any], given: NDArray[Any], *, known: NDArray[np.bool_] | None = None) -> Agreement:
    """Compare a found grouping (n,) with a given one (n,), over the cases whose given group is known.

    Cases that found no cluster (-1) count as a group of their own. Mutual information is not corrected for chance and
    grows with the number of groups: read it beside the adjusted Rand index. Without a case left: ValueError.
    """
    found, given = np.asarray(found), np.asarray(given)
    if found.ndim != 1 or found.shape != given.shape:
        raise ValueError("the two groupings are vectors over the same cases")
    keep = np.ones(found.size, bool) if known is None else np.asarray(known, bool)
    if not keep.any():
        raise ValueError("no case has a known group")
    return Agreement(
        int(keep.sum()),
        float(adjusted_rand_score(given[keep], found[keep])),
        float(normalized_mutual_info_score(given[keep], found[keep])),
    )
