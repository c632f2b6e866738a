"""Values over several seeds: mean and spread, and when one of them is called the best."""

from typing import Any

import pytest

from u2pl.reporting.seeds import clearly_best, over_seeds, verdict


def rows(**mious: list[float]) -> list[dict[str, Any]]:
    return [
        {"value": value, "seed": seed, "miou_reported": miou}
        for value, each in mious.items()
        for seed, miou in enumerate(each)
    ]


def best(**mious: list[float]) -> str | None:
    found = clearly_best(over_seeds(rows(**mious)))
    return found.value if found else None


def test_a_value_over_seeds_is_its_mean_and_its_spread():
    three, one = over_seeds(rows(a=[60.0, 61.0, 65.0], b=[50.0]))
    assert three.text == "62.00 ± 2.65 (n=3)" and one.text == "50.00"
    assert three.as_json() == {
        "value": "a",
        "mean": 62.0,
        "sd": pytest.approx(2.6458, abs=1e-4),
        "seeds": [0, 1, 2],
    }
    assert one.sd is None


def test_a_value_that_is_ahead_by_more_than_the_spread_is_the_best():
    assert best(a=[60.0, 61.0, 62.0], b=[50.0, 52.0, 51.0], c=[40.0, 41.0, 42.0]) == "a"


def test_what_lies_within_the_spread_is_not_the_best():
    assert best(a=[60.0, 70.0, 50.0], b=[55.0, 50.0, 65.0]) is None


def test_the_differences_count_seed_by_seed_and_not_the_spread_of_each_value():
    """Seeds that are hard for both values say nothing against the better one."""
    assert best(a=[41.0, 61.2, 81.1], b=[40.0, 60.0, 80.0]) == "a"


def test_it_has_to_be_ahead_of_every_other_value():
    assert best(a=[60.0, 61.0, 62.0], b=[59.9, 61.2, 61.8], c=[40.0, 41.0, 42.0]) is None


def test_of_two_seeds_twice_the_standard_error_is_asked_for():
    """Their standard deviation alone would be passed by chance too often: 1.2 times it is no star, 2 times is."""
    sd = 2**0.5  # of differences that are 2 apart
    assert best(a=[51.2 * sd + 1, 51.2 * sd - 1], b=[50 * sd, 50 * sd]) is None
    assert best(a=[52 * sd + 1, 52 * sd - 1], b=[50 * sd, 50 * sd]) == "a"


@pytest.mark.parametrize(
    "mious", [{"a": [60.0], "b": [10.0]}, {"a": [60.0, 61.0]}, {"a": [1.0, 2.0], "b": [1.0, 2.0]}]
)
def test_without_a_spread_or_a_difference_nothing_is_the_best(mious: dict[str, list[float]]):
    assert best(**mious) is None


def test_seeds_that_only_one_value_has_are_not_compared():
    found = over_seeds([*rows(a=[60.0]), {"value": "b", "seed": 7, "miou_reported": 1.0}])
    assert clearly_best(found) is None


def test_one_line_says_what_the_star_means_or_why_there_is_none():
    assert "One seed tells no spread" in verdict(over_seeds(rows(a=[60.0], b=[10.0])))
    assert verdict(over_seeds(rows(a=[60.0, 61.0], b=[10.0, 11.0]))).startswith(
        "* a is ahead of every other value"
    )
    assert "No value is clearly the best: a has the highest mean" in verdict(
        over_seeds(rows(a=[60.0, 50.0], b=[54.0, 55.0]))
    )
    assert "compared with nothing" in verdict(over_seeds(rows(a=[60.0])))
