"""`--seeds`, and what `u2pl train` and `u2pl ablate` have alike."""

import json
from pathlib import Path
from typing import Any

import pytest
import run_folders
from typer.main import get_command
from u2pl_cli.app import app, run

from u2pl.errors import Interrupted
from u2pl.files import read_json
from u2pl.project import Project
from u2pl.runs.records import Comparison
from u2pl.settings import Params
from u2pl.training import ablation as engine
from u2pl.training import trainer
from u2pl.typed_files import read

TRAIN = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", "--set", "epochs=1"]
ABLATE = ["ablate", *TRAIN[1:]]
NAME = "tiny-1_4-suponly-epochs=1-s{}"


@pytest.fixture
def here(tiny_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tiny_project.root)
    return tiny_project


def finish(project: Project, parameter: str, mious: dict[str, list[float]]) -> None:
    """Finished and evaluated runs of values, one a seed, without training."""
    for value, each in mious.items():
        for seed, miou in enumerate(each):
            plan = engine.plan_ablation(
                Params.read(project), parameter, [value],
                dataset="tiny", split="1/4", method="suponly", seed=seed, overrides={"epochs": 1},
            )  # fmt: skip
            run_folders.finish(project, plan.specs[0][1], miou)


def options(command: str) -> dict[str, Any]:
    commands: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return {name: p for p in commands[command].params for name in p.opts if name.startswith("--")}


def test_whatever_decides_a_run_can_be_said_to_both_in_the_same_words():
    train, ablate = options("train"), options("ablate")
    own = {"--name", "--model", "--parent"}, {"--param", "--compare", "--record"}
    assert train.keys() - own[0] == ablate.keys() - own[1]
    assert all(train[name].help == ablate[name].help for name in train.keys() & ablate.keys())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "0,x"], "--seeds takes whole numbers from 0, not '0,x'. Example: --seeds 0,1,2"),
        (["--seeds", "0,-1"], "--seeds takes whole numbers from 0"),
        (["--seeds", ""], "--seeds takes whole numbers from 0"),
        (["--seeds", "1,2,1"], "--seeds names 1 twice"),
        (["--seeds", "0,1", "--seed", "2"], "--seed 2 and --seeds 0,1 both say which seeds"),
        (["--seeds", f"0,{2**63}"], "A seed is a whole number from 0 to 2^63 - 1"),
    ],
)
@pytest.mark.parametrize("command", [TRAIN, [*ABLATE, "--param", "lr", "0.01"]], ids=["train", "ablate"])
def test_seeds_that_make_no_sense_are_a_sentence_before_anything_begins(
    here: Project, capsys: pytest.CaptureFixture[str], command: list[str], words: list[str], says: str
):
    assert run([*command, *words]) == 2
    said = capsys.readouterr()
    assert says in said.err and said.out == ""
    assert not here.runs.exists()


@pytest.mark.parametrize("option", [["--name", "mine"], ["--model", "mine.pt"]])
def test_what_is_one_runs_alone_is_not_given_to_several(
    here: Project, capsys: pytest.CaptureFixture[str], option: list[str]
):
    assert run([*TRAIN, "--seeds", "0,1", *option]) == 2
    assert f"{option[0]} is for one run, and --seeds asks for 2" in capsys.readouterr().err
    assert not here.runs.exists()


