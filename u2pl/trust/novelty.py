"""Pictures unlike those with labels: the distance of their features to the nearest ones.

Sun, Ming, Zhu, Li: Out-of-Distribution Detection with Deep Nearest Neighbors, ICML 2022. Other than there, features are
those of the encoder's last stage but one: the last one, trained to tell the classes, hardly tells other pictures.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 1000
"""Features that are kept of the images with labels."""
LEAST = 5
"""Images with labels below which nothing can be said."""
ENOUGH = 20
"""Validation images from which they alone say what distances are usual."""
USUAL = 0.99
"""Share of the images of the same kind that the threshold lets pass."""
_ROWS = 2048

Features = NDArray[np.float32]


class Novelty(NamedTuple):
    """What distances are measured to, and which are usual."""

    reference: NDArray[np.float16]
    """(N, D), rows of length 1."""
    neighbour: int
    """Which of the nearest ones the distance is measured to; 1 is the nearest."""
    threshold: float
    """The distance up to which 99 % of held-out images of the same kind lie."""

    def scores(self, features_MD: Features) -> NDArray[np.float64]:
        """Of each picture its distance, in thresholds, (M,): above 1 it is unlike the images with labels."""
        return distances(features_MD, self.reference, self.neighbour) / self.threshold


def fit(labeled_ND: Features, held_out_MD: Features) -> Novelty | None:
    """What is usual, from the features of labelled images and of others like them.

    Where there are fewer than `ENOUGH` others, the labelled ones too, each held against the rest of them.

    Args:
        labeled_ND: (N, D), of the images with labels; of many, `MOST` in equal steps.
        held_out_MD: (M, D), of validation images.

    Returns:
        None where there are fewer than `LEAST` images with labels.
    """
    if len(labeled_ND) < LEAST:
        return None
    kept = np.unique(np.linspace(0, len(labeled_ND) - 1, min(MOST, len(labeled_ND))).round().astype(int))
    reference = normalised(labeled_ND[kept]).astype(np.float16)
    neighbour = neighbour_of(len(reference))
    usual = distances(held_out_MD, reference, neighbour) if len(held_out_MD) else np.zeros(0)
    if len(held_out_MD) < ENOUGH:
        # Each is its own nearest neighbour: the one after that is meant.
        usual = np.concatenate([usual, distances(labeled_ND[kept], reference, neighbour + 1)])
    return Novelty(reference, neighbour, max(float(np.quantile(usual, USUAL)), 1e-6))


def neighbour_of(count: int) -> int:
    """Which neighbour is meant among so many: the paper takes a later one the more there are."""
    return max(1, min(50, count // 20))


def normalised(features_ND: NDArray[np.floating]) -> Features:
    """Rows of length 1, as float32; one of nothing but zeros stays."""
    rows = features_ND.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def distances(
    features_MD: Features, reference_ND: NDArray[np.floating], neighbour: int
) -> NDArray[np.float64]:
    """Euclidean distance of each row, brought to length 1, to its so many-th nearest of the reference, (M,)."""
    reference = normalised(reference_ND)
    found = np.empty(len(features_MD))
    for first in range(0, len(features_MD), _ROWS):
        rows = normalised(features_MD[first : first + _ROWS])
        squared = np.maximum(2 - 2 * rows @ reference.T, 0)
        nearest = np.partition(squared, neighbour - 1, axis=1)[:, neighbour - 1]
        found[first : first + _ROWS] = np.sqrt(nearest, dtype=np.float64)
    return found
