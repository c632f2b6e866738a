"""How far a plan is, from files alone; whether a run is stale, compared with what the trainer itself says."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import filelock
import pytest
import written
from tiny import edit_params
from u2pl_cli.plan_progress import live

from u2pl.errors import UserError
from u2pl.files import read_json, write_json
from u2pl.pipeline import ActivePlan, resolve, spec_of
from u2pl.pipeline.scheduling import Entry, PlanRecord, State
from u2pl.pipeline.status import RunState, RunStatus, one, status
from u2pl.project import Project
from u2pl.runs.folder import RunFolder
from u2pl.runs.staleness import changes, facts
from u2pl.settings import Params, RunSpec, differences
from u2pl.training import trainer

PLAN = """
dataset: tiny
seeds: [0]
tables:
  table1: {rows: [SupOnly, U²PL (w/ CutMix)], splits: {classic-1/4: 1/4}}
"""
RUN = "tiny-1_4-suponly-s0"


@pytest.fixture
def project(tiny_project: Project) -> Project:
    """With an active plan of two runs, and no run yet."""
    (tiny_project.root / "pipelines/plans/tiny.yaml").write_text(PLAN, encoding="utf-8")
    resolve(tiny_project, "tiny").write(tiny_project)
    return tiny_project


def claim(project: Project) -> RunFolder:
    """The folder of the plan's first run, as a trainer takes it."""
    spec = spec_of(ActivePlan.read(project).runs[RUN])
    _, _, description = trainer.describe(project, spec)
    return RunFolder.claim(project, RUN, {**description, "parent": None}, fresh=True)


def finish(project: Project, miou: float = 71.25) -> None:
    """Make that run a finished one."""
    folder = claim(project)
    folder.event("start", 0, 0, {"steps": 18})
    folder.event("end", 18, 2)
    folder.release()
    write_json(folder.path / "metrics.json", written.metrics(read_json(folder.path / "run.json"), miou))
    (folder.path / "weights.pt").touch()


def first(project: Project) -> RunStatus:
    (found,) = [run for run in status(project).runs if run.name == RUN]
    return found


def note(project: Project, name: str, entry: Entry) -> None:
    """What a scheduler would have written down."""
    PlanRecord("tiny", "here", 1, 0.0, {name: entry}).write(project)


# ---- states --------------------------------------------------------------------------------------------


def test_a_run_without_a_folder_waits(project: Project):
    assert [run.state for run in status(project).runs] == [RunState.WAITING] * 2


def test_a_run_that_cannot_start_has_failed_with_the_sentence_of_its_stage(project: Project):
    note(project, f"train@{RUN}", Entry(State.FAILED, "The data are gone.", ended=1.0))
    assert (first(project).state, first(project).note) == (RunState.FAILED, "The data are gone.")


def test_a_run_whose_folder_is_held_runs_and_says_how_long_it_will(project: Project):
    folder = claim(project)
    folder.event("start", 0, 0, {"steps": 18})
    now = time.time_ns() // 1_000_000
    with (folder.path / "events.jsonl").open("a") as file:
        for step, seconds in ((2, -40), (6, -20), (10, 0)):
            metrics = {"val/miou": 30.5} if step == 6 else {}
            line = {
                "time": now + 1000 * seconds,
                "event": "step",
                "step": step,
                "epoch": 1,
                "metrics": metrics,
            }
            file.write(json.dumps(line) + "\n")
        file.write('{"time": 1, "half')
    found = first(project)
    assert (found.state, found.step, found.steps, found.epoch, found.epochs, found.miou) == (
        RunState.RUNNING,
        *(10, 18, 2, 3, 30.5),
    )
    assert found.seconds_left == pytest.approx(8 * 5, abs=2)  # eight steps of five seconds each
    assert "process" in found.holder
    folder.release()
    assert first(project).state is RunState.INTERRUPTED


def test_a_failed_run_says_why(project: Project):
    folder = claim(project)
    folder.event("start", 0, 0)
    folder.event("failed", 7, 0, message="The loss is not finite at step 7.")
    folder.release()
    assert (first(project).state, first(project).note) == (
        RunState.FAILED,
        "The loss is not finite at step 7.",
    )
    folder.event("resume", 0, 0)
    assert first(project).state is RunState.INTERRUPTED


