"""Below which confidence a picture or a pixel should be looked at, and how sure that is, measured on other images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FEW = 10
"""Validation images below which nothing is said of a threshold for images."""
POOR = 0.2
"""Share of the validation images that count as poor: those of the lowest mIoU."""
FOUND = 0.8
"""Share of the poor ones that the threshold is to find."""
WRONG_FOUND = 0.5
"""Share of the wrong pixels that the threshold for pixels is to find."""


class ImageThreshold(NamedTuple):
    """An image whose score is below `threshold` should be looked at."""

    threshold: float
    poor_below: float
    """mIoU in percent below which a validation image is one of the poor fifth."""
    found: float
    """Share of the poor images that lie below the threshold, 0 to 1; each half judged by the threshold of the other."""
    flagged: float
    """Share of all images that do, likewise."""
    spearman: float
    """Rank correlation of the score with the images' own mIoU."""
    aurc: float
    """Area under the risk-coverage curve: the mean of 100 - mIoU, percent, over all ways to keep the best by score."""
    aurc_random: float
    """The same of a score that knows nothing: the mean of 100 - mIoU of all images."""
    aurc_best: float
    """The same of a score that knows the order."""
    images: int

    @property
    def is_telling(self) -> bool:
        """Whether the rank correlation is above what scores that know nothing reach once in forty times."""
        return self.spearman > 1.96 / float(np.sqrt(max(1, self.images - 1)))


class PixelThreshold(NamedTuple):
    """A pixel whose largest probability is below `threshold` should be looked at: it finds half of the wrong ones."""

    threshold: float
    wrong_found: float
    """Share of the wrong pixels that lie below the threshold, 0 to 1; each half judged by that of the other."""
    flagged: float
    """Share of all pixels that do, likewise."""
    wrong_of_flagged: float
    """Share of those that are wrong."""


def image_threshold(scores: Sequence[float], mious: Sequence[float]) -> ImageThreshold | None:
    """The score below which four of five poor images lie, and what it is worth on images it was not chosen by.

    Args:
        scores: of each validation image in the order of the list, the higher the better.
        mious: of each its own mIoU, percent.

    Returns:
        None where there are fewer than `FEW` images.
    """
    score, miou = np.asarray(scores, np.float64), np.asarray(mious, np.float64)
    count = len(score)
    if count < FEW:
        return None
    poor_below = _poor_below(miou)
    poor = miou <= poor_below
    flagged = np.zeros(count, np.bool_)
    first = np.arange(count) < count // 2
    for mine in (first, ~first):
        other = ~mine
        flagged[mine] = score[mine] < _quantile_of(
            score[other][miou[other] <= _poor_below(miou[other])], FOUND
        )
    return ImageThreshold(
        threshold=_quantile_of(score[poor], FOUND),
        poor_below=poor_below,
        found=float(flagged[poor].mean()),
        flagged=float(flagged.mean()),
        spearman=spearman(score, miou),
        aurc=aurc(score, 100 - miou),
        aurc_random=float((100 - miou).mean()),
        aurc_best=aurc(miou, 100 - miou),
        images=count,
    )


def pixel_threshold(
    confidence_P: NDArray[np.float32], right_P: NDArray[np.bool_], first_P: NDArray[np.bool_]
) -> PixelThreshold | None:
    """The confidence below which half of the wrong pixels lie.

    A fixed number, or "more often wrong than right", would find nothing where there are two classes: the larger of two
    probabilities is never below a half.

    Args:
        confidence_P: (P,), calibrated.
        right_P: (P,), whether the class is the true one.
        first_P: (P,), whether the pixel is of the first half of the images.

    Returns:
        None where no pixel is wrong.
    """
    if right_P.all():
        return None
    flagged = np.zeros(len(right_P), np.bool_)
    for mine in (first_P, ~first_P):
        wrong = confidence_P[~mine & ~right_P]
        if len(wrong):
            flagged[mine] = confidence_P[mine] < np.quantile(wrong, WRONG_FOUND)
    return PixelThreshold(
        threshold=float(np.quantile(confidence_P[~right_P], WRONG_FOUND)),
        wrong_found=float(flagged[~right_P].mean()),
        flagged=float(flagged.mean()),
        wrong_of_flagged=float((~right_P)[flagged].mean()) if flagged.any() else 0.0,
    )


def spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Rank correlation, -1 to 1, equal values sharing their ranks; 0 where one of the two is constant."""
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
    norm = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / norm if norm else 0.0


def aurc(score: NDArray[np.float64], risk: NDArray[np.float64]) -> float:
    """Area under the risk-coverage curve: the mean over k of the mean risk of the k with the highest score."""
    order = np.argsort(-score, kind="stable")
    return float((np.cumsum(risk[order]) / np.arange(1, len(risk) + 1)).mean())


def _poor_below(miou: NDArray[np.float64]) -> float:
    """The mIoU up to which a fifth of the images lie."""
    return float(np.sort(miou)[max(0, round(POOR * len(miou)) - 1)])


def _quantile_of(scores: NDArray[np.float64], share: float) -> float:
    """A number that `share` of the scores, rounded up, lie below."""
    ordered = np.sort(scores)
    last = min(len(ordered), int(np.ceil(share * len(ordered)))) - 1
    return float(np.nextafter(ordered[last], np.inf))
