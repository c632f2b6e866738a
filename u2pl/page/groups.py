"""What a table compares, split by split: its runs, their curves, their classes, and the numbers of its cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from u2pl.page import dots
from u2pl.reporting import charts
from u2pl.reporting.results import Result, TableResults, split_title
from u2pl.reporting.table import CITED, TableText
from u2pl.runs.epochs import shown_epoch
from u2pl.runs.frames import evaluations

VALIDATION = "val/miou"


@dataclass(frozen=True)
class Group:
    """The runs of one split that a table compares."""

    split: str
    title: str
    """`1/8 (60 labelled)`."""
    runs: dict[str, list[Result]]
    """Label -> a result for each seed."""


def groups(filled: TableResults) -> list[Group]:
    """What a table compares, split by split."""
    return [Group(split, split_title(split, runs), runs) for split, runs in filled.series().items()]


def panels(filled: TableResults, metric: str, quantity: charts.Quantity) -> list[charts.Panel]:
    """The curves of a metric: a panel a split, a curve a label; nothing where no run has the metric."""
    found = []
    for group in groups(filled):
        curves = tuple(
            charts.curve(label, filled.labels.index(label), [_shown(run, metric, quantity) for run in runs])
            for label, runs in group.runs.items()
            if all(metric in run.history and run.history[metric].notna().any() for run in runs)
        )
        if curves:
            found.append(charts.Panel(group.title, quantity, curves))
    return charts.with_common_span(found)


def _shown(run: Result, metric: str, quantity: charts.Quantity) -> "pd.Series[float]":
    """The metric as the axis has it, by epoch as people count; what is infinite after a run went wrong is no point."""
    values = run.history[metric].replace([math.inf, -math.inf], math.nan)
    return values.rename(index=shown_epoch) * quantity.scale


class ClassIoU(NamedTuple):
    """IoU of a class in percent over the seeds."""

    mean: float
    sd: float | None
    """Standard deviation (n - 1); None for fewer than two."""


@dataclass(frozen=True)
class Classes:
    """IoU of each class; None where the class is absent."""

    title: str
    labels: list[str]
    rows: dict[str, list[ClassIoU | None]]


def classes(filled: TableResults) -> list[Classes]:
    """The classes' IoU, a grid a split."""
    return [_classes(group) for group in groups(filled)]


def _classes(group: Group) -> Classes:
    scores = {label: evaluations(run.metrics for run in runs) for label, runs in group.runs.items()}
    numbers = pd.concat(scores, names=["label"]).query("measure == 'iou'").dropna(subset="value")
    spread = numbers.groupby(["class", "label"])["value"].agg(mean="mean", sd="std")
    known = {place: ClassIoU(mean, None if math.isnan(sd) else sd) for place, mean, sd in spread.itertuples()}
    names, labels = next(iter(group.runs.values()))[0].metrics["iou"], list(group.runs)
    return Classes(
        group.title, labels, {name: [known.get((name, label)) for label in labels] for name in names}
    )


def points(filled: TableResults) -> dict[str, list[dots.Point]]:
    """Every cell with a number, ours or the paper's, under the label of its split; empty before a run has finished."""
    splits = filled.table.all_rows if filled.split_is_a_row else filled.table.all_columns
    titles = {header.label: TableText(filled).label(header) for header in splits}
    found: dict[str, list[dots.Point]] = {}
    for cell in filled.cells if filled.results else []:
        group = cell.cell.row if filled.split_is_a_row else cell.cell.column
        name = filled.label(cell) + (f" {CITED}" if cell.cell.cited else "")
        numbers = tuple(run.reported for run in cell.results)
        if numbers or cell.cell.paper is not None:
            found.setdefault(titles[group], []).append(dots.Point(name, numbers, cell.cell.paper))
    return found


def swept_setting(filled: TableResults) -> str | None:
    """The one numeric setting that the columns are values of; None where they are anything else."""
    settings = {key for header in filled.table.all_columns for key in header.set}
    values = [value for header in filled.table.all_columns for value in header.set.values()]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    one_a_column = len(settings) == 1 and len(values) == len(filled.table.all_columns)
    return settings.pop().rpartition(".")[2] if numeric and one_a_column else None


def in_every_column(filled: TableResults, cells: Sequence[dots.Point]) -> list[dots.Point]:
    """The points of one row in the order of the columns; where the row has none, one without a number."""
    known = {point.label: point for point in cells}
    labels = [header.label for header in filled.table.all_columns]
    return [known.get(label, dots.Point(label, (), None)) for label in labels]
