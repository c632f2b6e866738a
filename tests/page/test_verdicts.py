"""What stands first on the page, whatever the results are."""

import json
import math
import shutil
from collections.abc import Sequence

import numpy as np
import pytest
from fabricated import write_results
from hypothesis import given
from hypothesis import strategies as st

from u2pl.page.verdicts import Chance, Verdict, holm, judged, summary, verdicts
from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.reporting.comparisons import Gains
from u2pl.reporting.paired import Paired
from u2pl.reporting.results import collect_all


def gain(mean: float, sd: float, seeds: int, p: float = math.nan, label: str = "ours") -> Paired:
    return Paired(label, "SupOnly", seeds, 30 + mean, sd, 30.0, 0.0, mean, sd, p)


@pytest.mark.parametrize(
    ("best", "others", "chance", "words"),
    [
        (gain(4.0, math.nan, 1), [], Chance.MAYBE, "One seed has no spread"),
        (gain(4.0, 5.0, 2), [], Chance.MAYBE, "not more than its spread over 2 seeds"),
        (gain(4.0, 1.0, 2), [], Chance.MAYBE, "more than its spread over 2 seeds, which are too few for a test"),
        (gain(4.0, 1.0, 3, 0.02), [], Chance.NO, "hardly chance (p = 0.020, paired t-test over 3 seeds)"),
        (gain(4.0, 0.1, 3, 0.0002), [], Chance.NO, "(p < 0.001, paired"),
        (gain(4.0, 3.0, 3, 0.15), [], Chance.MAYBE, "may be chance (p = 0.150"),
        (gain(1.0, 1.2, 10, 0.027), [], Chance.NO, "hardly chance (p = 0.027"),  # the test decides, not the spread
        (gain(4.0, 1.0, 3, 0.02), [gain(1.0, 1.0, 3, 0.3)] * 2, Chance.MAYBE, "corrected for 3 comparisons"),
        (gain(4.0, 1.0, 3, 0.02), [gain(1.0, 0.0, 3), gain(1.0, 1.0, 3, 0.3)], Chance.NO, "p = 0.040, paired"),
        (gain(4.0, 0.0, 3), [], Chance.MAYBE, "differ by the same"),
        (gain(-0.5, 0.1, 3, 0.01), [], Chance.LOSS, "No method is above SupOnly."),
        (gain(4.0, 1.0, 3, 0.02), [gain(30.0, math.nan, 1)], Chance.NO, "over 3 seeds"),  # one lucky seed is no best
    ],
)  # fmt: skip
def test_a_gain_is_more_than_chance_only_where_a_test_says_so(
    best: Paired, others: Sequence[Paired], chance: Chance, words: str
) -> None:
    found, why = judged(Gains("SupOnly", [*others, best], []))
    assert found is chance
    assert words in why


def test_there_is_no_loss_while_a_method_could_not_be_compared() -> None:
    found, why = judged(Gains("SupOnly", [gain(-1.0, math.nan, 1)], ["U²PL", "CutMix"]))
    assert found is Chance.UNKNOWN
    assert why == "U²PL and CutMix: no seed that SupOnly has too."


@pytest.mark.parametrize(
    ("values", "corrected"),
    [
        # Holm: the smallest times all of them, the next times one fewer, and none below the one before.
        ([0.01, 0.02, 0.04], [0.03, 0.04, 0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.02], [0.02]),
        ([0.5, 0.6], [1.0, 1.0]),
    ],
)
def test_corrected_p_values_are_those_of_holm(values: list[float], corrected: list[float]) -> None:
    assert [holm(value, values) for value in values] == pytest.approx(corrected)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_a_correction_keeps_the_order_and_lowers_nothing(values: list[float]) -> None:
    corrected = [holm(value, values) for value in sorted(values)]
    assert corrected == sorted(corrected)
    assert all(after >= before for before, after in zip(sorted(values), corrected, strict=True))
    assert corrected[0] == pytest.approx(min(1, len(values) * min(values))) or values.count(min(values)) > 1


