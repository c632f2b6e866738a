"""Runs side by side: which are meant, which are one group, and what can be said of their difference."""

from pathlib import Path
from typing import Any

import pytest
import written
from run_folders import write_run

from u2pl.errors import UsageError
from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.reporting import run_groups
from u2pl.reporting.run_groups import MISSING, Comparison, chosen, compare, grouped, score_rows

OURS = {"method": "u2pl", "hyper": {"alpha0": 0.2, "partition": {"queue": 5}}}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def write(project: Project, name: str, seeds: dict[int, float | None], **changes: Any) -> None:
    """Runs of a method: seed -> mIoU, None of one that has not finished."""
    for seed, miou in seeds.items():
        changes = {"method": name, "hyper": {"ema_decay": 0.99}, **changes}
        write_run(project, f"tiny-1_4-{name}-s{seed}", miou, seed=seed, **changes)


def compared(project: Project, *words: str) -> Comparison:
    return compare(grouped(chosen(project, words)))


def names(project: Project, *words: str) -> list[str]:
    return [path.name for path in chosen(project, words)]


# ---- which runs ----------------------------------------------------------------------------------------


def test_runs_are_meant_by_name_by_folder_without_their_seed_and_by_pattern(project: Project):
    write(project, "mt", dict.fromkeys((0, 2, 10), 50.0))
    write(project, "u2pl", {0: 60.0})
    all_mt = ["tiny-1_4-mt-s0", "tiny-1_4-mt-s2", "tiny-1_4-mt-s10"]
    assert names(project, "tiny-1_4-mt") == all_mt
    assert names(project, "tiny-1_4-mt-s2", "tiny-1_4-mt") == [all_mt[1], all_mt[0], all_mt[2]]
    assert names(project, str(project.runs / "tiny-1_4-u2pl-s0")) == ["tiny-1_4-u2pl-s0"]
    folder = project.runs / ".." / "runs" / "tiny-1_4-u2pl-s0"
    assert names(project, str(folder), "tiny-1_4-u2pl") == ["tiny-1_4-u2pl-s0"]
    assert names(project, "*-s0") == ["tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0"]


def test_a_run_that_is_called_as_others_without_their_seed_is_meant_alone(project: Project):
    write(project, "mt", {0: 50.0})
    write_run(project, "tiny-1_4-mt", 40.0, named=True)
    assert names(project, "tiny-1_4-mt") == ["tiny-1_4-mt"]


@pytest.mark.parametrize(
    ("word", "says"),
    [("tiny-1_4-mtt", "Did you mean 'tiny-1_4-mt-s0'"), ("camvid-*", "No run's name fits 'camvid-\\*'")],
)
def test_a_word_that_fits_no_run_is_refused(project: Project, word: str, says: str):
    write(project, "mt", {0: 50.0})
    with pytest.raises(UsageError, match=says):
        chosen(project, [word])


# ---- groups --------------------------------------------------------------------------------------------


def test_runs_that_differ_in_the_seed_alone_are_a_group(project: Project):
    write(project, "mt", {0: 50.0, 1: 51.0})
    write(project, "u2pl", {0: 60.0, 1: None}, **OURS)
    groups = grouped(
        chosen(project, ["tiny-1_4-u2pl-s1", "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0", "tiny-1_4-mt-s1"])
    )
    assert [group.label for group in groups] == ["tiny-1_4-u2pl", "tiny-1_4-mt"]
    assert [sorted(group.records) for group in groups] == [[0, 1], [0, 1]]
    assert groups[0].mious == {0: 60.0}


def test_two_seeds_of_one_run_alone_are_compared_with_each_other(project: Project):
    write(project, "mt", {0: 50.0, 1: 51.0})
    found = compared(project, "tiny-1_4-mt")
    assert [group.label for group in found.groups] == ["tiny-1_4-mt-s0", "tiny-1_4-mt-s1"]
    assert found.settings == {"seed": [0, 1]}
    assert found.differences[0].paired is None
    assert found.differences[0].says.startswith("+1.00 points between two runs of different seeds")


