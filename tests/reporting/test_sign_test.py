import itertools

import pytest
from scipy.stats import ttest_rel

from u2pl.reporting.sign_test import DECIDED_FROM, SIGNIFICANT, Differences


@pytest.mark.parametrize(
    "values",
    [
        (1.2, 0.3, -0.1, 2.0, 1.0, 0.7),
        (1.0, 1.0, 1.0),
        (0.0, 0.0),
        (1.0, -1.0),
        (2.0,) * 7,
        (0.1, 0.2, 0.3, -0.6),
    ],
)
def test_it_counts_the_signs_that_make_as_much(values: tuple[float, ...]) -> None:
    signs = list(itertools.product((1, -1), repeat=len(values)))
    sums = [abs(sum(s * d for s, d in zip(sign, values, strict=True))) for sign in signs]
    as_much = sum(total >= abs(sum(values)) - 1e-9 for total in sums) / len(signs)
    assert Differences(values).p == pytest.approx(as_much)
    assert Differences(values).p >= Differences(values).least_p


def test_the_least_p_comes_where_all_differences_have_one_sign() -> None:
    for seeds in range(1, 9):
        found = Differences(tuple(range(1, seeds + 1)))
        assert found.p == pytest.approx(found.least_p)
        assert (found.least_p < SIGNIFICANT) == (seeds >= DECIDED_FROM)


def test_of_many_seeds_it_draws_and_always_the_same() -> None:
    values = tuple(0.1 * (-1) ** k * k for k in range(24))
    assert Differences(values).p == Differences(values).p > SIGNIFICANT
    assert Differences(tuple(map(abs, values))).p < 0.001


def test_the_interval_is_that_of_the_t_test() -> None:
    low, high = ttest_rel((3.0, 4.5, 7.0, 1.0), (0.0,) * 4).confidence_interval(0.95)
    assert Differences((3.0, 4.5, 7.0, 1.0)).interval == pytest.approx((low, high))
    assert Differences((1.0,)).interval is None
    assert Differences((2.0, 2.0)).interval == (2.0, 2.0)
