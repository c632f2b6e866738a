import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import run_folders
from tiny import edit_params

from u2pl.errors import Interrupted, UsageError
from u2pl.files import read_json, write_json
from u2pl.project import Project
from u2pl.settings import Params
from u2pl.training import ablation as engine
from u2pl.training import loop, trainer
from u2pl.training.ablation import Ablation


def plan(project: Project, parameter: str, *values: str, **overrides: object) -> Ablation:
    """Of a one-epoch mean teacher."""
    return engine.plan_ablation(
        Params.read(project), parameter, values,
        dataset="tiny", split="1/4", method="mt", seed=0,
        overrides={"epochs": 1, "warm_start_epochs": 0, **overrides},
    )  # fmt: skip


def record(project: Project, ablation: Ablation) -> dict:
    return read_json(project.runs / ".ablations" / ablation.name / "ablation.json")


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("a finished run was trained again"))


def test_an_ablation_trains_a_run_for_each_value_and_records_the_comparison(
    tiny_project: Project, tmp_path: Path
):
    ablation, copy = plan(tiny_project, "alpha0", "0.1", "0.5"), tmp_path / "results" / "by-alpha0.json"
    rows, failed = engine.ablate(tiny_project, ablation, copy=copy)
    assert not failed
    assert [row["value"] for row in rows] == ["0.1", "0.5"]
    runs = [read_json(tiny_project.runs / row["run"] / "run.json") for row in rows]
    assert [run["hyper"]["alpha0"] for run in runs] == [0.1, 0.5]
    assert {run["parent"] for run in runs} == {ablation.name}
    written = record(tiny_project, ablation)
    assert written["parameter"] == "mt.alpha0"
    assert written["runs"] == rows
    assert read_json(copy) == {key: value for key, value in written.items() if key != "uid"}
    for row in rows:
        metrics = read_json(tiny_project.runs / row["run"] / "metrics.json")
        assert all(row[f"miou_{key}"] == metrics["miou"][key] for key in ("reported", "last", "best"))


def test_finished_runs_are_reused_whatever_they_are_called(
    tiny_project: Project, monkeypatch: pytest.MonkeyPatch
):
    """The default value's run was trained on its own and has no value in its name."""
    alone = plan(tiny_project, "alpha0", "0.2").specs[0][1]
    path = trainer.train(tiny_project, alone)
    path = path.rename(path.with_name("by_another_name"))
    forbid_training(monkeypatch)
    rows, _ = engine.ablate(tiny_project, plan(tiny_project, "alpha0", "0.2"))
    assert [row["run"] for row in rows] == ["by_another_name"]


def test_a_second_ablation_trains_nothing_and_keeps_who_it_is(
    tiny_project: Project, monkeypatch: pytest.MonkeyPatch
):
    ablation = plan(tiny_project, "alpha0", "0.1")
    first = engine.ablate(tiny_project, ablation)
    uid = record(tiny_project, ablation)["uid"]
    forbid_training(monkeypatch)
    assert engine.ablate(tiny_project, ablation) == first
    assert record(tiny_project, ablation)["uid"] == uid


def test_a_failed_value_does_not_stop_the_others_and_is_named_at_the_end(tiny_project: Project):
    ablation = plan(tiny_project, "alpha0", "7", "0.1")
    rows, failed = engine.ablate(tiny_project, ablation)
    assert list(failed) == ["7"]
    assert str(failed["7"]).startswith("Bad setting: mt.alpha0")
    assert [row["value"] for row in rows] == ["0.1"]
    assert record(tiny_project, ablation)["runs"] == rows


def test_a_later_ablation_of_the_same_setting_keeps_the_values_it_does_not_try_again(tiny_project: Project):
    engine.ablate(tiny_project, plan(tiny_project, "alpha0", "0.1"))
    later = plan(tiny_project, "alpha0", "0.5")
    engine.ablate(tiny_project, later)
    assert [row["value"] for row in record(tiny_project, later)["runs"]] == ["0.1", "0.5"]


def finish(project: Project, ablation: Ablation, miou: float = 50.0) -> None:
    """Finished and evaluated runs of all values, without training."""
    for _, spec in ablation.specs:
        run_folders.finish(project, spec, miou)


def test_a_value_whose_miou_leaves_classes_out_says_so(tiny_project: Project):
    ablation = plan(tiny_project, "alpha0", "0.1", "0.5")
    finish(tiny_project, ablation)
    paths = [path for path in tiny_project.runs.glob("*alpha0=0.5*/evaluations/*/metrics.json")]
    for path in paths:
        write_json(path, {**read_json(path), "iou": {"a": 50.0, "b": None, "c": 1.0}})
    rows, _ = engine.ablate(tiny_project, ablation, train=False)
    assert len(paths) == 1 and [row.get("over") for row in rows] == [None, "over 2 of 3 classes"]


def test_a_comparison_trains_nothing_and_names_what_is_missing(tiny_project: Project):
    ablation = plan(tiny_project, "alpha0", "0.1", "0.5")
    finish(tiny_project, replace(ablation, specs=ablation.specs[:1]))
    rows, failed = engine.ablate(tiny_project, ablation, train=False)
    assert [row["value"] for row in rows] == ["0.1"]
    name = "tiny-1_4-mt-alpha0=0.5-warm_start_epochs=0-epochs=1-s0"
    said = str(failed["0.5"])
    assert said.startswith(
        f"There is no finished run {name} of today's settings. Train it: u2pl train --dataset"
    )
    assert said.endswith("--set mt.alpha0=0.5 --fresh")
    assert not (tiny_project.runs / name).exists()
    # Nor is a run of other settings, whose value leaves the record as well.
    edit_params(tiny_project, lambda values: values["recipe"].update(momentum=0.8))
    rows, failed = engine.ablate(tiny_project, ablation, train=False)
    assert (rows, list(failed), record(tiny_project, ablation)["runs"]) == ([], ["0.1", "0.5"], [])


