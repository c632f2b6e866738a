"""A run that has come to its end, known by its fingerprint and returned at once: without torch and its seconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from u2pl.data.prepared import open_split
from u2pl.errors import UserError
from u2pl.project import Project
from u2pl.runs.folder import RunFolder
from u2pl.runs.records import is_complete, read_metrics
from u2pl.settings import ResolvedRun, hyper, load
from u2pl.training.description import description
from u2pl.training.stopping import stop_signals


def looks_finished(project: Project, described: Mapping[str, Any]) -> bool:
    """Whether the folder of the run described has its result; certain only while the folder is held."""
    path = project.runs / described["name"]
    try:
        return read_metrics(path)["fingerprint"] == described["fingerprint"] and is_complete(path)
    except (OSError, UserError):
        return False


def take_finished(project: Project, resolved: ResolvedRun, *, fresh: bool) -> Path | None:
    """The folder of the run, claimed and put in order as `trainer.train` does, if it has finished; else None.

    For a process that is alone. What a run is refused for before it begins depends on nothing but what the fingerprint
    is of, so it is not asked again.

    Args:
        project: where the run is.
        resolved: the run.
        fresh: as for `trainer.train`.

    Raises:
        UserError: bad settings or data, a folder held by another process or with the result of another run.
    """
    if not is_complete(project.runs / resolved.name):
        return None  # of most runs that are to be trained no more has to be read
    spec = resolved.spec
    cls = hyper.find(spec.method)
    if cls is None:
        return None
    split = open_split(project, spec.dataset, spec.split)
    described = description(resolved, split, load(cls, resolved.hyper, spec.method))
    if not looks_finished(project, described):
        return None
    with stop_signals():
        folder = RunFolder.claim(project, resolved.name, {**described, "parent": None}, fresh=fresh)
        try:
            if not folder.is_finished():  # another process was faster
                return None
            folder.sweep(finished=True)
        finally:
            folder.release()
    return folder.path
