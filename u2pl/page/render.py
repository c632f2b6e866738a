"""The page as text: filled in from what has finished, with its style and its script inside."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from u2pl.data.description import Progress
from u2pl.page import gallery
from u2pl.page.contenders import contenders, places_of
from u2pl.page.differences import settings_of, usual_settings
from u2pl.page.folding import folded
from u2pl.page.script_facts import script_facts
from u2pl.page.sections import section
from u2pl.page.templates import environment
from u2pl.page.verdicts import summary, verdicts
from u2pl.pipeline import ActivePlan
from u2pl.reporting import examples
from u2pl.reporting.comparisons import HEADINGS
from u2pl.reporting.links import Links
from u2pl.reporting.results import TableResults, distinct
from u2pl.reporting.svg import with_prefix

Colors = Mapping[str, Sequence[tuple[str, str]]]
"""Data set -> name and colour (#rrggbb) of each class."""


class FigureFile(NamedTuple):
    """A picture of the plan, made or not."""

    title: str
    caption: str
    path: Path
    """The PNG; beside it may lie an SVG that takes its ink from the page."""


def percent(value: float | None) -> str:
    """`67.98 %`; of an imported run some numbers are not known."""
    return "not known" if value is None else f"{value:.2f} %"


def html(
    plan: ActivePlan,
    tables: Sequence[TableResults],
    figures: Sequence[FigureFile] = (),
    tracked: Links | None = None,
    colors: Colors | None = None,
    progress: Progress = lambda what, done, total: None,
) -> str:
    """The page; it needs nothing but itself, and renders with no finished run at all.

    Args:
        plan: the active plan.
        tables: of it.
        figures: pictures made elsewhere; one whose file is missing is named as missing.
        tracked: where the runs are in MLflow.
        colors: of the classes, for the legend of the gallery.
        progress: told how many tables are drawn.
    """
    results = distinct(result for filled in tables for result in filled.results)
    usual = usual_settings(results)
    settings = {result.name: settings_of(result, usual) for result in results}
    places = folded(plan, tables)
    opened = contenders(place.together for place in places)
    own = {name: {key: value for key, value, _ in each.different} for name, each in settings.items()}
    openings = places_of(opened)
    found = verdicts(place.together for place in places)
    sections = []
    for done, place in enumerate(places):
        progress("drawing tables", done, len(places))
        sections.append(section(place, openings))
    progress("drawing tables", len(places), len(places))
    shown = gallery.rows([place.together for place in places])
    pages = environment("u2pl.page")
    pages.filters["percent"] = percent
    return pages.get_template("index.html.jinja").render(
        plan=plan,
        verdicts=found,
        summary=summary(found),
        sections=sections,
        gallery=shown,
        colors={row.dataset: list((colors or {}).get(row.dataset, ())) for row in shown},
        figures=[
            (figure.title, figure.caption, _picture(figure, f"figure{index}"))
            for index, figure in enumerate(figures)
        ],
        comparison_headings=HEADINGS,
        one_seed=all(len(cell.results) < 2 for filled in tables for cell in filled.cells),
        filled=sum(len(cell.results) for filled in tables for cell in filled.cells),
        expected=plan.cell_results,
        seconds=sum(result.metrics["seconds"] for result in results),
        revisions=sorted({(result.metrics["revision"] or "unknown")[:10] for result in results}),
        usual=usual,
        runs=[(result, settings[result.name]) for result in results],
        facts=script_facts(opened, usual, own),
        tracked=tracked or Links(),
        style=_part("page.css"),
        script=_part("page.js"),
    )


def _part(name: str) -> Markup:
    """A file beside this module that is put into the page as it is."""
    return Markup((files("u2pl.page") / name).read_text("utf-8"))


def _picture(figure: FigureFile, name: str) -> Markup | None:
    """The figure as an element: an SVG whose ink is the page's, else a PNG; None where it is not made yet.

    The ids of an SVG begin with `name`.
    """
    drawn = figure.path.with_suffix(".svg")
    if drawn.is_file() and figure.path.is_file():
        return Markup(with_prefix(drawn.read_text("utf-8"), name))
    if figure.path.is_file():
        return Markup('<img src="{}" alt="{}">').format(examples.data_uri(figure.path), figure.title)
    return None