def test_of_what_the_run_and_its_stage_have_said_the_newer_counts(project: Project):
    folder = claim(project)
    folder.event("start", 0, 0)
    folder.event("interrupted", 7, 0)
    folder.release()
    note(project, f"train@{RUN}", Entry(State.FAILED, "It is over.", ended=1.0))
    assert first(project).state is RunState.INTERRUPTED
    note(project, f"train@{RUN}", Entry(State.FAILED, "It is over.", ended=time.time() + 1))
    assert first(project).state is RunState.FAILED


def test_what_a_run_said_before_does_not_hide_why_its_newest_start_failed(project: Project):
    folder = claim(project)
    folder.event("failed", 7, 0, message="The loss is not finite at step 7.")
    folder.release()
    note(project, f"train@{RUN}", Entry(State.FAILED, "The data are gone.", ended=time.time() + 1))
    assert first(project).note == "The data are gone."


def test_what_a_trainer_that_breaks_off_leaves_is_enough(project: Project, monkeypatch: pytest.MonkeyPatch):
    def broken(self: Any, *arguments: Any) -> None:
        raise UserError("No more today. Come back tomorrow.")

    monkeypatch.setattr("u2pl.training.loop.Run._step", broken)
    with pytest.raises(UserError):
        trainer.train(project, spec_of(ActivePlan.read(project).runs[RUN]))
    found = first(project)
    assert (found.state, found.note) == (RunState.FAILED, "No more today. Come back tomorrow.")
    assert (found.step, found.steps) == (0, 18)


def test_a_finished_run_has_its_miou_and_counts_in_the_tables_once_it_is_evaluated(project: Project):
    finish(project)
    assert (first(project).state, first(project).miou, first(project).over) == (RunState.DONE, 71.25, "")
    assert [(table.cells, table.there) for table in status(project).tables] == [(2, 0)]
    write_json(project.root / "results/runs" / RUN / "metrics.json", {})
    assert [(table.cells, table.there) for table in status(project).tables] == [(2, 1)]


def test_a_finished_run_says_if_its_miou_leaves_classes_out(project: Project):
    finish(project)
    path = project.runs / RUN / "metrics.json"
    write_json(path, read_json(path) | {"iou": {"a": 50.0, "b": None}})
    assert first(project).over == "over 1 of 2 classes"


# ---- what is damaged does not hide the rest -------------------------------------------------------------


def test_a_run_whose_folder_is_damaged_says_so_and_the_others_are_shown(project: Project):
    finish(project)
    path = project.runs / RUN / "run.json"
    path.write_text('{"recipe": {"epochs": 3}}')
    assert [run.state for run in status(project).runs] == [RunState.FAILED, RunState.WAITING]
    assert first(project).note.startswith(f"How far it is cannot be told. {path} is not what u2pl writes")
    path.write_text("[]")
    assert first(project).state is RunState.FAILED


def test_a_method_that_has_no_settings_any_more_is_the_sentence_of_its_runs(project: Project):
    edit_params(project, lambda values: values.pop("suponly"))
    states = {run.name: run.state for run in status(project).runs}
    assert states.pop(RUN) is RunState.FAILED and list(states.values()) == [RunState.WAITING]
    assert first(project).note.startswith("No method called 'suponly'.")


def test_a_lock_that_may_not_be_opened_counts_as_free(project: Project, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError

    finish(project)
    monkeypatch.setattr("u2pl.files.filelock.FileLock", refuse)
    assert first(project).state is RunState.DONE


# ---- stale runs ----------------------------------------------------------------------------------------


def test_a_run_of_other_settings_is_stale_and_says_which(project: Project):
    finish(project)
    write_json(project.root / "results/runs" / RUN / "metrics.json", {})
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=0.5, epochs=4))
    assert first(project).state is RunState.STALE
    assert first(project).note == "recipe.epochs: 3 -> 4; recipe.lr: 0.01 -> 0.5"
    assert status(project).tables[0].there == 0


def test_a_run_of_other_lists_is_stale(project: Project):
    finish(project)
    path = project.split("tiny", "1/4") / "manifest.json"
    path.write_text(path.read_text().replace('"seeded 2"', '"seeded 9"'))
    assert first(project).note.startswith("data: ")