def found_in(project: Project, plan: str, numbers: dict[str, Sequence[float]]) -> list[Verdict]:
    (project.pipelines / "plans/own.yaml").write_text(plan)
    write_results(project, resolve(project, "own"))
    return found_again(project, numbers)


def found_again(project: Project, numbers: dict[str, Sequence[float]]) -> list[Verdict]:
    """The verdicts of the results that there are, with these numbers by seed."""
    for path in project.root.glob("results/runs/*/metrics.json"):
        metrics = json.loads(path.read_text())
        if metrics["method"] in numbers:
            metrics["miou"]["reported"] = numbers[metrics["method"]][metrics["seed"]]
            path.write_text(json.dumps(metrics))
    return verdicts(collect_all(project, resolve(project, "own")))


METHODS = """
{dataset: shapes, seeds: [0, 1, 2],
 tables: {table1: {splits: {classic-1/8: 1/8}, rows: [SupOnly, U²PL (w/ CutMix)]}}}
"""


def test_the_best_method_is_said_with_its_gain_over_the_same_seeds(project: Project) -> None:
    (found,) = found_in(project, METHODS, {"suponly": (30, 31, 32), "u2pl": (36, 37.5, 39)})
    assert (found.where, found.winner, found.over) == (
        "shapes, 1/8 (60 labelled)",
        "U²PL (w/ CutMix)",
        "SupOnly",
    )
    assert found.claim == "U²PL (w/ CutMix) is <b>+6.5 ± 0.5</b> mIoU above SupOnly"
    assert (found.reached, found.chance) == ("37.5 ± 1.5", Chance.NO)


def test_where_nothing_gains_it_says_so_first(project: Project) -> None:
    (found,) = found_in(project, METHODS, {"suponly": (30, 31, 32), "u2pl": (29, 29.5, 31)})
    assert found.claim == "No method gains over SupOnly: U²PL (w/ CutMix) is nearest, <b>−1.2 ± 0.3</b> mIoU"
    assert found.chance is Chance.LOSS


def test_without_a_baseline_it_says_what_is_reached_and_that_nothing_is_compared(project: Project) -> None:
    alone = METHODS.replace("SupOnly, ", "")
    (found,) = found_in(project, alone, {"u2pl": (36, 37, 38)})
    assert found.claim == "U²PL (w/ CutMix) reaches <b>37.0 ± 1.0</b> % mIoU"
    assert (found.chance, found.why) == (Chance.UNKNOWN, "There is no SupOnly to compare it with.")
    assert found.picture is None


def test_a_plan_of_ablations_alone_is_judged_by_its_values(project: Project) -> None:
    found = found_in(
        project, "{dataset: shapes, seeds: [0], tables: {table7: {splits: {blender-1/8: 1/8}}}}", {}
    )
    (one,) = found
    assert one.claim.startswith("40 % is <b>+")
    assert one.chance is Chance.MAYBE and "One seed" in one.why


def test_labels_in_a_heading_are_text(project: Project) -> None:
    table = project.pipelines / "tables/table1.yaml"
    table.write_text(table.read_text().replace("label: SupOnly", "label: <i>Sup</i>"))
    (found,) = found_in(project, METHODS.replace("SupOnly", "<i>Sup</i>"), {"suponly": (30, 31, 32)})
    assert "&lt;i&gt;Sup" in found.claim


MANY = METHODS.replace("[SupOnly, U²PL (w/ CutMix)]", "[SupOnly, MT, CutMix, U²PL (w/ CutMix)]")


