"""Learning curves, and our numbers beside the paper's, drawn by matplotlib without a screen."""

import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pandas as pd
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from u2pl.escaping import one_line
from u2pl.runs.frames import in_common

rcParams["text.parse_math"] = False  # a label may hold a dollar sign

INK = "#123456"
"""Stands for the text colour of the page in an SVG; replaced by `currentColor`, so that dark mode works."""

STYLES: list[tuple[str, str | tuple[int, tuple[float, ...]]]] = [
    ("#7f7f7f", (0, (1, 1.2))),
    ("#009e73", (0, (4, 1.5))),
    ("#3a86c8", (0, (5, 1.5, 1, 1.5))),
    ("#d55e00", "solid"),
    ("#cc79a7", (0, (7, 1.5))),
    ("#e69f00", (0, (3, 1, 1, 1, 1, 1))),
]
"""Colour and dashes of line k: dashes tell lines apart for who does not see colours, and on paper."""


@dataclass(frozen=True)
class Curve:
    """One curve: a mean over seeds, and the lowest and highest of them."""

    label: str
    style: int
    """Index into STYLES, the same for a method in every panel."""
    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


def dashes(style: int) -> tuple[str, str]:
    """Colour and SVG dash pattern of line `style`, for a legend outside the figure."""
    colour, pattern = STYLES[style % len(STYLES)]
    return colour, "" if isinstance(pattern, str) else " ".join(f"{2 * length:g}" for length in pattern[1])


def curve(label: str, style: int, seeds: Sequence["pd.Series[float]"]) -> Curve:
    """The curve of several seeds, each a value by epoch, over the epochs that all of them have."""
    values = in_common(seeds)
    epochs = tuple(values.index.tolist())
    mean, low, high = (
        tuple(each.tolist()) for each in (values.mean(axis=1), values.min(axis=1), values.max(axis=1))
    )
    return Curve(label, style, epochs, mean, low, high)


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    ylabel: str
    curves: tuple[Curve, ...]
    span: tuple[float, float] | None = None
    """Lowest and highest value of the axis, where panels are to be compared."""


