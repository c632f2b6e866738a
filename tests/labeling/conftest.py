"""A project whose data set has eight images without a mask."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import draw_tiny, make_project

from u2pl.data.prepare import prepare
from u2pl.project import Project

WITHOUT = [f"{k:02}" for k in range(8, 16)]
"""Training images that have no mask; 00 to 07 have one, 16 to 19 are those of validation."""


@pytest.fixture(scope="session")
def half_labeled_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the data set `tiny`, in pictures/, and its split full; true/ holds the masks that it lacks."""
    project = make_project(tmp_path_factory.mktemp("half"))
    draw_tiny(project.root / "pictures")
    (project.root / "true").mkdir()
    for name in WITHOUT:
        shutil.move(project.root / f"pictures/masks/{name}.png", project.root / "true")
    prepare(project, str(project.root / "pictures" / "tiny.yaml"), "full")
    return project.root


@pytest.fixture
def half_labeled(half_labeled_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of that project, the test's own."""
    monkeypatch.setenv("U2PL_TRACKING", "none")
    monkeypatch.delenv("U2PL_ROOT", raising=False)
    shutil.copytree(half_labeled_template, tmp_path / "project")
    return Project(tmp_path / "project")


@pytest.fixture
def hand_in(half_labeled: Project) -> Callable[..., Path]:
    """Makes a folder of corrected masks: names whose true masks are in it, and further files with arrays."""

    def make(*names: str, folder: str = "corrected", **further: np.ndarray) -> Path:
        path = half_labeled.root / folder
        path.mkdir(exist_ok=True)
        for name in names:
            shutil.copy(half_labeled.root / f"true/{name}.png", path)
        for name, values in further.items():
            Image.fromarray(values).save(path / f"{name.removeprefix('im')}.png")
        return path

    return make
