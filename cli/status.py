"""`u2pl status`: how far the active plan is, or one run."""

from typing import Annotated

import typer

from . import completion
from .terminal import console, say_json


def status(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run, of the plan or not: shown alone, with all that was set for it.",
            autocompletion=completion.run_names,
            show_default="all of the active plan",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show which runs of the active plan are done, running, failed, stale or waiting, and what its tables have.

    Of one run it shows all that is set otherwise than in params.yaml, for which its name may have no room.

    Example: u2pl status shapes-1_8-u2pl-s0
    """
    import sys
    import time
    from contextlib import suppress
    from dataclasses import asdict

    from u2pl.pipeline.status import one, status
    from u2pl.project import Project

    from .plan_progress import REFRESH_SECONDS, live, rendered, rendered_one

    project = Project.find()
    found = one(project, run) if run is not None else None
    if json:
        say_json(asdict(found or status(project)))
    elif not watch:
        # What reads it in place of a person wants a line a run.
        width = None if sys.stdout and sys.stdout.isatty() else 200  # it may have been closed
        console(width=width).print(rendered_one(found) if found else rendered(status(project)))
    else:
        with suppress(KeyboardInterrupt), live(project, name=run) as refresh:
            while True:
                refresh()
                time.sleep(REFRESH_SECONDS)
