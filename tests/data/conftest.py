"""An empty project, and a small data set of 20 pictures with its YAML description."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from data import miniature
from data.serving import Server, serving
from tiny import REPOSITORY, draw_tiny

from u2pl.project import Project


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


@pytest.fixture
def server(everything: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves `served/` of a module's miniatures, which u2pl takes for the real data sets."""
    with serving(everything / "served") as server:
        miniature.patch(monkeypatch, everything / "served", server.address)
        yield server


@pytest.fixture
def root(everything: Path, tmp_path: Path) -> Path:
    """A copy of the unpacked miniatures, the test's own."""
    return Path(shutil.copytree(everything / "unpacked", tmp_path / "mine"))