def test_settings_that_are_refused_are_the_sentence_of_a_failure(project: Project):
    finish(project)
    edit_params(project, lambda values: values["recipes"]["tiny"].update(lr=-1))
    assert first(project).state is RunState.FAILED
    assert first(project).note.startswith("Bad setting: recipe.lr")


def test_a_stage_is_as_far_as_the_run_that_is_what_it_sets_today(project: Project):
    finish(project)
    plan = ActivePlan.read(project)
    text = project.params.read_text(encoding="utf-8")
    lr = Params.read(project).resolve(spec_of(plan.runs[RUN]), bfloat16=False).recipe.lr
    key = f"tiny-1_4-suponly-lr={lr}-s0"
    stage = plan.runs[RUN].model_copy(update={"args": f"{plan.runs[RUN].args} --set=recipe.lr={lr}"})
    plan.model_copy(update={"runs": {key: stage}}).write(project)
    (found,) = status(project).runs
    assert (found.name, found.state) == (key, RunState.DONE)
    assert one(project, key).status.state is RunState.DONE
    project.params.write_text(text.replace(f"lr: {lr}", "lr: 0.5"), encoding="utf-8")
    (found,) = status(project).runs
    assert found.state is RunState.WAITING  # its value is no default any more


def methods() -> list[str]:
    from u2pl import methods

    return methods.names()


@pytest.mark.parametrize("method", methods())
def test_it_sees_what_the_trainer_sees(tiny_project: Project, method: str):
    """Of every method, whatever setting changes: the same differences as between two descriptions of the trainer."""

    def described() -> dict[str, Any]:
        spec = Params.read(tiny_project).spec("tiny", "1/4", method, 0)
        return json.loads(json.dumps(trainer.describe(tiny_project, spec)[2]["facts"]))

    def seen(recorded: dict[str, Any]) -> list[str]:
        params = Params.read(tiny_project)
        return differences(
            recorded, facts(tiny_project, params, params.spec("tiny", "1/4", method, 0), recorded)
        )

    before = described()
    assert seen(before) == []
    changed = 0
    for key, value in before["hyper"].items():
        other: Any = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v / 2 + 0.1}.get(
            type(value)
        )
        if other is None:
            continue
        old, new = Params.read(tiny_project).values[method], other(value)
        edit_params(tiny_project, lambda values, k=key, v=new: values[method].update({k: v}))
        assert seen(before) == differences(before, described())
        edit_params(tiny_project, lambda values, o=old: values.update({method: o}))
        changed += 1
    assert changed or method == "suponly"
    edit_params(tiny_project, lambda values: values["recipe"].update(momentum=0.8))
    assert seen(before) == differences(before, described()) == ["recipe.momentum: 0.9 -> 0.8"]


def test_a_number_written_otherwise_is_the_same_number(tiny_project: Project):
    spec = Params.read(tiny_project).spec("tiny", "1/4", "mt", 0)
    recorded = trainer.describe(tiny_project, spec)[2]["facts"]
    edit_params(
        tiny_project, lambda values: values["mt"].update(eta=1, ema_decay=str(recorded["hyper"]["ema_decay"]))
    )
    params = Params.read(tiny_project)
    assert recorded["hyper"]["eta"] == 1.0
    assert differences(recorded, facts(tiny_project, params, spec, recorded)) == []


@pytest.mark.parametrize("recorded", ["bfloat16", "float32"])
def test_automatic_precision_is_what_it_was(tiny_project: Project, recorded: str):
    spec = Params.read(tiny_project).spec("tiny", "1/4", "mt", 0)
    old = trainer.describe(tiny_project, spec)[2]["facts"]
    old["recipe"]["precision"] = recorded
    edit_params(tiny_project, lambda values: values["recipes"]["tiny"].update(precision="auto"))
    assert differences(old, facts(tiny_project, Params.read(tiny_project), spec, old)) == []
    old["recipe"]["precision"] = "float16"
    assert differences(old, facts(tiny_project, Params.read(tiny_project), spec, old))


def test_weights_are_known_by_their_content(tiny_project: Project):
    (tiny_project.root / "some.pt").write_bytes(b"weights")
    spec = Params.read(tiny_project).spec("tiny", "1/4", "mt", 0, {"weights": "some.pt"})
    old = trainer.describe(tiny_project, spec)[2]["facts"]
    params = Params.read(tiny_project)
    assert differences(old, facts(tiny_project, params, spec, old)) == []
    (tiny_project.root / "some.pt").write_bytes(b"others")
    assert differences(old, facts(tiny_project, params, spec, old))