def test_runs_of_the_same_settings_and_seed_are_no_seeds_of_each_other(project: Project):
    write(project, "mt", {0: 50.0, 1: 51.0})
    write_run(project, "again", 49.0, named=True, hyper={"ema_decay": 0.99})
    found = compared(project, "tiny-1_4-mt", "again")
    assert [group.label for group in found.groups] == ["tiny-1_4-mt", "again"]
    assert found.settings == {}


def test_one_group_is_nothing_to_compare(project: Project):
    write(project, "mt", {0: 50.0})
    with pytest.raises(UsageError, match="two runs or more"):
        compared(project, "tiny-1_4-mt")


def test_data_sets_are_not_compared(project: Project):
    write(project, "mt", {0: 50.0})
    write_run(project, "other", 60.0, dataset="shapes")
    with pytest.raises(UsageError, match="different data sets: tiny, shapes"):
        compared(project, "tiny-1_4-mt-s0", "other")


# ---- what they differ in -------------------------------------------------------------------------------


def test_only_settings_that_differ_are_told_and_those_that_one_has_not_are_marked(project: Project):
    write(project, "mt", {0: 50.0}, recipe=written.RECIPE | {"lr": 0.1})
    write(project, "u2pl", {0: 60.0}, **OURS)
    assert compared(project, "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0").settings == {
        "method": ["mt", "u2pl"],
        "recipe.lr": [0.1, 0.001],
        "ema_decay": [0.99, MISSING],
        "alpha0": [MISSING, 0.2],
        "partition.queue": [MISSING, 5],
    }


def test_numbers_stand_side_by_side_class_by_class_and_differ_over_the_seeds_that_both_have(project: Project):
    for seed, miou in {0: 50.0, 1: 54.0, 2: 90.0}.items():
        write_run(project, f"mt-s{seed}", miou, seed=seed, iou={"ground": miou, "square": None})
    for seed, miou in {0: 51.0, 1: 57.0}.items():
        write_run(project, f"u2pl-s{seed}", miou, seed=seed, iou={"ground": miou + 1, "square": 9.0}, **OURS)
    found = compared(project, "mt", "u2pl")
    rows = {row.name: row for row in score_rows(found)}
    assert list(rows) == ["mIoU", "ground", "square"]
    assert rows["mIoU"].means == [pytest.approx(194 / 3), 54.0] and rows["mIoU"].differences == [2.0]
    assert rows["ground"].differences == [3.0]
    assert rows["square"].means == [None, 9.0] and rows["square"].differences == [None]
    assert rows["square"].sds == [None, 0.0]
    assert found.differences[0].unpaired == [2]


def test_what_makes_numbers_incomparable_is_said(project: Project):
    write(project, "mt", {0: 50.0})
    write_run(project, "others", 50.0, split="1/8", hyper={"ema_decay": 0.99})
    write(project, "u2pl", {0: None}, **OURS)
    (split,) = compared(project, "tiny-1_4-mt-s0", "others").warnings
    assert "splits differ" in split
    (unfinished,) = compared(project, "tiny-1_4-mt-s0", "tiny-1_4-u2pl-s0").warnings
    assert "tiny-1_4-u2pl-s0 has no result. Go on with: u2pl train --dataset tiny" in unfinished


def test_the_result_of_another_run_is_none(project: Project):
    write(project, "mt", {0: 50.0, 1: 51.0})
    path = project.runs / "tiny-1_4-mt-s1" / "metrics.json"
    write_json(path, read_json(path) | {"fingerprint": "a" * 16})
    (group,) = grouped(chosen(project, ["tiny-1_4-mt-s1"]))
    assert group.mious == {}


def test_lists_that_were_drawn_otherwise_are_said(project: Project):
    write(project, "mt", {0: 50.0})
    run = written.run("x", hyper={"ema_decay": 0.5})
    write_run(
        project, "x", 50.0, hyper={"ema_decay": 0.5}, facts={**run["facts"], "data": "2", "recipe_version": 2}
    )
    warnings = compared(project, "tiny-1_4-mt-s0", "x").warnings
    assert "lists or images" in warnings[0] and "versions of u2pl" in warnings[1]


