"""Axes that do not make noise look like a result."""

import math

import pytest

from u2pl.reporting.axes import difference_span, honest_span, miou_span


def test_an_axis_of_values_close_together_is_widened_evenly():
    assert honest_span([50.0, 50.4], 10) == pytest.approx((45.2, 55.2))
    assert honest_span([50.0], 10) == (45.0, 55.0)


def test_an_axis_of_values_far_apart_holds_all_of_them_with_a_margin():
    low, high = honest_span([20.0, 60.0], 10)
    assert low < 20 and high > 60
    assert high - low == pytest.approx(44)


@pytest.mark.parametrize("values", [[99.5, 99.9], [100.0], [0.0], [0.3, 1.0], [2.0, 3.0], [96.0, 98.0]])
def test_at_the_ends_of_the_scale_an_axis_keeps_its_width(values: list[float]):
    low, high = miou_span(values)
    assert 0 <= low <= min(values) and max(values) <= high <= 100
    assert high - low == pytest.approx(10)


def test_values_from_end_to_end_fill_the_scale_and_no_more():
    assert miou_span([0.0, 100.0]) == (0, 100)
    assert miou_span([2.0, 99.0]) == (0, 100)


@pytest.mark.parametrize(
    ("sds", "width"), [([], 10), ([0.5, 2.0], 10), ([0.5, 5.0], 20), ([math.nan, 3.0], 12)]
)
def test_an_axis_of_mious_spans_four_standard_deviations_if_they_are_wider(sds: list[float], width: float):
    low, high = miou_span([60.0, 61.0], sds)
    assert high - low == pytest.approx(width)
    assert (low + high) / 2 == pytest.approx(60.5)


def test_values_that_are_missing_do_not_count():
    assert miou_span([math.nan, 50.0, math.inf]) == (45, 55)


def test_an_axis_without_a_value_has_its_least_width():
    assert miou_span([]) == (0, 10)
    assert honest_span([math.nan], 3) == (0, 3)


@pytest.mark.parametrize("values", [[], [0.2], [-0.2, 0.3], [5.0], [-30.0, -20.0]])
def test_an_axis_of_differences_holds_nothing_and_is_no_narrower(values: list[float]):
    low, high = difference_span(values)
    assert low <= min([0, *values]) and high >= max([0, *values])
    assert high - low >= 10


def test_an_axis_of_small_differences_is_wide_on_both_sides_of_nothing():
    low, high = difference_span([0.2])
    assert low < -4 and high > 4
