import shutil
from pathlib import Path

import pytest

from u2pl.project import Project

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with this repository's hyper-parameters, tables and plans, and no results."""
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    shutil.copy(REPOSITORY / "dvc.yaml", tmp_path)
    shutil.copytree(REPOSITORY / "pipelines", tmp_path / "pipelines")
    return Project(tmp_path)
