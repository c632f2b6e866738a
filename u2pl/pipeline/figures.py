"""Figures as written in pipelines/figures/: which runs each shows, and where the paper has it."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from u2pl.errors import check_known
from u2pl.project import Project
from u2pl.settings import Settings

from .files import read_named


class FigureRun(Settings):
    """One of the runs that a figure shows."""

    label: str
    method: str
    set: dict[str, Any] = Field(default_factory=dict)
    """Setting -> value, as after `--set`."""


class Figure(Settings):
    """A figure, as pipelines/figures/NAME.yaml describes it; `u2pl figure NAME` draws it."""

    title: str
    caption: str
    dataset: str
    """The paper's data set."""
    split: str
    """The paper's split."""
    runs: list[FigureRun] = Field(min_length=1)


class FigureBinding(Settings):
    """How a plan uses a figure."""

    dataset: str | None = None
    """Where the plan names none: another data set than the figure's own."""
    split: str | None = None
    """Another split than the figure's own."""
    images: int | None = Field(default=None, ge=1)
    """How many images to look at; None: all that the figure is about."""
    runs: list[str] = Field(default_factory=list)
    """Labels of the runs wanted. Empty: all."""


def shown_runs(figure: Figure, wanted: Sequence[str]) -> list[FigureRun]:
    """The runs of a figure that a plan wants, in the figure's order; all where it names none.

    Raises:
        UsageError: the figure has no such run.
    """
    check_known(f"run of {figure.title!r}", wanted, [run.label for run in figure.runs])
    return [run for run in figure.runs if not wanted or run.label in wanted]


def read_figure(project: Project, name: str) -> Figure:
    """The figure pipelines/figures/NAME.yaml."""
    return read_named(Figure, project, "figure", name)
