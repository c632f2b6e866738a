"""`u2pl report`: one page about the active plan."""

from .terminal import say


def report() -> None:
    """Write one self-contained page with every table, curve and example of the active plan.

    Example: u2pl report
    """
    from u2pl.pipeline import ActivePlan
    from u2pl.project import Project
    from u2pl.reporting.page import write

    project = Project.find()
    page, *figures = write(project, ActivePlan.read(project))
    say(f"Wrote {', '.join(figures)}.")
    say(f"The report: {project.root / page}. Open it in a browser.")
