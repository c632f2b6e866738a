from pathlib import Path

import pytest
from tiny import trained_copy


@pytest.fixture(scope="session")
def trained(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run, tiny-1_4-suponly-s0; not to be changed."""
    return trained_copy(tiny_template, tmp_path_factory.mktemp("trained") / "project", "suponly").root
