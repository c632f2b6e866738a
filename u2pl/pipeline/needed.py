"""Which runs the tables and figures of the active plan need."""

from collections.abc import Mapping
from pathlib import Path

from u2pl.errors import UserError
from u2pl.pipeline import ActivePlan, planned_names, spec_of
from u2pl.project import Project
from u2pl.runs.records import read_run
from u2pl.runs.staleness import facts
from u2pl.settings import Params, differences


def shown_in(project: Project) -> dict[str, list[str]]:
    """Name of a run -> the tables and figures of the active plan that show it; nothing where no plan was made.

    Raises:
        UserError: the active plan is damaged.
    """
    if not project.active_plan.is_file():
        return {}
    plan = ActivePlan.read(project)
    names, shown = planned_names(project, plan), dict[str, list[str]]()
    for key, places in plan.shown_in.items():
        shown.setdefault(names[key], []).extend(places)
    return shown


def is_wanted(project: Project, params: Params, plan: ActivePlan | None, folder: Path) -> bool:
    """Whether a run that lies elsewhere than in its own folder is of the settings that the active plan wants today.

    One that cannot be compared counts as wanted: nothing is deleted that may be.

    Args:
        project: whose splits are looked at.
        params: the settings of today.
        plan: the active plan; None: there is none.
        folder: of a run that was set aside.
    """
    if plan is None:
        return False
    try:
        run = read_run(folder)
        stages = [
            spec_of(plan.runs[key])
            for key, name in planned_names(project, plan).items()
            if name == run["name"]
        ]
        return any(
            not differences(run["facts"], facts(project, params, spec, run["facts"])) for spec in stages
        )
    except (OSError, UserError, LookupError, TypeError, ValueError, AttributeError):
        return True


def in_words(shown: Mapping[str, list[str]], name: str) -> str:
    """`table4 and fig2`; nothing where nothing shows the run."""
    places = list(dict.fromkeys(shown.get(name, [])))
    return " and ".join(filter(None, [", ".join(places[:-1]), *places[-1:]]))
