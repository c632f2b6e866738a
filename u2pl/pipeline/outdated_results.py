"""Results of other settings than today's: moved aside, so that no table shows them as the plan's."""

import shutil
from pathlib import Path

from u2pl.errors import UserError
from u2pl.files import free
from u2pl.pipeline import ActivePlan, spec_of
from u2pl.pipeline.dvc_lock import locked, outputs
from u2pl.pipeline.scheduling import Stage, plan_folder
from u2pl.project import RESULTS, Project
from u2pl.runs.records import read_metrics
from u2pl.runs.staleness import changes
from u2pl.settings import Params


def move_outdated(project: Project, plan: ActivePlan, stage: Stage) -> bool:
    """Move the results of a blocked stage to `outdated_folder` if they are of other settings; whether it did.

    A table would show their numbers as if they were the plan's. A result is asked what it was made with (see
    `staleness.changes`, which says what is taken on trust); whether its model is there says nothing, since models and
    runs may have been cleaned away. A comparison or figure goes with a result that it was made from.

    What was made from a result that is gone for another reason stays, as when the evaluation itself failed; so does a
    result that cannot be read. What lies in `outdated_folder` under the same name stays beside it.
    """
    kind, _, key = stage.name.partition("@")
    moved: list[Path] = []
    if kind == "evaluate" and _is_outdated(project, plan, key):
        moved = [_result_folder(key)]
    elif kind in ("ablate", "figure") and any(_was_moved(project, need) for need in stage.needs):
        made = outputs(project, locked(project, stage.name) or {})
        moved = [path.relative_to(project.root) for path, _ in made if path.exists()]
    for path in moved:
        _move_aside(project, path)
    return bool(moved)


def outdated_folder(project: Project) -> Path:
    """Where results of other settings are moved, under the path that they had in the project."""
    return plan_folder(project) / "outdated"


def _result_folder(key: str) -> Path:
    """The result of an evaluation, relative to the project."""
    return Path(RESULTS) / key


def _is_outdated(project: Project, plan: ActivePlan, key: str) -> bool:
    """Whether an evaluation's result is there, and of other settings than today's."""
    try:
        metrics = read_metrics(project.root / _result_folder(key))
        spec = spec_of(plan.runs[key])
        return bool(changes(project, Params.read(project), spec, metrics))
    except (OSError, UserError, LookupError, TypeError, AttributeError):
        return False  # none, or not to be told: the table says so of one that is damaged


def _was_moved(project: Project, evaluation: str) -> bool:
    """Whether the result of a stage has been moved aside and not been made again."""
    folder = _result_folder(evaluation.partition("@")[2])
    return (outdated_folder(project) / folder).exists() and not (project.root / folder).exists()


def _move_aside(project: Project, path: Path) -> None:
    """Move a file or folder, given relative to the project."""
    target = free(outdated_folder(project) / path)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(project.root / path, target)
