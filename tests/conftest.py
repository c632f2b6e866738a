"""Shared by all tests: one thread a process, a prepared data set, the command line in a process of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before anything imports torch. Threads that wait for each other on a busy machine make a run of two
# seconds take a hundred, and another number of threads adds in another order.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from tiny import REPOSITORY, draw_tiny, make_project

from u2pl.project import Project

Completed = subprocess.CompletedProcess[str]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(REPOSITORY / "params.yaml", root)
    (root / "dvc.yaml").touch()
    return Project(root)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """Folder of the data set `tiny`: 16 training and 4 validation images, tiny.yaml."""
    draw_tiny(tmp_path / "pictures")
    return tmp_path / "pictures"


@pytest.fixture(scope="session")
def tiny_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the data set `tiny`, its splits 1/4 and full prepared."""
    from u2pl.data.prepare import prepare

    project = make_project(tmp_path_factory.mktemp("template"))
    draw_tiny(project.root / "pictures")
    for split in ("1/4", "full"):
        prepare(project, str(project.root / "pictures" / "tiny.yaml"), split)
    return project.root


@pytest.fixture
def tiny_project(tiny_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of that project, the test's own; nothing is mirrored to a tracking store."""
    monkeypatch.setenv("U2PL_TRACKING", "none")
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    # Some modules train in the template itself; what they leave there is not this test's.
    shutil.copytree(tiny_template, tmp_path / "project", ignore=shutil.ignore_patterns("runs"))
    return Project(tmp_path / "project")


@pytest.fixture
def u2pl(tmp_path: Path) -> Callable[..., Completed]:
    """Runs `u2pl` in a process of its own: u2pl("train", "--seed", "1", cwd=folder)."""

    def run(*words: str, cwd: Path = tmp_path, **environment: str) -> Completed:
        return subprocess.run(
            [sys.executable, "-m", "u2pl_cli", *words],
            cwd=cwd,
            env={**os.environ, "U2PL_TRACKING": "none", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run
