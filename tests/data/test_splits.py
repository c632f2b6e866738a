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
        splits.share(split)


@pytest.mark.parametrize("split", ["classic-1/16", "blender-1/4"])
def test_a_published_split_is_said_to_belong_to_voc(split: str) -> None:
    with pytest.raises(UsageError, match="voc"):
        splits.share(split)


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    lists = splits.Lists(["a b", "é/c"], [], ["d"])
    splits.write(tmp_path, lists)
    assert splits.read(tmp_path) == lists


def test_a_missing_list_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="u2pl prepare"):
        splits.read(tmp_path)


def test_every_mistake_in_the_lists_is_told() -> None:
    with pytest.raises(UserError) as error:
        splits.validate(splits.Lists(["a", "a"], ["b", "x"], ["b"]), {"a", "b"}, "folder")
    said = str(error.value)
    assert "'a' is in labeled and in labeled" in said
    assert "'b' is in unlabeled and in val" in said
    assert "unlabeled has 'x'" in said
