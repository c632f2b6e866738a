"""Learning curves and contact sheets, drawn by matplotlib without a screen."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

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

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Line:
    """One curve: a mean over seeds, and the lowest and highest of them."""

    label: str
    style: int
    """Index into STYLES, the same for a method in every panel."""
    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def dashes(style: int) -> tuple[str, str]:
    """Colour and SVG dash pattern of line `style`, for a legend outside the figure."""
    colour, pattern = STYLES[style % len(STYLES)]
    return colour, "" if isinstance(pattern, str) else " ".join(f"{2 * length:g}" for length in pattern[1])


def line(label: str, style: int, seeds: Sequence[Points]) -> Line:
    """The curve of several seeds, over the epochs that all of them have."""
    values = [dict(points) for points in seeds]
    epochs = sorted(set.intersection(*(set(v) for v in values))) if values else []
    columns = np.array([[v[epoch] for epoch in epochs] for v in values], dtype=float).reshape(len(values), -1)
    low, high = (columns.min(0), columns.max(0)) if values else (np.empty(0), np.empty(0))
    mean = columns.mean(0) if values else np.empty(0)
    return Line(label, style, epochs, mean.tolist(), low.tolist(), high.tolist())


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    ylabel: str
    lines: list[Line]
    span: tuple[float, float] | None = None
    """Lowest and highest value of the axis, where panels are to be compared."""


def with_common_span(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with one vertical axis, wide enough for all of them."""
    values = [v for panel in panels for curve in panel.lines for v in (*curve.low, *curve.high)]
    if not values:
        return list(panels)
    margin = 0.05 * ((max(values) - min(values)) or 1.0)
    return [replace(panel, span=(min(values) - margin, max(values) + margin)) for panel in panels]


def draw(axes: Axes, panel: Panel, ink: str) -> None:
    """Draw a panel, with text and frame in colour `ink`."""
    for curve in panel.lines:
        colour, pattern = STYLES[curve.style % len(STYLES)]
        marker = "o" if len(curve.epochs) == 1 else ""  # a line through one point is invisible
        axes.plot(
            curve.epochs,
            curve.mean,
            color=colour,
            linestyle=pattern,
            linewidth=1.8,
            marker=marker,
            label=curve.label,
        )
        if curve.low != curve.high:
            axes.fill_between(curve.epochs, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    if panel.span:
        axes.set_ylim(panel.span)
    axes.set_title(panel.title, color=ink, fontsize=10)
    axes.set_xlabel("epoch", color=ink)
    axes.set_ylabel(panel.ylabel, color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=ink, labelsize=8)
    axes.grid(color=ink, alpha=0.15, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)


def svg(panel: Panel, name: str) -> str:
    """The panel as an `<svg>` element for a page; `name` keeps its ids apart from those of other panels.

    The same panel always gives the same text.
    """
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure = Figure(figsize=(4.2, 2.9), layout="constrained")
        draw(figure.subplots(), panel, INK)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    # Size comes from the page: the view box keeps the proportions.
    return re.sub(r' width="[^"]*" height="[^"]*"', ' role="img"', text, count=1)


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


@dataclass(frozen=True)
class Strip:
    """One row of a contact sheet: a label, and pictures by column heading."""

    label: str
    pictures: dict[str, Path]


def picture(path: Path) -> np.ndarray:
    """The colour picture in `path`, uint8 (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def sheet_png(strips: Sequence[Strip], path: Path) -> None:
    """Write a contact sheet: a row a strip, a column a heading, empty where a strip lacks a picture."""
    headings = list(dict.fromkeys(heading for strip in strips for heading in strip.pictures))
    shapes = [picture(next(iter(strip.pictures.values()))).shape for strip in strips]
    # Row heights in proportion to the pictures, so that wide street scenes leave no gaps.
    heights = [height / width for height, width, _ in shapes] or [0.5]
    figure = Figure(
        figsize=(1.5 * max(2, len(headings)) + 0.3, 1.5 * sum(heights) + 0.4), layout="constrained", dpi=150
    )
    grid = figure.subplots(
        len(heights), max(1, len(headings)), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    for row, strip in enumerate(strips):
        grid[row, 0].set_ylabel(strip.label, fontsize=9)
        for column, heading in enumerate(headings):
            if row == 0:
                grid[row, column].set_title(heading, fontsize=9)
            if heading in strip.pictures:
                grid[row, column].imshow(picture(strip.pictures[heading]), interpolation="nearest")
    if not strips:
        grid[0, 0].text(0.5, 0.5, "No run has finished yet.", ha="center")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG that holds no time and no version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", facecolor="white", metadata={"Software": None})
