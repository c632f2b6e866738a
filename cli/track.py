"""`u2pl track`: the MLflow store, a mirror of the run folders."""

import shlex
from typing import Annotated

import typer

from .terminal import say

app = typer.Typer(help="Copy run folders into the MLflow store.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `sync` a word of its own: with a single command, Typer would drop it."""


@app.command()
def sync(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]...", help="Names of runs; without any, all runs and all ablations."),
    ] = None,
) -> None:
    """Bring the tracking store up to date with the run folders; doing it twice changes nothing.

    Example: u2pl track sync
    """
    from u2pl.errors import UserError
    from u2pl.project import Project
    from u2pl.tracking.addresses import hidden
    from u2pl.tracking.mirror import sync

    summary = sync(Project.find(), runs=runs or None)
    address = hidden(summary.uri, summary.uri)
    say(f"Mirrored into {address}: runs {summary.runs}, ablations {summary.ablations}.")
    if summary.problems:
        raise UserError(
            " ".join(summary.problems) + " Mend or remove what is named, then run: u2pl track sync"
        )
    if address.startswith(("http:", "https:")):
        say(f"Look at them in a browser: {address}")
    else:
        say(f"Look at them with: mlflow ui --backend-store-uri {shlex.quote(address)}")
