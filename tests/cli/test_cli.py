"""The command line in processes of its own: what it imports, refuses, and does from one end to the other."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import written
from tiny import draw_tiny, make_project

from u2pl.files import read_json, write_json
from u2pl.pipeline import resolve
from u2pl.project import Project

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def u2pl(started_u2pl: Callable[..., Any]) -> Callable[..., Any]:
    """Here the start itself is looked at too."""
    return started_u2pl


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command that was refused says, on one line."""
    assert done.returncode in (1, 2), done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    return re.sub(r"\s+", " ", done.stderr.replace("│", " "))


# ---- quick and light -------------------------------------------------------------------------------------

LIGHT = """
import sys
from u2pl_cli.app import run
status = run({words})
heavy = sorted({{"torch", "torchvision", "mlflow", "pandas", "matplotlib", "scipy", "numpy"}} & set(sys.modules))
print(status, heavy, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["train", "--help"], ["--version"], ["track", "sync", "--help"]]
)
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(words=words)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "0 []"


def test_how_far_the_runs_are_is_told_without_anything_heavy(tmp_path: Path):
    project = make_project(tmp_path)
    plan = resolve(project, "demo")
    plan.write(project)
    name = next(iter(plan.runs))
    run = written.run(name)
    for file, content in (("run.json", run), ("metrics.json", written.metrics(run))):
        write_json(project.runs / name / file, content)
    for words in (["status"], ["status", name]):
        done = subprocess.run(
            [sys.executable, "-c", LIGHT.format(words=words)], cwd=tmp_path, capture_output=True, text=True
        )
        assert name in done.stdout and done.stderr.splitlines()[-1] == "0 []", done.stderr


def test_help_needs_no_project_and_shows_an_example(u2pl: Command):
    done = u2pl("--help")
    assert done.returncode == 0
    assert "Example:" in done.stdout
    for command in ("prepare", "train", "evaluate", "ablate", "plan", "table", "report", "track"):
        assert command in done.stdout


def test_without_a_word_the_help_is_shown_and_nothing_about_defects(u2pl: Command):
    done = u2pl()
    assert done.returncode in (0, 2)
    assert "Usage" in done.stdout + done.stderr
    assert "defect" not in done.stdout + done.stderr


# ---- refusals --------------------------------------------------------------------------------------------


MISTAKES = {
    "train --method u2lp": (2, "No method called 'u2lp'. Did you mean 'u2pl'?"),
    "train --set alfa0=0.3": (2, "No setting for method 'u2pl' called 'alfa0'. Did you mean 'alpha0'?"),
    "train --set mt.alpha0=0.3": (2, "'u2pl' and 'recipe' only"),
    "train --set alpha0": (2, "--set takes NAME=VALUE, not 'alpha0'."),
    "train --dataset tiny --split 1/4 --set alpha0=20": (
        2,
        "u2pl.alpha0: Input should be less than or equal to 1",
    ),
    "train --dataset tiny --split 1/3": (1, "Run: u2pl prepare --dataset tiny --split 1/3"),
    "train --dataset tinny --split 1/4": (1, "'tinny' is not prepared. Run: u2pl prepare --dataset tinny"),
    "prepare --dataset shape --split 1/8": (2, "No data set called 'shape'. Did you mean 'shapes'?"),
    "prepare --dataset tiny --split 2/3": (2, "No split called '2/3'."),
    "prepare --dataset missing.yaml --split 1/8": (1, "There is no file missing.yaml"),
    "evaluate tiny-u2pl": (1, "There is no run yet. Train one:"),
    "ablate --param alfa0 0.1": (2, "Did you mean 'alpha0'?"),
    "ablate --param alpha0,lr 0.1": (2, "'0.1' has 1 parts for 2 parameters."),
    "plan demmo": (2, "Did you mean 'demo'?"),
    "table table99": (2, "'table99'"),
    "trian": (2, "No such command 'trian'"),
    "train --sed 1": (2, "No such option: --sed"),
    "train --seed one": (2, "integer"),
    "evaluate": (2, "Missing"),
    "ablate --param alpha0": (2, "Missing"),
}
"""Words -> exit status (2 for wrong words, 1 for what is missing on this machine) and what is said."""

EACH = """
import contextlib, io, json, sys
from u2pl_cli.app import run

for words in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        status = run(words.split())
    print(json.dumps([words, status, out.getvalue(), error.getvalue()]))
