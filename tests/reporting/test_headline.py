"""The first sentence of the page, whatever the results are."""

from collections.abc import Mapping

import pytest
from fabricated import write_result
from u2pl_cli.app import run

from u2pl.page import render
from u2pl.pipeline import resolve
from u2pl.project import Project
from u2pl.reporting.comparisons import comparisons
from u2pl.reporting.headline import headline, headlines
from u2pl.reporting.results import TableResults, collect, collect_all
from u2pl.reporting.table import TableText, markdown

ROWS = {"suponly": "SupOnly", "mt": "MT", "cutmix": "CutMix", "u2pl": "U²PL (w/ CutMix)"}
WHERE = "On shapes, with 60 of 480 images labelled,"


def filled(project: Project, numbers: Mapping[str, list[float]], first_seed: int = 0) -> TableResults:
    """A table with a number for each seed, by method; a method without numbers has not finished."""
    rows = ", ".join(ROWS[method] for method in numbers)
    (project.pipelines / "plans/own.yaml").write_text(
        f"{{dataset: shapes, seeds: [0, 1, 2], tables: {{table1: {{splits: {{classic-1/8: 1/8}}, rows: [{rows}]}}}}}}"
    )
    plan = resolve(project, "own")
    for method, values in numbers.items():
        for seed, value in enumerate(values, start=first_seed):
            folder = project.root / f"results/runs/shapes-1_8-{method}-s{seed}"
            write_result(folder, last=value, split="1/8", method=method, seed=seed)
    return collect(project, plan, "table1")


def said(project: Project, **numbers: list[float]) -> str:
    (text,) = headline(filled(project, numbers))
    return text


def test_the_gain_stands_with_its_spread_and_three_seeds_are_tested(project: Project) -> None:
    text = said(project, suponly=[30.0, 31.0, 32.0], mt=[31.0, 32.0, 32.5], u2pl=[36.0, 38.0, 40.0])
    assert text == (
        f"{WHERE} U²PL (w/ CutMix), the best of 3, reaches 38.0 ± 2.0 % mIoU, 7.0 ± 1.0 above SupOnly "
        "(31.0 ± 1.0), seed by seed, 3 seeds, p = 0.007."
    )


def test_two_seeds_have_a_spread_and_no_test(project: Project) -> None:
    assert said(project, suponly=[30.0, 31.0], u2pl=[36.0, 38.0]) == (
        f"{WHERE} U²PL (w/ CutMix) reaches 37.0 ± 1.4 % mIoU, 6.5 ± 0.7 above SupOnly (30.5 ± 0.7), "
        "seed by seed, 2 seeds."
    )


def test_one_seed_has_no_spread_and_that_is_said(project: Project) -> None:
    assert said(project, suponly=[30.0], cutmix=[36.0]) == (
        f"{WHERE} CutMix reaches 36.0 % mIoU, 6.0 above SupOnly (30.0), 1 seed. "
        "Its spread is not known from one seed."
    )


def test_a_gain_within_its_spread_is_called_that(project: Project) -> None:
    text = said(project, suponly=[30.0, 33.0], mt=[33.0, 31.0])
    assert "MT reaches 32.0 ± 1.4 % mIoU, 0.5 ± 3.5 above SupOnly (31.5 ± 2.1)" in text
    assert text.endswith("seed by seed, 2 seeds. That is not more than seeds differ.")


def test_no_method_above_suponly_is_the_first_thing_said(project: Project) -> None:
    assert said(project, suponly=[40.0, 42.0], mt=[37.0, 38.0], cutmix=[38.0, 39.0]) == (
        f"{WHERE} no method is above SupOnly (41.0 ± 1.4 % mIoU); the nearest, CutMix, is 2.5 ± 0.7 below, "
        "seed by seed, 2 seeds."
    )


def test_u2pl_has_a_sentence_of_its_own_where_another_is_best_and_one_against_cutmix(
    project: Project,
) -> None:
    text = said(project, suponly=[30.0, 31.0], cutmix=[36.0, 38.0], u2pl=[35.9, 37.3])
    assert text.startswith(f"{WHERE} CutMix, the best of 3, reaches 37.0 ± 1.4 % mIoU, 6.5 ± 0.7 above")
    assert text.endswith(
        " U²PL (w/ CutMix) reaches 36.6 ± 1.0 % mIoU, 6.1 ± 0.3 above SupOnly (30.5 ± 0.7), seed by seed, "
        "2 seeds. U²PL (w/ CutMix) is 0.4 ± 0.4 below CutMix, seed by seed, 2 seeds: not more than seeds differ."
    )


