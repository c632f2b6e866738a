"""Writes the page of the active plan, and two pictures that sum it up."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from u2pl.data.description import Progress
from u2pl.data.prepared import description_of
from u2pl.errors import UserError
from u2pl.files import write_text
from u2pl.page import gallery
from u2pl.page.groups import VALIDATION, panels
from u2pl.page.render import Colors, FigureFile, html
from u2pl.pipeline import ActivePlan, read_figure
from u2pl.project import Project
from u2pl.reporting import charts, examples
from u2pl.reporting.links import links
from u2pl.reporting.results import TableResults, distinct


def write(
    project: Project,
    plan: ActivePlan,
    tables: Sequence[TableResults],
    progress: Progress = lambda what, done, total: None,
) -> list[str]:
    """Write the page of the active plan and its tables, and two pictures that sum it up; their paths in the project.

    The pictures are of the first table that compares methods. `progress` is told how many tables are drawn.
    """
    page, curves, sheet = (
        f"{plan.reports}/{name}" for name in ("index.html", "overview/curves.png", "overview/examples.png")
    )
    results = distinct(result for filled in tables for result in filled.results)
    tracked, colors = links(project, results), colors_of(project, {each.table.dataset for each in tables})
    text = html(plan, tables, figures_of(project, plan), tracked, colors, progress)
    write_text(project.root / page, text)
    first = next((filled for filled in tables if not filled.table.ablate), tables[0])
    charts.curves_png(panels(first, VALIDATION, charts.MIOU), project.root / curves)
    examples.sheet_png(list(gallery.sheet_rows(first)), project.root / sheet)
    return [page, curves, sheet]


def figures_of(project: Project, plan: ActivePlan) -> list[FigureFile]:
    """The plan's figures, made or not."""
    folder = project.root / plan.reports / "figures"
    described = {name: read_figure(project, name) for name in plan.figures}
    return [
        FigureFile(figure.title, figure.caption, folder / f"{name}.png") for name, figure in described.items()
    ]


def colors_of(project: Project, datasets: Iterable[str]) -> Colors:
    """The colours of the classes of those data sets that are known here."""
    found = {}
    for dataset in sorted(datasets):
        with suppress(UserError):  # its runs may have come from another machine
            description = description_of(project, dataset)
            pairs = zip(description.classes, description.colors, strict=True)
            found[dataset] = [(name, "#" + bytes(color).hex()) for name, color in pairs]
    return found
