"""What of runs/ costs disk and could go: found, measured, and deleted where somebody says so.

Nothing that a table or figure of the active plan needs is ever among it, nothing that is being trained, and no run that
somebody gave a tag or a note.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from u2pl.errors import UserError
from u2pl.files import is_held
from u2pl.pipeline.needed import is_wanted, planned_specs, shown_in
from u2pl.project import Project
from u2pl.runs import removal
from u2pl.runs.disk import checkpoints, size
from u2pl.runs.folder import RunFolder
from u2pl.runs.labels import read_labels
from u2pl.runs.records import read_run
from u2pl.settings import Params


class Asked(StrEnum):
    """What has to be said so that something is deleted."""

    NOTHING = ""
    """Nothing but that it is to be done: no run is lost."""
    UNFINISHED = "--unfinished"
    FINISHED = "--finished"


@dataclass(frozen=True)
class Item:
    """Something that could go."""

    run: str
    what: str
    asked: Asked
    bytes: int
    folder: Path


@dataclass(frozen=True)
class Garbage:
    """What could go, and what all of runs/ takes."""

    items: list[Item]
    bytes: int
    needed: int
    """Bytes of the runs that the active plan's tables and figures need."""

    def chosen(self, *, unfinished: bool, finished: bool) -> list[Item]:
        """The items that go, given what is said."""
        said = {Asked.NOTHING}
        said |= {Asked.UNFINISHED} if unfinished else set()
        said |= {Asked.FINISHED} if finished else set()
        return [item for item in self.items if item.asked in said]


def find(project: Project) -> Garbage:
    """Look through runs/; deletes nothing.

    Raises:
        UserError: the active plan or params.yaml is damaged, so that it is not known what is needed.
    """
    shown = shown_in(project)
    items = [*_removed(project), *_set_aside(project), *_runs(project, set(shown))]
    needed = sum(size(project.runs / name) for name in shown)
    return Garbage(items, size(project.runs), needed)


def _removed(project: Project) -> Iterator[Item]:
    for folder in removal.half_deleted(project):
        yield Item("", "left by a deletion that was cut off", Asked.NOTHING, size(folder), folder)
    for name, folders in removal.removed_runs(project).items():
        for folder in folders:
            yield Item(name, "removed by u2pl runs rm", Asked.NOTHING, size(folder), folder)


def _set_aside(project: Project) -> Iterator[Item]:
    """Runs of other settings, but for one that the plan's settings of today would take back."""
    store = project.runs / ".old"
    if not store.is_dir():
        return
    params, specs = Params.read(project), planned_specs(project)
    for folder in sorted(store.iterdir()):
        name = _name(folder)
        if name is not None and not is_wanted(project, params, specs, folder) and not _is_labelled(folder):
            yield _run(name, folder, "set aside: of other settings")


def _runs(project: Project, needed: set[str]) -> Iterator[Item]:
    for folder in sorted(project.runs.iterdir()) if project.runs.is_dir() else ():
        name = None if folder.name.startswith(".") else _name(folder)
        if name is None or is_held(folder / "lock"):
            continue
        if _has_ended(folder) and (found := checkpoints(folder)):
            total = sum(map(size, found))
            yield Item(folder.name, "checkpoints of a finished run", Asked.NOTHING, total, folder)
        if not {name, folder.name} & needed and not _is_labelled(folder):
            yield _run(folder.name, folder, "in no table or figure")


def _run(name: str, folder: Path, why: str) -> Item:
    word, asked = ("finished", Asked.FINISHED) if _has_result(folder) else ("unfinished", Asked.UNFINISHED)
    return Item(name, f"{word}, {why}", asked, size(folder), folder)


def _has_ended(folder: Path) -> bool:
    """Whether the run has come to its end, so that nobody goes on with it."""
    try:
        return RunFolder(folder).is_finished()
    except (OSError, UserError):
        return False


def _has_result(folder: Path) -> bool:
    """Whether something of a finished run is there, be it damaged."""
    return any((folder / name).exists() for name in ("metrics.json", "weights.pt"))


def _name(folder: Path) -> str | None:
    """Whose folder it is; None where nobody can tell: what is no run stays where it is."""
    try:
        return read_run(folder)["name"]
    except (OSError, UserError):
        return None


def _is_labelled(folder: Path) -> bool:
    try:
        return any(read_labels(folder).values())
    except UserError:
        return True


def delete(project: Project, item: Item) -> None:
    """Delete an item that `find` found.

    Raises:
        UserError: somebody has begun to train the run since, or has finished it.
    """
    if item.folder.parent != project.runs:
        removal.delete(project, item.folder)
        return
    with removal.held(item.folder):
        if item.asked is Asked.NOTHING:
            if _has_ended(item.folder):
                RunFolder(item.folder).sweep(finished=True)
        elif _has_result(item.folder) and item.asked is not Asked.FINISHED:
            raise UserError(f"{item.run} has come to its end meanwhile, and stays. Look again: u2pl runs gc")
        else:
            removal.delete(project, item.folder)