def test_u2pl_above_cutmix_by_more_than_the_spread_has_no_caveat(project: Project) -> None:
    text = said(project, suponly=[30.0, 31.0], cutmix=[36.0, 38.0], u2pl=[38.0, 40.5])
    assert text.endswith("U²PL (w/ CutMix) is 2.2 ± 0.4 above CutMix, seed by seed, 2 seeds.")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            {"cutmix": [36.0, 38.0], "u2pl": [37.0, 40.0]},
            "U²PL (w/ CutMix), the best of 2, reaches 38.5 ± 2.1 % mIoU; there is no SupOnly to compare it with.",
        ),
        ({"suponly": [30.0], "u2pl": []}, "SupOnly reaches 30.0 % mIoU; no other method has finished."),
        (
            {"suponly": [], "u2pl": [37.0]},
            "U²PL (w/ CutMix) reaches 37.0 % mIoU; there is no SupOnly to compare it with.",
        ),
    ],
)
def test_without_a_pair_no_gain_is_said(
    project: Project, numbers: dict[str, list[float]], expected: str
) -> None:
    assert headline(filled(project, numbers)) == [f"{WHERE} {expected}"]


def test_seeds_that_only_one_of_two_has_are_not_compared(project: Project) -> None:
    filled(project, {"suponly": [30.0], "u2pl": []}, first_seed=0)
    (text,) = headline(filled(project, {"suponly": [], "u2pl": [37.0, 38.0]}, first_seed=1))
    assert text.endswith(
        "reaches 37.5 ± 0.7 % mIoU; no seed has finished both with SupOnly and with another method."
    )
    write_result(
        project.root / "results/runs/shapes-1_8-suponly-s2",
        last=31.0,
        split="1/8",
        method="suponly",
        seed=2,
    )
    (text,) = headline(collect(project, resolve(project, "own"), "table1"))
    assert "reaches 38.0 % mIoU, 7.0 above SupOnly (31.0), 1 seed." in text


def test_nothing_finished_says_nothing_and_equal_tables_say_it_once(project: Project) -> None:
    assert headline(filled(project, {"suponly": [], "u2pl": []})) == []
    table = filled(project, {"suponly": [30.0], "u2pl": [37.0]})
    assert len(headlines([table, table])) == 1


def test_the_sentence_is_the_first_of_the_page_and_below_the_table_are_all_comparisons(
    project: Project,
) -> None:
    table = filled(
        project,
        {"suponly": [30.0, 31.0, 32.0], "cutmix": [36.0, 37.5, 39.0], "u2pl": [36.0, 38.0, 40.0]},
    )
    plan = resolve(project, "own")
    text = render.html(plan, collect_all(project, plan))
    first = text.partition("</h1>")[2].partition("</section>")[0]
    assert f"<p>{WHERE} U²PL (w/ CutMix), the best of 3, reaches 38.0 ± 2.0 % mIoU" in first
    (part,) = comparisons(table)
    assert [(found.label, found.against) for found in part.comparisons] == [
        ("CutMix", "SupOnly"),
        ("U²PL (w/ CutMix)", "SupOnly"),
        ("U²PL (w/ CutMix)", "CutMix"),
    ]
    shown = (
        '<th scope="row">U²PL (w/ CutMix)</th><td>CutMix</td><td>+0.50 ± 0.50</td><td>3</td><td>0.225</td>'
    )
    assert shown in text
    pasted = markdown(TableText(table))
    assert "**Seed by seed, 1/8 (60 labelled)**" in pasted
    assert "| U²PL (w/ CutMix) | SupOnly | +7.00 ± 1.00 | 3 | 0.007 |" in pasted
    assert "| CutMix | SupOnly | +6.50 ± 0.50 | 3 | 0.002 |" in pasted
    assert "p of a two-sided paired t-test. Of many comparisons some have a small p by chance." in pasted


def test_the_report_prints_what_its_page_says_first(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = said(project, suponly=[30.0, 31.0], u2pl=[36.0, 38.0])
    resolve(project, "own").write(project)
    monkeypatch.setenv("U2PL_ROOT", str(project.root))
    monkeypatch.setenv("U2PL_TRACKING", "none")
    assert run(["report"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == text
    assert last.startswith("The report: ")


@pytest.mark.parametrize(
    ("seeds", "note"), [(2, "Two seeds make no test."), (1, "One seed has no spread and makes no test.")]
)
def test_too_few_seeds_make_no_test_and_the_table_says_so(project: Project, seeds: int, note: str) -> None:
    text = markdown(TableText(filled(project, {"suponly": [30.0] * seeds, "u2pl": [37.0] * seeds})))
    assert note in text
    assert f"| U²PL (w/ CutMix) | SupOnly | +7.00{' ± 0.00' * (seeds > 1)} | {seeds} | — |" in text


def test_of_two_rows_without_unlabelled_images_the_stronger_is_compared_with(project: Project) -> None:
    table = project.pipelines / "tables/table1.yaml"
    table.write_text(
        table.read_text().replace("label: MT, method: mt", "label: MT, method: suponly, set: {lr: 0.5}")
    )
    filled(project, {"mt": [], "suponly": [30.0], "u2pl": [37.0]})
    write_result(
        project.root / "results/runs/shapes-1_8-suponly-lr=0.5-s0",
        last=33.0,
        split="1/8",
        method="suponly",
    )
    (text,) = headline(collect(project, resolve(project, "own"), "table1"))
    assert "4.0 above MT (33.0)" in text
