import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2pl.trust.calibration import (
    Bin,
    calibrate,
    confidences,
    expected_calibration_error,
    fit_temperature,
    halves,
    nll,
    reliability,
)


def drawn(pixels: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large, and labels drawn by the probabilities that they should have."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (pixels, 4))
    prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (prob.cumsum(axis=1) < rng.random((pixels, 1))).sum(axis=1)
    return (logits * temperature).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoiled_the_logits_is_found(temperature: float) -> None:
    logits, labels = drawn(40_000, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    for other in (0.8 * found, 1.25 * found):
        assert nll(logits, labels, found) < nll(logits, labels, other)


def test_a_network_that_is_never_wrong_has_a_temperature_too() -> None:
    labels = np.arange(100) % 3
    logits = np.eye(3, dtype=np.float32)[labels]
    assert 0.05 <= fit_temperature(logits, labels) < 0.1
    confidence = confidences(logits * 1e4)
    assert np.isfinite(confidence).all() and confidence.min() == pytest.approx(1)


def test_bins_and_their_error_are_counted_by_hand() -> None:
    confidence = np.array([0.55, 0.6, 0.9, 1.0, 0.5], np.float32)
    right = np.array([True, False, True, True, False])
    bins = reliability(confidence, right, bins=2)
    assert bins[0] == Bin(0, 0.5, 1, 0.5, 0)
    assert bins[1].pixels == 4 and bins[1].accuracy == 0.75
    assert bins[1].confidence == pytest.approx(3.05 / 4)
    assert expected_calibration_error(bins) == pytest.approx((1 * 0.5 + 4 * (3.05 / 4 - 0.75)) / 5)


@given(st.lists(st.tuples(st.floats(0.01, 1), st.booleans()), min_size=1, max_size=50))
def test_every_pixel_is_in_one_bin_and_inside_it(pixels: list[tuple[float, bool]]) -> None:
    confidence = np.array([c for c, _ in pixels], np.float32)
    bins = reliability(confidence, np.array([r for _, r in pixels]))
    assert len(bins) == 15 and sum(each.pixels for each in bins) == len(pixels)
    for each in bins:
        assert not each.pixels or each.low - 1e-6 <= each.confidence <= each.high + 1e-6
    assert 0 <= expected_calibration_error(bins) <= 1


def test_what_is_measured_was_not_fitted_on_the_same_images() -> None:
    logits, labels = drawn(20_000, 1.0)
    images = np.repeat(np.arange(10), 2000)
    second = images >= 5
    logits[second] *= 4  # the halves need temperatures 1 and 4
    found = calibrate(logits, labels, images)
    assert found.images == 10 and found.pixels == 20_000
    assert 1 < found.temperature < 4
    assert found.ece_after is not None and found.ece_after > found.ece_before
    same = calibrate(*drawn(20_000, 3.0), images)
    assert same.ece_after is not None and same.ece_after < 0.03 < same.ece_before
    assert expected_calibration_error(same.bins) == pytest.approx(same.ece_after)
    assert same.nll_after is not None and same.nll_after < same.nll_before


def test_neighbours_in_the_list_stay_together() -> None:
    assert halves(np.array([3, 3, 5, 8, 9])).tolist() == [True, True, True, False, False]
    alone = calibrate(*drawn(100, 1.0), np.zeros(100, np.int64))
    assert alone.ece_after is None and alone.nll_after is None
