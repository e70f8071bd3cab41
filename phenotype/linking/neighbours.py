"""Scores of regions averaged with those of their neighbours.

Regions overlap, and a lesion seldom ends where a region does: the score of one region is noisy, the mean of it and its
neighbours is that of a place. It also fills in what multiple-instance learning leaves out, which marks the most telling
regions of a lesion and no others.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.spatial import cKDTree

REACH = 0.06  # standard deviation of the weights, as part of the body's box: a stride of 8 in a view of 128
_FAR = 2.5  # standard deviations; further regions weigh nothing


def smoothed(
    scores: NDArray[np.floating], positions: NDArray[np.floating], *, reach: float = REACH
) -> NDArray[np.float64]:
    """Scores (n, n_terms) of the regions of one image, each the Gaussian mean of those around its position.

    positions (n, 2 or 3), 0 to 1, as of `learning.Regions`; a reach of 0 leaves the scores as they are.
    """
    values = np.asarray(scores, np.float64)
    if reach <= 0 or not len(values):
        return values
    tree = cKDTree(np.asarray(positions, np.float64))
    pairs = tree.query_pairs(_FAR * reach, output_type="ndarray")
    apart = np.square(tree.data[pairs[:, 0]] - tree.data[pairs[:, 1]]).sum(axis=1)
    weight = np.exp(-apart / (2 * reach**2))
    own = np.arange(len(values))
    rows, columns = np.concatenate([own, pairs[:, 0], pairs[:, 1]]), np.concatenate([own, pairs[:, 1], pairs[:, 0]])
    near = csr_array((np.concatenate([np.ones(len(own)), weight, weight]), (rows, columns)), shape=(len(own),) * 2)
    return np.asarray(diags_array(1 / near.sum(axis=1)) @ (near @ values))
