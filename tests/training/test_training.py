"""Whole runs on a tiny data set: what they leave behind, how they stop, go on, and refuse."""

import csv
import errno
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import torch
from pydantic.fields import FieldInfo
from tiny import edit_params

from u2pl import methods
from u2pl.data.pictures import read_image
from u2pl.data.prepare import prepare
from u2pl.data.prepared import open_split
from u2pl.errors import Interrupted, UsageError, UserError
from u2pl.files import read_json, write_json
from u2pl.inference.evaluator import Evaluation, evaluate
from u2pl.project import Project
from u2pl.runs import set_aside
from u2pl.runs.origin import train_command
from u2pl.runs.results import colored, evaluate_run, load_network
from u2pl.settings import Params, Recipe, RunSpec, parse_overrides
from u2pl.steps import whole_batch
from u2pl.training import loop, trainer
from u2pl.training.machine import Machine

STEPS, EPOCHS = 18, 3
MACHINE = ("images_per_second", "memory/peak_gib")


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL would."""


def spec(project: Project, method: str = "u2pl", **overrides: object) -> RunSpec:
    return Params.read(project).spec("tiny", "1/4", method, 0, overrides)


def at(event: str, step: int, act: Callable[[], object]) -> loop.Observer:
    """An observer that acts when a run reports one event."""

    def observe(seen: str, seen_step: int, steps: int, metrics: Mapping[str, float]) -> None:
        if (seen, seen_step) == (event, step):
            act()

    return observe


def terminate() -> None:
    signal.raise_signal(signal.SIGTERM)


def kill() -> None:
    raise Killed


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path / "weights.pt", weights_only=True)["state"]


def history(path: Path) -> list[dict[str, str]]:
    """Without what the machine decides."""
    with (path / "history.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in MACHINE} for row in csv.DictReader(file)]


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, other: Path) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert history(one) == history(other)


@pytest.fixture(scope="module")
def unbroken(tiny_template: Path) -> Path:
    """A u2pl run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        project = Project(tiny_template)
        return trainer.train(project, spec(project))


EACH_STEP = Machine(save_every=0)
"""A checkpoint after each step."""


@pytest.fixture
def project(tiny_project: Project) -> Project:
    """Without the run that `unbroken` may have left in the template."""
    shutil.rmtree(tiny_project.runs, ignore_errors=True)
    return tiny_project


# ---- what a run leaves behind ----------------------------------------------------------------------------


def test_a_run_folder_tells_everything_about_the_run(unbroken: Path, tiny_template: Path):
    names = {item.name for item in unbroken.iterdir()}
    assert names >= {
        "run.json", "events.jsonl", "history.csv", "settings.yaml", "metrics.json", "weights.pt", "best.pt",
        "labeled.txt", "unlabeled.txt", "val.txt",
    }  # fmt: skip
    assert not any(name.startswith("last.pt") or name.endswith(".tmp") for name in names)
    run, metrics = read_json(unbroken / "run.json"), read_json(unbroken / "metrics.json")
    assert run["flavor"] == metrics["flavor"] == "paper"
    assert run["name"] == unbroken.name == "tiny-1_4-u2pl-s0"
    assert run["fingerprint"] == metrics["fingerprint"]
    assert (metrics["steps"], metrics["epochs"], metrics["labeled"], metrics["unlabeled"]) == (
        STEPS,
        EPOCHS,
        4,
        12,
    )
    split = open_split(Project(tiny_template), "tiny", "1/4")
    assert (unbroken / "labeled.txt").read_text().split() == split.labeled


def test_the_history_has_a_row_an_epoch_and_the_metrics_are_its_last(unbroken: Path):
    rows, metrics = history(unbroken), read_json(unbroken / "metrics.json")
    assert [int(row["step"]) for row in rows] == [6, 12, 18]
    assert float(rows[-1]["val/miou"]) == metrics["miou"]["last"] == metrics["miou"]["reported"]
    assert all(float(rows[-1][f"val/iou/{name}"]) == value for name, value in metrics["iou"].items())
    best = max(range(EPOCHS), key=lambda k: float(rows[k]["val/miou"]))
    assert metrics["miou"]["best_epoch"] == best
    assert metrics["miou"]["best"] == float(rows[best]["val/miou"])
    assert metrics["protocol"] == {
        "evaluation": "whole image, single scale, mask resolution", "network": "teacher", "checkpoint": "last",
    }  # fmt: skip


def test_the_learning_rate_falls_by_the_polynomial_to_almost_nothing(unbroken: Path):
    rows = history(unbroken)
    assert [float(row["lr"]) for row in rows] == pytest.approx(
        [0.01 * (1 - (step - 1) / STEPS) ** 0.9 for step in (6, 12, 18)]
    )


def test_the_events_are_start_steps_epochs_end_with_finite_metrics(unbroken: Path):
    lines = events(unbroken)
    assert (lines[0]["event"], lines[-1]["event"]) == ("start", "end")
    assert [e["step"] for e in lines if e["event"] == "step"] == [10, 18]
    assert [(e["step"], e["epoch"]) for e in lines if e["event"] == "epoch"] == [
        (6, 0),
        (12, 1),
        (18, 2),
    ]
    assert all(math.isfinite(value) for e in lines for value in e["metrics"].values())
    last = next(e for e in reversed(lines) if e["event"] == "step")["metrics"]
    assert last.keys() >= {
        "loss", "loss/supervised", "loss/unsupervised", "loss/contrastive", "lr", "alpha_t", "gamma_t",
        "lambda_u", "reliable/share", "reliable/accuracy",
    }  # fmt: skip
    assert last["loss"] == pytest.approx(sum(v for k, v in last.items() if k.startswith("loss/")), rel=1e-5)


