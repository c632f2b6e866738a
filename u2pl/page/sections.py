"""What the page shows of one table: the grid whose cells open their runs, and what lies behind it."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from u2pl.page import dots
from u2pl.page.folding import Folded
from u2pl.page.groups import VALIDATION, classes, groups, in_every_column, panels, points, swept_setting
from u2pl.project import slug
from u2pl.reporting import charts, table
from u2pl.reporting.axes import PERCENT
from u2pl.reporting.comparisons import comparison_rows, comparisons, note
from u2pl.reporting.measures import measured
from u2pl.reporting.results import TableResults
from u2pl.reporting.table import CellText, TableText

RELIABILITY = {
    "train/reliable/share": charts.Quantity("reliable pixels (%)", 100, PERCENT),
    "train/reliable/accuracy": charts.Quantity("right ones of these (%)", 100, PERCENT),
}
"""Metric -> axis: how many unlabelled pixels get a pseudo-label, and how many of these labels are true."""
FORMATS = {"Markdown": ("md", table.markdown), "CSV": ("csv", table.long_csv), "LaTeX": ("tex", table.latex)}


@dataclass(frozen=True)
class Cell:
    """A cell of the grid."""

    words: CellText
    number: float | None
    """By which its column is sorted; None without one."""
    contender: int | None
    """Its place among all that can be opened; None where nothing has finished."""
    run: str
    """Where a click leads without a script."""


@dataclass(frozen=True)
class Curves:
    """A picture of curves, and what is under the pointer."""

    svg: Markup
    readings: dict[str, Any]


def section(folded: Folded, places: Mapping[tuple[str, ...], int]) -> dict[str, Any]:
    """A table with its charts, and the grids of those that repeat its runs.

    Args:
        folded: the tables.
        places: names of a contender's runs -> its place among all.
    """
    filled = folded.together
    return {
        **_grid(folded.main, places),
        "others": [_grid(other, places) for other in folded.others],
        "comparisons": [
            (part.title, comparison_rows(part), note(part.comparisons)) for part in comparisons(filled)
        ],
        "spread": _spread(filled),
        "has_paper": any(cell.cell.paper is not None for cell in filled.cells),
        "legend": [(label, *charts.dashes(index)) for index, label in enumerate(filled.labels)],
        "curves": _curves(filled, VALIDATION, charts.MIOU),
        "reliability": [
            each for metric, quantity in RELIABILITY.items() for each in _curves(filled, metric, quantity)
        ],
        "classes": classes(filled),
        "measured": [measured(group.title, group.runs) for group in groups(filled)],
    }


def _grid(filled: TableResults, places: Mapping[tuple[str, ...], int]) -> dict[str, Any]:
    table_text = TableText(filled)
    results = {(cell.cell.row, cell.cell.column): cell.results for cell in filled.cells}
    means = filled.means.set_index(["row", "column"])["mean"]
    rows = []
    for header, words in zip(filled.table.all_rows, table_text.cells.to_numpy(), strict=True):
        cells = []
        for column, text in zip(filled.table.all_columns, words, strict=True):
            runs = results[header.label, column.label]
            number = float(means[header.label, column.label]) if runs else None
            place = places.get(tuple(run.name for run in runs))
            cells.append(Cell(text, number, place, runs[0].name if runs else ""))
        rows.append((table_text.label(header), cells))
    return {
        "name": filled.name,
        "title": filled.table.title,
        "short_title": filled.table.short_title,
        "caption": table_text.caption,
        "corner": filled.table.corner,
        "columns": [table_text.label(column) for column in filled.table.all_columns],
        "grid": rows,
        "notes": table_text.notes,
        "files": [
            (words, f"{filled.name}.{suffix}", _file(write(table_text)))
            for words, (suffix, write) in FORMATS.items()
        ],
    }


def _file(text: str) -> str:
    """A text as the address of itself, so that the page can be sent without the files beside it."""
    return f"data:text/plain;charset=utf-8;base64,{base64.b64encode(text.encode()).decode()}"


def _spread(filled: TableResults) -> Markup | None:
    """The picture of `points`; over an axis where the columns are values of one numeric setting."""
    groups_of_points = points(filled)
    if not groups_of_points:
        return None
    name = slug(f"{filled.name}-spread")
    if (setting := swept_setting(filled)) is None:
        return Markup(dots.spread_svg(groups_of_points, name))
    everywhere = {title: in_every_column(filled, cells) for title, cells in groups_of_points.items()}
    return Markup(dots.values_svg(everywhere, setting, name))


def _curves(filled: TableResults, metric: str, quantity: charts.Quantity) -> list[Curves]:
    """The panels of a metric; matplotlib has escaped the words in them."""
    return [
        Curves(Markup(charts.svg(panel, slug(f"{filled.name}-{metric}-{index}"))), charts.readings(panel))
        for index, panel in enumerate(panels(filled, metric, quantity))
    ]
