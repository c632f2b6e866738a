"""Runs of other settings that had a run's name: set aside whole, never deleted, and taken back with their settings.

A run is in two places while it is moved, and the one with run.json is its own. So run.json leaves last and comes back
first: a move that was cut off left the run's folder with run.json and the rest beside it, and `mend` brings that back.
"""

import shutil
from pathlib import Path

from u2pl.errors import UserError
from u2pl.files import free
from u2pl.runs.records import Run, is_complete, read_run

_STAY = ("lock", "holder")
"""What belongs to the place, and not to the run that lies there."""


def put(folder: Path, store: Path, run: Run) -> Path:
    """Move the run out of its folder into `store`, beside whatever lies there; where to."""
    target = free(_folder(store, folder, run["fingerprint"]))
    target.mkdir(parents=True)
    for item in sorted(folder.iterdir(), key=lambda item: item.name == "run.json"):
        _move(item, target)
    return target


def take_back(folder: Path, store: Path, fingerprint: str) -> bool:
    """Move the run of these settings back into its folder, which is empty; whether there was one.

    Of several, one that has finished.
    """
    found = [path for path in _stored(store, folder, fingerprint) if _holds(path, fingerprint)]
    if not found:
        return False
    chosen = max(found, key=is_complete)
    for item in sorted(chosen.iterdir(), key=lambda item: item.name != "run.json"):
        _move(item, folder)
    _remove(chosen)
    return True


def mend(folder: Path, store: Path, run: Run) -> None:
    """Bring back what a move of the run that was cut off has left in `store`."""
    for rest in _stored(store, folder, run["fingerprint"]):
        if (rest / "run.json").exists():
            continue
        for item in rest.iterdir():
            if not (folder / item.name).exists():
                _move(item, folder)
        _remove(rest)


def _remove(path: Path) -> None:
    """Remove the folder of a run that has left it. A folder copied by hand may still hold what belongs to a place."""
    left = list(path.iterdir())
    if all(item.name in _STAY and item.is_file() for item in left):
        for item in left:
            item.unlink()
        path.rmdir()


def _folder(store: Path, folder: Path, fingerprint: str) -> Path:
    return store / f"{folder.name}-{fingerprint}"


def _stored(store: Path, folder: Path, fingerprint: str) -> list[Path]:
    """Everything that was set aside of a run; there is more than one where it was trained again before it came back."""
    first = _folder(store, folder, fingerprint)
    if not store.is_dir():
        return []
    return sorted(p for p in store.iterdir() if p == first or p.name.startswith(f"{first.name}."))


def _holds(path: Path, fingerprint: str) -> bool:
    try:
        return read_run(path)["fingerprint"] == fingerprint
    except (OSError, UserError):
        return False


def _move(item: Path, target: Path) -> None:
    if item.name not in _STAY:
        shutil.move(item, free(target / item.name))
