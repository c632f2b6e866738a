"""Masks that a network disagrees with: a score a mask, and the regions in which it is sure of another class.

Lad, Mueller: Estimating label quality and errors in semantic segmentation data via any model, 2023 (softmin).
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SOFTMIN = 0.1
"""Temperature of the paper's softmin: the lower, the more the worst pixels count."""
SURE = 0.5
"""Probability of another class, calibrated, from which a pixel disagrees."""
LEAST_SHARE = 0.001
"""Share of the mask's pixels that a region takes at least."""
LEAST_PIXELS = 16
MOST = 10
"""Regions that are told of one mask."""


class Region(NamedTuple):
    """Pixels that hang together, have one class in the mask, and for which another is predicted."""

    given: int
    predicted: int
    pixels: int
    confidence: float
    """Mean calibrated probability of the predicted class."""
    box: tuple[int, int, int, int]
    """Left, top, width, height, pixels."""


def softmin(probabilities_P: NDArray[np.floating], temperature: float = SOFTMIN) -> float:
    """The score of a mask, 0 to 1: a mean of the probabilities that its pixels' classes get, the lowest weighted most.

    Args:
        probabilities_P: (P,), of each pixel that has a class, the probability of that class; P > 0.
        temperature: that of the weights, exp((1 - p) / temperature).
    """
    p = probabilities_P.astype(np.float64)
    weights = np.exp((p.min() - p) / temperature)
    return float((weights * p).sum() / weights.sum())


def regions(
    predicted_HW: NDArray[np.integer],
    confidence_HW: NDArray[np.floating],
    given_HW: NDArray[np.integer],
    ignore_index: int,
) -> list[Region]:
    """Where a network is sure of another class than the mask, the regions with the most confidence in all first.

    Args:
        predicted_HW: (H, W), the likeliest class.
        confidence_HW: (H, W), its calibrated probability.
        given_HW: (H, W), the mask.
        ignore_index: its value for pixels of no class.
    """
    disagrees = (predicted_HW != given_HW) & (given_HW != ignore_index) & (confidence_HW >= SURE)
    least = max(LEAST_PIXELS, round(LEAST_SHARE * given_HW.size))
    pairs = given_HW.astype(np.int64) * 256 + predicted_HW
    found = []
    values, counts = np.unique(pairs[disagrees], return_counts=True)
    for pair in values[counts >= least]:
        number, places, stats, _ = cv2.connectedComponentsWithStats(
            (disagrees & (pairs == pair)).astype(np.uint8), connectivity=8
        )
        sums = np.bincount(places.reshape(-1), confidence_HW.reshape(-1).astype(np.float64), minlength=number)
        for k in range(1, number):
            left, top, width, height, pixels = map(int, stats[k])
            if pixels >= least:
                box = (left, top, width, height)
                found.append(Region(int(pair) // 256, int(pair) % 256, pixels, float(sums[k]) / pixels, box))
    return sorted(found, key=lambda region: (-region.pixels * region.confidence, region.box))[:MOST]