def test_what_is_not_told_apart_from_the_best_is_named(project: Project) -> None:
    numbers = {
        "suponly": (30, 31, 32),
        "mt": (31, 32.2, 33),
        "cutmix": (40, 41.4, 42),
        "u2pl": (40.1, 41.3, 42.1),
    }
    (found,) = found_in(project, MANY, numbers)
    assert found.winner == "U²PL (w/ CutMix)" and found.chance is Chance.NO
    assert found.why.endswith(" CutMix is not told apart from it.")
    shutil.rmtree(project.results)
    two = MANY.replace("[0, 1, 2]", "[0, 1]")  # which make no test, however small they are apart
    (found,) = found_in(project, two, {name: values[:2] for name, values in numbers.items()})
    assert "MT and U²PL (w/ CutMix) are not told apart from it." in found.why


def test_a_method_that_shares_no_seed_with_the_baseline_is_named_and_no_loss_is_claimed(
    project: Project,
) -> None:
    (project.pipelines / "plans/own.yaml").write_text(MANY)
    write_results(project, resolve(project, "own"))
    for name, gone in (("suponly", (1, 2)), ("mt", (1, 2)), ("cutmix", (0, 1, 2)), ("u2pl", (0,))):
        for seed in gone:
            shutil.rmtree(next(project.root.glob(f"results/runs/shapes-1_8-{name}-s{seed}")))
    numbers = {"suponly": (50, 0, 0), "mt": (49, 0, 0), "u2pl": (0, 60, 60)}
    (found,) = found_again(project, numbers)
    assert found.chance is Chance.UNKNOWN
    assert found.claim == "MT is <b>−1.0</b> mIoU from SupOnly"
    assert found.why == "U²PL (w/ CutMix): no seed that SupOnly has too."
    assert "no method that shares its seeds is above SupOnly" in found.text


@pytest.mark.parametrize(
    ("seeds", "chance", "words"),
    [("[0, 1]", Chance.MAYBE, "2 seeds are too few"), ("[0, 1, 2]", Chance.NO, "ahead of every other (p")],
)
def test_a_value_is_ahead_only_where_tests_say_so(
    project: Project, seeds: str, chance: Chance, words: str
) -> None:
    plan = f"{{dataset: shapes, seeds: {seeds}, tables: {{table7: {{splits: {{blender-1/8: 1/8}}}}}}}}"
    (project.pipelines / "plans/own.yaml").write_text(plan)
    write_results(project, resolve(project, "own"))
    draw = np.random.default_rng(0)
    for path in project.root.glob("results/runs/*/metrics.json"):
        metrics = json.loads(path.read_text())
        metrics["miou"]["reported"] = 50 + 20 * metrics["hyper"]["alpha0"] + draw.normal(0, 0.02)
        path.write_text(json.dumps(metrics))
    (found,) = verdicts(collect_all(project, resolve(project, "own")))
    assert (found.winner, found.chance) == ("40 %", chance)
    assert words in found.why


def test_two_rows_of_suponly_are_no_methods_of_each_other(project: Project) -> None:
    table = project.pipelines / "tables/table1.yaml"
    more = "  - {label: SupOnly long, method: suponly, set: {epochs: 99}, paper: [null, null, null, null, null]}\n"
    table.write_text(table.read_text() + more)
    (found,) = found_in(
        project, METHODS.replace("[SupOnly, ", "[SupOnly, SupOnly long, "), {"u2pl": (90, 91, 92.5)}
    )
    assert found.winner == "U²PL (w/ CutMix)"
    assert "corrected" not in found.why  # one gain alone


def test_equal_places_are_told_apart_by_their_tables_and_counted(project: Project) -> None:
    plan = """
seeds: [0]
tables:
  one: {table: table1, title: First, dataset: shapes, splits: {classic-1/8: 1/8}, rows: [SupOnly, MT]}
  two: {table: table1, title: Second, dataset: shapes, splits: {classic-1/8: 1/8}, rows: [SupOnly, CutMix]}
"""
    found = found_in(project, plan, {"suponly": (30,), "mt": (29,), "cutmix": (35,)})
    assert [each.where for each in found] == [
        "shapes, 1/8 (60 labelled): First",
        "shapes, 1/8 (60 labelled): Second",
    ]
    assert summary(found) == "chance not excluded on 1 of 2; no gain on 1 of 2."