def test_a_comparison_takes_the_precision_that_a_run_was_trained_with(tiny_project: Project):
    ablation = plan(tiny_project, "alpha0", "0.1")
    for precision in ("bfloat16", "float32"):
        edit_params(tiny_project, lambda values, p=precision: values["recipes"]["tiny"].update(precision=p))
        finish(tiny_project, ablation)
        edit_params(tiny_project, lambda values: values["recipes"]["tiny"].update(precision="auto"))
        assert not engine.ablate(tiny_project, ablation, train=False)[1]


def test_a_comparison_of_evaluated_runs_loads_no_torch(tiny_project: Project, tmp_path: Path):
    finish(tiny_project, plan(tiny_project, "alpha0", "0.1"))
    words = (
        "ablate --compare --param alpha0 0.1 --dataset tiny --split 1/4 --method mt --seed 0 --set epochs=1 "
        f"--set warm_start_epochs=0 --record {tmp_path / 'record.json'}"
    )
    script = (
        f"import sys; from u2pl_cli.app import run; code = run({words.split()!r}); "
        "print(code, [n for n in ('torch', 'torchvision', 'mlflow') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tiny_project.root, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert [row["value"] for row in read_json(tmp_path / "record.json")["runs"]] == ["0.1"]


def test_comparisons_that_share_a_record_keep_each_others_rows(tiny_project: Project):
    """Many times over: what one has read when the other writes is a matter of chance."""
    mine, others = plan(tiny_project, "alpha0", "0.1", "0.2"), plan(tiny_project, "alpha0", "0.2", "0.3")
    finish(tiny_project, mine)
    finish(tiny_project, others)
    for _ in range(10):
        shutil.rmtree(tiny_project.runs / ".ablations", ignore_errors=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda each: engine.ablate(tiny_project, each, train=False), (mine, others)))
        assert sorted(row["value"] for row in record(tiny_project, mine)["runs"]) == ["0.1", "0.2", "0.3"]


def test_an_interruption_ends_all_of_it(tiny_project: Project, monkeypatch: pytest.MonkeyPatch):
    tried = []

    def stopped(project, spec, **_):
        tried.append(spec)
        raise Interrupted("stopped")

    monkeypatch.setattr(trainer, "train", stopped)
    with pytest.raises(Interrupted):
        engine.ablate(tiny_project, plan(tiny_project, "alpha0", "0.1", "0.5"))
    assert len(tried) == 1


def test_several_settings_change_together(tiny_project: Project):
    ablation = plan(tiny_project, "alpha0,lr", "0.1,0.02", "0.2,0.03")
    assert ablation.parameters == ("mt.alpha0", "recipe.lr")
    assert ablation.name == "tiny-1_4-mt-by-alpha0+lr-epochs=1-warm_start_epochs=0-s0"
    changes = [{k: spec.overrides[k] for k in ablation.parameters} for _, spec in ablation.specs]
    assert changes == [{"mt.alpha0": 0.1, "recipe.lr": 0.02}, {"mt.alpha0": 0.2, "recipe.lr": 0.03}]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (("0.1", "0.1"), "'0.1' and '0.1'"),
        (("0.1", "0.5", "0.10"), "'0.1' and '0.10'"),
        (("1e-1", "0.1"), "'1e-1' and '0.1'"),
    ],
)
def test_values_that_are_one_run_are_refused(tiny_project: Project, values: tuple[str, ...], named: str):
    with pytest.raises(UsageError, match=f"{named} are the same run"):
        plan(tiny_project, "alpha0", *values)


@pytest.mark.parametrize("name", ["alpha0", "mt.alpha0"])
@pytest.mark.parametrize("fixed", ["alpha0", "mt.alpha0"])
def test_what_is_varied_cannot_be_fixed_too(tiny_project: Project, name: str, fixed: str):
    with pytest.raises(UsageError, match=r"mt\.alpha0 is what --param varies"):
        plan(tiny_project, name, "0.1", **{fixed: 0.9})


def test_a_setting_is_varied_once(tiny_project: Project):
    with pytest.raises(UsageError, match=r"--param names recipe\.lr twice"):
        plan(tiny_project, "lr,recipe.lr", "0.1,0.2")


@pytest.mark.parametrize(
    ("parameter", "values", "says"),
    [
        ("alpha0", [], r"Example: u2pl ablate --param alpha0 0\.1 0\.2 0\.3"),
        ("alpha0,lr", ["0.1"], "'0.1' has 1 parts for 2 parameters"),
        ("alfa0", ["0.1"], "Did you mean 'alpha0'"),
    ],
)
def test_words_that_make_no_ablation_are_refused(
    tiny_project: Project, parameter: str, values: list, says: str
):
    with pytest.raises(UsageError, match=says):
        plan(tiny_project, parameter, *values)


def test_each_value_is_announced_before_it_is_trained(tiny_project: Project):
    seen = []

    def starting(value: str, run: str) -> loop.Observer:
        seen.append((value, run, (tiny_project.runs / run).exists()))
        return lambda *_: None

    engine.ablate(tiny_project, plan(tiny_project, "alpha0", "0.1"), starting=starting)
    assert [(value, existed) for value, _, existed in seen] == [("0.1", False)]
