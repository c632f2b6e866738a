from fractions import Fraction
from itertools import pairwise
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from u2pl.data import splits
from u2pl.errors import UsageError, UserError

NAMES = [f"{k:05}" for k in range(10582)]


def plain(count: int) -> dict[str, set[int]]:
    return {name: {0} for name in NAMES[:count]}


@pytest.mark.parametrize(
    ("pool", "split", "count"),
    [
        (10582, "1/16", 662),
        (10582, "1/8", 1323),
        (10582, "1/4", 2646),
        (10582, "1/2", 5291),
        (2975, "1/16", 186),
    ],
)
def test_as_many_images_are_labelled_as_in_the_published_splits(pool: int, split: str, count: int) -> None:
    labeled, unlabeled = splits.draw(plain(pool), [], split, seed=2)
    assert (len(labeled), len(unlabeled)) == (count, pool - count)


def test_in_full_every_image_with_a_mask_is_labelled() -> None:
    assert splits.draw(plain(9), [], "full", seed=2) == (NAMES[:9], [])
    assert splits.draw(plain(9), ["bare"], "full", seed=2) == (NAMES[:9], ["bare"])


def test_a_draw_depends_on_the_seed_and_not_on_the_order_of_the_names() -> None:
    backwards = dict(reversed(plain(80).items()))
    assert splits.draw(plain(80), [], "1/8", seed=2) == splits.draw(backwards, [], "1/8", seed=2)
    assert splits.draw(plain(80), [], "1/8", seed=2) != splits.draw(plain(80), [], "1/8", seed=3)


def test_a_draw_is_the_same_on_every_machine() -> None:
    assert splits.draw(plain(20), [], "1/8", seed=2)[0] == ["00010", "00014", "00015"]


@given(
    classes=st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=60),
    bare=st.integers(0, 5),
    k=st.integers(2, 20),
    seed=st.integers(0, 99),
)
def test_every_class_gets_a_label_where_there_are_enough_images(
    classes: list[set[int]], bare: int, k: int, seed: int
) -> None:
    images = dict(zip(NAMES, classes, strict=False))
    without = [f"bare {k}" for k in range(bare)]
    labeled, unlabeled = splits.draw(images, without, f"1/{k}", seed)
    assert sorted([*labeled, *unlabeled]) == sorted([*images, *without])
    assert len(labeled) == ceil(len(images) / k) and not set(labeled) & set(without)
    present = set().union(*classes)
    if len(labeled) >= len(present):
        assert set().union(*(images[name] for name in labeled)) == present


def test_where_images_are_few_the_rarest_class_is_labelled_first() -> None:
    images = {name: {0} for name in NAMES[:30]} | {NAMES[30]: {0, 5}}
    for seed in range(10):
        assert NAMES[30] in splits.draw(images, [], "1/31", seed)[0]


def test_the_labelled_images_of_a_small_split_are_labelled_in_a_larger_one_too() -> None:
    images = {name: {k % 7, k % 3} for k, name in enumerate(NAMES[:100])}
    nested = [
        set(splits.draw(images, [], split, seed=2)[0]) for split in ("1/16", "1/8", "1/4", "1/2", "full")
    ]
    assert all(small < large for small, large in pairwise(nested))


@pytest.mark.parametrize("split", ["1/1", "1/0", "2/3", "0.5", "1_8", "", "Full", "-1/8", "1/8 ", "1/0008"])
def test_another_text_is_no_split_and_the_known_ones_are_named(split: str) -> None:
    with pytest.raises(UsageError, match=r"1/16, 1/8, 1/4, 1/2.*full"):
        splits.parse(split)


@pytest.mark.parametrize(
    ("split", "name"),
    [
        ("1/8", splits.Name(None, Fraction(1, 8), None)),
        ("full", splits.Name(None, Fraction(1), None)),
        ("classic-1/16", splits.Name("classic", Fraction(1, 16), None)),
        ("classic-full-unimatch", splits.Name("classic", Fraction(1), "unimatch")),
        ("1/4-seeded", splits.Name(None, Fraction(1, 4), "seeded")),
    ],
)
def test_a_name_says_pool_share_and_source(split: str, name: splits.Name) -> None:
    assert splits.parse(split) == name


def test_published_lists_are_called_without_their_source() -> None:
    assert [splits.parse(s).published for s in ("classic-1/16-unimatch", "full", "1/4")] == [
        "classic-1/16",
        "full",
        "1/4",
    ]


@pytest.mark.parametrize(
    "split", ["1/8", "1_8", "classic-1_16", "full", "classic-1/8", "1/8-seeded", "a/b", "", "..", "é"]
)
def test_lists_of_ones_own_cannot_take_the_name_of_a_drawn_split_or_of_no_folder(split: str) -> None:
    with pytest.raises(UsageError, match="name of their own"):
        splits.check_own_name(split)


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    lists = splits.Lists(["a b", "é/c"], [], ["d"])
    splits.write(tmp_path, lists)
    assert splits.read(tmp_path) == lists


def test_a_missing_list_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="u2pl prepare"):
        splits.read(tmp_path)


def test_every_mistake_in_the_lists_is_told() -> None:
    found = splits.problems(splits.Lists(["a", "a"], ["b", "x"], ["b"]), {"a", "b"})
    assert found == [
        ("twice in labeled", "a"),
        ("no image of the data set, but in unlabeled", "x"),
        ("in unlabeled and in val", "b"),
    ]


def test_labelled_images_may_be_unlabelled_ones_too_only_where_that_is_declared() -> None:
    lists = splits.Lists(["a"], ["a", "b"], ["c"])
    assert splits.problems(lists, {"a", "b", "c"}) == [("in labeled and in unlabeled", "a")]
    assert splits.problems(lists, {"a", "b", "c"}, overlap=True) == []


@given(st.lists(st.sampled_from("abcde")))
def test_repeated_names_are_those_that_count_more_than_once(names: list[str]) -> None:
    assert sorted(splits.repeated(names)) == sorted(n for n in set(names) if names.count(n) > 1)


@given(
    st.dictionaries(
        st.text("abcdef", min_size=1, max_size=4), st.sets(st.integers(0, 4)), min_size=1, max_size=40
    ),
    st.integers(2, 5),
    st.integers(0, 9),
)
def test_folds_share_out_every_image_once_and_every_class_as_evenly_as_can_be(
    classes_of: dict[str, set[int]], count: int, seed: int
):
    parts = splits.folds(classes_of, count, seed)
    assert sorted(name for part in parts for name in part) == sorted(classes_of)
    assert parts == splits.folds(dict(reversed(classes_of.items())), count, seed)
    assert max(map(len, parts)) <= ceil(len(classes_of) / count)


def test_the_only_two_images_of_a_rare_class_go_to_different_folds():
    classes_of = {f"{k:02}": {0, 1} for k in range(20)} | {"a": {0, 2}, "b": {0, 1, 2}}
    for seed in range(20):
        parts = splits.folds(classes_of, 2, seed)
        assert [sum(2 in classes_of[name] for name in part) for part in parts] == [1, 1]


@pytest.mark.parametrize("text", ["fold0of3", "fold4of3", "fold1of1", "fold1of100", "fold1", "Fold1of3"])
def test_what_is_no_fold(text: str):
    assert splits.fold(text) is None
