"""`u2pl track`: the MLflow store, a mirror of the run folders."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import say

if TYPE_CHECKING:
    from u2pl.project import Project

app = typer.Typer(help="Copy run folders into the MLflow store.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `sync` a word of its own: with a single command, Typer would drop it."""


@app.command()
def sync(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Names of runs; without any, all runs, ablations and reports."
        ),
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Then make the run of highest mIoU a version of the registered model NAME, with the alias `best`: of "
            "the runs named, or of the active plan's, or, where none of those has finished, of all.",
        ),
    ] = None,
) -> None:
    """Bring the tracking store up to date with the run folders; doing it twice changes nothing.

    The network of a finished run is logged as a model, once; with U2PL_TRACKING=no-models it is not.

    Example: u2pl track sync --register shapes
    """
    from u2pl.errors import UserError
    from u2pl.project import Project
    from u2pl.tracking.addresses import hidden
    from u2pl.tracking.mirror import register_best, sync

    project = Project.find()
    summary = sync(project, runs=runs or None)
    address = hidden(summary.uri, summary.uri)
    say(f"Mirrored into {address}: runs {summary.runs}, ablations {summary.ablations}.")
    for note in summary.notes:
        say(f"Note: {note}", err=True)
    if summary.problems:
        raise UserError(
            " ".join(summary.problems) + " Mend or remove what is named, then run: u2pl track sync"
        )
    if register is not None:
        best = register_best(project, register, runs or _candidates(project))
        say(
            f"Registered: {best.run} ({best.miou:.2f} % mIoU) is models:/{register}@best, version {best.version}."
        )
    if address.startswith(("http:", "https:")):
        say(f"Look at them in a browser: {address}")
    else:
        say(f"Look at them with: mlflow ui --backend-store-uri {shlex.quote(address)}")


def _candidates(project: "Project") -> list[str]:
    """The finished runs of the active plan; where it has none, all runs there are."""
    from u2pl.pipeline import ActivePlan, planned_names

    planned = planned_names(project, ActivePlan.read(project)) if project.active_plan.is_file() else {}
    finished = [
        run for run in dict.fromkeys(planned.values()) if (project.runs / run / "metrics.json").is_file()
    ]
    return finished or sorted(path.parent.name for path in project.runs.glob("*/run.json"))
