"""`u2pl status`: how far the active plan is."""

from typing import Annotated

import typer

from .terminal import console, say_json


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Show which runs of the active plan are done, running, failed, stale or waiting, and what its tables have.

    Example: u2pl status
    """
    import sys
    import time
    from contextlib import suppress
    from dataclasses import asdict

    from u2pl.pipeline.status import status
    from u2pl.project import Project

    from .plan_progress import REFRESH_SECONDS, live, rendered

    project = Project.find()
    if json:
        say_json(asdict(status(project)))
    elif not watch:
        # What reads it in place of a person wants a line a run.
        console(width=None if sys.stdout.isatty() else 200).print(rendered(status(project)))
    else:
        with suppress(KeyboardInterrupt), live(project) as refresh:
            while True:
                refresh()
                time.sleep(REFRESH_SECONDS)
