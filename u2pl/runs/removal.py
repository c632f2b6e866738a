"""Runs that somebody removed: kept whole in runs/.removed until their space is wanted, and brought back by name.

A folder is renamed there and back in one step, so that a run is in one place or the other, whenever the process is
killed. Runs that are set aside for others of their name (`set_aside`) go elsewhere: those return by themselves.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from u2pl.errors import UserError, unknown
from u2pl.files import free, holder_in_words
from u2pl.project import Project

_DYING = ".deleting"
"""What a folder is called while it is deleted: nothing that is half gone passes for a run."""


def store(project: Project) -> Path:
    """Where removed runs lie: NAME/1, NAME/2 and so on, the newest last."""
    return project.runs / ".removed"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a run's folder, as whoever trains the run does.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    lock = filelock.FileLock(folder / "lock")
    try:
        lock.acquire(timeout=1)  # whoever asks whether it is held holds it for an instant
    except filelock.Timeout:
        raise UserError(
            f"{folder.name} is being trained right now{holder_in_words(folder)}. Wait for it, or stop it first: "
            "Ctrl-C where it runs saves its state."
        ) from None
    except OSError as error:
        raise UserError(f"Cannot write {folder}: {error.strerror}. Make the folder writable.") from None
    try:
        yield
    finally:
        lock.release()


def remove(project: Project, folder: Path) -> Path:
    """Move a run's folder, which lies in runs/, out of the way; where to.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    with held(folder):
        place = store(project) / folder.name
        place.mkdir(parents=True, exist_ok=True)
        target = place / str(max(_numbers(place), default=0) + 1)
        folder.rename(target)
        for stays in ("lock", "holder"):  # they belong to the place, and not to the run
            (target / stays).unlink(missing_ok=True)
    return target


def restore(project: Project, name: str) -> Path:
    """Bring back the run of this name that was removed last; its folder.

    Raises:
        UserError: none of this name was removed, or there is one of this name now.
    """
    removed = removed_runs(project)
    if name not in removed:
        raise (
            unknown("removed run", name, removed)
            if removed
            else UserError("There is no removed run to bring back.")
        )
    folder = project.runs / name
    if os.path.lexists(folder):
        raise UserError(
            f"There is another {name} now. Move {folder} out of {project.runs} first, then start the same command "
            "again."
        )
    removed[name][-1].rename(folder)
    _drop_empty(project)
    return folder


def removed_runs(project: Project) -> dict[str, list[Path]]:
    """Name -> the folders of the removed runs that had it, the newest last."""
    if not store(project).is_dir():
        return {}
    found = {place.name: _numbers(place) for place in sorted(store(project).iterdir()) if place.is_dir()}
    return {
        name: [store(project) / name / str(number) for number in sorted(numbers)]
        for name, numbers in found.items()
        if numbers and not name.startswith(".")
    }


def half_deleted(project: Project) -> list[Path]:
    """What a deletion that was cut off has left."""
    return sorted(project.runs.glob(f".removed/{_DYING}-*"))


def delete(project: Project, folder: Path) -> None:
    """Delete a folder for good; one that is cut off leaves nothing that could pass for a run.

    Args:
        project: whose runs/ it lies in.
        folder: of a run that was removed or set aside, or of one that is held.
    """
    dying = folder
    if not folder.name.startswith(_DYING):
        store(project).mkdir(exist_ok=True)
        dying = free(store(project) / f"{_DYING}-{folder.name}")
        folder.rename(dying)
    if dying.is_symlink():
        dying.unlink()  # what it leads to need not be ours
    else:
        shutil.rmtree(dying)
    _drop_empty(project)


def _numbers(place: Path) -> list[int]:
    return [int(path.name) for path in place.iterdir() if path.name.isdecimal()]


def _drop_empty(project: Project) -> None:
    for place in (*store(project).iterdir(), store(project)):
        if place.is_dir() and not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()
