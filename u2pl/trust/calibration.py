"""How far confidences are frequencies: temperature scaling, expected calibration error and reliability bins.

Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

BINS = 15
"""Of equal width, as in the paper."""
COLDEST, HOTTEST = 0.05, 20.0
"""Between which the temperature is searched: of a network that is never wrong the best one would be 0."""

Floats = NDArray[np.float32]


class Bin(NamedTuple):
    """Pixels whose confidence is above `low` and not above `high`."""

    low: float
    high: float
    pixels: int
    confidence: float
    """Their mean; 0 where there are none, as the next."""
    accuracy: float


class Calibration(NamedTuple):
    """What was found on sampled pixels of validation images."""

    temperature: float
    """What logits are divided by; of all images."""
    ece_before: float
    """Expected calibration error of the network as it is, 0 to 1."""
    ece_after: float | None
    """The same with a temperature that was fitted on the other half of the images; None where there is one alone."""
    nll_before: float
    """Mean negative log-likelihood, nats."""
    nll_after: float | None
    bins: list[Bin]
    """After, of the same temperatures as `ece_after`; before where there is none."""
    images: int
    pixels: int


def nll(logits_PC: Floats, labels_P: NDArray[np.int64], temperature: float = 1.0) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    scaled = logits_PC / np.float32(temperature)
    return float(
        np.mean(logsumexp(scaled, axis=1) - scaled[np.arange(len(labels_P)), labels_P], dtype=np.float64)
    )


def fit_temperature(logits_PC: Floats, labels_P: NDArray[np.int64]) -> float:
    """The temperature of the least negative log-likelihood, which has one minimum over its logarithm.

    Args:
        logits_PC: (P, C) float32.
        labels_P: (P,) int64, the true class of each pixel.
    """
    found = minimize_scalar(
        lambda log: nll(logits_PC, labels_P, float(np.exp(log))),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-3},
    )
    return float(np.exp(found.x))


def confidences(logits_PC: Floats, temperature: float = 1.0) -> Floats:
    """The largest probability of each pixel, (P,)."""
    scaled = logits_PC / np.float32(temperature)
    return np.exp(scaled.max(axis=1) - logsumexp(scaled, axis=1)).astype(np.float32)


def reliability(confidence_P: Floats, right_P: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Pixels by their confidence: how sure the network was in each bin, and how often right.

    Args:
        confidence_P: (P,), above 0, at most 1.
        right_P: (P,), whether the class is the true one.
        bins: how many, of equal width.
    """
    place = np.clip(np.ceil(confidence_P.astype(np.float64) * bins).astype(np.int64) - 1, 0, bins - 1)
    pixels = np.bincount(place, minlength=bins)
    confidence = np.bincount(place, confidence_P, minlength=bins) / np.maximum(pixels, 1)
    accuracy = np.bincount(place, right_P, minlength=bins) / np.maximum(pixels, 1)
    return [
        Bin(k / bins, (k + 1) / bins, int(pixels[k]), float(confidence[k]), float(accuracy[k]))
        for k in range(bins)
    ]


def expected_calibration_error(bins: list[Bin]) -> float:
    """Mean distance of confidence and accuracy, each bin weighted by its pixels."""
    pixels = sum(each.pixels for each in bins)
    return sum(each.pixels * abs(each.confidence - each.accuracy) for each in bins) / max(1, pixels)


def halves(image_P: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which pixels are of the first half of the images, (P,): neighbours, as frames of one video, stay together.

    Args:
        image_P: (P,), of each pixel the number of its image in the list.
    """
    numbers = np.unique(image_P)
    return image_P < numbers[len(numbers) // 2] if len(numbers) else np.zeros(0, np.bool_)


def calibrate(
    logits_PC: Floats,
    labels_P: NDArray[np.int64],
    image_P: NDArray[np.int64],
    by_other_P: Floats | None = None,
) -> Calibration:
    """Fit the temperature on all images, and measure it on each half with that of the other half.

    Args:
        logits_PC: (P, C) float32, of P > 0 pixels.
        labels_P: (P,) int64.
        image_P: (P,) int64, of each pixel the number of its image.
        by_other_P: what `crossed_temperatures` gives for these; None: it is found here.
    """
    right = logits_PC.argmax(axis=1) == labels_P
    before = reliability(confidences(logits_PC), right)
    images = len(np.unique(image_P))
    common = dict(images=images, pixels=len(labels_P))
    temperature = fit_temperature(logits_PC, labels_P)
    if images < 2:
        return Calibration(
            temperature,
            expected_calibration_error(before),
            None,
            nll(logits_PC, labels_P),
            None,
            before,
            **common,
        )
    if by_other_P is None:
        by_other_P = crossed_temperatures(logits_PC, labels_P, image_P)
    scaled = logits_PC / by_other_P[:, None]
    after = reliability(confidences(scaled), right)
    return Calibration(
        temperature,
        expected_calibration_error(before),
        expected_calibration_error(after),
        nll(logits_PC, labels_P),
        nll(scaled, labels_P),
        after,
        **common,
    )


def crossed_temperatures(
    logits_PC: Floats, labels_P: NDArray[np.int64], image_P: NDArray[np.int64]
) -> Floats:
    """Of each pixel the temperature that fits the half of the images it is not in, (P,)."""
    first = halves(image_P)
    found = np.empty(len(labels_P), np.float32)
    for mine in (first, ~first):
        found[mine] = fit_temperature(logits_PC[~mine], labels_P[~mine])
    return found
