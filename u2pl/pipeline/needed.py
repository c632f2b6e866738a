"""Which runs the tables and figures of the active plan need."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from u2pl.errors import UserError
from u2pl.escaping import listed
from u2pl.pipeline import ActivePlan, places, planned_names, spec_of
from u2pl.project import Project
from u2pl.runs.records import read_run
from u2pl.runs.staleness import facts
from u2pl.settings import Params, RunSpec, differences


def shown_in(project: Project) -> dict[str, list[str]]:
    """Name of a run -> the tables and figures of the active plan that show it; nothing where no plan was made.

    Raises:
        UserError: the active plan is damaged.
    """
    if not project.active_plan.is_file():
        return {}
    plan = ActivePlan.read(project)
    return places(plan, planned_names(project, plan))


def planned_specs(project: Project) -> dict[str, list[RunSpec]]:
    """Name of a run -> what the active plan wants it to be, by each key it has there; nothing where no plan was made.

    Raises:
        UserError: the active plan is damaged.
    """
    found: dict[str, list[RunSpec]] = {}
    if project.active_plan.is_file():
        plan = ActivePlan.read(project)
        for key, name in planned_names(project, plan).items():
            found.setdefault(name, []).append(spec_of(plan.runs[key]))
    return found


def is_wanted(project: Project, params: Params, specs: Mapping[str, Sequence[RunSpec]], folder: Path) -> bool:
    """Whether a run that lies elsewhere than in its own folder is of the settings that the active plan wants today.

    One that cannot be compared counts as wanted: nothing is deleted that may be.

    Args:
        project: whose splits are looked at.
        params: the settings of today.
        specs: the `planned_specs`.
        folder: of a run that was set aside.
    """
    if not specs:
        return False
    try:
        run = read_run(folder)
        return any(
            not differences(run["facts"], facts(project, params, spec, run["facts"]))
            for spec in specs.get(run["name"], ())
        )
    except (OSError, UserError, LookupError, TypeError, ValueError, AttributeError):
        return True


def in_words(shown: Mapping[str, list[str]], name: str) -> str:
    """`table4 and fig2`; nothing where nothing shows the run."""
    return listed(list(dict.fromkeys(shown.get(name, []))))
