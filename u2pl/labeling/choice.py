"""Which of many unlabelled images to label next: drawn, or by what a model is unsure of, rare classes, and diversity.

A draw is the default: no other way was shown to teach more (docs/labeling.md has the simulation).

`suggestive` is suggestive annotation (Yang et al., Suggestive Annotation: A Deep Active Learning Framework for
Biomedical Image Segmentation, MICCAI 2017): of the images the model is least sure of, those that together stand best
for all unlabelled ones. Two things are ours: entropy is multiplied by the rarity of the classes, since a mean over
classes is what a model is scored by, and images that are labelled already stand for others too.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHORTLIST = 4
"""Images of highest score that `suggestive` looks at, for each one it chooses."""


class Pool(NamedTuple):
    """What a model makes of N images without labels, and of the L that have some; C classes, features of size D."""

    names: Sequence[str]
    entropy: Floats
    """(N,) mean over an image's pixels, nats."""
    expected: Floats
    """(N, C) mean predicted probability of each class."""
    features: Floats
    """(N, D) of the encoder, averaged over the image."""
    labeled: Floats
    """(L, D) likewise, of the labelled images; L may be 0."""


def rarity(expected: Floats) -> Floats:
    """How much of rare classes is expected in each image, as a multiple of what the average image has.

    Of each class, the image's share over the mean share; of these ratios, the mean over the classes that are expected
    anywhere. All classes so count alike, and the mean over the images is 1.

    Args:
        expected: (N, C) mean predicted probability of each class.

    Returns:
        (N,)
    """
    mean = expected.mean(axis=0)
    present = mean > 0
    return (expected[:, present] / mean[present]).mean(axis=1)


def directions(features: Floats, *others: Floats) -> list[Floats]:
    """Features as unit vectors from their mean, so that products are cosines of what sets images apart.

    Args:
        features: (N, D), whose mean counts.
        others: (L, D), measured from the same mean.
    """
    mean = features.mean(axis=0)
    centred = [part - mean for part in (features, *others)]
    return [part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in centred]


def farthest(points: Floats, centers: Floats, n: int) -> list[int]:
    """Each time the point farthest from all centres and points chosen before: the greedy k-center of a core-set.

    Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018, without the
    mixed integer programme that follows there. Without centres it begins with the point nearest to the mean.

    Args:
        points: (N, D).
        centers: (L, D).
        n: how many.

    Returns:
        Indices in the order of choice; of equal ones the first.
    """
    if not n:
        return []
    chosen: list[int] = []
    if len(centers):
        nearest = np.min([_distances(points, center) for center in centers], axis=0)
    else:
        chosen.append(int(_distances(points, points.mean(axis=0)).argmin()))
        nearest = _distances(points, points[chosen[0]])
    while len(chosen) < n:
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(points, points[chosen[-1]]))
    return chosen


def _distances(points: Floats, center: Floats) -> Floats:
    return ((points - center) ** 2).sum(axis=1)


def representative(points: Floats, among: Sequence[int], centers: Floats, n: int) -> list[int]:
    """Points that together stand best for all: each time the one that adds most to the sum of best similarities.

    Yang et al. 2017, Sec. 2.3: the greedy maximum cover of all images by their similarity to the nearest chosen one.

    Args:
        points: (N, D) unit vectors.
        among: indices of the points that may be chosen, the better ones first.
        centers: (L, D) unit vectors that stand for others already.
        n: how many.

    Returns:
        Indices in the order of choice; of equal ones the first in `among`.
    """
    candidates = np.asarray(among)
    similar = points[candidates] @ points.T
    covered = (centers @ points.T).max(axis=0) if len(centers) else np.full(len(points), -1.0)
    chosen: list[int] = []
    for _ in range(n):
        # Two that stand for each other alone gain the same: rounded, so that the order decides and no rounding error.
        gains = np.maximum(similar - covered, 0.0).sum(axis=1).round(9)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, similar[chosen[-1]])
    return [int(candidates[at]) for at in chosen]


def _highest(score: Floats, n: int) -> list[int]:
    """Indices of the n highest; of equal ones the first."""
    return np.argsort(-score, kind="stable")[:n].tolist()


def score(pool: Pool) -> Floats:
    """(N,) entropy times rarity: how much labels of an image are likely to teach, whatever else is labelled."""
    return pool.entropy * rarity(pool.expected)


def _suggestive(pool: Pool, n: int, seed: int) -> list[int]:
    points, centers = directions(pool.features, pool.labeled)
    return representative(points, _highest(score(pool), SHORTLIST * n), centers, n)


def _score(pool: Pool, n: int, seed: int) -> list[int]:
    return _highest(score(pool), n)


def _entropy(pool: Pool, n: int, seed: int) -> list[int]:
    return _highest(pool.entropy, n)


def _coreset(pool: Pool, n: int, seed: int) -> list[int]:
    points, centers = directions(pool.features, pool.labeled)
    return farthest(points, centers, n)


def _random(pool: Pool, n: int, seed: int) -> list[int]:
    # Of sorted names, so that the order in which images are listed decides nothing.
    order = sorted(range(len(pool.names)), key=lambda at: pool.names[at])
    return [order[at] for at in np.random.default_rng(seed).permutation(len(order))[:n]]


CRITERIA: dict[str, tuple[Callable[[Pool, int, int], list[int]], str]] = {
    "random": (_random, "drawn by the seed, whatever the model makes of them"),
    "suggestive": (_suggestive, "of the highest entropy x class rarity, those that stand for most others"),
    "score": (_score, "highest entropy x class rarity"),
    "entropy": (_entropy, "highest mean entropy"),
    "coreset": (_coreset, "farthest from all labelled and chosen images in the encoder's features"),
}
"""Name -> the choice (pool, how many, seed) -> indices, best first; and what it is in words."""

DEFAULT = "random"


def choose(pool: Pool, n: int, by: str = DEFAULT, seed: int = 0) -> list[int]:
    """The images to label next.

    Args:
        pool: what the model makes of the images.
        n: how many; where there are fewer, all.
        by: a key of `CRITERIA`.
        seed: of `random`; the others draw nothing.

    Returns:
        Indices into the pool, the most wanted first.
    """
    n = min(n, len(pool.names))
    return CRITERIA[by][0](pool, n, seed) if n else []
