from pathlib import Path

import pytest
from fabricated import make_project

from u2pl.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with this repository's hyper-parameters, tables and plans, and no results."""
    return make_project(tmp_path)
