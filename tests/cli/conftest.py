import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def trained(tiny_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one finished run, tiny-1_4-suponly-s0; not to be changed."""
    from u2pl.project import Project
    from u2pl.settings import RunSpec
    from u2pl.training.trainer import train

    root = Path(shutil.copytree(tiny_template, tmp_path_factory.mktemp("trained") / "project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        train(Project(root), RunSpec("tiny", "1/4", "suponly"))
    return root
