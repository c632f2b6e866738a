"""An empty project, and a small data set of 20 pictures with its YAML description."""

import shutil
from pathlib import Path

import pytest
from engine.tiny import REPOSITORY, draw_tiny

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
