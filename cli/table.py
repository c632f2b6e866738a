"""`u2pl table`: one table of the active plan."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import completion
from . import run_options as options
from .terminal import next_step, say, say_json

if TYPE_CHECKING:
    from u2pl.reporting.results import CellResults


def table(
    name: Annotated[
        str,
        typer.Argument(
            help="A table of the active plan, by name or number: table1, 1.", autocompletion=completion.tables
        ),
    ],
    json: options.Json = False,
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
    filled = collect(project, active, name)
    paths = write(project, active.reports, filled)
    if json:
        say_json(
            {
                "table": filled.name,
                "files": list(paths),
                "cells": [
                    _cell(*each) for each in zip(filled.cells, filled.means.to_dict("records"), strict=True)
                ],
            }
        )
        return
    say((project.root / paths[0]).read_text(encoding="utf-8"))
    say(f"Wrote {', '.join(paths)}.")
    next_step("u2pl", "report")


def _cell(cell: "CellResults", words: dict[Any, Any]) -> dict[str, Any]:
    """One cell as plain values."""
    return {
        "row": cell.cell.row,
        "column": cell.cell.column,
        **{
            name: None if words[name] != words[name] else words[name] for name in ("mean", "sd")
        },  # NaN is no JSON
        "runs": [
            {"run": r.metrics["name"], "seed": r.metrics["seed"], "miou": r.reported} for r in cell.results
        ],
        "planned": cell.planned,
        "paper": cell.cell.paper,
    }