"""


@pytest.fixture(scope="module")
def answers(
    tiny_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> "dict[str, subprocess.CompletedProcess[str]]":
    """What u2pl answers to each mistake; all in one process, since importing torch takes seconds."""
    project = tmp_path_factory.mktemp("mistakes") / "project"
    shutil.copytree(tiny_template, project, ignore=shutil.ignore_patterns("runs"))
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        cwd=project,
        input=json.dumps(list(MISTAKES)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, done.stdout.splitlines())
    return {words: subprocess.CompletedProcess(words, *rest) for words, *rest in lines}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_answered_in_words_with_the_way_on(answers, words: str):
    status, says = MISTAKES[words]
    assert says in refusal(answers[words])
    assert answers[words].returncode == status


@pytest.mark.parametrize("words", ["train --method u2lp", "trian"])
def test_the_exit_status_reaches_the_shell(u2pl: Command, tiny_project: Project, words: str):
    done = u2pl(*words.split(), cwd=tiny_project.root)
    assert MISTAKES[words][1] in refusal(done)
    assert done.returncode == 2


def test_outside_a_project_the_user_is_told_where_to_go(u2pl: Command):
    assert "Make one here: u2pl init" in refusal(u2pl("train"))


def test_debug_brings_the_traceback_back_wherever_it_is_written(u2pl: Command, tiny_project: Project):
    for words in (["--debug", "train", "--method", "u2lp"], ["train", "--method", "u2lp", "--debug"]):
        done = u2pl(*words, cwd=tiny_project.root)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "No method called 'u2lp'" in done.stderr


def test_a_command_works_from_any_folder_of_the_project_and_by_u2pl_root(
    u2pl: Command, tiny_project: Project
):
    words = ("plan", "demo-full", "--table", "1")
    assert u2pl(*words, cwd=tiny_project.root / "data").returncode == 0
    assert u2pl(*words, U2PL_ROOT=str(tiny_project.root)).returncode == 0


# ---- from one end to the other ---------------------------------------------------------------------------


@pytest.mark.slow
def test_prepare_train_evaluate_ablate(u2pl: Command, tmp_path: Path):
    (tmp_path / "project").mkdir()
    project = make_project(tmp_path / "project")
    draw_tiny(project.root / "pictures")

    def run(*words: str) -> str:
        done = u2pl(*words, cwd=project.root)
        assert done.returncode == 0, done.stderr
        return done.stdout

    short = ("--set", "epochs=2", "--set", "warm_start_epochs=1")
    name = "tiny-1_4-u2pl-epochs=2-s0"
    # prepare-splits is prepare by its other name.
    prepared = run("prepare-splits", "--dataset", "pictures/tiny.yaml", "--split", "1/4")
    assert "4 labelled, 12 unlabelled" in prepared
    assert "Next: u2pl train --dataset tiny --split 1/4" in prepared

    trained = run("train", "--dataset", "tiny", "--split", "1/4", *short, "--model", "models/u2pl.pt")
    assert f"Next: u2pl evaluate {name}" in trained
    miou = read_json(project.runs / name / "metrics.json")["miou"]
    assert f"mIoU {miou['reported']:.2f} % (last {miou['last']:.2f} %, best {miou['best']:.2f} %" in trained
    assert (project.root / "models" / "u2pl.pt").read_bytes() == (
        project.runs / name / "weights.pt"
    ).read_bytes()

    metrics = json.loads(run("evaluate", name, "--into", "results/table1", "--json"))
    assert metrics == read_json(project.root / "results" / "table1" / name / "metrics.json")
    shown = run("evaluate", name)
    assert all(word in shown for word in ("ground", "disc", "mIoU", f"{metrics['miou']['reported']:.2f}"))

    words = ("--param", "alpha0", "0.2", "0.5", "--dataset", "tiny", "--split", "1/4")
    compared = run("ablate", *words, *short, "--record", "results/table7/by-alpha0.json")
    assert name in compared
    assert "alpha0=0.5" in compared
    written = read_json(project.root / "results" / "table7" / "by-alpha0.json")
    assert [entry["value"] for entry in written["runs"]] == ["0.2", "0.5"]
    assert written["runs"][0]["run"] == name, "the run trained before is reused"


@pytest.mark.slow
def test_a_run_that_is_terminated_says_how_to_go_on_and_goes_on(u2pl: Command, tiny_project: Project):
    words = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", "--set", "epochs=6"]
    events = tiny_project.runs / "tiny-1_4-suponly-epochs=6-s0" / "events.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-m", "u2pl_cli", *words],
        cwd=tiny_project.root,
        env={**os.environ, "U2PL_TRACKING": "none"},
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if events.is_file() and '"event": "step"' in events.read_text():
            process.send_signal(signal.SIGTERM)
            break
        time.sleep(0.05)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"Stopped at step \d+ of 36; .*Start the same command again to go on\.", error)
    assert "Traceback" not in error

    again = u2pl(*words, cwd=tiny_project.root)
    assert again.returncode == 0, again.stderr
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()].count("resume") == 1