# ---- results without their runs --------------------------------------------------------------------------


def result_of(project: Project) -> tuple[Params, RunSpec, dict[str, Any]]:
    """Today's settings, a run, and what its metrics.json would repeat of run.json."""
    params = Params.read(project)
    spec = params.spec("tiny", "1/4", "mt", 0)
    described = json.loads(json.dumps(trainer.describe(project, spec)[2]))
    manifest = read_json(project.split("tiny", "1/4") / "manifest.json")
    return params, spec, {**described, "facts": None, "split_source": manifest["source"]}


def test_a_result_tells_by_itself_what_has_changed_since(tiny_project: Project):
    params, spec, metrics = result_of(tiny_project)
    assert changes(tiny_project, params, spec, metrics) == []
    edit_params(tiny_project, lambda values: values["mt"].update(alpha0=0.35))
    assert changes(tiny_project, Params.read(tiny_project), spec, metrics) == ["hyper.alpha0: 0.2 -> 0.35"]
    edit_params(tiny_project, lambda values: values["mt"].update(alfa0=0.2))
    edit_params(tiny_project, lambda values: values["recipe"].update(momentum=7))
    (line,) = changes(tiny_project, Params.read(tiny_project), spec, metrics)
    assert line.startswith("Bad setting: recipe.momentum")


def test_a_result_of_other_lists_is_known_by_its_fingerprint_or_by_the_seed_of_the_draw(
    tiny_project: Project,
):
    params, spec, metrics = result_of(tiny_project)
    path = tiny_project.split("tiny", "1/4") / "manifest.json"
    path.write_text(path.read_text().replace('"seeded 2"', '"seeded 9"'))
    assert changes(tiny_project, params, spec, metrics) == [
        "the images, their lists or the version of the recipe"
    ]
    path.unlink()
    assert changes(tiny_project, params, spec, metrics) == []
    edit_params(tiny_project, lambda values: values["splits"].update(seed=3))
    assert changes(tiny_project, Params.read(tiny_project), spec, metrics) == ["lists: seeded 2 -> seeded 3"]


def test_a_result_is_not_outdated_because_the_weights_it_began_with_are_not_here(tiny_project: Project):
    weights = tiny_project.root / "some.pt"
    weights.write_bytes(b"weights")
    edit_params(tiny_project, lambda values: values["recipe"].update(weights="some.pt"))
    params, spec, metrics = result_of(tiny_project)
    weights.unlink()
    assert changes(tiny_project, params, spec, metrics) == []
    weights.write_bytes(b"others")
    assert len(changes(tiny_project, params, spec, metrics)) == 1


# ---- the command ---------------------------------------------------------------------------------------


def test_the_command_prints_a_line_a_run_and_json_for_scripts(project: Project, u2pl: Callable[..., Any]):
    finish(project)
    done = u2pl("status", cwd=project.root)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(RUN)]
    assert line.split()[1:3] == ["done", "71.25"]
    assert "table1 0/2" in done.stdout
    values = json.loads(u2pl("status", "--json", cwd=project.root).stdout)
    assert values["runs"][0] | {"name": RUN, "state": "done", "miou": 71.25} == values["runs"][0]


def test_nothing_heavy_is_loaded_for_it(project: Project):
    script = (
        "import sys; from u2pl_cli.app import run; run(['status']); "
        "print([n for n in ('torch', 'mlflow', 'dvc', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=project.root, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_asking_does_not_keep_a_trainer_from_starting(project: Project):
    """Whoever asks holds the lock for an instant; a trainer that comes just then waits for it."""
    claim(project).release()
    lock = filelock.FileLock(project.runs / RUN / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.2, lock.release).start()
    claim(project).release()


def test_what_is_shown_while_stages_run_survives_a_params_yaml_that_is_being_edited(
    project: Project, capsys: pytest.CaptureFixture[str]
):
    with live(project) as refresh:
        project.params.write_text("recipe: [")
        refresh()
    assert "cannot be told now" in capsys.readouterr().out