@pytest.mark.slow
def test_training_over_seeds_is_one_run_each_and_is_not_done_twice(
    here: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert run([*TRAIN, "--seeds", "0,2", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [each["name"] for each in found] == [NAME.format(0), NAME.format(2)]
    for each in found:
        assert Path(each["model"]).is_file() and each["seed"] == int(each["name"][-1])
        assert read_json(Path(each["folder"]) / "metrics.json")["miou"] == each["miou"]
        assert read_json(Path(each["folder"]) / "run.json")["tags"]["device"]
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("a finished run was trained again"))
    assert run([*TRAIN, "--seeds", "0,2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"Next: u2pl evaluate {NAME.format(0)}"
    assert [line.split(":")[0] for line in lines if ": mIoU" in line] == [NAME.format(0), NAME.format(2)]
    assert run([*TRAIN, "--seed", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found[1]


@pytest.mark.parametrize("command", [TRAIN, [*ABLATE, "--param", "lr", "0.02"]], ids=["train", "ablate"])
def test_who_is_interrupted_hears_which_seed_it_goes_on_with(
    here: Project, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: list[str]
):
    finish(here, "lr", {"0.01": [50.0], "0.02": [50.0]})

    def stopped(project: Project, spec: Any, **_: Any) -> Path:
        raise Interrupted(f"Stopped seed {spec.seed}.")

    monkeypatch.setattr(trainer, "train", stopped)
    monkeypatch.setattr("u2pl.exchange.model_file.write_of_run", lambda project, path: path / "x.u2pl")
    assert run([*command, "--seeds", "0,1,2"]) == 130
    said = capsys.readouterr().err
    assert "Stopped seed 1. It goes on with seed 1" in said and "Traceback" not in said


def test_an_ablation_over_seeds_shows_mean_and_spread_and_stars_what_exceeds_it(
    here: Project, capsys: pytest.CaptureFixture[str]
):
    finish(here, "lr", {"0.01": [50.0, 52.0, 51.0], "0.02": [60.0, 61.0, 63.0], "0.03": [60.5, 60.0, 62.0]})
    both = [*ABLATE, "--compare", "--param", "lr", "0.01", "0.02", "--seeds", "0,1,2"]
    assert run(both) == 0
    said = capsys.readouterr().out
    assert "51.00 ± 1.00 (n=3)" in said and "61.33 ± 1.53 (n=3) *" in said
    assert "* 0.02 is ahead of every other value, seed by seed, by more than the spread over seeds." in said
    assert said.splitlines()[-1] == "Next: u2pl evaluate tiny-1_4-suponly-epochs=1-lr=0.02-s0"
    assert run([*ABLATE, "--compare", "--param", "lr", "0.02", "0.03", "--seeds", "0,1,2"]) == 0
    said = capsys.readouterr().out
    assert "No value is clearly the best: 0.02 has the highest mean" in said and " *" not in said


def test_an_ablation_of_one_seed_stars_nothing_and_says_why(
    here: Project, capsys: pytest.CaptureFixture[str]
):
    finish(here, "lr", {"0.01": [50.0], "0.02": [60.0]})
    assert run([*ABLATE, "--compare", "--param", "lr", "0.01", "0.02"]) == 0
    said = capsys.readouterr().out
    assert "60.00 " in said and "*" not in said and "±" not in said
    assert "One seed tells no spread, so no value is marked as the best. Several do: --seeds 0,1,2" in said


def test_a_comparison_over_seeds_as_json_and_as_a_file_that_is_read_like_that_of_one(
    here: Project, capsys: pytest.CaptureFixture[str]
):
    finish(here, "lr", {"0.01": [50.0, 52.0], "0.02": [60.0, 61.0]})
    words = [
        *ABLATE,
        "--compare",
        "--param",
        "lr",
        "0.01",
        "0.02",
        "--seeds",
        "0,1",
        "--record",
        "out/x.json",
        "--json",
    ]
    assert run(words) == 0
    printed = json.loads(capsys.readouterr().out)
    recorded = read(Comparison, Path("out/x.json"))
    assert printed == {**recorded, "failed": {}}
    assert (recorded["seed"], recorded["seeds"]) == (0, [0, 1])
    assert [(row["value"], row["seed"]) for row in recorded["runs"]] == [
        ("0.01", 0),
        ("0.02", 0),
        ("0.01", 1),
        ("0.02", 1),
    ]
    assert printed["best"] == "0.02" and [each["mean"] for each in printed["values"]] == [51.0, 60.5]
    assert run(words) == 0, "it may be written over"


def test_the_record_of_one_seed_is_as_it_was(here: Project):
    finish(here, "lr", {"0.01": [50.0]})
    assert run([*ABLATE, "--compare", "--param", "lr", "0.01", "--record", "x.json"]) == 0
    recorded = read_json(Path("x.json"))
    assert list(recorded) == ["name", "parameter", "method", "dataset", "split", "seed", "runs"]
    assert list(recorded["runs"][0]) == ["value", "run", "miou_reported", "miou_last", "miou_best"]


def test_a_seed_that_failed_is_named_and_the_others_are_shown(
    here: Project, capsys: pytest.CaptureFixture[str]
):
    finish(here, "lr", {"0.01": [50.0, 52.0], "0.02": [60.0]})
    words = [*ABLATE, "--compare", "--param", "lr", "0.01", "0.02", "--seeds", "0,1"]
    assert run(words) == 1
    said = capsys.readouterr()
    assert "51.00 ± 1.41 (n=2)" in said.out and "failed (seed 1)" in said.out and " *" not in said.out
    assert "1 of 4 runs failed:\n  0.02 with seed 1: There is no finished run" in said.err
    assert run([*words, "--json"]) == 1
    assert list(json.loads(capsys.readouterr().out)["failed"]) == ["0.02 with seed 1"]


@pytest.mark.slow
def test_several_processes_share_each_run_of_an_ablation(here: Project, started_u2pl: Any):
    words = [
        *ABLATE,
        "--set",
        "batch_norm=fixed",
        "--batch",
        "4",
        "--nproc",
        "2",
        "--param",
        "lr",
        "0.02",
        "--json",
    ]
    done = started_u2pl(*words, cwd=here.root)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (row,) = found["runs"]
    assert read_json(here.runs / row["run"] / "run.json")["parent"] == found["name"]
    assert not found["failed"]
