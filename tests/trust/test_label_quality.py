import numpy as np
import pytest

from u2pl.trust.label_quality import regions, softmin


def test_the_worst_pixels_count_most() -> None:
    p = np.array([0.1, 0.9])
    weights = np.exp((1 - p) / 0.1)
    assert softmin(p) == pytest.approx((weights * p).sum() / weights.sum())
    assert softmin(np.full(9, 0.7)) == pytest.approx(0.7)
    one_bad = np.array([1.0] * 99 + [0.0])
    assert softmin(one_bad) < 0.1 < one_bad.mean()
    assert softmin(p, temperature=1e3) == pytest.approx(p.mean(), abs=1e-3)


def test_regions_hang_together_and_are_told_with_what_they_should_be() -> None:
    given = np.zeros((40, 60), np.uint8)
    given[:, 50:] = 255
    predicted = np.zeros((40, 60), np.uint8)
    predicted[5:15, 10:30] = 2  # 200 pixels
    predicted[30:36, 0:5] = 1  # 30
    predicted[20, 20] = 1  # too few
    predicted[:, 55:] = 1  # void
    confidence = np.full((40, 60), 0.9, np.float32)
    confidence[5:15, 10:20] = 0.7
    first, second = regions(predicted, confidence, given, 255)
    assert (first.given, first.predicted, first.pixels, first.box) == (0, 2, 200, (10, 5, 20, 10))
    assert first.confidence == pytest.approx(0.8)
    assert (second.predicted, second.pixels, second.box) == (1, 30, (0, 30, 5, 6))


def test_where_the_network_is_not_sure_it_does_not_disagree() -> None:
    given, predicted = np.zeros((20, 20), np.uint8), np.ones((20, 20), np.uint8)
    assert not regions(predicted, np.full((20, 20), 0.4), given, 255)
    assert not regions(given, np.ones((20, 20)), given, 255)
    assert len(regions(predicted, np.ones((20, 20)), given, 255)) == 1


def test_two_classes_side_by_side_are_two_regions() -> None:
    given, predicted = np.zeros((20, 20), np.uint8), np.ones((20, 20), np.uint8)
    given[:10] = 2
    assert sorted((r.given, r.pixels) for r in regions(predicted, np.ones((20, 20)), given, 255)) == [
        (0, 200),
        (2, 200),
    ]
