"""Names of runs from the command line: many settings, long values, names of one's own, and what status says of them."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from u2pl_cli.app import run
from u2pl_cli.plan_progress import live

from u2pl.files import read_json, write_json
from u2pl.pipeline import planned_run, resolve
from u2pl.pipeline.status import RunState, one, status
from u2pl.project import Project
from u2pl.reporting.results import collect
from u2pl.settings import Params, former_name

SUPONLY = ("--dataset", "tiny", "--split", "1/4", "--method", "suponly")
TEN = {
    "dropout": 0.25,
    "epochs": 1,
    "head_lr_multiplier": 2.5,
    "lr": 0.02,
    "momentum": 0.85,
    "poly_power": 0.95,
    "representation": 9,
    "resize": 0.95,
    "weight_decay": 0.005,
    "width": 9,
}
FORTY = TEN | {
    "absent_iou": "zero",
    "batch_norm": "fixed",
    "checkpoint": "best",
    "evaluation": "center",
    "interpolation": "float32",
    "labeled_order": "oversampled",
    "multi_grid": True,
    "padding_label": "class0",
    "padding_unlabeled": "use",
    "scale": "[0.8, 1.2]",
    "score_padding": True,
    "stem": "deep",
    "unlabeled_truth": False,
    "validate_every": 2,
    "alpha0": 0.3,
    "anchors": "lowest",
    "at_threshold": True,
    "center": "pixels",
    "contrast": "L_b",
    "cutmix_probability": 0.4,
    "delta_p": 0.2,
    "dpa": False,
    "ema_decay": 0.98,
    "entropy_pass": "mixed",
    "eta": 0.9,
    "labeled_negatives": False,
    "lambda_c": 0.2,
    "normalizer": "present",
    "queue": 30,
    "warm_start_epochs": 0,
}


def sets(settings: dict) -> list[str]:
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture
def project(tiny_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tiny_project.root)
    return tiny_project


@pytest.fixture
def named(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """With one finished run at the defaults, which bears the name `mine`."""
    root = Path(shutil.copytree(trained, tmp_path / "project"))
    project = Project(root)
    rename(project, "tiny-1_4-suponly-s0", "mine")
    monkeypatch.chdir(root)
    monkeypatch.setenv("U2PL_TRACKING", "none")
    return project


def rename(project: Project, old: str, new: str) -> None:
    """Make a run one that began with another name."""
    (project.runs / old).rename(project.runs / new)
    folder = project.runs / new
    for path in (folder / "run.json", *folder.rglob("metrics.json")):
        write_json(path, read_json(path) | {"name": new})


def plan_of_long_names(project: Project, *seeds: int) -> None:
    """Write the plan `long`: a run for each seed (0 if none is said), with ten settings."""
    rows = {"rows": ["SupOnly"], "splits": {"classic-1/4": "1/4"}}
    plan = {"dataset": "tiny", "seeds": seeds or (0,), "set": TEN, "tables": {"table1": rows}}
    (project.root / "pipelines/plans/long.yaml").write_text(json.dumps(plan), encoding="utf-8")


def runs(project: Project) -> list[str]:
    return sorted(path.name for path in project.runs.glob("[!.]*/"))


# ---- many settings, long values --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "settings"), [("suponly", TEN), ("u2pl", FORTY)], ids=["ten settings", "forty settings"]
)
def test_however_many_settings_there_are_the_name_is_short_and_status_has_them_all(
    project: Project, capsys: pytest.CaptureFixture[str], method: str, settings: dict
):
    words = ["train", "--dataset", "tiny", "--split", "1/4", "--method", method]
    assert run([*words, *sets(settings)]) == 0, capsys.readouterr().err
    (name,) = runs(project)
    assert len(name) <= 100 and re.search(r"-[0-9a-f]{8}-s0$", name)
    assert f"Next: u2pl evaluate {name}" in capsys.readouterr().out
    # The same settings in another order are the same run, which has finished.
    assert run([*words, *sets(dict(reversed(settings.items())))]) == 0
    assert runs(project) == [name]
    said = read_json(project.runs / name / "run.json")["overrides"]
    assert {key.rpartition(".")[2] for key in said} == settings.keys()

    capsys.readouterr()
    assert run(["status", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["set"] == said
    assert run(["status", name]) == 0
    shown = capsys.readouterr().out
    assert all(f"{key}=" in shown for key in said)
    assert "recipe.momentum=0.85 (params.yaml: 0.9)" in shown


@pytest.mark.slow
def test_a_value_of_a_thousand_characters_is_no_trouble(named: Project, capsys: pytest.CaptureFixture[str]):
    weights = Path(*["deep" * 25] * 9, "mine", "weights.pt")
    weights.parent.mkdir(parents=True)
    shutil.copy(named.runs / "mine" / "weights.pt", weights)
    value = f"./{'./' * ((1000 - len(str(weights))) // 2)}{weights}"
    assert len(value) > 995
    assert run(["train", *SUPONLY, *sets({"weights": value, "epochs": 1})]) == 0, capsys.readouterr().err
    (name,) = set(runs(named)) - {"mine"}
    assert re.fullmatch(r"tiny-1_4-suponly-epochs=1-[0-9a-f]{8}-s0", name)
    capsys.readouterr()
    assert run(["status", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"]["set"]["recipe.weights"] == value


def test_a_long_value_that_is_refused_is_refused_for_what_it_is(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    assert run(["train", *SUPONLY, "--set", f"weights={'x' * 1000}"]) == 1
    assert "cannot be read (File name too long). --set weights= takes" in capsys.readouterr().err
    assert run(["train", *SUPONLY, "--set", f"stem={'x' * 1000}"]) == 2
    assert "Bad setting: recipe.stem" in capsys.readouterr().err
    for words in (["--dataset", "x" * 300], ["--dataset", "tiny", "--split", "x" * 300]):
        assert run(["train", *words]) == 1
        assert "is not prepared. Run: u2pl prepare" in capsys.readouterr().err
    assert runs(project) == []


@pytest.mark.slow
def test_an_ablation_of_many_settings_has_a_short_name_too(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    fixed = {key: value for key, value in TEN.items() if key != "lr"}
    assert run(["ablate", *SUPONLY, "--param", "lr", "0.01", "0.02", *sets(fixed)]) == 0, (
        capsys.readouterr().err
    )
    (record,) = (project.runs / ".ablations").glob("*/ablation.json")
    assert len(record.parent.name) <= 100
    assert [entry["run"] for entry in read_json(record)["runs"]] != []
    assert {entry["run"] for entry in read_json(record)["runs"]} == set(runs(project))


# ---- names of earlier versions ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_run_with_the_long_name_of_an_earlier_version_is_the_run(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    plan_of_long_names(project)
    words = ["train", *SUPONLY, *sets(TEN)]
    assert run(words) == 0
    (new,) = runs(project)
    assert list(resolve(project, "long").runs) == [new]
    params = Params.read(project)
    spec = params.spec("tiny", "1/4", "suponly", 0, TEN)
    old = former_name(spec, spec.overrides)
    assert len(old) > 150
    rename(project, new, old)
    before = (project.runs / old / "weights.pt").stat().st_mtime_ns

    def is_untouched() -> bool:
        return runs(project) == [old] and (project.runs / old / "weights.pt").stat().st_mtime_ns == before

    capsys.readouterr()
    assert run([*words, "--model", "models/old.pt", "--fresh"]) == 0
    assert f"Next: u2pl evaluate {old}" in capsys.readouterr().out and is_untouched()
    fixed = {key: value for key, value in TEN.items() if key != "lr"}
    for more in ([], ["--compare"]):
        assert run(["ablate", *SUPONLY, "--param", "lr", "0.02", *sets(fixed), *more]) == 0
        assert is_untouched()

    assert run(["plan", "long"]) == 0
    active = resolve(project, "long")
    (key,) = active.runs
    assert planned_run(project, key) == old
    (found,) = status(project).runs
    assert (found.name, found.state) == (key, RunState.DONE)
    assert run(["evaluate", key, "--into", "results/runs"]) == 0 and is_untouched()
    # The results are those of the plan's run, also when the run's folder is gone.
    shutil.rmtree(project.runs)
    assert [
        len(cell.results) for cell in collect(project, active, "table1").cells if not cell.cell.cited
    ] == [1]


# ---- names of one's own ----------------------------------------------------------------------------------


def test_a_finished_run_is_found_by_the_name_it_was_given(named: Project, capsys: pytest.CaptureFixture[str]):
    before = (named.runs / "mine" / "run.json").read_bytes()
    assert run(["train", *SUPONLY, "--name", "mine", "--model", "mine.pt"]) == 0
    assert "Next: u2pl evaluate mine" in capsys.readouterr().out
    assert (named.root / "mine.pt").read_bytes() == (named.runs / "mine" / "weights.pt").read_bytes()
    assert runs(named) == ["mine"] and (named.runs / "mine" / "run.json").read_bytes() == before


@pytest.mark.slow
def test_a_name_of_ones_own_changes_no_number(named: Project, capsys: pytest.CaptureFixture[str]):
    for words in ([], ["--name", "other"]):
        assert run(["train", *SUPONLY, "--set", "epochs=1", *words]) == 0
    first, second = (named.runs / name for name in ("tiny-1_4-suponly-epochs=1-s0", "other"))
    whole, own = (read_json(folder / "run.json") for folder in (first, second))
    assert own["fingerprint"] == whole["fingerprint"] and own["facts"] == whole["facts"]
    assert (own["name"], own["named"]) == ("other", True) and "named" not in whole
    whole, own = (read_json(folder / "metrics.json") for folder in (first, second))
    assert own["name"] == "other" and own["miou"] == whole["miou"] and own["iou"] == whole["iou"]
    assert run(["evaluate", "other", "--into", "results"]) == 0
    assert read_json(named.root / "results/other/metrics.json")["miou"] == own["miou"]
    # An ablation takes it for the run that it is.
    assert run(["ablate", *SUPONLY, "--compare", "--param", "epochs", "1"]) == 0


@pytest.mark.slow
def test_a_folder_of_other_settings_is_refused_or_set_aside(
    named: Project, capsys: pytest.CaptureFixture[str]
):
    words = ["train", *SUPONLY, "--name", "mine", "--set", "epochs=1"]
    assert run(words) == 1
    assert "recipe.epochs: 3 -> 1" in capsys.readouterr().err
    assert read_json(named.runs / "mine" / "metrics.json")["epochs"] == 3
    assert run([*words, "--fresh"]) == 0
    assert read_json(named.runs / "mine" / "metrics.json")["epochs"] == 1
    assert run(["train", *SUPONLY, "--name", "mine", "--fresh"]) == 0
    assert read_json(named.runs / "mine" / "metrics.json")["epochs"] == 3


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".mine", "my run", "a" * 201, "$(x)", "-"])
def test_what_is_no_name_is_refused_alike_by_train_and_import(
    named: Project, capsys: pytest.CaptureFixture[str], name: str
):
    (named.root / "any.pth").touch()
    for words in (["train", *SUPONLY, f"--name={name}"], ["import", "any.pth", f"--as={name}"]):
        assert run(words) == 2
        assert "takes a name of letters, digits and _ . = + , - alone" in capsys.readouterr().err
    assert runs(named) == ["mine"]


@pytest.mark.slow
def test_an_unfinished_run_goes_on_by_its_name_and_says_with_which_command(
    named: Project, capsys: pytest.CaptureFixture[str]
):
    assert run(["train", *SUPONLY, "--name", "own", "--set", "epochs=1"]) == 0
    (named.runs / "own" / "weights.pt").unlink()
    (named.runs / "own" / "metrics.json").unlink()
    capsys.readouterr()
    assert run(["evaluate", "own"]) == 1
    said = capsys.readouterr().err
    assert "--seed 0 --name own --set recipe.epochs=1" in said
    assert run(said.partition("Go on with: u2pl ")[2].split()) == 0
    assert (named.runs / "own" / "metrics.json").is_file()


# ---- what status says ------------------------------------------------------------------------------------


def test_status_shows_one_run_without_any_plan(named: Project, capsys: pytest.CaptureFixture[str]):
    (named.root / "pipelines/plan.yaml").unlink()
    for word in ("mine", "runs/mine", str(named.runs / "mine")):
        assert run(["status", word]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert shown.startswith("run mine state done mIoU")
        assert shown.endswith("method suponly seed 0 set nothing; all is as in params.yaml")
    assert run(["status", "mien"]) == 2
    assert "Did you mean 'mine'?" in capsys.readouterr().err
    assert run(["status", "m" * 300]) == 2
    assert "No run called" in capsys.readouterr().err


def test_status_says_what_is_otherwise_in_params_yaml_by_now(
    named: Project, capsys: pytest.CaptureFixture[str]
):
    named.params.write_text(named.params.read_text().replace("momentum: 0.9", "momentum: 0.8"))
    found = one(named, "mine").status
    assert (found.state, found.note) == (RunState.STALE, "recipe.momentum: 0.9 -> 0.8")


def test_status_says_below_the_plan_what_its_names_leave_out(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    plan_of_long_names(project, 0, 1)
    assert run(["plan", "long"]) == 0
    first, second = resolve(project, "long").runs
    capsys.readouterr()
    assert run(["status"]) == 0
    _, _, said = capsys.readouterr().out.partition("Not all that is set stands in these names:\n")
    assert " ".join(said.split()) == " ".join(
        [f"{first.removesuffix('-s0')}:", *(f"recipe.{key}={value}" for key, value in sorted(TEN.items()))]
    )
    assert first.removesuffix("-s0") == second.removesuffix("-s1")
    # What is not begun can be asked for too.
    assert run(["status", second]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"run {second} state waiting data set tiny")
    assert "recipe.width=9 (params.yaml: 8)" in shown


def test_status_adds_nothing_to_a_plan_whose_names_say_all(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    assert run(["plan", "demo-full"]) == 0
    capsys.readouterr()
    assert run(["status"]) == 0
    assert "these names" not in capsys.readouterr().out


def test_one_run_can_be_watched(named: Project, capsys: pytest.CaptureFixture[str]):
    with live(named, name="mine") as refresh:
        refresh()
    shown = capsys.readouterr().out
    assert "mine" in shown and "done" in shown and "nothing; all is as in params.yaml" in shown


def test_status_is_no_defect_where_there_is_nowhere_to_print(named: Project, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert run(["status", "mine"]) == 0
