import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from u2pl.reporting.paired import Paired, paired


def compared(ours: dict[int, float] | list[float], base: dict[int, float] | list[float]) -> Paired | None:
    """Two labels by their seeds; None where they share none."""
    numbers = pd.DataFrame({"base": pd.Series(base, dtype=float), "ours": pd.Series(ours, dtype=float)})
    return next(iter(paired(numbers, "base", ["base", "ours"])), None)


def test_three_seeds_by_hand() -> None:
    """Differences 1, 2 and 3: mean 2, deviation 1, t = 2 sqrt(3) with two degrees of freedom."""
    found = compared([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    t = 2 * math.sqrt(3)
    # Of two degrees of freedom the distribution is known in closed form.
    p = 1 - t / math.sqrt(2 + t**2)
    assert found == Paired("ours", "base", 3, 22.0, 11.0, 20.0, 10.0, 2.0, 1.0, pytest.approx(p))


@pytest.mark.parametrize("seeds", [3, 4, 7])
def test_p_is_scipys(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    ours, base = draw.normal(31, 2, seeds).tolist(), draw.normal(30, 2, seeds).tolist()
    assert compared(ours, base).p == pytest.approx(ttest_rel(ours, base).pvalue)
    assert compared(base, ours).p == compared(ours, base).p


def test_two_seeds_have_a_spread_and_no_test_and_one_has_neither() -> None:
    two, one = compared([3.0, 6.0], [1.0, 2.0]), compared([3.0], [1.0])
    assert (two.seeds, two.mean, two.sd) == (2, 3.0, pytest.approx(math.sqrt(2))) and math.isnan(two.p)
    assert (one.seeds, one.mean) == (1, 2.0) and math.isnan(one.sd) and math.isnan(one.p)


@pytest.mark.parametrize(
    ("ours", "base"), [([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]), ([50.3, 51.4, 52.9], [50.2, 51.3, 52.8])]
)
def test_equal_differences_are_not_tested_though_they_are_rounded(
    ours: list[float], base: list[float]
) -> None:
    found = compared(ours, base)
    assert found.sd == 0.0 and math.isnan(found.p) and found.exceeds_spread


@pytest.mark.parametrize(
    ("ours", "exceeds"), [([3.0, 5.0], True), ([-3.0, -5.0], True), ([-1.0, 2.0], False), ([9.0], False)]
)
def test_a_difference_exceeds_its_spread_to_either_side_and_never_from_one_seed(
    ours: list[float], exceeds: bool
) -> None:
    assert compared(ours, [0.0] * len(ours)).exceeds_spread is exceeds


def test_only_seeds_that_both_have_are_compared_each_with_its_own() -> None:
    found = compared({2: 5.0, 0: 1.0, 1: 9.0}, {0: 4.0, 2: 6.0, 3: 7.0})
    assert (found.seeds, found.ours, found.base, found.mean) == (2, 3.0, 5.0, -2.0)
    assert found.sd == pytest.approx(math.sqrt(2))  # of -3 and -1
    assert compared({0: 1.0}, {1: 1.0}) is None


def test_labels_come_in_the_order_asked_for_without_the_base() -> None:
    numbers = pd.DataFrame({"a": [1.0], "b": [2.0], "c": [3.0]})
    assert [found.label for found in paired(numbers, "b", ["c", "b", "a"])] == ["c", "a"]
