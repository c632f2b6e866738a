import numpy as np
import pytest

from u2pl.trust.thresholds import aurc, image_threshold, pixel_threshold, spearman


def test_a_score_that_knows_all_finds_the_poor_ones_and_little_else() -> None:
    miou = np.random.default_rng(0).permutation(np.linspace(10, 90, 100))
    found = image_threshold(miou.tolist(), miou.tolist())
    assert found is not None and found.images == 100 and found.is_telling
    assert found.poor_below == np.sort(miou)[19]
    assert (miou < found.threshold).sum() == 16  # four of five of the twenty poor ones
    assert 0.6 <= found.found <= 1 and 0.1 <= found.flagged <= 0.25
    assert found.spearman == pytest.approx(1) and found.aurc == found.aurc_best < found.aurc_random


def test_a_score_that_knows_nothing_is_said_to() -> None:
    rng = np.random.default_rng(1)
    found = image_threshold(rng.random(200).tolist(), rng.random(200).tolist())
    assert found is not None and not found.is_telling
    assert found.flagged > 0.6 and found.aurc == pytest.approx(found.aurc_random, rel=0.1)
    upside_down = image_threshold(list(range(50)), list(range(50, 0, -1)))
    assert upside_down is not None and upside_down.spearman == -1 and not upside_down.is_telling


def test_of_fewer_than_ten_images_nothing_is_said() -> None:
    assert image_threshold([1.0] * 9, [1.0] * 9) is None
    same = image_threshold([1.0] * 10, [1.0] * 10)
    assert same is not None and same.spearman == 0 and not same.is_telling


def test_each_half_is_judged_by_the_threshold_of_the_other() -> None:
    """Scores of the second half are all higher: none of its images lies below the first half's threshold."""
    miou = np.tile(np.arange(10.0), 2)
    score = miou + np.repeat([0, 100], 10)
    found = image_threshold(score.tolist(), miou.tolist())
    assert found is not None and found.found == 0.5 and found.flagged == 0.5


def test_risk_and_coverage_by_hand() -> None:
    # Kept one after the other: risks 0, 2, 4.
    assert aurc(np.array([3.0, 2, 1]), np.array([0.0, 2, 4])) == pytest.approx((0 + 1 + 2) / 3)
    assert aurc(np.array([1.0, 2, 3]), np.array([0.0, 2, 4])) == pytest.approx((4 + 3 + 2) / 3)
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)


def test_the_threshold_for_pixels_finds_half_of_the_wrong_ones_also_of_two_classes() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20_000).astype(np.float32)
    right = rng.random(20_000) < confidence
    found = pixel_threshold(confidence, right, np.arange(20_000) < 10_000)
    assert found is not None and 0.5 < found.threshold < 0.75
    assert found.wrong_found == pytest.approx(0.5, abs=0.03)
    below = confidence < found.threshold
    assert found.flagged == pytest.approx(below.mean(), abs=0.02)
    assert found.wrong_of_flagged == pytest.approx((~right)[below].mean(), abs=0.02)
    assert pixel_threshold(confidence, np.ones_like(right), below) is None
