"""Keeps what a version leaves on a disk, for later ones to read: python tests/release/keep.py, once a release.

kept/VERSION.tar.xz is a project with a data set, a split and a finished run, as the command line makes them. The
weights are set to zero, so that 40 MB take a few kilobytes. kept/VERSION.json has the names that are promised.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from command_lines import every_command
from tiny import TINY, draw_tiny, edit_params

import u2pl
from u2pl.project import Project
from u2pl.settings import Recipe, hyper

KEPT = Path(__file__).parent / "kept"
TRAIN = "train --dataset tiny --split 1/4 --method u2pl"
RUN = "tiny-1_4-u2pl-s0"


SPEAKING = (
    *("runs", f"runs show {RUN}", f"status {RUN}", f"evaluate {RUN}", f"models runs/{RUN}", "splits audit"),
    *(f"predict {RUN} pictures/images --out masks", f"export {RUN} --out out", TRAIN),
)
"""Commands whose JSON is read by programs of others, and that the kept project can answer."""


def names(answers: dict[str, Any]) -> dict[str, Any]:
    """The names that a version promises: commands with their options, settings, and keys of what is said as JSON.

    Args:
        answers: command line -> what it has said.
    """
    return {
        "commands": {" ".join(words): _options(command) for words, command in every_command()},
        "recipe": sorted(Recipe.model_fields),
        "methods": {
            name: sorted(found.model_fields) for name in sorted(hyper.names()) if (found := hyper.find(name))
        },
        "json": {words: keys(answer) for words, answer in answers.items()},
    }


def keys(value: Any) -> Any:
    """The keys in JSON, nested as they are; of a list those of its first."""
    if isinstance(value, dict):
        return {key: keys(value[key]) for key in sorted(value)}
    return [keys(value[0])] if isinstance(value, list) and value else None


def _options(command: Any) -> list[str]:
    """Options as they are typed, and the names of arguments."""
    names = (p.opts if p.param_type_name == "option" else [str(p.name)] for p in command.params)
    return sorted(name for some in names for name in some)


def u2pl_here(words: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a command of the version that is here, without MLflow."""
    environment = {**os.environ, "U2PL_TRACKING": "none", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "u2pl_cli", *words.split()]
    return subprocess.run(command, cwd=cwd, env=environment, check=True, **options)


def make(root: Path) -> None:
    """Make the project, with the version of u2pl that is here."""
    u2pl_here(f"init {root}", root.parent)
    edit_params(Project(root), lambda values: values["recipes"].update(tiny=TINY))
    draw_tiny(root / "pictures")
    u2pl_here("prepare --dataset pictures/tiny.yaml --split 1/4", root)
    u2pl_here(TRAIN, root)
    folder = root / "runs" / RUN
    saved = torch.load(folder / "weights.pt")
    for tensor in saved["state"].values():
        tensor.zero_()
    torch.save(saved, folder / "weights.pt")
    (folder / f"{RUN}.u2pl").unlink()
    u2pl_here(TRAIN, root)  # a finished run; its model file is written again
    (folder / "best.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        tarfile.open(KEPT / f"{u2pl.__version__}.tar.xz", "x:xz") as archive,
    ):
        project = Path(folder) / "project"
        make(project)
        for name in sorted(path.name for path in project.iterdir() if path.name != ".git"):
            archive.add(project / name, name)
        answers = {
            words: json.loads(u2pl_here(f"{words} --json", project, stdout=subprocess.PIPE).stdout)
            for words in SPEAKING
        }
        written = KEPT / f"{u2pl.__version__}.json"
        written.write_text(json.dumps(names(answers), indent=1, sort_keys=True) + "\n")
