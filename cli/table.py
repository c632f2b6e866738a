"""`u2pl table`: one table of the active plan."""

from typing import Annotated

import typer

from .terminal import say


def table(
    name: Annotated[str, typer.Argument(help="A table of the active plan, by name or number: table1, 1.")],
) -> None:
    """Write one table in Markdown, CSV and LaTeX from the results there are, and print it.

    Example: u2pl table table1
    """
    from u2pl.pipeline import ActivePlan
    from u2pl.project import Project
    from u2pl.reporting.results import collect
    from u2pl.reporting.table import write

    project = Project.find()
    active = ActivePlan.read(project)
    paths = write(project, active.reports, collect(project, active, name))
    say((project.root / paths[0]).read_text(encoding="utf-8"))
    say(f"Wrote {', '.join(paths)}. Next: u2pl report")
