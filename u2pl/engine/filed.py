"""A finished run's evaluation by its own protocol, kept in its folder: read again instead of measured again.

Knows no torch, so that a pipeline's stage that only copies results takes no time to speak of.
"""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import filelock

from u2pl import counted
from u2pl.errors import UserError, unknown
from u2pl.files import read_json, sha256_of, write_json
from u2pl.project import Project, slug
from u2pl.settings import RECIPE_VERSION


def run_path(project: Project, name: str) -> Path:
    """The folder of a run that exists, by its name or its path."""
    path = project.runs / name
    if not (path / "run.json").is_file():
        path = Path(name)
    if not (path / "run.json").is_file():
        known = [p.parent.name for p in project.runs.glob("*/run.json")]
        raise (
            unknown("run", name, known)
            if known
            else UserError("There is no run yet. Train one: u2pl train --dataset shapes --split 1/8")
        )
    return path


def own_folder(path: Path) -> Path:
    """Where the run in `path` keeps its evaluation by its own protocol."""
    return path / "evaluations" / slug(read_json(path / "run.json")["recipe"]["evaluation"])


def stamp(project: Project, path: Path) -> dict[str, Any]:
    """What an evaluation of the run in `path` depends on: its weights, its split as it is now, and our code."""
    run = read_json(path / "run.json")
    manifest = project.split(run["dataset"], run["split"]) / "manifest.json"
    return {
        "weights": sha256_of(path / "weights.pt"),
        "manifest": sha256_of(manifest),
        "recipe_version": RECIPE_VERSION,
    }


def lock(path: Path) -> filelock.FileLock:
    """Held by whoever reads or writes the kept evaluation of the run in `path`, since many stages want it at once."""
    # One for all of this process, which may take it again while it has it.
    return filelock.FileLock(path / "evaluations.lock", is_singleton=True)


def own_evaluation(
    project: Project, path: Path, measure: Callable[[], dict[str, Any]], into: Path | None = None
) -> dict[str, Any]:
    """The metrics of a finished run by its own protocol, as kept or measured now.

    Args:
        project: where the run is.
        path: its folder.
        measure: measures and keeps them.
        into: folder that receives a folder of the run's name with all of it.
    """
    with lock(path):
        metrics = find(project, path) or measure()
        if into is not None:
            publish(path, into)
    return metrics


def sign(project: Project, path: Path) -> None:
    """Say what the evaluation that was just written to `own_folder` is true of."""
    write_json(own_folder(path) / "stamp.json", stamp(project, path))


def find(project: Project, path: Path) -> dict[str, Any] | None:
    """The metrics of the run in `path` by its own protocol; None where they have to be measured."""
    folder = own_folder(path)
    try:
        if read_json(folder / "stamp.json") == stamp(project, path):
            return read_json(folder / "metrics.json")
    except (OSError, UserError):
        pass  # not evaluated, not finished, or cut short
    return None


def publish(path: Path, into: Path) -> None:
    """Copy the evaluation of the run in `path` to a folder of the run's name in `into`, with history.csv."""
    target = into / read_json(path / "run.json")["name"]
    # The stamp is for the run's folder alone, and pictures of the worst images are there if somebody asked for them.
    replace(target, own_folder(path), without=("stamp.json", "worst"))
    shutil.copy(path / "history.csv", target)


def replace(target: Path, source: Path, without: Collection[str] = ()) -> None:
    """Make the folder `target` a copy of the folder `source`, but for some names."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*without))


def result_in_words(metrics: dict[str, Any]) -> str:
    """A run's mIoU, and what it is of: the last epoch or the best one, and which of them the paper's number is."""
    miou, checkpoint = metrics["miou"], metrics["protocol"]["checkpoint"]
    number, after = f"mIoU {miou['reported']:.2f} %", ""
    if over := counted.over_fewer(metrics):
        number += f" {over}"
        after = f" Left out: {counted.named(metrics)}, in no scored pixel and in no prediction."
    if "best" not in miou:
        return (
            f"{number} of the {checkpoint} epoch, by another protocol than the run's own: no number of the tables."
            + after
        )
    if miou["best"] is None:
        return f"{number} of the {checkpoint} network; nothing is known of other epochs.{after}"
    return (
        f"{number} (last {miou['last']:.2f} %, best {miou['best']:.2f} % in epoch "
        f"{miou['best_epoch']}). Reported is the {checkpoint} epoch; the paper's released numbers on VOC are of the "
        f"best epoch on val (D31 in docs/fidelity.md).{after}"
    )
