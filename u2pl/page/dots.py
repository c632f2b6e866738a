"""Our numbers beside the paper's, and what methods gain: a small dot a seed, a large one for their mean."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory

from u2pl.reporting.axes import Span, difference_span, miou_span
from u2pl.reporting.charts import INK, REMEMBERED, SIZE, STYLES, axes_in, element, shortened, width_of
from u2pl.reporting.svg import with_prefix

LABELS = 0.45
"""Of a picture's width, what its labels have at most."""


@dataclass(frozen=True)
class Point:
    """A cell of a table: our number for each seed, and the paper's."""

    label: str
    numbers: tuple[float, ...]
    """Empty where there is none."""
    paper: float | None = None

    @property
    def mean(self) -> float:
        """NaN without a number."""
        return float(np.mean(self.numbers)) if self.numbers else math.nan

    @property
    def sd(self) -> float:
        """Standard deviation over the seeds (n - 1); NaN below two."""
        return float(np.std(self.numbers, ddof=1)) if len(self.numbers) > 1 else math.nan


def _span(points: Sequence[Point], span: Callable[[Iterable[float], Iterable[float]], Span]) -> Span:
    """The axis on which all of the points find room, with their deviations."""
    sds = [point.sd for point in points]
    ends = [point.mean + sign * point.sd for point in points for sign in (-1, 1)]
    papers = [point.paper for point in points if point.paper is not None]
    return span([*ends, *papers, *(number for point in points for number in point.numbers)], sds)


def _ours(style: int) -> dict[str, Any]:
    colour, _ = STYLES[style % len(STYLES)]
    return {"color": colour, "marker": "o", "markersize": 5, "elinewidth": 1.8, "capsize": 3, "capthick": 1.4}


def _seeds(colour: str) -> dict[str, Any]:
    return {
        "marker": "o",
        "markersize": 3,
        "markeredgewidth": 0,
        "alpha": 0.5,
        "color": colour,
        "linestyle": "none",
    }


def _papers(colour: str) -> dict[str, Any]:
    return {"marker": "D", "markersize": 5, "markerfacecolor": "none", "markeredgecolor": colour}


