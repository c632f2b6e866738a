"""The losses of the first twenty steps of every method; `python tests/golden/losses.py` writes them anew.

A change that is to move no number leaves losses.json as it is. One that is meant to move them writes it anew, raises
`RECIPE_VERSION`, and says so in the changelog.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

os.environ["OMP_NUM_THREADS"] = "1"  # another number of threads adds in another order
if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from tiny import edit_params, make_project
from u2pl_cli.app import run

from u2pl import methods
from u2pl.data.catalog import shapes
from u2pl.data.pictures import write_png
from u2pl.project import Project

FILE = Path(__file__).with_name("losses.json")
STEPS = 20
DATASET = "few-shapes"
BATCH = 4
SETTINGS = {
    "epochs": STEPS,  # of a step each
    "validate_every": STEPS,
    "precision": "float32",  # on every processor
    "batch": BATCH,
    "crop": 32,
    "width": 16,
    "representation": 16,
    "lr": 0.0001,  # so small that what processors round differently does not grow
}
"""What departs from the recipe of `shapes`, so that a method takes seconds."""

OF_METHOD = {
    "ael": {"threshold": 0.0},
    "gct": {"detector_lr": 1e-8},
    "u2pl": {"delta_p": 0.0},
    "u2pl-ael": {"threshold": 0.0, "delta_p": 0.0},
}
"""A network that has hardly learned is sure of no pixel, and a loss would stay 0. Adam makes whole steps of gradients
that are rounding alone."""

Losses = dict[str, list[float]]
"""Term -> value in each step; 0 in steps that do not have it."""


def prepare(root: Path) -> Project:
    """A project with pictures of `shapes`, half of them labelled, as many as a batch takes."""
    project = make_project(root)
    edit_params(project, lambda values: values["recipes"].update({DATASET: values["recipes"]["shapes"]}))
    folder = root / "pictures"
    names = [f"{index:02}" for index in range(2 * BATCH + 2)]
    for index, name in enumerate(names):
        picture, mask = shapes.draw_one(index)
        write_png(folder / "images" / f"{name}.png", picture)
        write_png(folder / "masks" / f"{name}.png", mask)
    for part, listed in (("train", names[:-2]), ("val", names[-2:])):
        (folder / f"{part}.txt").write_text("".join(f"{name}\n" for name in listed))
    description = {"name": DATASET, "classes": shapes.CLASSES, "background": True}
    text = yaml.safe_dump(description | {"images": "images", "masks": "masks"})
    (folder / "description.yaml").write_text(text)
    command(project, "prepare", "--dataset", str(folder / "description.yaml"), "--split", "1/2")
    return project


def command(project: Project, *words: str) -> None:
    """`u2pl` with these words in that project, which must succeed."""
    said = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"U2PL_ROOT": str(project.root), "U2PL_TRACKING": "none"}),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        status = run(list(words))
    assert status == 0, said.getvalue()


def first_losses(project: Project, method: str, **changed: object) -> Losses:
    """Train a method, and read what it wrote."""
    before = set(project.runs.glob("*/events.jsonl"))
    settings = {**SETTINGS, **OF_METHOD.get(method, {}), **changed}
    sets = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    command(project, "train", "--dataset", DATASET, "--split", "1/2", "--method", method, *sets)
    (log,) = set(project.runs.glob("*/events.jsonl")) - before
    epochs = [event for event in map(json.loads, log.read_text().splitlines()) if event["event"] == "epoch"]
    assert [event["step"] for event in epochs] == list(range(1, STEPS + 1))
    start = "train/loss/"
    terms = {name for event in epochs for name in event["metrics"] if name.startswith(start)}
    return {
        term.removeprefix(start): [event["metrics"].get(term, 0.0) for event in epochs]
        for term in sorted(terms)
    }


def everything(names: Iterable[str]) -> dict[str, Losses]:
    """Of these methods."""
    with TemporaryDirectory() as folder:
        project = prepare(Path(folder))
        return {name: first_losses(project, name) for name in names}


if __name__ == "__main__":
    lines = [
        f'  "{name}": {{\n'
        + ",\n".join(
            f'    "{term}": {json.dumps([float(f"{v:.7g}") for v in values])}'
            for term, values in losses.items()
        )
        + "\n  }"
        for name, losses in everything(methods.names()).items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"Written: {FILE}")
