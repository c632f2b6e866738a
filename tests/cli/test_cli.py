"""The command line in processes of its own: what it imports, refuses, and does from one end to the other."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from engine.tiny import draw_tiny, make_project

from u2pl.files import read_json
from u2pl.project import Project

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The one sentence on stderr of a command that was refused."""
    assert done.returncode in (1, 2), done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    return done.stderr


# ---- quick and light -------------------------------------------------------------------------------------

LIGHT = """
import sys
from u2pl_cli.app import run
status = run({words})
heavy = sorted({{"torch", "torchvision", "mlflow", "pandas", "matplotlib", "scipy", "numpy"}} & set(sys.modules))
print(status, heavy, file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["track", "sync", "--help"]])
def test_help_imports_nothing_heavy(words: list[str], tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", LIGHT.format(words=words)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1] == "0 []"


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


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("train --method u2lp", "No method called 'u2lp'. Did you mean 'u2pl'?"),
        ("train --set alfa0=0.3", "No setting for method 'u2pl' called 'alfa0'. Did you mean 'alpha0'?"),
        ("train --set mt.alpha0=0.3", "'u2pl' and 'recipe' only"),
        ("train --set alpha0", "--set takes NAME=VALUE, not 'alpha0'."),
        ("train --dataset tiny --split 1/4 --set alpha0=20", "u2pl.alpha0: Input should be less than or equal to 1"),
        ("train --dataset tiny --split 1/3", "Run: u2pl prepare --dataset tiny --split 1/3"),
        ("train --dataset tinny --split 1/4", "tinny"),
        ("prepare --dataset shape --split 1/8", "No data set called 'shape'. Did you mean 'shapes'?"),
        ("prepare --dataset tiny --split 2/3", "No split called '2/3'."),
        ("prepare --dataset missing.yaml --split 1/8", "missing.yaml"),
        ("evaluate tiny-u2pl", "There is no run yet. Train one:"),
        ("ablate --param alfa0 0.1", "Did you mean 'alpha0'?"),
        ("ablate --param alpha0,lr 0.1", "'0.1' has 1 parts for 2 parameters."),
        ("plan demmo", "Did you mean 'demo'?"),
        ("table table99", "table99"),
        ("trian", "No such command 'trian'"),
        ("train --sed 1", "--sed"),
        ("train --seed one", "integer"),
        ("evaluate", "Missing"),
        ("ablate --param alpha0", "Missing"),
    ],
)
def test_a_mistake_is_answered_in_one_sentence_with_the_way_on(
    u2pl: Command, tiny_project: Project, words: str, says: str
):
    error = refusal(u2pl(*words.split(), cwd=tiny_project.root))
    assert says in re.sub(r"\s+", " ", error.replace("│", " "))


@pytest.mark.parametrize(
    ("words", "status"),
    [("train --method u2lp", 2), ("trian", 2), ("train --sed 1", 2), ("train --dataset tiny --split 1/3", 1)],
)
def test_wrong_words_exit_with_2_and_what_is_missing_with_1(
    u2pl: Command, tiny_project: Project, words: str, status: int
):
    assert u2pl(*words.split(), cwd=tiny_project.root).returncode == status


def test_outside_a_project_the_user_is_told_where_to_go(u2pl: Command):
    assert "set U2PL_ROOT" in refusal(u2pl("train"))


def test_debug_brings_the_traceback_back_wherever_it_is_written(u2pl: Command, tiny_project: Project):
    for words in (["--debug", "train", "--method", "u2lp"], ["train", "--method", "u2lp", "--debug"]):
        done = u2pl(*words, cwd=tiny_project.root)
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "No method called 'u2lp'" in done.stderr


def test_a_command_works_from_any_folder_of_the_project_and_by_u2pl_root(u2pl: Command, tiny_project: Project):
    below = tiny_project.root / "data"
    assert "1/3" in refusal(u2pl("train", "--dataset", "tiny", "--split", "1/3", cwd=below))
    elsewhere = u2pl("train", "--dataset", "tiny", "--split", "1/3", U2PL_ROOT=str(tiny_project.root))
    assert "1/3" in refusal(elsewhere)


# ---- from one end to the other ---------------------------------------------------------------------------


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
    assert "--dataset tiny" in run("prepare", "--dataset", "pictures/tiny.yaml", "--split", "1/4")
    assert "4 labelled, 12 unlabelled" in run("prepare-splits", "--dataset", "tiny", "--split", "1/4")

    trained = run("train", "--dataset", "tiny", "--split", "1/4", *short, "--model", "models/u2pl.pt")
    assert f"Next: u2pl evaluate {name}" in trained
    assert (project.root / "models" / "u2pl.pt").read_bytes() == (project.runs / name / "weights.pt").read_bytes()

    metrics = json.loads(run("evaluate", name, "--into", "results/table1", "--json"))
    assert metrics == read_json(project.root / "results" / "table1" / name / "metrics.json")
    shown = run("evaluate", name)
    assert all(word in shown for word in ("ground", "disc", "mIoU", f"{metrics['miou']['last']:.2f}"))

    words = ("--param", "alpha0", "0.2", "0.5", "--dataset", "tiny", "--split", "1/4")
    compared = run("ablate", *words, *short, "--into", "results/table7")
    assert name in compared
    assert "alpha0=0.5" in compared
    written = read_json(project.root / "results" / "table7" / "ablation.json")
    assert [entry["value"] for entry in written["values"]] == ["0.2", "0.5"]
    assert written["values"][0]["run"] == name, "the run trained before is reused"


def test_a_run_that_is_terminated_says_how_to_go_on_and_goes_on(u2pl: Command, tiny_project: Project):
    words = ["train", "--dataset", "tiny", "--split", "1/4", "--method", "suponly", "--set", "epochs=40"]
    events = tiny_project.runs / "tiny-1_4-suponly-epochs=40-s0" / "events.jsonl"
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
    assert re.search(r"Stopped at step \d+ of 240; .*Start the same command again to go on\.", error)
    assert "Traceback" not in error

    again = u2pl(*words, cwd=tiny_project.root)
    assert again.returncode == 0, again.stderr
    assert [json.loads(line)["event"] for line in events.read_text().splitlines()].count("resume") == 1