def with_common_span(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with one vertical axis, wide enough for all of them."""
    values = [v for panel in panels for each in panel.curves for v in (*each.low, *each.high)]
    if not values:
        return list(panels)
    margin = 0.05 * ((max(values) - min(values)) or 1.0)
    return [replace(panel, span=(min(values) - margin, max(values) + margin)) for panel in panels]


def draw(axes: Axes, panel: Panel, ink: str) -> None:
    """Draw a panel, with text and frame in colour `ink`."""
    for each in panel.curves:
        colour, pattern = STYLES[each.style % len(STYLES)]
        marker = "o" if len(each.epochs) == 1 else ""  # a line through one point is invisible
        axes.plot(
            each.epochs,
            each.mean,
            color=colour,
            linestyle=pattern,
            linewidth=1.8,
            marker=marker,
            label=each.label,
        )
        if each.low != each.high:
            axes.fill_between(each.epochs, each.low, each.high, color=colour, alpha=0.15, linewidth=0)
    if panel.span:
        axes.set_ylim(panel.span)
    axes.set_title(panel.title, color=ink, fontsize=10, y=1)  # found by itself, the place takes long
    axes.set_xlabel("epoch", color=ink)
    axes.set_ylabel(panel.ylabel, color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=ink, labelsize=8)
    axes.grid(color=ink, alpha=0.15, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)


SIZE = (4.2, 2.9)
"""Of a picture in the page, inches."""
REMEMBERED = 512
"""Pictures kept: a plan shows many of its runs in several tables."""


def svg(panel: Panel, name: str) -> str:
    """The panel as an `<svg>` element for a page; `name` keeps its ids apart from those of other panels.

    The same panel always gives the same text.
    """
    # What tells equal panels apart, the words of the legend, stands outside the picture.
    unnamed = replace(panel, curves=tuple(replace(each, label="") for each in panel.curves))
    return _with_prefix(_panel(unnamed), name)


@lru_cache(REMEMBERED)
def _panel(panel: Panel) -> str:
    figure = Figure(figsize=SIZE)
    axes = _axes(figure, left=0.72, right=0.06, top=0.3, bottom=0.48)
    draw(axes, panel, INK)
    axes.yaxis.set_label_coords(-0.5 / 3.42, 0.5)
    axes.xaxis.set_label_coords(0.5, -0.27 / 2.12)
    return _element(figure, f"{panel.title}: {panel.ylabel} by epoch")


def _axes(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with these margins in inches: fitted to their words they would take twice as long to draw."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )


def _width(texts: Iterable[str], size: float) -> float:
    """Of the longest of the texts, inches."""
    font = FontProperties(family="DejaVu Sans", size=size)
    widths = (text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts)
    return max(widths, default=0.0) / 72


def _with_prefix(drawn: str, name: str) -> str:
    """The element with all its ids begun by `name`, so that a page may hold it twice."""
    return re.sub(r'(\bid="|href="#|url\(#)', lambda found: f"{found[0]}{name}-", drawn)


def _element(figure: Figure, description: str) -> str:
    """A figure as an `<svg>` element whose size and text colour come from the page."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "u2pl", "font.sans-serif": ["DejaVu Sans"]}):
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = _small(text)
    spoken = f' role="img" aria-label={quoteattr(one_line(description))}'
    return re.sub(r' width="[^"]*" height="[^"]*"', lambda _: spoken, text, count=1)


def _small(text: str) -> str:
    """The same picture in half the characters: a tenth of a point is finer than a screen, and few ids are used."""

    def path(found: re.Match[str]) -> str:
        rounded = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), found[0])
        return re.sub(r"\s+", " ", re.sub(r"\s*\b([MLHVCQz])\b\s*", r"\1", rounded))

    def two_decimals(number: re.Match[str]) -> str:
        return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' d="[^"]*"', path, text)
    # Between the tags stand numbers to be read.
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"\d+\.\d{3,}", two_decimals, tag[0]), text)
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", text)
    return re.sub(r"\s*\n\s*", "\n", text)


@dataclass(frozen=True)
class Point:
    """A cell of a table: ours, its standard deviation over seeds, and the paper's number; None where there is none."""

    label: str
    mean: float | None
    sd: float | None
    paper: float | None


def _ours(style: int) -> dict[str, Any]:
    colour, _ = STYLES[style % len(STYLES)]
    return {"color": colour, "marker": "o", "markersize": 5, "elinewidth": 1.8, "capsize": 3, "capthick": 1.4}


def _papers(colour: str) -> dict[str, Any]:
    return {"marker": "D", "markersize": 5, "markerfacecolor": "none", "markeredgecolor": colour}


def _frame(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def spread_svg(groups: Mapping[str, Sequence[Point]], name: str) -> str:
    """Ours with its spread over seeds, beside the paper's number: a line a cell, under the title of its group."""
    return _with_prefix(_spread(_hashable(groups)), name)


Groups = tuple[tuple[str, tuple[Point, ...]], ...]


def _hashable(groups: Mapping[str, Sequence[Point]]) -> Groups:
    return tuple((title, tuple(points)) for title, points in groups.items())


@lru_cache(REMEMBERED)
def _spread(groups: Groups) -> str:
    lines = sum(1 + len(points) for _, points in groups)
    figure = Figure(figsize=(SIZE[0], 0.2 * lines + 0.75))
    words = [point.label for _, points in groups for point in points]
    axes = _axes(figure, left=_width(words, 8) + 0.12, right=0.1, top=0.05, bottom=0.7)
    position, placed = 0, {}
    for title, points in groups:
        heading = blended_transform_factory(axes.transAxes, axes.transData)
        axes.text(0.01, position, title, color=INK, fontsize=8, va="center", weight="bold", transform=heading)
        for point in points:
            position += 1
            placed[position] = point
        position += 1
    ours = [(p.mean, y, math.nan if p.sd is None else p.sd) for y, p in placed.items() if p.mean is not None]
    papers = {place: point.paper for place, point in placed.items() if point.paper is not None}
    if ours:
        means, places, spreads = zip(*ours, strict=True)
        bars = None if all(map(math.isnan, spreads)) else spreads
        axes.errorbar(means, places, xerr=bars, label="ours", linestyle="none", **_ours(2))
    if papers:
        axes.plot(
            list(papers.values()), list(papers), linestyle="none", label="paper", zorder=3, **_papers(INK)
        )
    axes.set_ylim(position - 0.4, -0.6)
    axes.set_yticks(list(placed), [point.label for point in placed.values()])
    axes.set_xlabel("mIoU (%)", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    _frame(axes)
    _legend(figure, axes)
    return _element(figure, f"Ours and the paper's mIoU, {', '.join(title for title, _ in groups)}")


def values_svg(groups: Mapping[str, Sequence[Point]], axis: str, name: str) -> str:
    """The same where a group's cells are the values of one setting: a line a group over the values."""
    return _with_prefix(_values(_hashable(groups), axis), name)


@lru_cache(REMEMBERED)
def _values(groups: Groups, axis: str) -> str:
    figure = Figure(figsize=SIZE)
    marks = sum(
        any(number is not None for number in numbers)
        for _, points in groups
        for numbers in ([point.mean for point in points], [point.paper for point in points])
    )
    axes = _axes(figure, left=0.55, right=0.1, top=0.08, bottom=0.45 + 0.19 * -(-marks // 2))
    labels = [point.label for point in groups[0][1]]
    shift = 0.12 if len(groups) > 1 else 0.0
    for style, (title, points) in enumerate(groups, start=2):
        colour, pattern = STYLES[style % len(STYLES)]
        places = [place + shift * (style - 2 - (len(groups) - 1) / 2) for place in range(len(points))]
        papers = [math.nan if point.paper is None else point.paper for point in points]
        means = [math.nan if point.mean is None else point.mean for point in points]
        spreads = [point.sd or 0.0 for point in points]
        if not all(map(math.isnan, means)):
            bars = spreads if any(spreads) else None
            label = f"{title}, ours"
            axes.errorbar(
                places, means, yerr=bars, label=label, linestyle=pattern, linewidth=1.8, **_ours(style)
            )
        if not all(map(math.isnan, papers)):
            axes.plot(
                places,
                papers,
                label=f"{title}, paper",
                color=colour,
                alpha=0.9,
                linewidth=0.8,
                **_papers(colour),
            )
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(axis, color=INK, fontsize=9)
    axes.set_ylabel("mIoU (%)", color=INK, fontsize=9)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    _frame(axes)
    _legend(figure, axes)
    return _element(figure, f"mIoU by {axis}, {', '.join(title for title, _ in groups)}")


def _legend(figure: Figure, axes: Axes) -> None:
    """What the marks of the axes mean, below them."""
    handles, labels = axes.get_legend_handles_labels()
    marks = dict(sorted(zip(labels, handles, strict=True), key=lambda mark: mark[0]))
    columns = 2 if len(marks) > 1 else 1
    figure.legend(
        marks.values(), marks.keys(), loc="lower center", ncols=columns, frameon=False, fontsize=8,
        labelcolor=INK, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip


def curves_png(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels side by side, with one legend, as a PNG on white."""
    columns = max(1, min(3, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows + 0.3), layout="constrained", dpi=150)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, panel in zip(grid.flat, panels, strict=False):
        draw(axes, panel, "#222222")
    handles = {label: h for a in grid.flat for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False
        )
    else:
        grid[0, 0].text(0.5, 0.5, "No run has finished yet.", ha="center")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG that holds no time and no version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", facecolor="white", metadata={"Software": None})
