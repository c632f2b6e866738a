from typing import Any

import pytest
from rich.console import Console
from u2pl_cli.app import run
from u2pl_cli.plan_progress import rendered

from u2pl.pipeline.status import PlanStatus, RunState, RunStatus
from u2pl.project import Project
from u2pl.runs.scored_classes import counted_classes, left_out, names_left_out
from u2pl.runs.stored_evaluation import result_in_words


def metrics(*without: str, absent_iou: str = "skip", **miou: float | None) -> dict[str, Any]:
    """Those of a run on four classes."""
    return {
        "recipe": {"absent_iou": absent_iou},
        "protocol": {"checkpoint": "last"},
        "iou": {name: None if name in without else 50.0 for name in "abcd"},
        "miou": {"reported": 50.0, "last": 50.0, "best": 60.0, "best_epoch": 1} | miou,
    }


def test_an_miou_over_fewer_classes_says_so_and_which_are_left_out() -> None:
    assert counted_classes(metrics("b", "d")) == "over 2 of 4 classes"
    assert (left_out(metrics("b", "d")), names_left_out(metrics("b", "d"))) == (["b", "d"], "b, d")


def test_of_many_classes_only_the_first_are_named() -> None:
    many = metrics() | {"iou": dict.fromkeys("abcdefgh")}
    assert names_left_out(many) == "a, b, c, d, e, 3 more"


@pytest.mark.parametrize(
    "found",
    [
        metrics(),
        metrics("b", absent_iou="zero"),
        metrics(*"abcd", reported=None),
        {"miou": {"reported": 1.0}},
    ],
)
def test_where_all_classes_count_or_nothing_is_measured_nothing_is_said(found: dict[str, Any]) -> None:
    assert counted_classes(found) == "" and left_out(found) == []


def test_the_sentence_on_a_result_says_over_which_classes_it_is() -> None:
    assert "over" not in result_in_words(metrics())
    for found in (metrics("b"), metrics("b", best=None)):
        said = result_in_words(found)
        assert said.startswith("mIoU 50.00 % over 3 of 4 classes")
        assert said.endswith("Left out: b, in no scored pixel and in no prediction.")
    other = metrics("b")
    del other["miou"]["best"]
    assert "over 3 of 4 classes of the last epoch, by another protocol" in result_in_words(other)


def test_the_status_of_a_run_shows_it() -> None:
    runs = [
        RunStatus("r", RunState.DONE, miou=50.0, over="over 3 of 4 classes"),
        RunStatus("s", RunState.DONE, miou=5),
    ]
    console = Console(width=200)
    with console.capture() as shown:
        console.print(rendered(PlanStatus("p", runs, [])))
    assert "50.00 over 3 of 4 classes" in shown.get() and "5.00 over" not in shown.get()


def test_the_table_of_an_ablation_shows_it(
    tiny_project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def row(value: str, miou: float, **more: str) -> dict[str, Any]:
        return {"value": value, "run": f"r{value}", "miou_reported": miou, "miou_best": miou, **more}

    rows = [row("0.1", 50.0), row("0.5", 60.0, over="over 3 of 4 classes")]
    monkeypatch.setattr("u2pl.training.ablation.ablate", lambda *_, **__: (rows, {}))
    monkeypatch.chdir(tiny_project.root)
    assert run(["ablate", "--dataset", "tiny", "--split", "1/4", "--param", "alpha0", "0.1", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "60.00 over 3 of 4 classes" in said and "50.00 over" not in said
    assert "One seed tells no spread" in said and "*" not in said