def _frame(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(INK)


def spread_svg(groups: Mapping[str, Sequence[Point]], name: str) -> str:
    """Ours with its spread over seeds, beside the paper's number: a line a cell, under the title of its group."""
    return with_prefix(_spread(_hashable(groups)), name)


Groups = tuple[tuple[str, tuple[Point, ...]], ...]


def _hashable(groups: Mapping[str, Sequence[Point]]) -> Groups:
    return tuple((title, tuple(points)) for title, points in groups.items())


@lru_cache(REMEMBERED)
def _spread(groups: Groups) -> str:
    lines = sum(1 + len(points) for _, points in groups)
    figure = Figure(figsize=(SIZE[0], 0.2 * lines + 0.5))
    position, placed, headings = 0, {}, {}
    for title, points in groups:
        headings[position] = title
        for point in points:
            position += 1
            placed[position] = point
        position += 1
    axes = _lines(figure, placed)
    heading = blended_transform_factory(axes.transAxes, axes.transData)
    for place, title in headings.items():
        axes.text(0.01, place, title, color=INK, fontsize=8, va="center", weight="bold", transform=heading)
    _dots(axes, placed)
    papers = {place: point.paper for place, point in placed.items() if point.paper is not None}
    if papers:
        axes.plot(list(papers.values()), list(papers), linestyle="none", zorder=3, **_papers(INK))
    axes.set_xlim(_span(list(placed.values()), miou_span))
    axes.set_ylim(position - 0.4, -0.6)
    axes.set_xlabel("mIoU (%)", color=INK, fontsize=9)
    return element(figure, f"Ours and the paper's mIoU, {', '.join(title for title, _ in groups)}")


def _lines(figure: Figure, placed: Mapping[int, Point]) -> Axes:
    """Axes with a line for each point, whose label stands at the left, shortened if it is long."""
    words = [shortened(point.label, 8, LABELS * SIZE[0]) for point in placed.values()]
    axes = axes_in(figure, left=width_of(words, 8) + 0.12, right=0.1, top=0.05, bottom=0.45)
    axes.set_yticks(list(placed), words)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.tick_params(axis="y", length=0)
    _frame(axes)
    return axes


def _dots(axes: Axes, placed: Mapping[int, Point]) -> None:
    """A small dot a seed, and a large one with its deviation for the mean."""
    colour, _ = STYLES[2]
    ours = [(p.mean, y, p.sd) for y, p in placed.items() if p.numbers]
    if ours:
        means, places, spreads = zip(*ours, strict=True)
        bars = None if all(map(math.isnan, spreads)) else spreads
        axes.errorbar(means, places, xerr=bars, linestyle="none", **_ours(2))
    seeds = [(n, y) for y, p in placed.items() if len(p.numbers) > 1 for n in p.numbers]
    if seeds:
        axes.plot(*zip(*seeds, strict=True), zorder=2, **_seeds(colour))


def gains_svg(base: str, gains: Sequence[Point], name: str) -> str:
    """What methods gain over `base`: their differences seed by seed, beside the line of no difference."""
    return with_prefix(_gains(base, tuple(gains)), name)


@lru_cache(REMEMBERED)
def _gains(base: str, gains: tuple[Point, ...]) -> str:
    figure = Figure(figsize=(SIZE[0], 0.24 * len(gains) + 0.5))
    placed = dict(enumerate(gains))
    axes = _lines(figure, placed)
    axes.axvline(0, color=INK, linewidth=1)
    _dots(axes, placed)
    axes.set_xlim(_span(gains, difference_span))
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.set_xlabel(f"mIoU above {base}, points", color=INK, fontsize=9)
    return element(figure, f"mIoU above {base}, seed by seed: {', '.join(gain.label for gain in gains)}")


def values_svg(groups: Mapping[str, Sequence[Point]], axis: str, name: str) -> str:
    """The same where a group's cells are the values of one setting: a line a group over the values."""
    return with_prefix(_values_of(_hashable(groups), axis), name)


@lru_cache(REMEMBERED)
def _values_of(groups: Groups, axis: str) -> str:
    figure = Figure(figsize=SIZE)
    marks = sum(
        any(point.numbers for point in points) + any(point.paper is not None for point in points)
        for _, points in groups
    )
    axes = axes_in(figure, left=0.55, right=0.1, top=0.08, bottom=0.45 + 0.19 * -(-marks // 2))
    labels = [point.label for point in groups[0][1]]
    shift = 0.12 if len(groups) > 1 else 0.0
    for style, (title, points) in enumerate(groups, start=2):
        colour, pattern = STYLES[style % len(STYLES)]
        places = [place + shift * (style - 2 - (len(groups) - 1) / 2) for place in range(len(points))]
        papers = [math.nan if point.paper is None else point.paper for point in points]
        means, spreads = [point.mean for point in points], [point.sd for point in points]
        if not all(map(math.isnan, means)):
            bars = None if all(map(math.isnan, spreads)) else spreads
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
    axes.set_ylim(_span([point for _, points in groups for point in points], miou_span))
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlabel(axis, color=INK, fontsize=9)
    axes.set_ylabel("mIoU (%)", color=INK, fontsize=9)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    _frame(axes)
    _legend(figure, axes)
    return element(figure, f"mIoU by {axis}, {', '.join(title for title, _ in groups)}")


def _legend(figure: Figure, axes: Axes) -> None:
    """What the marks of the axes mean, below them."""
    handles, labels = axes.get_legend_handles_labels()
    marks = dict(sorted(zip(labels, handles, strict=True), key=lambda mark: mark[0]))
    columns = 2 if len(marks) > 1 else 1
    figure.legend(
        marks.values(), marks.keys(), loc="lower center", ncols=columns, frameon=False, fontsize=8,
        labelcolor=INK, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip
