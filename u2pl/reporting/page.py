"""The report: one self-contained HTML page about everything in the active plan, and two pictures that sum it up."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from u2pl.files import write_text
from u2pl.pipeline import ActivePlan, read_figure
from u2pl.project import Project, slug
from u2pl.reporting import charts, examples
from u2pl.reporting.comparisons import HEADINGS, comparison_rows, comparisons, note
from u2pl.reporting.durations import duration
from u2pl.reporting.headline import headlines
from u2pl.reporting.links import Links, links
from u2pl.reporting.measures import measured
from u2pl.reporting.results import Result, TableResults, distinct, split_title
from u2pl.reporting.table import CITED, TableText
from u2pl.runs.frames import evaluations
from u2pl.settings import value_text

VALIDATION = "val/miou"
EXAMPLES = 3
"""Rows of example pictures below a table, where its splits are no more."""
FigureFile = tuple[str, str, Path]
"""A finished picture of the plan: title, caption, PNG."""
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
    return [Group(split, split_title(split, runs), runs) for split, runs in filled.series().items()]


def panels(filled: TableResults, metric: str, axis: str) -> list[charts.Panel]:
    """The curves of a metric: a panel a split, a curve a label; nothing where no run has the metric."""
    found = []
    for group in groups(filled):
        curves = tuple(
            charts.curve(label, filled.labels.index(label), [run.history[metric] for run in runs])
            for label, runs in group.runs.items()
            if all(metric in run.history and run.history[metric].notna().any() for run in runs)
        )
        if curves:
            found.append(charts.Panel(group.title, axis, curves))
    return charts.with_common_span(found)


def sheet_rows(filled: TableResults) -> list[examples.SheetRow]:
    """Validation images with input, truth, and what every run made of them, EXAMPLES or one a split.

    The first images there are, another each time: nobody picked them.
    """
    found = []
    compared = groups(filled)
    each = max(1, EXAMPLES // max(1, len(compared)))
    for index, group in enumerate(compared):
        first = {label: runs[0] for label, runs in group.runs.items() if runs[0].images}
        if first:
            any_run = next(iter(first.values()))
            places = dict.fromkeys((index * each + k) % len(any_run.images) for k in range(each))
            found += [_sheet_row(group.title, any_run.images[place], first) for place in places]
    return found


def _sheet_row(title: str, image: str, runs: Mapping[str, Result]) -> examples.SheetRow:
    any_run = next(iter(runs.values()))
    predictions = {label: run.sample(image, "prediction") for label, run in runs.items()}
    pictures = {
        "Input": any_run.sample(image, "input"),
        "Truth": any_run.sample(image, "truth"),
        **{label: path for label, path in predictions.items() if path.is_file()},
    }
    return examples.SheetRow(title, pictures)


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


def points(filled: TableResults) -> dict[str, list[charts.Point]]:
    """Every cell with a number, ours or the paper's, under the label of its split; empty before a run has finished."""
    split_is_a_row = filled.table.all_rows[0].split is not None
    label = TableText(filled).label
    titles = {
        header.label: label(header)
        for header in (filled.table.all_rows if split_is_a_row else filled.table.all_columns)
    }
    found: dict[str, list[charts.Point]] = {}
    numbers = filled.means[["mean", "sd", "paper"]].astype(object).where(lambda each: each.notna(), None)
    for cell, known in zip(filled.cells, numbers.to_numpy(), strict=True) if filled.results else []:
        group, name = (
            (cell.cell.row, cell.cell.column) if split_is_a_row else (cell.cell.column, cell.cell.row)
        )
        name += f" {CITED}" if cell.cell.cited else ""
        found.setdefault(titles[group], []).append(charts.Point(name, *known))
    return {
        title: shown
        for title, cells in found.items()
        if (shown := [p for p in cells if p.mean is not None or p.paper is not None])
    }


def _spread(filled: TableResults) -> Markup | None:
    """The picture of `points`; over an axis where the columns are values of one numeric setting."""
    groups_of_points = points(filled)
    if not groups_of_points:
        return None
    name = slug(f"{filled.name}-spread")
    settings = {key for header in filled.table.all_columns for key in header.set}
    values = [value for header in filled.table.all_columns for value in header.set.values()]
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numeric and len(settings) == 1 and len(values) == len(filled.table.all_columns):
        everywhere = {title: _in_every_column(filled, cells) for title, cells in groups_of_points.items()}
        return Markup(charts.values_svg(everywhere, settings.pop().rpartition(".")[2], name))
    return Markup(charts.spread_svg(groups_of_points, name))


def _in_every_column(filled: TableResults, cells: Sequence[charts.Point]) -> list[charts.Point]:
    """The points of one row in the order of the columns; where the row has none, one without a number."""
    known = {point.label: point for point in cells}
    labels = [header.label for header in filled.table.all_columns]
    return [known.get(label, charts.Point(label, None, None, None)) for label in labels]


@dataclass(frozen=True)
class Settings:
    """What decided a run's numbers: where it differs from the others, and all of it."""

    different: list[tuple[str, str, str]]
    """Setting, value, and the value that most runs have."""
    everything: list[tuple[str, str]]


def _settings(result: Result) -> dict[str, str]:
    """Full name of a setting -> its value, in words."""
    sections = {"recipe": result.metrics["recipe"], result.method: result.metrics["hyper"]}
    return {
        f"{section}.{key}": value_text(value)
        for section, values in sections.items()
        for key, value in values.items()
    }


def usual_settings(results: Iterable[Result]) -> dict[str, str]:
    """The value that most runs have, for every setting that a run has."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        for key, value in _settings(result).items():
            counts.setdefault(key, Counter())[value] += 1
    return {key: values.most_common(1)[0][0] for key, values in counts.items()}


def settings_of(result: Result, usual: Mapping[str, str]) -> Settings:
    """The settings of a run beside the usual ones."""
    own = _settings(result)
    return Settings([(k, v, usual[k]) for k, v in own.items() if v != usual[k]], list(own.items()))


def percent(value: float | None) -> str:
    """`67.98 %`; of an imported run some numbers are not known."""
    return "not known" if value is None else f"{value:.2f} %"


def expected(plan: ActivePlan) -> int:
    """Results that the active plan asks for, counted by table."""
    return plan.cell_results


def _svgs(filled: TableResults, metric: str, axis: str) -> list[Markup]:
    """The panels of a metric as SVG elements; matplotlib has escaped the words in them."""
    return [
        Markup(charts.svg(panel, slug(f"{filled.name}-{metric}-{index}")))
        for index, panel in enumerate(panels(filled, metric, axis))
    ]


def _section(filled: TableResults) -> dict[str, Any]:
    """What the page shows of one table."""
    table_text = TableText(filled)
    grid = zip(map(table_text.label, filled.table.all_rows), table_text.cells.to_numpy(), strict=True)
    return {
        "name": filled.name,
        "title": filled.table.title,
        "caption": table_text.caption,
        "corner": filled.table.corner,
        "columns": [table_text.label(column) for column in filled.table.all_columns],
        "grid": list(grid),
        "notes": table_text.notes,
        "comparisons": [
            (part.title, comparison_rows(part), note(part.comparisons)) for part in comparisons(filled)
        ],
        "ablation": filled.table.ablate is not None,
        "spread": _spread(filled),
        "legend": [(label, *charts.dashes(index)) for index, label in enumerate(filled.labels)],
        "curves": _svgs(filled, VALIDATION, "mIoU (%)"),
        "reliability": [svg for metric, axis in RELIABILITY.items() for svg in _svgs(filled, metric, axis)],
        "classes": classes(filled),
        "measured": [measured(group.title, group.runs) for group in groups(filled)],
    }


def _examples(tables: Sequence[TableResults]) -> Iterator[list[tuple[str, list[tuple[str, str]]]]]:
    """Table by table the rows of example pictures, small; what an earlier table has shown is not repeated."""
    seen: set[tuple[str, ...]] = set()
    for filled in tables:
        found = []
        for row in sheet_rows(filled):
            pictures = [(heading, examples.thumbnail(path)) for heading, path in row.pictures.items()]
            key = tuple(address for _, address in pictures)
            if key not in seen:
                seen.add(key)
                found.append((row.label, pictures))
        yield found


def environment(package: str) -> Environment:
    """For the page templates of a package: what is shown is escaped, and what is missing is an error."""
    found = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["duration"] = duration
    return found


def html(
    plan: ActivePlan,
    tables: Sequence[TableResults],
    figures: Sequence[FigureFile] = (),
    tracked: Links | None = None,
) -> str:
    """The page; it needs nothing but itself, and renders with no finished run at all.

    Args:
        plan: the active plan.
        tables: of it.
        figures: pictures made elsewhere; one whose file is missing is named as missing.
        tracked: where the runs are in MLflow.
    """
    results = distinct(result for filled in tables for result in filled.results)
    usual = usual_settings(results)
    pages = environment("u2pl.reporting")
    pages.filters["percent"] = percent
    return pages.get_template("index.html.jinja").render(
        plan=plan,
        sections=[_section(filled) for filled in tables],
        examples=dict(zip((filled.name for filled in tables), _examples(tables), strict=True)),
        figures=[
            (title, caption, examples.data_uri(path) if path.is_file() else None)
            for title, caption, path in figures
        ],
        headline=headlines(tables),
        comparison_headings=HEADINGS,
        one_seed=all(len(cell.results) < 2 for filled in tables for cell in filled.cells),
        filled=sum(len(cell.results) for filled in tables for cell in filled.cells),
        expected=expected(plan),
        seconds=sum(result.metrics["seconds"] for result in results),
        revisions=sorted({(result.metrics["revision"] or "unknown")[:10] for result in results}),
        usual=usual,
        runs=[(result, settings_of(result, usual)) for result in results],
        tracked=tracked or Links(),
    )


def figures_of(project: Project, plan: ActivePlan) -> list[FigureFile]:
    """The plan's figures, made or not."""
    folder = project.root / plan.reports / "figures"
    described = {name: read_figure(project, name) for name in plan.figures}
    return [(figure.title, figure.caption, folder / f"{name}.png") for name, figure in described.items()]


def write(project: Project, plan: ActivePlan, tables: Sequence[TableResults]) -> list[str]:
    """Write the page of the active plan and its tables, and two pictures that sum it up; their paths in the project.

    The pictures are of the first table that compares methods.
    """
    page, curves, sheet = (
        f"{plan.reports}/{name}" for name in ("index.html", "overview/curves.png", "overview/examples.png")
    )
    tracked = links(project, distinct(result for filled in tables for result in filled.results))
    write_text(project.root / page, html(plan, tables, figures_of(project, plan), tracked))
    first = next((filled for filled in tables if not filled.table.ablate), tables[0])
    charts.curves_png(panels(first, VALIDATION, "mIoU (%)"), project.root / curves)
    examples.sheet_png(sheet_rows(first), project.root / sheet)
    return [page, curves, sheet]
