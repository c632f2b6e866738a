"""`u2pl report`: one page about the active plan."""

from . import run_options as options
from .progress import counting
from .terminal import say, say_json


def report(json: options.Json = False) -> None:
    """Write one self-contained page with every table, curve and example of the active plan.

    Example: u2pl report
    """
    from u2pl.page.write import write
    from u2pl.pipeline import ActivePlan
    from u2pl.project import Project
    from u2pl.reporting.headline import headlines
    from u2pl.reporting.results import collect_all
    from u2pl.tracking.sidecar import sync_report

    project = Project.find()
    active = ActivePlan.read(project)
    tables = collect_all(project, active)
    with counting() as progress:
        page, *figures = write(project, active, tables, progress)
    if json:
        say_json({"report": str(project.root / page), "pictures": figures, "headlines": headlines(tables)})
        return
    for sentence in headlines(tables):
        say(sentence)
    say(f"Wrote {', '.join(figures)}.")
    if warning := sync_report(project, project.root / page):
        say(f"Warning: {warning}", err=True)
    say(f"The report: {project.root / page}. Open it in a browser.")
