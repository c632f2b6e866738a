"""A finished run's evaluation by its own protocol, stored in its folder: read again instead of measured again.

Knows no torch, so that a pipeline's stage that only copies results takes no time to speak of.
"""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import filelock

from u2pl.errors import UsageError, UserError, unknown
from u2pl.files import read_json, sha256_of, write_atomically, write_json
from u2pl.project import Project, slug
from u2pl.runs import scored_classes
from u2pl.runs.epochs import shown_epoch
from u2pl.runs.records import KINDS, Metrics, read_metrics, read_run
from u2pl.settings import RECIPE_VERSION


def run_path(project: Project, name: str) -> Path:
    """The folder of a run that exists, by its name or its path: of the project's own, as it lies in runs/."""
    path = project.runs / name
    if not os.path.lexists(path / "run.json"):  # of a name that no folder could have it says no
        path = Path(name)
    if not os.path.lexists(path / "run.json"):
        known = [p.parent.name for p in project.runs.glob("*/run.json")]
        raise (
            unknown("run", name, known)
            if known
            else UserError("There is no run yet. Train one: u2pl train --dataset shapes --split 1/8")
        )
    return project.runs / path.name if path.parent.resolve() == project.runs.resolve() else path


def own_folder(path: Path) -> Path:
    """Where the run in `path` has its stored evaluation by its own protocol."""
    return path / "evaluations" / slug(read_run(path)["recipe"]["evaluation"])


def stamp(project: Project, path: Path) -> dict[str, Any]:
    """What an evaluation of the run in `path` depends on: its weights, its split as it is now, and our code."""
    run = read_run(path)
    manifest = project.split(run["dataset"], run["split"]) / "manifest.json"
    return {
        "weights": sha256_of(path / "weights.pt"),
        "manifest": sha256_of(manifest),
        "recipe_version": RECIPE_VERSION,
    }


def lock(path: Path) -> filelock.FileLock:
    """Held by whoever reads or writes the stored evaluation of the run in `path`, since many stages want it at once."""
    # One for all of this process, which may take it again while it has it.
    return filelock.FileLock(path / "evaluations.lock", is_singleton=True)


def own_evaluation(
    project: Project, path: Path, measure: Callable[[], Metrics], target: Path | None = None
) -> Metrics:
    """The metrics of a finished run by its own protocol, as stored or measured now.

    Args:
        project: where the run is.
        path: its folder.
        measure: measures and stores them.
        target: folder that receives all of it; see `publish`.

    Raises:
        UsageError: that folder is somebody else's.
    """
    if target is not None:
        check_results_folder(project, path, target)
    with lock(path):
        # An earlier version wrote fewer files.
        is_whole = target is None or all((own_folder(path) / name).is_file() for name in SCORES)
        metrics = (load(project, path) if is_whole else None) or measure()
        if target is not None:
            publish(project, path, target)
    return metrics


def write_stamp(project: Project, path: Path) -> None:
    """Say what the evaluation that was just written to `own_folder` is true of."""
    write_json(own_folder(path) / "stamp.json", stamp(project, path))


def load(project: Project, path: Path) -> Metrics | None:
    """The stored metrics of the run in `path`; None where they have to be measured."""
    folder = own_folder(path)
    try:
        if read_json(folder / "stamp.json") == stamp(project, path):
            return read_metrics(folder)
    except (OSError, UserError):
        pass  # not evaluated, not finished, or cut short
    return None


SCORES = ("metrics.json", "iou.csv", "confusion.csv", "shares.csv")
"""Files of an evaluation, beside the pictures in samples/."""


def check_results_folder(project: Project, path: Path, target: Path) -> None:
    """See to it that `publish` may write to `target`.

    Raises:
        UsageError: runs lie there, or there is something in it that `publish` would replace and did not write.
    """
    real, runs, source = target.resolve(), project.runs.resolve(), path.resolve()
    if real.is_relative_to(runs) or real.is_relative_to(source) or source.is_relative_to(real):
        raise UsageError(
            f"{target} is a place for runs, whose files results would replace. "
            "Name another folder with --into, such as results."
        )
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file. Name another folder with --into.")
    written = [name for name in (*SCORES, "history.csv", "samples", "run.json") if (target / name).exists()]
    if written and not _is_a_result(target):
        raise UsageError(
            f"{target} holds {written[0]}, and is no result that u2pl evaluate wrote. "
            "Name another folder with --into, or move that one elsewhere."
        )


def _is_a_result(folder: Path) -> bool:
    """Whether `publish` wrote to a folder, which may hold other files too. A run's folder looks like it, but for its
    run.json.
    """
    try:
        read_metrics(folder)
    except (OSError, UserError):
        return False
    return not (folder / "run.json").exists()


def publish(project: Project, path: Path, target: Path) -> None:
    """Copy the evaluation of the run in `path` to `target`, with history.csv and scores.json, DVC's metrics.

    What else lies in that folder stays.

    Raises:
        UsageError: the folder is somebody else's.
    """
    check_results_folder(project, path, target)
    source = own_folder(path)
    # metrics.json first: it says whose folder it is, if the rest is cut off.
    for file in (*(source / name for name in SCORES), path / "history.csv"):
        write_atomically(target / file.name, partial(shutil.copyfile, file))
    miou = read_metrics(source)["miou"]
    write_json(target / "scores.json", {"miou": miou["reported"], "last": miou["last"], "best": miou["best"]})
    copy_pictures(source / "samples", target / "samples")


def copy_pictures(source: Path, target: Path) -> None:
    """Make the pictures of validation images in `target` those in `source`."""
    clear_pictures(target)
    for picture in _pictures(source):
        shutil.copyfile(picture, target / picture.name)


def clear_pictures(folder: Path) -> None:
    """Make a folder without pictures of validation images; what else lies in it stays.

    Raises:
        UserError: it is a link, and what it leads to need not be ours.
    """
    if folder.is_symlink():
        raise UserError(
            f"{folder} is a link, and u2pl replaces pictures in a folder of its own. Remove the link."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for picture in _pictures(folder):
        picture.unlink()


def _pictures(folder: Path) -> list[Path]:
    return [picture for kind in KINDS for picture in sorted(folder.glob(f"*.{kind}.png"))]


def result_in_words(metrics: Metrics) -> str:
    """A run's mIoU, and what it is of: the last epoch or the best one, and which of them the paper's number is."""
    miou, checkpoint = metrics["miou"], metrics["protocol"]["checkpoint"]
    number, after = f"mIoU {miou['reported']:.2f} %", ""
    if over := scored_classes.counted_classes(metrics):
        number += f" {over}"
        after = (
            f" Left out: {scored_classes.names_left_out(metrics)}, in no scored pixel and in no prediction."
        )
    if "best" not in miou:
        return (
            f"{number} of the {checkpoint} epoch, by another protocol than the run's own: no number of the tables."
            + after
        )
    if miou["best"] is None:
        return f"{number} of the {checkpoint} network; nothing is known of other epochs.{after}"
    return (
        f"{number} (last {miou['last']:.2f} %, best {miou['best']:.2f} % in epoch "
        f"{shown_epoch(int(miou.get('best_epoch') or 0))}). Reported is the {checkpoint} epoch; the paper's released "
        f"numbers on VOC are of the best epoch on val (D31 in docs/fidelity.md).{after}"
    )
