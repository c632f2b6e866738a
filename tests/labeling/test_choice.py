"""The choice of images against slow references, and what each criterion is for."""

import itertools
import math
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from u2pl.labeling import choice
from u2pl.labeling.choice import CRITERIA, Pool, choose


def pool(seed: int, images: int = 9, labeled: int = 2, classes: int = 3, size: int = 4) -> Pool:
    draw = np.random.default_rng(seed)
    expected = draw.dirichlet(np.full(classes, 0.5), images)
    names = [f"im{at}" for at in range(images)]
    entropy = draw.uniform(0, math.log(classes), images)
    return Pool(names, entropy, expected, draw.normal(size=(images, size)), draw.normal(size=(labeled, size)))


# ---- slow references, written from the papers' words -----------------------------------------------------


def slow_rarity(expected: np.ndarray) -> list[float]:
    images, classes = expected.shape
    means = [sum(expected[i][c] for i in range(images)) / images for c in range(classes)]
    present = [c for c in range(classes) if means[c] > 0]
    return [sum(expected[i][c] / means[c] for c in present) / len(present) for i in range(images)]


def slow_unit(features: np.ndarray, others: np.ndarray) -> tuple[list[list[float]], list[list[float]]]:
    mean = [sum(row[d] for row in features) / len(features) for d in range(features.shape[1])]

    def unit(row: np.ndarray) -> list[float]:
        moved = [x - m for x, m in zip(row, mean, strict=True)]
        return [x / math.sqrt(sum(y * y for y in moved)) for x in moved]

    return [unit(row) for row in features], [unit(row) for row in others]


def dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def slow_coreset(pool: Pool, n: int) -> list[int]:
    points, centers = slow_unit(pool.features, pool.labeled)
    chosen: list[int] = []
    for _ in range(n):
        taken = [*centers, *(points[k] for k in chosen)]
        rest = [k for k in range(len(points)) if k not in chosen]
        chosen.append(max(rest, key=lambda k: min(math.dist(points[k], center) for center in taken)))
    return chosen


def slow_suggestive(pool: Pool, n: int) -> list[int]:
    points, centers = slow_unit(pool.features, pool.labeled)
    rarity = slow_rarity(pool.expected)
    score = [pool.entropy[k] * rarity[k] for k in range(len(points))]
    shortlist = sorted(range(len(points)), key=lambda k: -score[k])[: 4 * n]
    chosen: list[int] = []

    def cover(chosen: list[int]) -> float:
        standing = [*centers, *(points[k] for k in chosen)]
        return sum(max(dot(point, other) for other in standing) for point in points)

    for _ in range(n):
        rest = [k for k in shortlist if k not in chosen]
        chosen.append(max(rest, key=lambda k: round(cover([*chosen, k]), 9)))
    return chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 3))
def test_criteria_are_what_their_slow_references_say(seed: int, n: int, labeled: int):
    some = pool(seed, images=20, labeled=labeled)
    assert choose(some, n, "coreset") == slow_coreset(some, n)
    assert choose(some, n, "suggestive") == slow_suggestive(some, n)
    assert choose(some, n, "entropy") == sorted(range(20), key=lambda k: -some.entropy[k])[:n]
    rarity = slow_rarity(some.expected)
    assert choice.rarity(some.expected) == pytest.approx(rarity)
    assert choose(some, n, "score") == sorted(range(20), key=lambda k: -some.entropy[k] * rarity[k])[:n]


@pytest.mark.parametrize("by", CRITERIA)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 9), st.integers(0, 2))
def test_a_choice_is_of_different_images_as_many_as_asked_for_and_the_same_again(
    by: str, seed: int, n: int, images: int, labeled: int
):
    some = pool(seed, images, labeled)
    chosen = choose(some, n, by, seed=3)
    assert len(chosen) == len(set(chosen)) == min(n, images)
    assert set(chosen) <= set(range(images))
    assert chosen == choose(some, n, by, seed=3)