def test_an_evaluation_of_the_run_gives_the_number_training_gave(
    unbroken: Path, tiny_template: Path, tmp_path
):
    metrics = evaluate_run(Project(tiny_template), unbroken.name, tmp_path / "results" / "table")
    target = tmp_path / "results" / "table" / unbroken.name
    assert metrics["miou"] == read_json(unbroken / "metrics.json")["miou"]
    assert metrics["iou"] == read_json(unbroken / "metrics.json")["iou"]
    assert read_json(target / "metrics.json") == metrics
    assert (target / "history.csv").read_bytes() == (unbroken / "history.csv").read_bytes()
    pictures = sorted(item.name.split(".", 1)[1] for item in (target / "samples").iterdir())
    assert pictures == [
        f"{kind}.png" for kind in ("entropy", "input", "prediction", "truth") for _ in range(4)
    ]


def test_a_network_is_loaded_as_it_was_saved_and_in_evaluation_mode(unbroken: Path):
    network, recipe = load_network(unbroken, 4)
    assert not network.training
    assert recipe.crop == 32
    saved = weights(unbroken)
    assert all(torch.equal(value, saved[key]) for key, value in network.state_dict().items())


def test_an_unfinished_run_is_not_evaluated_and_the_command_that_finishes_it_is_named(project: Project):
    with pytest.raises(Interrupted):
        trainer.train(project, spec(project, "suponly"), observe=at("step", 10, terminate))
    with pytest.raises(
        UserError,
        match=r"not finished\. Go on with: u2pl train --dataset tiny --split 1/4 --method suponly --seed 0$",
    ):
        evaluate_run(project, "tiny-1_4-suponly-s0")


