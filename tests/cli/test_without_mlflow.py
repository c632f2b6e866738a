"""The command line where MLflow is not installed, and where it is but nobody wants it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from without_mlflow import make_environment

from u2pl.project import Project

NAME = "tiny-1_4-u2pl-s0"
COMMANDS = [
    "train --dataset tiny --split 1/4",
    f"evaluate {NAME}",
    "ablate --dataset tiny --split 1/4 --param alpha0 0.2 0.5",
    "plan demo",
    "table methods",
    "report",
    "splits audit --dataset tiny",
]

ALL = """
import sys
from u2pl_cli.app import run
statuses = [run(words.split()) for words in sys.argv[1:]]
print(statuses, [name for name in sys.modules if name.partition(".")[0] == "mlflow"])
"""


def run(
    python: Path | str, project: Project, *words: str, tracking: str
) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"U2PL_TRACKING": tracking}
    return subprocess.run(
        [str(python), *words], cwd=project.root, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def project(tiny_project: Project) -> Project:
    """Without what another test may have trained in the template."""
    shutil.rmtree(tiny_project.runs, ignore_errors=True)
    return tiny_project


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("bare"))


def test_the_environment_has_everything_but_mlflow(bare_python: Path, project: Project):
    script = "import torch, dvc, u2pl_cli, importlib.util as u; print(u.find_spec('mlflow')); import mlflow"
    done = run(bare_python, project, "-c", script, tracking="none")
    assert done.stdout == "None\n"
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'mlflow'"


@pytest.mark.slow
def test_switched_off_nothing_of_mlflow_is_imported_and_no_process_is_started(project: Project):
    done = run(sys.executable, project, "-c", ALL, *COMMANDS, tracking="none")
    assert done.stdout.splitlines()[-1] == f"{[0] * len(COMMANDS)} []", done.stderr
    assert "racking" not in done.stderr
    assert not [*project.runs.rglob("tracking.log"), *project.root.glob("mlflow.db*")]


@pytest.mark.slow
def test_without_mlflow_every_command_works_and_training_says_once_what_is_missing(
    bare_python: Path, project: Project
):
    train, *others = COMMANDS
    done = run(bare_python, project, "-m", "u2pl_cli", *train.split(), tracking="")
    assert done.returncode == 0, done.stderr
    (warning,) = [line for line in done.stderr.splitlines() if not line.startswith(f"{NAME}: ")]
    assert warning.startswith(f"{NAME} is not tracked, since MLflow is not installed")
    assert warning.endswith(": pip install mlflow && u2pl track sync")

    done = run(bare_python, project, "-c", ALL, *others, tracking="")
    assert done.stdout.splitlines()[-1] == f"{[0] * len(others)} []", done.stderr


def test_without_mlflow_track_sync_says_how_to_install_it(bare_python: Path, project: Project):
    done = run(bare_python, project, "-m", "u2pl_cli", "track", "sync", tracking="")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: MLflow is not installed, so there is no tracking store to bring up to date. "
        "Install it, then do this again: pip install mlflow && u2pl track sync\n"
    )