def test_a_curve_is_the_mean_of_those_of_finished_runs(project: Project):
    for seed, (miou, curve) in enumerate([(50.0, (10.0, 20.0)), (50.0, (20.0, 40.0)), (None, (90.0,))]):
        write_run(project, f"a-s{seed}", miou, seed=seed, curve=curve)
    write_run(project, "b-s0", None, curve=(1.0, 2.0), **OURS)
    first, second = compared(project, "a", "b-s0").groups
    assert first.curve == [(0, 15.0), (1, 30.0)]
    assert second.curve == [(0, 1.0), (1, 2.0)]


# ---- what can be said of it ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gains", "says"),
    [
        ([], "nothing to compare before both have a result"),
        ([2.0], r"\+2.00 points with one seed: it cannot be told from chance"),
        (
            [1.0, 3.0],
            r"Too few seeds for any statement: with 2 pairs the smallest p .* is 0.5, and below 0.05",
        ),
        ([1.0, 1.5, 2.0, 2.5, 3.0], r"with 5 pairs the smallest p .* is 0.0625, .* comes with 6"),
        (
            [1.0, 1.5, 2.0, 2.5, 3.0, 9.0],
            r"p = 0.031 by the exact sign-flip test, two-sided. Chance alone would sel",
        ),
        ([1.0, -1.5, 2.0, -2.5, 3.0, -1.0], r"Chance alone may well make as much: no difference is shown"),
    ],
)
def test_what_is_said_is_what_so_many_seeds_can_say(project: Project, gains: list[float], says: str):
    write(project, "mt", {seed: 50.0 for seed in range(len(gains) or 1)})
    write(project, "u2pl", {seed: 50.0 + gain for seed, gain in enumerate(gains)} or {0: None}, **OURS)
    found = compared(project, "tiny-1_4-mt-s*", "tiny-1_4-u2pl-s*").differences[0]
    import re

    assert re.search(says, found.says), found.says
    assert ("Too few" in found.says) == (2 <= len(gains) <= 5)


def test_without_a_seed_in_common_nothing_is_paired(project: Project):
    write(project, "mt", {0: 50.0, 1: 52.0})
    write(project, "u2pl", {2: 60.0, 3: 62.0}, **OURS)
    found = compared(project, "tiny-1_4-mt", "tiny-1_4-u2pl").differences[0]
    assert found.paired is None and "no seed in common" in found.says


def test_of_several_comparisons_it_is_said_that_some_are_small_by_chance(project: Project):
    for method, gain in {"mt": 0.0, "cutmix": 1.0, "cps": 2.0}.items():
        write(project, method, {k: 50.0 + gain * (k + 1) for k in range(6)}, hyper={"ema_decay": gain})
    found = compared(project, "tiny-1_4-mt", "tiny-1_4-cutmix", "tiny-1_4-cps")
    assert all("Of 2 comparisons at once" in each.says and "0.025" in each.says for each in found.differences)


def test_the_comparison_in_plain_values(project: Project):
    write(project, "mt", {0: 50.0, 1: 51.0}, curve=(40.0, 50.0))
    write(project, "u2pl", {0: 52.0, 1: 55.0}, **OURS)
    found = run_groups.as_json(compared(project, "tiny-1_4-mt", "tiny-1_4-u2pl"))
    assert found["groups"][0] == {
        "label": "tiny-1_4-mt",
        "runs": ["tiny-1_4-mt-s0", "tiny-1_4-mt-s1"],
        "seeds": [0, 1],
        "miou": {"0": 50.0, "1": 51.0},
        "protocols": ["whole image, teacher network, last checkpoint"],
        "curve": [{"epoch": 0, "miou": 40.0}, {"epoch": 1, "miou": 50.0}],
    }
    assert found["settings"]["alpha0"] == {"tiny-1_4-u2pl": 0.2}
    assert found["scores"][0]["difference"] == {"tiny-1_4-u2pl": 3.0}
    (difference,) = found["differences"]
    assert (difference["pairs"], difference["differences"], difference["p"]) == (2, [2.0, 4.0], 0.5)
    low, high = difference["interval_95"]
    assert low == pytest.approx(3 - 12.7062047, abs=1e-4) and high == pytest.approx(3 + 12.7062047, abs=1e-4)
