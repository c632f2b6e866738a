import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from u2pl.reporting.paired import Paired, paired


def test_three_seeds_by_hand() -> None:
    """Differences 1, 2 and 3: mean 2, deviation 1, t = 2 sqrt(3) with two degrees of freedom."""
    found = Paired((11.0, 22.0, 33.0), (10.0, 20.0, 30.0))
    assert found.differences == [1.0, 2.0, 3.0]
    assert (found.seeds, found.mean, found.sd) == (3, 2.0, 1.0)
    t = 2 * math.sqrt(3)
    # Of two degrees of freedom the distribution is known in closed form.
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))


@pytest.mark.parametrize("seeds", [3, 4, 7])
def test_p_is_scipys(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    ours, base = draw.normal(31, 2, seeds).tolist(), draw.normal(30, 2, seeds).tolist()
    assert Paired(tuple(ours), tuple(base)).p == pytest.approx(ttest_rel(ours, base).pvalue)
    assert Paired(tuple(base), tuple(ours)).p == Paired(tuple(ours), tuple(base)).p


def test_two_seeds_have_a_spread_and_no_test_and_one_has_neither() -> None:
    two, one = Paired((3.0, 6.0), (1.0, 2.0)), Paired((3.0,), (1.0,))
    assert (two.mean, two.sd, two.p) == (3.0, pytest.approx(math.sqrt(2)), None)
    assert (one.mean, one.sd, one.p) == (2.0, None, None)


def test_equal_differences_are_not_tested() -> None:
    found = Paired((2.0, 3.0, 4.0), (1.0, 2.0, 3.0))
    assert (found.sd, found.p) == (0.0, None)


@pytest.mark.parametrize(
    ("ours", "exceeds"), [((3.0, 5.0), True), ((-3.0, -5.0), True), ((-1.0, 2.0), False), ((9.0,), False)]
)
def test_a_difference_exceeds_its_spread_to_either_side_and_never_from_one_seed(
    ours: tuple[float, ...], exceeds: bool
) -> None:
    assert Paired(ours, (0.0,) * len(ours)).exceeds_spread is exceeds


def test_only_seeds_that_both_have_are_compared_each_with_its_own() -> None:
    found = paired({2: 5.0, 0: 1.0, 1: 9.0}, {0: 4.0, 2: 6.0, 3: 7.0})
    assert found == Paired((1.0, 5.0), (4.0, 6.0))
    assert paired({0: 1.0}, {1: 1.0}) is None
