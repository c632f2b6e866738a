"""The report: one self-contained HTML page about everything in the active plan, and the README's figures."""

import base64
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from u2pl.files import write_text
from u2pl.planning import ActivePlan
from u2pl.project import Project, slug
from u2pl.reporting import figures
from u2pl.reporting.results import Result, TableResults, collect_all, distinct
from u2pl.reporting.table import Shown, View, signed

VALIDATION = "val/miou"
RELIABILITY = {"train/reliable/share": "reliable share", "train/reliable/accuracy": "reliable accuracy"}
"""Metric -> axis: how many unlabelled pixels get a pseudo-label, and how many of these labels are true."""


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
    return [
        Group(split, f"{split} ({next(iter(runs.values()))[0].metrics['labeled']} labelled)", runs)
        for split, runs in filled.series().items()
    ]


def panels(filled: TableResults, metric: str, axis: str) -> list[figures.Panel]:
    """The curves of a metric: a panel a split, a line a label; nothing where no run has the metric."""
    found = []
    for group in groups(filled):
        lines = [
            figures.line(label, filled.labels.index(label), [run.history[metric] for run in runs])
            for label, runs in group.runs.items()
            if all(metric in run.history for run in runs)
        ]
        if lines:
            found.append(figures.Panel(group.title, axis, lines))
    return figures.with_common_span(found)


def strips(filled: TableResults) -> list[figures.Strip]:
    """One validation image a split, another each time: input, truth, and what every run made of it."""
    found = []
    for index, group in enumerate(groups(filled)):
        first = {label: runs[0] for label, runs in group.runs.items() if runs[0].images}
        if first:
            any_run = next(iter(first.values()))
            image = any_run.images[index % len(any_run.images)]
            predictions = {label: run.sample(image, "prediction") for label, run in first.items()}
            pictures = {
                "Input": any_run.sample(image, "input"),
                "Truth": any_run.sample(image, "truth"),
                **{label: path for label, path in predictions.items() if path.is_file()},
            }
            found.append(figures.Strip(group.title, pictures))
    return found


@dataclass(frozen=True)
class Classes:
    """IoU of each class in percent, mean over seeds; None where the class is absent."""

    title: str
    labels: list[str]
    rows: dict[str, list[float | None]]


def classes(filled: TableResults) -> list[Classes]:
    """The classes' IoU, a grid a split."""
    found = []
    for group in groups(filled):
        names = list(next(iter(group.runs.values()))[0].metrics["iou"])
        rows: dict[str, list[float | None]] = {name: [] for name in names}
        for name in names:
            for runs in group.runs.values():
                values = [v for run in runs if (v := run.metrics["iou"].get(name)) is not None]
                rows[name].append(statistics.fmean(values) if values else None)
        found.append(Classes(group.title, list(group.runs), rows))
    return found


def headline(filled: TableResults) -> list[str]:
    """A sentence a split: who is best, and by how much above the first of the table."""
    sentences = []
    for group in groups(filled):
        means = {label: statistics.fmean(run.reported for run in runs) for label, runs in group.runs.items()}
        if len(means) < 2:
            continue
        best, base = max(means, key=means.__getitem__), next(iter(means))
        text = f"{group.title}: {best} is best with {means[best]:.2f} % mIoU"
        sentences.append(
            f"{text}, {signed(means[best] - means[base])} points against {base}."
            if best != base
            else f"{text}."
        )
    return sentences


def data_uri(path: Path) -> str:
    """A PNG as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes_left:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def expected(plan: ActivePlan) -> int:
    """Results that the active plan asks for, counted by table."""
    ablated = sum(len(shlex.split(stage.values)) for stage in plan.ablations.values())
    return sum(len(stage.cells) for stage in plan.evaluations.values()) + ablated


def _svgs(filled: TableResults, metric: str, axis: str) -> list[Markup]:
    """The panels of a metric as SVG elements; matplotlib has escaped the words in them."""
    return [
        Markup(figures.svg(panel, slug(f"{filled.name}-{metric}-{index}")))
        for index, panel in enumerate(panels(filled, metric, axis))
    ]


def _section(filled: TableResults) -> dict[str, Any]:
    """What the page shows of one table."""
    view = View(filled)
    grid: list[tuple[str, list[Shown]]] = [
        (view.label(row), [view.shown(row.label, column.label) for column in filled.table.parts])
        for row in filled.table.rows
    ]
    return {
        "name": filled.name,
        "title": filled.table.title,
        "caption": view.caption,
        "corner": filled.table.corner,
        "columns": [view.label(column) for column in filled.table.parts],
        "grid": grid,
        "footnotes": view.footnotes,
        "ablation": filled.table.ablate is not None,
        "legend": [(label, *figures.dashes(index)) for index, label in enumerate(filled.labels)],
        "curves": _svgs(filled, VALIDATION, "mIoU (%)"),
        "reliability": [svg for metric, axis in RELIABILITY.items() for svg in _svgs(filled, metric, axis)],
        "classes": classes(filled),
        "strips": [
            (strip.label, [(heading, data_uri(path)) for heading, path in strip.pictures.items()])
            for strip in strips(filled)
        ],
    }


def html(plan: ActivePlan, tables: Sequence[TableResults]) -> str:
    """The page; it needs nothing but itself, and renders with no finished run at all."""
    results = distinct(result for filled in tables for result in filled.results)
    environment = Environment(
        loader=PackageLoader("u2pl.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    return environment.get_template("index.html.jinja").render(
        plan=plan,
        sections=[_section(filled) for filled in tables],
        headline=[sentence for filled in tables if not filled.table.ablate for sentence in headline(filled)],
        one_seed=all(len(cell.results) < 2 for filled in tables for cell in filled.cells),
        filled=sum(len(cell.results) for filled in tables for cell in filled.cells),
        expected=expected(plan),
        seconds=sum(result.metrics["seconds"] for result in results),
        revisions=sorted({(result.metrics["revision"] or "unknown")[:10] for result in results}),
        runs=results,
    )


def write(project: Project, plan: ActivePlan) -> list[str]:
    """Write the active plan's page and figures; their paths, relative to the project."""
    tables = collect_all(project, plan)
    page, curves, sheet = (
        f"{plan.reports}/{name}" for name in ("index.html", "overview/curves.png", "overview/examples.png")
    )
    write_text(project.root / page, html(plan, tables))
    shown = [filled for filled in tables if not filled.table.ablate] or tables
    drawn = [panel for filled in shown for panel in panels(filled, VALIDATION, "mIoU (%)")]
    figures.curves_png(drawn, project.root / curves)
    figures.sheet_png([strip for filled in shown for strip in strips(filled)], project.root / sheet)
    return [page, curves, sheet]