@pytest.mark.parametrize("by", ["score", "entropy", "suggestive", "coreset"])
def test_the_first_of_a_choice_are_the_choice_of_fewer_where_nothing_else_is_looked_at(by: str):
    some = pool(1, images=12)
    more = choose(some, 3, by)
    assert by == "suggestive" or choose(some, 2, by) == more[:2]
    # All twelve are on the shortlist of three.
    assert by != "suggestive" or choose(some, 4, by)[:3] == more


def test_rarity_is_one_on_average_and_counts_all_classes_alike():
    expected = np.array([[0.98, 0.02, 0], [1.0, 0, 0], [0.99, 0.01, 0]])
    found = choice.rarity(expected)
    assert found.mean() == pytest.approx(1)
    assert found.argsort().tolist() == [1, 2, 0], "two per cent of a rare class outweigh two of a common one"


def test_farthest_points_cover_a_line_from_its_ends():
    line = np.linspace(0, 1, 11)[:, None]
    assert choice.farthest(line, np.zeros((0, 1)), 3) == [5, 0, 10]
    assert choice.farthest(line, np.zeros((1, 1)), 2) == [10, 5]


def test_groups_that_are_labelled_already_are_left_for_those_that_are_not():
    """Three groups of pictures of equal score, of which one has a label."""
    draw = np.random.default_rng(0)
    ways = np.eye(3)[np.repeat([0, 1, 2], 6)]
    features = ways + 0.01 * draw.normal(size=ways.shape)
    some = Pool([str(k) for k in range(18)], np.ones(18), np.full((18, 2), 0.5), features, np.eye(3)[:1])
    for by in ("suggestive", "coreset"):
        assert {at // 6 for at in choose(some, 2, by)} == {1, 2} or by == "suggestive", by
    # Of eight of equal score the first are on the shortlist: those of the labelled group add least.
    assert choose(some, 2, "suggestive")[0] // 6 == 1


def test_representatives_beat_every_other_first_choice():
    some = pool(5, images=8, labeled=1)
    points, centers = choice.directions(some.features, some.labeled)
    (best,) = choice.representative(points, range(8), centers, 1)

    def cover(at: int) -> float:
        return float(np.maximum(points @ points[at], (centers @ points.T).max(axis=0)).sum())

    assert cover(best) == max(map(cover, range(8)))


def test_a_greedy_pair_is_nearly_as_good_as_the_best_one():
    """The greedy choice of a submodular gain has at least 1 - 1/e of it (Nemhauser et al. 1978)."""
    for seed in range(5):
        some = pool(seed, images=10, labeled=1)
        points, centers = choice.directions(some.features, some.labeled)
        ground = (centers @ points.T).max(axis=0)

        def gain(pair: tuple[int, ...], points: np.ndarray = points, ground: np.ndarray = ground) -> float:
            best = np.maximum.reduce([ground, *(points @ points[at] for at in pair)])
            return float((best - ground).sum())

        greedy = gain(tuple(choice.representative(points, range(10), centers, 2)))
        assert greedy >= (1 - 1 / math.e) * max(map(gain, itertools.combinations(range(10), 2)))


def test_random_depends_on_the_seed_and_on_names_but_not_on_their_order():
    names = list(string.ascii_letters)
    empty = np.zeros((len(names), 0))
    some = Pool(names, np.zeros(len(names)), empty, empty, empty)
    turned = some._replace(names=names[::-1])
    drawn = {names[at] for at in choose(some, 5, "random", 1)}
    assert drawn == {turned.names[at] for at in choose(turned, 5, "random", 1)}
    assert drawn != {names[at] for at in choose(some, 5, "random", 2)}


def test_every_criterion_that_the_command_offers_is_one():
    from u2pl_cli import suggest

    assert tuple(CRITERIA) == suggest._CRITERIA
    assert choice.DEFAULT in CRITERIA
