"""Learning curves, and our numbers beside the paper's, drawn by matplotlib without a screen."""

import io
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import MaxNLocator

from u2pl.reporting.axes import Span, miou_span
from u2pl.reporting.svg import for_page, with_prefix
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
    """The curve of several seeds, each a value by epoch as people count, over the epochs that all of them have."""
    values = in_common(seeds)
    epochs = tuple(values.index.tolist())
    mean, low, high = (
        tuple(each.tolist()) for each in (values.mean(axis=1), values.min(axis=1), values.max(axis=1))
    )
    return Curve(label, style, epochs, mean, low, high)


@dataclass(frozen=True)
class Quantity:
    """What an axis shows."""

    words: str
    """`mIoU (%)`."""
    scale: float = 1.0
    """What recorded values are multiplied by."""
    span: Span | None = None
    """The whole axis, where it does not follow the values."""


MIOU = Quantity("mIoU (%)")


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes."""

    title: str
    quantity: Quantity
    curves: tuple[Curve, ...]
    common: Span | None = None
    """The vertical axis of several panels that are to be compared."""

    @property
    def across(self) -> Span:
        """First and last epoch, with a margin."""
        epochs = [epoch for each in self.curves for epoch in each.epochs] or [1]
        margin = 0.03 * ((max(epochs) - min(epochs)) or 1)
        return min(epochs) - margin, max(epochs) + margin

    @property
    def up(self) -> Span:
        """Lowest and highest value of the axis: wide enough that noise does not look like a result."""
        return self.quantity.span or self.common or miou_span(extremes(self.curves))


def extremes(curves: Iterable[Curve]) -> list[float]:
    """The lowest and highest values of curves, by which their axis is chosen."""
    return [value for each in curves for value in (*each.low, *each.high)]


def with_common_span(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with one vertical axis, wide enough for all of them."""
    span = miou_span(extremes(each for panel in panels for each in panel.curves))
    return [replace(panel, common=span) for panel in panels]


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
    axes.set_xlim(panel.across)
    axes.set_ylim(panel.up)
    axes.set_title(panel.title, color=ink, fontsize=10, y=1)  # found by itself, the place takes long
    axes.set_xlabel("epoch", color=ink)
    axes.set_ylabel(panel.quantity.words, color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(colors=ink, labelsize=8)
    axes.grid(color=ink, alpha=0.15, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(ink)


SIZE = (4.2, 2.9)
"""Of a picture in the page, inches."""
MARGINS = {"left": 0.72, "right": 0.06, "top": 0.3, "bottom": 0.48}
"""Of the axes of a panel in it, inches."""
REMEMBERED = 512
"""Pictures kept: a plan shows many of its runs in several tables."""


def svg(panel: Panel, name: str) -> str:
    """The panel as an `<svg>` element for a page; `name` keeps its ids apart from those of other panels.

    The same panel always gives the same text.
    """
    # What tells equal panels apart, the words of the legend, stands outside the picture.
    unnamed = replace(panel, curves=tuple(replace(each, label="") for each in panel.curves))
    return with_prefix(_panel(unnamed), name)


def readings(panel: Panel) -> dict[str, Any]:
    """What a page needs to say the values under the pointer: where the axes lie in `svg`, and what is drawn there."""
    width, height = SIZE
    box = (
        MARGINS["left"] / width,
        MARGINS["top"] / height,
        1 - (MARGINS["left"] + MARGINS["right"]) / width,
        1 - (MARGINS["top"] + MARGINS["bottom"]) / height,
    )
    return {
        "box": [round(share, 4) for share in box],
        "across": panel.across,
        "curves": [_reading(each) for each in panel.curves],
    }


def _reading(each: Curve) -> dict[str, Any]:
    """A curve in plain values; without lowest and highest where there is one seed."""
    shown = ("mean", "low", "high") if each.low != each.high else ("mean",)
    values = {name: [round(value, 2) for value in getattr(each, name)] for name in shown}
    return {"label": each.label, "epochs": each.epochs, **values}


@lru_cache(REMEMBERED)
def _panel(panel: Panel) -> str:
    figure = Figure(figsize=SIZE)
    axes = axes_in(figure, **MARGINS)
    draw(axes, panel, INK)
    axes.yaxis.set_label_coords(-0.5 / 3.42, 0.5)
    axes.xaxis.set_label_coords(0.5, -0.27 / 2.12)
    return element(figure, f"{panel.title}: {panel.quantity.words} by epoch")


def axes_in(figure: Figure, *, left: float, right: float, top: float, bottom: float) -> Axes:
    """Axes with these margins in inches: fitted to their words they would take twice as long to draw."""
    width, height = figure.get_size_inches()
    return figure.add_axes(
        (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    )


def width_of(texts: Iterable[str], size: float) -> float:
    """Of the longest of the texts, inches."""
    font = FontProperties(family="DejaVu Sans", size=size)
    with _any_letters():
        widths = [text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts]
    return max(widths, default=0.0) / 72


def shortened(text: str, size: float, room: float) -> str:
    """The text, or its beginning and an ellipsis, where it is wider than `room` inches."""
    if width_of([text], size) <= room:
        return text
    return next(
        (short for end in range(len(text) - 1, 0, -1) if width_of([short := f"{text[:end]}…"], size) <= room),
        "…",
    )


@contextmanager
def _any_letters() -> Iterator[None]:
    """Letters that the font lacks are measured as boxes; the browser has them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def element(figure: Figure, description: str) -> str:
    """A figure as an `<svg>` element whose size and text colour come from the page."""
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "u2pl", "font.sans-serif": ["DejaVu Sans"]}):
        out = io.StringIO()
        with _any_letters():
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return for_page(out.getvalue(), ink=INK, name="k", description=description, digits=1)


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