def test_weights_that_are_damaged_are_an_error_that_says_how_to_get_them_again(project: Project):
    path = trainer.train(project, spec(project, "suponly", epochs=1))
    (path / "weights.pt").write_bytes((path / "weights.pt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"cannot be read .* train the run again: u2pl train"):
        evaluate_run(project, path.name)


def test_a_run_of_an_earlier_version_is_refused_with_the_command_that_trains_it_again(
    unbroken: Path, tmp_path: Path
):
    shutil.copytree(unbroken, tmp_path / "old")
    run = read_json(tmp_path / "old" / "run.json")
    run["facts"]["recipe_version"] -= 1
    write_json(tmp_path / "old" / "run.json", run)
    with pytest.raises(UserError, match=r"earlier version.*u2pl train .*--fresh"):
        load_network(tmp_path / "old", 4)


def test_the_command_that_trains_a_run_again_can_be_pasted_into_a_shell():
    overrides = {"recipe.scale": [0.5, 1.0], "u2pl.dpa": False, "u2pl.negatives": "all", "recipe.lr": 1e-05}
    run = {"dataset": "my set", "split": "1/4", "method": "u2pl", "seed": 3, "overrides": overrides}
    words = shlex.split(train_command(run))
    assert words[words.index("--dataset") + 1] == "my set"
    pairs = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    assert parse_overrides(pairs) == overrides


def test_settings_data_and_seed_decide_a_run_and_the_state_of_the_process_does_not(
    project: Project, unbroken: Path
):
    torch.manual_seed(1234)
    assert_same_run(trainer.train(project, spec(project)), unbroken)


def test_another_seed_gives_another_run(project: Project):
    specs = [Params.read(project).spec("tiny", "1/4", "suponly", seed, {"epochs": 1}) for seed in (0, 1)]
    first, second = (trainer.train(project, wanted) for wanted in specs)
    assert (first.name, second.name) == ("tiny-1_4-suponly-epochs=1-s0", "tiny-1_4-suponly-epochs=1-s1")
    assert history(first) != history(second)


def test_supervised_training_follows_the_labelled_images_where_the_setting_says_so(project: Project):
    path = trainer.train(project, spec(project, "suponly", epoch="labeled", epochs=2))
    assert [int(row["step"]) for row in history(path)] == [2, 4]


def test_supervised_training_needs_no_unlabelled_images(project: Project):
    path = trainer.train(project, Params.read(project).spec("tiny", "full", "suponly", 0, {"epochs": 1}))
    assert read_json(path / "metrics.json")["unlabeled"] == 0


def test_no_value_that_is_not_finite_is_written_where_unlabelled_images_have_no_masks(project: Project):
    pictures = project.root / "pictures"
    for name in (pictures / "train.txt").read_text().split()[4:]:
        (pictures / "masks" / f"{name}.png").unlink()
    prepare(project, str(pictures / "tiny.yaml"), "full")
    path = trainer.train(project, Params.read(project).spec("tiny", "full", "mt", 0, {"epochs": 2}))
    assert "nan" not in (path / "history.csv").read_text()
    assert "NaN" not in (path / "events.jsonl").read_text()


# ---- when it is validated, and which network is reported -------------------------------------------------


@pytest.mark.parametrize(("every", "validated"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2, 3]), (9, [3])])
def test_every_kth_epoch_is_validated_and_the_last(project: Project, every: int, validated: list[int]):
    seen: dict[int, bool] = {}

    def observe(event: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        if event == "epoch":
            seen[step // 2 - 1] = "val/miou" in metrics
            assert "train/loss" in metrics

    wanted = spec(project, "suponly", epoch="labeled", epochs=4, validate_every=every)
    path = trainer.train(project, wanted, observe=observe)
    assert [epoch for epoch, was in seen.items() if was] == validated and len(seen) == 4
    rows = history(path)
    assert [int(row["epoch"]) for row in rows if row["val/miou"]] == validated
    assert all(row["train/loss"] and row["lr"] for row in rows)
    logged = [e for e in events(path) if e["event"] == "epoch"]
    assert [e["epoch"] for e in logged if "val/miou" in e["metrics"]] == validated and len(logged) == 4
    miou = read_json(path / "metrics.json")["miou"]
    assert miou["last"] == miou["reported"] == float(rows[-1]["val/miou"])
    best = max(validated, key=lambda epoch: float(rows[epoch]["val/miou"]))
    assert (miou["best_epoch"], miou["best"]) == (best, float(rows[best]["val/miou"]))


def test_validating_less_often_trains_the_same_network(project: Project):
    often, seldom = (
        trainer.train(project, spec(project, "suponly", epoch="labeled", validate_every=every))
        for every in (1, 3)
    )
    assert all(torch.equal(value, weights(seldom)[key]) for key, value in weights(often).items())


@pytest.fixture
def second_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second validation finds every pixel right and the third every one wrong; a fourth finds the truth."""
    original, calls = loop.evaluate, 0

    def evaluate(*arguments, **options):
        nonlocal calls
        calls += 1
        result = original(*arguments, **options)
        if calls in (2, 3):
            result.confusion = torch.diag(result.confusion.sum(1)).roll(calls - 2, dims=1)
        return result

    monkeypatch.setattr(loop, "evaluate", evaluate)


SHORT = {"epoch": "labeled"}
"""Two steps an epoch, six in all."""


@pytest.mark.usefixtures("second_is_best")
def test_a_run_reported_by_its_best_network_keeps_and_measures_that_one(project: Project):
    path = trainer.train(project, spec(project, "suponly", checkpoint="best", **SHORT))
    kept, best = (torch.load(path / name, weights_only=True) for name in ("weights.pt", "best.pt"))
    assert kept["epoch"] == best["epoch"] == 1
    assert all(torch.equal(value, best["state"][key]) for key, value in kept["state"].items())
    metrics, rows = read_json(path / "metrics.json"), history(path)
    miou = metrics["miou"]
    assert metrics["protocol"]["checkpoint"] == "best"
    assert miou["reported"] == miou["best"] and miou["best_epoch"] == 1
    assert miou["last"] == float(rows[-1]["val/miou"]) != miou["reported"]

    network, recipe = load_network(path, 4)
    again = evaluate(network, open_split(project, "tiny", "1/4"), recipe, keep_samples=True)
    assert again.miou == miou["reported"] and again.iou(list(metrics["iou"])) == metrics["iou"]
    colors = open_split(project, "tiny", "1/4").colors
    for name, prediction in again.samples.items():
        picture = read_image(path / "samples" / f"{name}.prediction.png")
        assert (picture == colored(prediction.numpy(), colors)).all()


@pytest.mark.usefixtures("second_is_best")
def test_by_default_the_last_network_is_reported_though_another_was_better(project: Project):
    path = trainer.train(project, spec(project, "suponly", **SHORT))
    protocol, miou = (read_json(path / "metrics.json")[key] for key in ("protocol", "miou"))
    assert torch.load(path / "weights.pt", weights_only=True)["epoch"] == 2
    assert protocol["checkpoint"] == "last"
    assert miou == {"reported": 0, "last": 0, "best": 100, "best_epoch": 1}


@pytest.mark.usefixtures("second_is_best")
def test_a_run_stopped_after_its_best_epoch_is_reported_as_an_unbroken_one(project: Project):
    wanted = spec(project, "suponly", checkpoint="best", **SHORT)
    with pytest.raises(Interrupted):
        trainer.train(project, wanted, observe=at("epoch", 4, terminate))
    path = trainer.train(project, wanted)
    assert torch.load(path / "weights.pt", weights_only=True)["epoch"] == 1
    assert read_json(path / "metrics.json")["miou"] == evaluate_run(project, path.name)["miou"]


@pytest.mark.usefixtures("second_is_best")
def test_a_best_network_that_was_deleted_while_training_is_an_error_in_words(project: Project):
    wanted = spec(project, "suponly", checkpoint="best", **SHORT)
    with pytest.raises(Interrupted):
        trainer.train(project, wanted, observe=at("epoch", 4, terminate))
    for file in project.runs.glob("*/best.pt*"):
        file.unlink()
    with pytest.raises(UserError, match=r"best\.pt, which the run is to be reported by, is gone\. Delete"):
        trainer.train(project, wanted)


@pytest.mark.usefixtures("second_is_best")
@pytest.mark.parametrize(
    ("overrides", "last"),
    [({}, True), ({"checkpoint": "best"}, False), ({"checkpoint": "best", "epochs": 2}, True)],
)
def test_an_evaluation_corrects_the_reported_number_and_the_last_where_they_are_one(
    project: Project, overrides: dict, last: bool
):
    path = trainer.train(project, spec(project, "suponly", **SHORT, **overrides))
    metrics = read_json(path / "metrics.json")
    write_json(path / "metrics.json", metrics | {"miou": metrics["miou"] | {"reported": -1, "last": -1}})
    miou = evaluate_run(project, path.name)["miou"]
    assert miou["reported"] >= 0 and (miou["last"] == miou["reported"]) == last
    assert last or miou["last"] == -1


def test_a_flavour_is_told_of_a_run_and_decides_nothing_beside_its_presets(project: Project):
    released = spec(project, "suponly", flavor="released", replicas=1, epochs=1, evaluation="center")
    path = trainer.train(project, released)
    run, metrics = read_json(path / "run.json"), read_json(path / "metrics.json")
    assert run["flavor"] == metrics["flavor"] == "released"
    assert metrics["protocol"]["evaluation"] == (
        "centre crop of 32, single scale, padding scored as class 0, absent classes as 0"
    )
    assert "flavor" not in run["facts"] and "flavor" not in run["recipe"]
    presets = Params.read(project).values["flavors"]["released"]
    by_hand = {k: presets[k] for k in run["recipe"] if k in presets} | {"replicas": 1, "epochs": 1}
    by_hand |= {"evaluation": "center"}
    assert (
        trainer.describe(project, spec(project, "suponly", **by_hand))[2]["fingerprint"] == run["fingerprint"]
    )


# ---- finished, stopped, killed, damaged ------------------------------------------------------------------


def test_a_finished_run_returns_at_once_and_unchanged(project: Project, monkeypatch: pytest.MonkeyPatch):
    path = trainer.train(project, spec(project, "suponly", epochs=1))
    before = {item: item.read_bytes() for item in path.iterdir() if item.is_file()}
    monkeypatch.setattr(trainer, "Run", lambda *_: pytest.fail("a finished run was built again"))
    assert trainer.train(project, spec(project, "suponly", epochs=1)) == path
    assert {item: item.read_bytes() for item in path.iterdir() if item.is_file()} == before


def test_a_run_that_is_told_to_stop_saves_its_state_and_goes_on_to_the_same_end(
    project: Project, unbroken: Path
):
    """Stopped in the middle of the second epoch, at step 10."""
    with pytest.raises(Interrupted, match=r"step 10 of 18.*Start the same command again") as caught:
        trainer.train(project, spec(project), observe=at("step", 10, terminate))
    assert caught.value.exit_code == 130
    path = project.runs / unbroken.name
    assert events(path)[-1]["event"] == "interrupted"
    assert not (path / "metrics.json").exists()
    assert trainer.train(project, spec(project)) == path
    happened = [e["event"] for e in events(path)]
    assert [h for h in happened if h not in ("step", "epoch")] == ["start", "interrupted", "resume", "end"]
    assert_same_run(path, unbroken)


@pytest.mark.parametrize("method", sorted({*methods.names()} - {"u2pl"}))
def test_a_run_of_any_method_goes_on_to_the_same_end(project: Project, tmp_path: Path, method: str):
    """Whatever a method remembers is in the checkpoint: a second student, a bank, what it chose images by."""
    apart = Project(tmp_path / "apart")
    shutil.copytree(project.root, apart.root)
    whole = trainer.train(apart, spec(apart, method))
    with pytest.raises(Interrupted, match="step 10 of 18"):
        trainer.train(project, spec(project, method), observe=at("step", 10, terminate))
    assert_same_run(trainer.train(project, spec(project, method)), whole)


def test_a_run_may_be_stopped_again_and_again_also_between_two_epochs(project: Project, unbroken: Path):
    handler = signal.getsignal(signal.SIGINT)
    for event, step in (("epoch", 6), ("step", 10), ("epoch", 12)):
        with pytest.raises(Interrupted, match=f"step {step} of"):
            trainer.train(
                project, spec(project), observe=at(event, step, lambda: signal.raise_signal(signal.SIGINT))
            )
        assert signal.getsignal(signal.SIGINT) is handler
    assert_same_run(trainer.train(project, spec(project)), unbroken)


def test_a_run_told_to_stop_in_an_evaluation_stops_there_and_makes_up_for_it(
    project: Project, unbroken: Path, monkeypatch: pytest.MonkeyPatch
):
    original, calls = loop.evaluate, 0

    def told(*arguments, after_round, **options):
        nonlocal calls
        calls += 1
        if calls == 2:
            terminate()
        return original(*arguments, after_round=after_round, **options)

    monkeypatch.setattr(loop, "evaluate", told)
    with pytest.raises(Interrupted, match="step 12 of 18"):
        trainer.train(project, spec(project))
    path = project.runs / unbroken.name
    assert [e["step"] for e in events(path) if e["event"] == "epoch"] == [6]
    assert_same_run(trainer.train(project, spec(project)), unbroken)
    assert [e["step"] for e in events(path) if e["event"] == "epoch"] == [6, 12, 18]


def test_a_killed_run_repeats_the_steps_since_its_checkpoint(project: Project, unbroken: Path):
    with pytest.raises(Killed):
        trainer.train(project, spec(project), machine=EACH_STEP, observe=at("step", 18, kill))
    path = trainer.train(project, spec(project))
    assert [e["step"] for e in events(path) if e["event"] == "step"] == [10, 18, 18]
    assert next(e["step"] for e in events(path) if e["event"] == "resume") == 17
    assert_same_run(path, unbroken)


def test_a_run_killed_before_its_first_checkpoint_starts_again(project: Project, unbroken: Path):
    with pytest.raises(Killed):
        trainer.train(project, spec(project), observe=at("step", 10, kill))
    assert_same_run(trainer.train(project, spec(project)), unbroken)


def test_a_run_whose_checkpoint_is_damaged_goes_on_from_the_one_before(project: Project, unbroken: Path):
    with pytest.raises(Killed):
        trainer.train(project, spec(project), machine=EACH_STEP, observe=at("step", 18, kill))
    last = project.runs / unbroken.name / "last.pt"
    last.write_bytes(last.read_bytes()[:5000])
    path = trainer.train(project, spec(project))
    assert next(e["step"] for e in events(path) if e["event"] == "resume") == 16
    assert_same_run(path, unbroken)


def test_a_half_written_line_of_events_does_not_swallow_the_next_one(project: Project):
    with pytest.raises(Interrupted):
        trainer.train(project, spec(project, "suponly"), observe=at("step", 10, terminate))
    log = project.runs / "tiny-1_4-suponly-s0" / "events.jsonl"
    log.write_text(log.read_text() + '{"time": 17')
    trainer.train(project, spec(project, "suponly"))
    readable = [line for line in log.read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["event"] for line in readable].count("resume") == 1


# ---- refusals --------------------------------------------------------------------------------------------


def test_a_run_of_other_settings_is_refused_with_what_differs_and_fresh_moves_it_aside(project: Project):
    old = trainer.train(project, spec(project, "suponly", epochs=1))
    kept = (old / "weights.pt").read_bytes()
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.02))
    with pytest.raises(UserError, match=r"(?s)recipe\.lr: 0\.01 -> 0\.02.*--fresh"):
        trainer.train(project, spec(project, "suponly", epochs=1))
    assert (old / "weights.pt").read_bytes() == kept

    new = trainer.train(project, spec(project, "suponly", epochs=1), fresh=True)
    stored = list((project.runs / ".old").iterdir())
    assert new == old
    assert len(stored) == 1
    assert (stored[0] / "weights.pt").read_bytes() == kept
    assert (stored[0] / "metrics.json").is_file()
    assert (new / "weights.pt").read_bytes() != kept
    assert read_json(new / "run.json")["recipe"]["lr"] == 0.02


def test_a_run_killed_while_an_old_one_is_moved_aside_loses_none_of_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    old = trainer.train(project, spec(project, "suponly", epochs=1))
    kept = (old / "weights.pt").read_bytes()
    names = {item.name for item in old.iterdir()} - {"lock", "holder"}
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.02))
    original, moved = shutil.move, 0

    def move(source: Path, target: Path) -> Path:
        nonlocal moved
        moved += 1
        if moved == 4:
            raise Killed
        return original(source, target)

    monkeypatch.setattr(set_aside.shutil, "move", move)
    with pytest.raises(Killed):
        trainer.train(project, spec(project, "suponly", epochs=1), fresh=True)
    monkeypatch.undo()
    monkeypatch.setenv("U2PL_TRACKING", "none")
    with pytest.raises(UserError, match="--fresh"):  # still the old run's folder
        trainer.train(project, spec(project, "suponly", epochs=1))
    trainer.train(project, spec(project, "suponly", epochs=1), fresh=True)
    (stored,) = (project.runs / ".old").iterdir()
    assert {item.name for item in stored.iterdir()} == names

    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.01))
    assert trainer.train(project, spec(project, "suponly", epochs=1), fresh=True) == old
    assert (old / "weights.pt").read_bytes() == kept


def test_fresh_does_not_touch_a_run_of_the_same_settings(project: Project):
    path = trainer.train(project, spec(project, "suponly", epochs=1))
    before = (path / "weights.pt").stat().st_mtime_ns
    trainer.train(project, spec(project, "suponly", epochs=1), fresh=True)
    assert (path / "weights.pt").stat().st_mtime_ns == before
    assert not (project.runs / ".old").exists()


HOLD = "import sys, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"


def test_a_folder_that_another_process_holds_is_refused(project: Project):
    folder = project.runs / "tiny-1_4-suponly-s0"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, str(folder / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"Another process.* is training tiny-1_4-suponly-s0"):
            trainer.train(project, spec(project, "suponly"))
        other.stdin.write("\n")
    assert trainer.train(project, spec(project, "suponly")) == folder


def test_a_runs_folder_that_cannot_be_written_is_an_error_in_words(project: Project):
    project.runs.write_text("a file")
    with pytest.raises(UserError, match=r"Cannot write .*runs.*: .*\. Make the folder writable"):
        trainer.train(project, spec(project, "suponly"))


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step_and_the_term(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    """Good to step 10, where it is stopped; not a number from step 13 on."""
    with pytest.raises(Interrupted):
        trainer.train(project, spec(project, "suponly"), observe=at("step", 10, terminate))
    path = project.runs / "tiny-1_4-suponly-s0"
    good, taken = (path / "last.pt").read_bytes(), 10
    original = whole_batch.cross_entropy

    def broken(*arguments, **options):
        nonlocal taken
        taken += 1
        return original(*arguments, **options) * (math.nan if taken >= 13 else 1)

    monkeypatch.setattr(whole_batch, "cross_entropy", broken)
    with pytest.raises(
        UserError, match=r"not finite at step 1[23] .*loss/supervised.*last\.pt.*smaller learning rate"
    ):
        trainer.train(project, spec(project, "suponly"))
    assert (path / "last.pt").read_bytes() == good
    assert events(path)[-1]["event"] == "failed"
    monkeypatch.undo()
    monkeypatch.setenv("U2PL_TRACKING", "none")
    assert trainer.train(project, spec(project, "suponly")) == path


def test_a_huge_learning_rate_is_found_out_without_a_checkpoint(project: Project):
    with pytest.raises(UserError, match=r"not finite at step \d+ .*no checkpoint.*--set lr="):
        trainer.train(project, spec(project, "suponly", lr=1e30))
    path = next(project.runs.glob("*lr=1e+30*"))
    assert not (path / "metrics.json").exists()
    assert not list(path.glob("last.pt*"))


def test_a_split_that_was_not_prepared_is_refused_with_the_command_that_prepares_it(project: Project):
    with pytest.raises(UserError, match="Run: u2pl prepare --dataset tiny --split 1/2"):
        trainer.train(project, Params.read(project).spec("tiny", "1/2", "mt", 0))


@pytest.mark.parametrize(
    ("overrides", "says"),
    [({"batch": 8}, "has 4 labelled images, a batch needs 8"), ({"r_l": 4}, "--set r_l=1")],
)
def test_what_cannot_be_trained_leaves_no_run_behind(project: Project, overrides: dict, says: str):
    with pytest.raises(UserError, match=says):
        trainer.train(project, spec(project, **overrides))
    assert not list(project.runs.glob("*/run.json"))


def test_a_method_that_needs_unlabelled_images_says_so(project: Project):
    with pytest.raises(UserError, match="no unlabelled images"):
        trainer.train(project, Params.read(project).spec("tiny", "full", "mt", 0))


# ---- the fingerprint -------------------------------------------------------------------------------------


def other(key: str, value: object, field: FieldInfo) -> object:
    """Another value that the field takes."""
    words = get_args(field.annotation)
    if get_origin(field.annotation) is Literal:
        return next(word for word in words if word not in (value, "auto"))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, dict):
        return {name: count + 1 for name, count in value.items()}
    if isinstance(value, str):
        return {"weights": "imagenet", "backbone": "resnet18"}[key]
    return [1] if get_origin(field.annotation) is list else [0.5, 1.25]  # classes, or a range


WITH = {"replicas": {"batch": 4}, "teacher_statistics": {"teacher_mode": "train"}}
"""What a setting cannot be changed without."""


def test_every_setting_seed_and_list_changes_the_fingerprint(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    # Where a processor does not multiply bfloat16, precision=auto is float32, as in the recipe of `tiny`.
    monkeypatch.setattr("u2pl.settings.params.has_native_bfloat16", lambda: True)
    prepare(project, str(project.root / "pictures" / "tiny.yaml"), "1/2")
    params = Params.read(project)
    seen: dict[str, str] = {}
    changed: set[str] = set()
    classes = trainer.classes_of(open_split(project, "tiny", "1/4"))

    def note(what: str, wanted: RunSpec) -> None:
        found = trainer.describe(project, wanted)[2]["fingerprint"]
        assert found not in seen, f"{what} gives the fingerprint of {seen[found]}"
        seen[found] = what

    note("batch of 4", spec(project, batch=4))
    for method in params.methods:
        resolved = params.resolve(spec(project, method))
        note(method, spec(project, method))
        note(f"{method}, seed", params.spec("tiny", "1/4", method, 1))
        note(f"{method}, split", params.spec("tiny", "1/2", method, 0))
        checked = methods.settings(method, classes, resolved.recipe, resolved.hyper)
        for section, values in (("recipe", resolved.recipe), (method, checked)):
            for key, field in type(values).model_fields.items():
                if section != "recipe" or method == "u2pl":
                    overrides = {f"{section}.{key}": other(key, getattr(values, key), field)} | WITH.get(
                        key, {}
                    )
                    note(str(overrides), spec(project, method, **overrides))
                    changed.add(key)
    assert len(seen) > 40
    assert set(Recipe.model_fields) <= changed


def test_a_changed_list_of_images_changes_the_fingerprint(project: Project):
    before = trainer.describe(project, spec(project))[2]["fingerprint"]
    prepare(project, str(project.root / "pictures" / "tiny.yaml"), "1/4", seed=3)
    assert trainer.describe(project, spec(project))[2]["fingerprint"] != before


def test_equal_values_written_differently_have_one_fingerprint(project: Project):
    assert len({
        trainer.describe(project, spec(project, **same))[2]["fingerprint"]
        for same in ({}, {"alpha0": 0.2}, {"eta": 1}, {"scale": [0.75, 1.5]})
    }) == 1  # fmt: skip


def test_a_bad_hyper_parameter_is_refused_before_anything_is_written(project: Project):
    with pytest.raises(UsageError, match=r"u2pl\.alpha0.*less than or equal to 1, not 20.*--set"):
        trainer.train(project, spec(project, alpha0=20))
    assert not project.runs.exists()


# ---- what nobody wanted ----------------------------------------------------------------------------------

REFUSED = {
    "no file": (lambda folder: folder / "none.pt", "cannot be read"),
    "a folder": (lambda folder: folder, "it is no file"),
    "an empty file": (lambda folder: written(folder / "w.pt", b""), "cannot be read"),
    "a text": (lambda folder: written(folder / "w.pt", b"hello"), "cannot be read"),
    "a list": (lambda folder: saved(folder / "w.pt", [1]), "holds a list"),
    "a tensor": (lambda folder: saved(folder / "w.pt", torch.ones(2)), "holds a Tensor"),
    "code": (lambda folder: saved(folder / "w.pt", {"a": Trap()}), "could run code"),
    "other things": (lambda folder: saved(folder / "w.pt", {"a": 1, "b": [2]}), "does not fit the network"),
    "numbered tensors": (lambda folder: saved(folder / "w.pt", {"state": {1: torch.ones(2)}}), "things than names"),
    "complex numbers": (lambda folder: saved(folder / "w.pt", {"a": torch.ones(2, dtype=torch.cfloat)}), "finite"),
    "no numbers": (lambda folder: saved(folder / "w.pt", {"conv1.weight": torch.tensor([math.nan])}), "finite"),
    "a pipe": (lambda folder: pipe(folder / "pipe"), "it is no file"),
}  # fmt: skip


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (pytest.fail, ("a file of weights ran code",))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("kind", REFUSED)
def test_weights_that_are_none_are_refused_and_no_folder_is_left(project: Project, tmp_path: Path, kind: str):
    make, says = REFUSED[kind]
    with pytest.raises(UserError, match=says) as caught:
        trainer.train(project, spec(project, weights=str(make(tmp_path))))
    assert str(tmp_path) in str(caught.value)
    assert not project.runs.exists()


def test_a_network_that_cannot_be_built_leaves_no_folder_and_moves_none_aside(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    path = trainer.train(project, spec(project, "suponly", epochs=1))
    before = (path / "run.json").read_bytes()
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.02))
    monkeypatch.setattr(loop.methods, "create", refuse)
    for fresh, words in ((True, {"epochs": 1}), (False, {"epochs": 2})):
        with pytest.raises(UserError, match="no such weights"):
            trainer.train(project, spec(project, "suponly", **words), fresh=fresh)
    assert [item.name for item in project.runs.iterdir()] == [path.name]
    assert (path / "run.json").read_bytes() == before


def refuse(*_: object) -> None:
    raise UserError("There are no such weights here. Copy them.")


LEFT = (".last.pt.new.{pid}.tmp", ".run.json.{pid}.tmp", "last.pt.new", "best.pt.new")


def leave(path: Path, *more: str) -> None:
    for name in (*LEFT, *more):
        (path / name.format(pid=2**22 + 1)).write_bytes(b"left")


@pytest.mark.parametrize("finished", [True, False])
def test_what_a_killed_process_left_is_gone_when_the_run_goes_on_or_ends(project: Project, finished: bool):
    run = spec(project, "suponly", epochs=2)
    if finished:
        path = trainer.train(project, run)
    else:
        with pytest.raises(Killed):
            trainer.train(project, run, observe=at("epoch", 6, kill), machine=EACH_STEP)
        (path,) = project.runs.iterdir()
    leave(path, *(["last.pt", "last.pt.previous", "best.pt.previous"] if finished else []))
    kept = [".note.tmp", ".x.y.tmp", f".mine.{os.getpid()}.tmp", "own.previous", "own.new"]
    for name in kept:
        (path / name).write_text("not ours, or of a process that lives")
    weights_before = (path / "weights.pt").read_bytes() if finished else None
    assert trainer.train(project, run) == path
    found = {item.name for item in path.iterdir()}
    assert found >= set(kept)
    strange = {
        n for n in found - set(kept) if n.endswith((".tmp", ".new", ".previous")) or n.startswith("last.pt")
    }
    assert not strange
    assert weights_before in (None, (path / "weights.pt").read_bytes())


def test_a_checkpoint_that_was_written_but_not_renamed_is_gone_on_from(project: Project):
    """Killed between two renames: the last one is called .previous, the new one .new."""
    run = spec(project, "suponly", epochs=2)
    with pytest.raises(Killed):
        trainer.train(project, run, observe=at("epoch", 6, kill), machine=EACH_STEP)
    (path,) = project.runs.iterdir()
    step = torch.load(path / "last.pt", weights_only=True)["progress"]["step"]
    (path / "last.pt").rename(path / "last.pt.new")
    trainer.train(project, run)
    assert next(e["step"] for e in events(path) if e["event"] == "resume") == step


def other_network(state: dict) -> dict:
    state["learner"]["method"] = {"a": torch.ones(2)}
    return state


def other_momentum(state: dict) -> dict:
    for buffers in state["learner"]["optimizers"][0]["state"].values():
        buffers["momentum_buffer"] = torch.zeros(3)
    return state


def other_progress(state: dict) -> dict:
    return state | {"progress": state["progress"] | {"step": 10**6}}


FOREIGN = {
    "a dictionary of other things": lambda _: {"a": 1},
    "a network's weights": lambda state: state["learner"]["method"],
    "another network": other_network,
    "another network's momentum": other_momentum,
    "another length": other_progress,
    "no progress": lambda state: state | {"progress": {}},
    "a list for the log": lambda state: state | {"log": [1]},
    "nothing of the learner": lambda state: state | {"learner": {}},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_checkpoint_of_something_else_is_refused_in_a_sentence(project: Project, kind: str):
    run = spec(project, "suponly", epochs=2)
    with pytest.raises(Interrupted):
        trainer.train(project, run, observe=at("epoch", 6, terminate))
    (path,) = project.runs.iterdir()
    last = path / "last.pt"
    torch.save(FOREIGN[kind](torch.load(last, weights_only=True)), last)
    with pytest.raises(
        UserError, match=r"last\.pt is none of this run's checkpoints.*Delete that file"
    ) as caught:
        trainer.train(project, run)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1], torch.ones(2), "text"])
def test_a_checkpoint_that_is_no_dictionary_gives_way_to_the_one_before(project: Project, content: object):
    run = spec(project, "suponly", epochs=2)
    with pytest.raises(Interrupted):
        trainer.train(project, run, observe=at("epoch", 6, terminate), machine=EACH_STEP)
    (path,) = project.runs.iterdir()
    torch.save(content, path / "last.pt")
    trainer.train(project, run)
    assert [e["event"] for e in events(path)].count("resume") == 1


@pytest.mark.parametrize("content", [{"a": 1}, {"epoch": 0}, {"epoch": 0, "state": {"a": torch.ones(2)}}])
def test_a_best_network_of_something_else_is_refused_in_a_sentence(
    project: Project, second_is_best: None, content: dict
):
    run = spec(project, "suponly", checkpoint="best")
    with pytest.raises(Interrupted):
        trainer.train(project, run, observe=at("epoch", 12, terminate))
    (path,) = project.runs.iterdir()
    torch.save(content, path / "best.pt")
    with pytest.raises(UserError, match=r"best\.pt is none of this run's checkpoints.*Delete the folder"):
        trainer.train(project, run)


@pytest.mark.parametrize(
    "content",
    [
        *({"a": 1}, [1], {"state": 3}, {"state": {1: torch.ones(2)}}, {"state": {"a": torch.ones(2)}}),
        {"state": {"low.0.weight": torch.tensor([math.nan])}},
    ],
)
def test_weights_of_a_run_that_were_replaced_are_a_sentence_with_the_way_on(
    project: Project, content: object
):
    path = trainer.train(project, spec(project, "suponly", epochs=1))
    torch.save(content, path / "weights.pt")
    with pytest.raises(UserError, match=r"weights\.pt.*[\s\S]*train the run again: u2pl train"):
        load_network(path, 4)


@pytest.mark.parametrize("broken", ["weights", "miou"])
def test_a_result_that_is_no_number_is_no_result(
    project: Project, monkeypatch: pytest.MonkeyPatch, broken: str
):
    run = spec(project, "suponly", epochs=1)
    if broken == "weights":
        # By the last update, after the last loss.
        def spoil(self: loop.Run, *rest: object) -> None:
            with torch.no_grad():
                next(self.method.parameters()).fill_(math.nan)
            end(self, *rest)

        end = loop.Run._end_epoch
        monkeypatch.setattr(loop.Run, "_end_epoch", spoil)
    else:
        monkeypatch.setattr(Evaluation, "miou", property(lambda _: math.nan))
    with pytest.raises(UserError, match=r"The result is not finite.*--set lr="):
        trainer.train(project, run)
    (path,) = project.runs.iterdir()
    assert not (path / "metrics.json").exists() and not (path / "weights.pt").exists()
    assert events(path)[-1]["event"] == "failed"


OUT = (
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 17179869184 bytes."),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
)  # fmt: skip


@pytest.mark.parametrize("error", OUT, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["u2pl.methods.create", "u2pl.training.learner.Learner.step"])
def test_memory_that_runs_out_is_a_sentence_that_says_what_to_lower(
    project: Project, monkeypatch: pytest.MonkeyPatch, error: Exception, where: str
):
    def out(*_: object) -> None:
        raise error

    monkeypatch.setattr(where, out)
    with pytest.raises(UserError, match=r"not enough memory.*--micro-batch.*--recompute.*crop"):
        trainer.train(project, spec(project, "suponly"))


def test_a_signal_before_the_first_step_ends_the_run_at_once(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    def slow(*_: object) -> None:
        terminate()
        pytest.fail("it went on")

    monkeypatch.setattr(loop.methods, "create", slow)
    with pytest.raises(Interrupted, match="before training began"):
        trainer.train(project, spec(project, "suponly"))
    assert not project.runs.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"workers": 100_000}, "--workers"),
        ({"workers": -1}, "--workers"),
        ({"save_every": math.nan}, "--save-every"),
        ({"save_every": math.inf}, "--save-every"),
        ({"save_every": -1.0}, "--save-every"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(words: dict, says: str):
    with pytest.raises(UsageError, match=says):
        Machine(**words)


def test_more_processes_than_a_machine_bears_are_refused(project: Project):
    recipe = Params.read(project).resolve(spec(project, batch=100_000)).recipe
    with pytest.raises(UsageError, match=r"10000 processes .*--nproc"):
        trainer.check_processes(recipe, 10_000)
