"""What stands first on the page, whatever the results are."""

import json
import math
from collections.abc import Sequence

import pytest
from fabricated import write_results
from hypothesis import given
from hypothesis import strategies as st

from u2pl.page.verdicts import Chance, Verdict, holm, judged, verdicts
from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.reporting.paired import Paired
from u2pl.reporting.results import collect_all


def gain(mean: float, sd: float, seeds: int, p: float = math.nan) -> Paired:
    return Paired("ours", "SupOnly", seeds, 30 + mean, sd, 30.0, 0.0, mean, sd, p)


@pytest.mark.parametrize(
    ("best", "others", "chance", "words"),
    [
        (gain(4.0, math.nan, 1), [], Chance.MAYBE, "One seed has no spread"),
        (gain(4.0, 5.0, 2), [], Chance.MAYBE, "not more than 2 seeds differ"),
        (gain(4.0, 1.0, 2), [], Chance.MAYBE, "too few for a test"),
        (gain(4.0, 1.0, 3, 0.02), [], Chance.NO, "hardly chance (p = 0.020, paired t-test over 3 seeds)"),
        (gain(4.0, 0.1, 3, 0.0002), [], Chance.NO, "(p < 0.001, paired"),
        (gain(4.0, 3.0, 3, 0.15), [], Chance.MAYBE, "may be chance (p = 0.150"),
        (gain(4.0, 1.0, 3, 0.02), [gain(1.0, 1.0, 3, 0.3)] * 2, Chance.MAYBE, "p = 0.060, paired t-test over 3 seeds"),
        (gain(4.0, 0.0, 3), [], Chance.MAYBE, "differ by the same"),
        (gain(-0.5, 0.1, 3, 0.01), [], Chance.LOSS, "No method is above SupOnly."),
    ],
)  # fmt: skip
def test_a_gain_is_more_than_chance_only_where_a_test_says_so(
    best: Paired, others: Sequence[Paired], chance: Chance, words: str
) -> None:
    found, why = judged(best, [best, *others])
    assert found is chance
    assert words in why


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_corrected_p_values_are_those_of_holm(values: list[float]) -> None:
    ordered = sorted(values)
    for rank, value in enumerate(ordered):
        # The definition, step by step: no hypothesis may be rejected before those of smaller p.
        expected = min(1.0, max((len(ordered) - k) * ordered[k] for k in range(rank + 1)))
        last = max(k for k, other in enumerate(ordered) if other == value)
        assert holm(value, values) >= expected or rank < last
    assert holm(ordered[0], values) == pytest.approx(min(1.0, len(values) * ordered[0]), abs=1e-12) or (
        ordered.count(ordered[0]) > 1
    )
    assert holm(ordered[0], [*values, math.nan]) == holm(ordered[0], values)


def found_in(project: Project, plan: str, numbers: dict[str, Sequence[float]]) -> list[Verdict]:
    (project.pipelines / "plans/own.yaml").write_text(plan)
    write_results(project, resolve(project, "own"))
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
    assert (found.chance, found.why) == (Chance.UNKNOWN, "there is no SupOnly to compare it with.")
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
