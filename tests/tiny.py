"""A data set that is drawn in milliseconds, and a recipe that trains on it in seconds."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from u2pl.project import Project

REPOSITORY = Path(__file__).parents[1]

TINY = {
    "backbone": "resnet10",
    "output_stride": 16,
    "multi_grid": False,
    "width": 8,
    "representation": 8,
    "crop": 32,
    "scale": [0.75, 1.5],
    "unlabeled_truth": True,
    "batch": 2,
    "epochs": 3,
    "lr": 0.01,
    "head_lr_multiplier": 1,
    "precision": "float32",
    "overrides": {
        "suponly.epoch": "unlabeled",
        "contrast.r_l": 1,
        "contrast.M": 4,
        "contrast.N": 8,
        "contrast.queue": 40,
        "contrast.queue_background": 60,
        "equalization.threshold": 0.0,
        "u2pl-ael.contrast_from": 0,
    },
}
"""Recipe of the data set `tiny`. With 12 unlabelled images, six steps are an epoch and 18 a run."""

DESCRIPTION = {
    "name": "tiny",
    "classes": ["ground", "square", "disc", "bar"],
    "background": True,
    "images": "images",
    "masks": "masks",
}


def make_project(root: Path) -> Project:
    """A project with this repository's settings and plans, and the recipe of data set `tiny`; no data."""
    shutil.copy(REPOSITORY / "params.yaml", root)
    shutil.copy(REPOSITORY / "dvc.yaml", root)
    shutil.copytree(REPOSITORY / "pipelines", root / "pipelines")
    project = Project(root)
    edit_params(project, lambda values: values["recipes"].update(tiny=TINY))
    return project


def trained_copy(template: Path, root: Path, method: str) -> Project:
    """A copy of a prepared project, with one finished run: tiny-1_4-METHOD-s0."""
    from u2pl.settings import RunSpec
    from u2pl.training.trainer import train

    shutil.copytree(template, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("U2PL_TRACKING", "none")
        train(Project(root), RunSpec("tiny", "1/4", method))
    return Project(root)


def draw_tiny(folder: Path, train: int = 16, val: int = 4) -> None:
    """Coloured shapes on noise, 64 x 64, with masks, and the description of it all."""
    names = [f"{k:02}" for k in range(train + val)]
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    y, x = np.mgrid[:64, :64]
    for k, name in enumerate(names):
        rng = np.random.default_rng(k)
        mask = np.zeros((64, 64), np.uint8)
        a, b, c, d = rng.integers(12, 52, 4)
        mask[a - 10 : a + 10, b - 10 : b + 10] = 1
        mask[(y - c) ** 2 + (x - d) ** 2 < 90] = 2
        mask[rng.integers(0, 58) :][:5] = 3
        mask[:2] = 255
        colors = np.array([[60, 60, 60], [200, 40, 40], [40, 200, 40], [40, 40, 200]])
        picture = colors[mask % 4] + rng.integers(-30, 30, (64, 64, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    (folder / "train.txt").write_text("\n".join(names[:train]) + "\n")
    (folder / "val.txt").write_text("\n".join(names[train:]) + "\n")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(DESCRIPTION))


def edit_params(project: Project, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the project's params.yaml."""
    values = yaml.safe_load(project.params.read_text())
    change(values)
    project.params.write_text(yaml.safe_dump(values))
