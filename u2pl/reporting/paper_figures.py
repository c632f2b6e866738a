"""The paper's figures, drawn from what was measured of runs; the same input always gives the same bytes."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context, rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from u2pl.files import write_atomically
from u2pl.reporting.axes import PERCENT, Span, honest_span
from u2pl.reporting.svg import for_page
from u2pl.runs.epochs import shown_epoch

if TYPE_CHECKING:  # plain data; nothing here needs to know how it was found
    from u2pl.evidence.comparison import Box, Comparison
    from u2pl.evidence.features import Embeddings
    from u2pl.evidence.history import Points, Reliability, RunCurves
    from u2pl.evidence.unlabeled import ClassReliability, ImageReliability, PixelPrediction

rcParams["text.parse_math"] = False  # a label may hold a dollar sign

FORMATS = ("png", "svg", "pdf")
_NO_DATES: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

# Okabe and Ito's colours, which people with any common colour blindness can tell apart.
BLUE, VERMILLION, YELLOW, GREEN = "#0072b2", "#d55e00", "#f0e442", "#009e73"
INK = "#222324"
"""Of words and lines: no class has just this colour, and an SVG has that of the page's text instead."""
_IN_INK: Any = dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
)
MARKERS = "os^DvP*X<>phd"
"""Class k has marker k, and dashes k, beside its colour: two classes of one marker are far apart in the list."""
DASHES: list[Any] = ["solid", (0, (4, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 1.5))]

Color = tuple[int, int, int]


def write(figure: Figure, folder: Path, name: str, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """Write a figure as `folder`/NAME.FORMAT, without times and versions in it.

    On white; but an SVG has no background and the ink of the page that it stands in.
    """
    paths = [folder / f"{name}.{kind}" for kind in dict.fromkeys(formats)]
    for path in paths:
        kind = path.suffix[1:]

        def save(temporary: Path, kind: str = kind) -> None:
            # Text becomes outlines: a viewer without the font would break the lines elsewhere.
            with rc_context({"svg.hashsalt": name, "svg.fonttype": "path", "pdf.fonttype": 42, **_IN_INK}):
                if kind == "svg":
                    temporary.write_text(_svg(figure, name), encoding="utf-8")
                else:
                    figure.savefig(temporary, format=kind, facecolor="white", metadata=_NO_DATES[kind])

        write_atomically(path, save)
    return paths


def _svg(figure: Figure, name: str) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata=_NO_DATES["svg"])
    return for_page(out.getvalue(), ink=INK, name=name, description=figure.get_supxlabel())


def painted(class_HW: NDArray[Any], colors: Sequence[Color]) -> NDArray[np.uint8]:
    """A class map in the data set's colours, (H, W, 3); pixels of no class are white."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[: len(colors)] = colors
    return palette[class_HW]


# ---- Fig. 1 ---------------------------------------------------------------------------------------------


@rc_context(_IN_INK)
def class_reliability_figure(found: "ClassReliability") -> Figure:
    """Of each class its IoU, its reliable and unreliable pixels, and the share of the unreliable ones."""
    # Sorted by IoU: whether classes that are recognised badly have few reliable pixels is what the figure asks.
    total_C = found.reliable_C + found.unreliable_C
    key_C = np.nan_to_num(found.iou_C, nan=-1) if found.iou_C is not None else total_C
    order = np.argsort(-key_C, kind="stable")
    place = np.arange(len(order))
    panels = 3 if found.iou_C is not None else 2
    figure = _figure(max(5.5, 1.6 + 0.42 * len(order)), 1.7 * panels + 1.5)
    grid = list(figure.subplots(panels, 1, sharex=True))
    if found.iou_C is not None:
        axes = grid.pop(0)
        iou = found.iou_C[order]
        axes.bar(place, np.nan_to_num(iou), 0.6, color=GREEN)
        for x, value in zip(place, iou, strict=True):
            axes.text(
                x,
                0 if math.isnan(value) else value,
                "none" if math.isnan(value) else f"{value:.0f}",
                ha="center",
                va="bottom",
                fontsize=7,
            )
        axes.set_ylim(0, 112)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_ylabel("IoU, %", fontsize=9)
    pixels, shares = grid
    reliable, unreliable = found.reliable_C[order], found.unreliable_C[order]
    pixels.bar(place - 0.2, reliable, 0.38, color=BLUE, label="reliable")
    pixels.bar(
        place + 0.2, unreliable, 0.38, color="none", edgecolor=VERMILLION, hatch="////", label="unreliable"
    )
    pixels.set_yscale("log")
    fewest = min((n for n in (*reliable.tolist(), *unreliable.tolist()) if n), default=1)
    pixels.set_ylim(bottom=10 ** math.floor(math.log10(fewest)))
    pixels.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _rounded(value)))
    pixels.yaxis.set_minor_formatter(NullFormatter())
    pixels.set_ylabel("pixels, log scale", fontsize=9)
    share = 100 * unreliable / np.maximum(total_C[order], 1)
    shares.bar(place, share, 0.6, color="none", edgecolor=VERMILLION, hatch="////")
    shares.axhline(
        100 * (1 - found.reliable_share), color=INK, linestyle=(0, (4, 2)), linewidth=1, label="of all pixels"
    )
    for x, value, count in zip(place, share, total_C[order], strict=True):
        shares.text(x, value, f"{value:.0f}" if count else "none", ha="center", va="bottom", fontsize=7)
    shares.set_ylim(0, max(112 * share.max() / 100, 1))
    shares.set_ylabel("unreliable, %", fontsize=9)
    shares.set_xlim(-0.7, len(order) - 0.3)
    shares.set_xticks(place, [found.classes[c] for c in order], rotation=45, ha="right", fontsize=8)
    for axes in figure.axes:
        _plain(axes)
    for axes in (pixels, shares):
        axes.legend(
            fontsize=7, loc="lower right", bbox_to_anchor=(1, 0.98), ncols=2, frameon=False, borderpad=0
        )
    grouped = "true class" if found.by_truth else "PREDICTED class: these images have no masks, so no IoU"
    _caption(
        figure,
        f"{found.label} on {found.images:,} unlabelled images of {found.dataset} {found.split}, by {grouped}. "
        f"Unreliable: entropy of {found.gamma:.4g} nats or more (alpha = {found.alpha:g}, Eq. 6).",
    )
    return figure


# ---- Fig. 2 ---------------------------------------------------------------------------------------------


@rc_context(_IN_INK)
def image_reliability_figure(found: "ImageReliability") -> Figure:
    """An image, its entropies, its reliable pseudo-labels, and the class probabilities of two of its pixels."""
    height, width = found.entropy_HW.shape
    classes = len(found.classes)
    map_height = 3.0 * height / width
    bars_height = 1.9 + 0.06 * max(map(len, found.classes))
    figure = _figure(9.6, map_height + bars_height + 0.9)
    parts: Any = figure.subfigures(2, 1, height_ratios=[map_height + 0.5, bars_height])
    upper, lower = parts
    maps = upper.subplots(1, 3)
    maps[0].imshow(found.picture_HW3, interpolation="nearest")
    maps[0].set_title("unlabelled image", fontsize=9)
    shown = maps[1].imshow(
        found.entropy_HW, cmap="cividis", vmin=0, vmax=math.log(classes), interpolation="nearest"
    )
    maps[1].set_title("entropy", fontsize=9)
    bar = upper.colorbar(shown, ax=maps[1], shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    bar.ax.axhline(found.gamma, color=VERMILLION, linewidth=2)
    bar.set_label("nats; the line is the threshold", fontsize=7)
    maps[2].imshow(
        painted(np.where(found.reliable_HW, found.label_HW, 255), found.colors), interpolation="nearest"
    )
    maps[2].set_title("pseudo-labels; white: unreliable", fontsize=9)
    pixels = [("reliable", found.reliable, "o", YELLOW), ("unreliable", found.unreliable, "X", "white")]
    for axes in maps:
        axes.set(xticks=[], yticks=[])
        for _, pixel, marker, color in pixels:
            if pixel is not None:
                axes.plot(
                    pixel.column,
                    pixel.row,
                    marker,
                    markersize=9,
                    markerfacecolor=color,
                    markeredgecolor="black",
                    markeredgewidth=1.2,
                    clip_on=False,
                )
    for axes, (kind, pixel, marker, color) in zip(lower.subplots(1, 2, sharey=True), pixels, strict=True):
        _probabilities(axes, found, kind, pixel)
        axes.plot(
            0.015,
            1.075,
            marker,
            transform=axes.transAxes,
            clip_on=False,
            markersize=8,
            markerfacecolor=color,
            markeredgecolor="black",
        )
    unreliable = 100 * (1 - found.reliable_HW.mean())
    _caption(
        figure,
        f"{found.label} on {found.image}. Unreliable: entropy of {found.gamma:.4g} nats or more, the highest "
        f"{100 * found.alpha:g} % of {found.looked_at:,} unlabelled images (Eq. 6); of this one {unreliable:.0f} %.",
    )
    return figure


def _probabilities(axes: Axes, found: "ImageReliability", kind: str, pixel: "PixelPrediction | None") -> None:
    place = np.arange(len(found.classes))
    axes.set_xticks(place, found.classes, rotation=60 if len(place) > 6 else 30, ha="right", fontsize=7)
    axes.set_ylim(0, 1)
    axes.set_ylabel("probability", fontsize=8)
    _plain(axes)
    if pixel is None:
        axes.text(0.04, 1.04, f"no {kind} pixel", transform=axes.transAxes, fontsize=8)
        return
    axes.bar(
        place,
        pixel.prob_C,
        0.7,
        color=[_share_of_1(color) for color in found.colors],
        edgecolor=INK,
        linewidth=0.6,
    )
    truth = "truth unknown" if pixel.truth is None else f"truly {found.classes[pixel.truth]}"
    axes.text(0.04, 1.04, f"{kind}: {pixel.entropy:.3g} nats, {truth}", transform=axes.transAxes, fontsize=8)


# ---- Figs. 4 and A1 -------------------------------------------------------------------------------------

GAIN: dict[str, Any] = {"edgecolor": YELLOW, "linestyle": "solid"}
LOSS: dict[str, Any] = {"edgecolor": VERMILLION, "linestyle": (0, (3, 1.5))}


@rc_context(_IN_INK)
def comparison_figure(found: "Comparison") -> Figure:
    """A row an image: input, truth, and the runs, with rectangles where the last one differs from the first."""
    headings = ["input", "truth", *found.labels]
    shapes = [row.truth_HW.shape for row in found.rows]
    each = 1.9
    heights = [each * height / width for height, width in shapes]
    figure = _figure(each * len(headings) + 0.4, sum(heights) + 1.3)
    grid = figure.subplots(
        len(found.rows), len(headings), squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(fill(heading, 26), fontsize=9)
    for line, row in zip(grid, found.rows, strict=True):
        maps = [painted(m, found.colors) for m in (row.truth_HW, *row.predictions)]
        for axes, picture in zip(line, [row.picture_HW3, *maps], strict=True):
            _no_axis(axes)
            axes.imshow(picture, interpolation="nearest")
        line[0].set_ylabel(f"{row.change:+.1f} points", fontsize=8)
        for axes in (line[2], line[-1]):
            _boxes(axes, row.gains, GAIN)
            _boxes(axes, row.losses, LOSS)
    seen = {int(c) for row in found.rows for m in (row.truth_HW, *row.predictions) for c in np.unique(m)}
    handles = _swatches(found.classes, found.colors, seen)
    if any((row.truth_HW >= len(found.classes)).any() for row in found.rows):
        handles.append(Patch(facecolor="white", edgecolor=INK, linewidth=0.6, label="no label"))
    handles += [
        Patch(facecolor="#808080", linewidth=1.8, label="last run right, first wrong", **GAIN),
        Patch(facecolor="#808080", linewidth=1.8, label="first run right, last wrong", **LOSS),
    ]
    _legend(figure, handles, 0.9 * len(headings))
    _caption(
        figure,
        f"Of {found.looked_at:,} validation images of {found.dataset} those that gain most from the first run to the "
        "last, and in the last row the one that gains least or loses most. Points: change of the percentage of pixels "
        "that are right.",
    )
    return figure


def _boxes(axes: Axes, boxes: "Sequence[Box]", style: dict[str, Any]) -> None:
    for box in boxes:
        # A pixel's middle has its number; the outline in black makes any colour visible on any palette.
        axes.add_patch(
            Rectangle(
                (box.left - 0.5, box.top - 0.5),
                box.width,
                box.height,
                fill=False,
                linewidth=1.6,
                path_effects=[withStroke(linewidth=3, foreground="black")],
                **style,
            )
        )


# ---- Fig. A2 --------------------------------------------------------------------------------------------


@rc_context(_IN_INK)
def embedding_figure(found: "Embeddings") -> Figure:
    """A panel a run: the same pixels by their features, in two dimensions."""
    figure = _figure(4.2 * len(found.runs), 5.4)
    grid = figure.subplots(1, len(found.runs), squeeze=False)[0]
    present = sorted(set(found.class_P.tolist()))
    for axes, run in zip(grid, found.runs, strict=True):
        for c in present:
            mine = run.position_P2[found.class_P == c]
            axes.plot(
                mine[:, 0],
                mine[:, 1],
                MARKERS[c % len(MARKERS)],
                markersize=4.5 if len(found.class_P) < 1500 else 3,
                markerfacecolor=_share_of_1(found.colors[c]),
                markeredgecolor=(INK, 0.5),
                markeredgewidth=0.4,
            )
        _no_axis(axes)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_frame_on(True)
        for spine in axes.spines.values():
            spine.set(color=INK, alpha=0.25)
        axes.set_title(
            f"{fill(run.label, 40)}\n{100 * run.agreement:.0f} % of nearest neighbours of the same class",
            fontsize=9,
        )
    handles = [
        Line2D(
            [],
            [],
            linestyle="none",
            marker=MARKERS[c % len(MARKERS)],
            markersize=6,
            markerfacecolor=_share_of_1(found.colors[c]),
            markeredgecolor=(INK, 0.5),
            label=found.classes[c],
        )
        for c in present
    ]
    _legend(figure, handles, 1.9 * len(found.runs))
    without = f" Too few pixels: {', '.join(found.left_out)}." if found.left_out else ""
    _caption(
        figure,
        f"t-SNE of what both heads read, at {found.per_class} pixels of each class of {found.images:,} validation "
        f"images of {found.dataset}, the same in each panel.{without}",
    )
    return figure


# ---- reliability in training ----------------------------------------------------------------------------

_WORDS = {
    "reliable/share": "reliable pixels,\n% of the class",
    "reliable/accuracy": "right labels,\n% of the reliable",
    "negatives/false": "false negatives,\n% of those pushed",
}


@rc_context(_IN_INK)
def reliability_curves_figure(found: "Reliability") -> Figure:
    """A column a run, a row a measure: of each class over training, and of all classes in bold."""
    figure = _figure(max(3.6 * len(found.runs), 5.5) + 0.4, 7.6)
    grid = figure.subplots(len(_WORDS), len(found.runs), squeeze=False, sharex="col", sharey="row")
    for line, (measure, words) in zip(grid, _WORDS.items(), strict=True):
        for axes, run in zip(line, found.runs, strict=True):
            _curves(axes, run, measure, found)
        line[0].set_ylim(_span(measure, found.runs))  # the row's
        line[0].set_ylabel(words, fontsize=9)
    for axes, run in zip(grid[0], found.runs, strict=True):
        axes.set_title(fill(run.label, 40), fontsize=9)
    for axes, run in zip(grid[-1], found.runs, strict=True):
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        epochs = {shown_epoch(epoch) for points in run.overall.values() for epoch, _ in points}
        if epochs:  # or the axis would begin with epoch 0, and of a single one count in hundredths
            axes.set_xlim(min(epochs) - 0.8, max(epochs) + 0.8)
    handles = [Line2D([], [], color=INK, linewidth=2.8, label="all classes")] + [
        Line2D([], [], label=name, **_line_style(c, found.colors)) for c, name in enumerate(found.classes)
    ]
    _legend(figure, handles, max(1.9 * len(found.runs), 3))
    means = [run.label for run in found.runs if not run.summed]
    of_whom = f" of {' and '.join(means)}" if len(means) < len(found.runs) else ""
    other = " and of pixels of unknown class too: such runs recorded no sum"
    _caption(
        figure,
        f"Unlabelled training images of {found.dataset}, measured by their masks, which training does not see. A "
        "class's pixels are those that truly are of it; its false negatives, among the unlabelled pixels pushed into "
        "its memory bank in an epoch, those that are of it."
        + (f" The bold line{of_whom} is a mean over steps,{other}." if means else ""),
    )
    return figure


def _curves(axes: Axes, run: "RunCurves", measure: str, found: "Reliability") -> None:
    _plain(axes)
    for c, name in enumerate(found.classes):
        _line(axes, run.by_class[measure].get(name, []), _line_style(c, found.colors))
    _line(axes, run.overall[measure], {"color": INK, "linewidth": 2.8, "marker": "o"})
    if not run.by_class[measure]:
        axes.text(0.5, 0.5, "this run has none", transform=axes.transAxes, ha="center", fontsize=8, color=INK)


_LEAST_FALSE = 5.0
"""Percent that the axis of false negatives spans at least: they are few, and a tenth of a percent is no difference."""


def _span(measure: str, runs: "Sequence[RunCurves]") -> Span:
    """A measure's axis, percent."""
    if measure != "negatives/false":
        return 0, 103
    curves = [points for run in runs for points in (run.overall[measure], *run.by_class[measure].values())]
    return honest_span([0, *(100 * value for points in curves for _, value in points)], _LEAST_FALSE, PERCENT)


def _line(axes: Axes, points: "Points", style: dict[str, Any]) -> None:
    if points:
        epochs = [shown_epoch(epoch) for epoch, _ in points]
        percent = [100 * value for _, value in points]
        # Twenty lines of eighty markers each would be one grey band.
        axes.plot(epochs, percent, markevery=max(1, len(epochs) // 8), **style)


def _line_style(c: int, colors: Sequence[Color]) -> dict[str, Any]:
    return {
        "color": _legible(colors[c]),
        "linestyle": DASHES[c % len(DASHES)],
        "marker": MARKERS[c % len(MARKERS)],
        "markersize": 4,
        "linewidth": 1.3,
    }


# ---- what they share ------------------------------------------------------------------------------------


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def _caption(figure: Figure, text: str) -> None:
    width = figure.get_size_inches()[0]
    figure.supxlabel(fill(text, int(15.5 * width)), fontsize=7.5, color=INK, x=0.01, ha="left")


def _legend(figure: Figure, handles: Sequence[Any], columns: float) -> None:
    figure.legend(
        handles=list(handles),
        loc="outside upper center",
        ncols=max(2, min(len(handles), round(columns * 1.2))),
        fontsize=8,
        frameon=False,
    )


def _swatches(classes: Sequence[str], colors: Sequence[Color], seen: set[int]) -> list[Patch]:
    return [
        Patch(facecolor=_share_of_1(colors[c]), edgecolor=INK, linewidth=0.6, label=name)
        for c, name in enumerate(classes)
        if c in seen
    ]


def _rounded(number: float) -> str:
    """A power of ten as a tick says it: 100, 10k, 1M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:g}{unit}"
    return f"{number:g}"


def _plain(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=8)
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))


def _no_axis(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], frame_on=False)


_LUMINANCE = (0.13, 0.3)
"""Of a line that is seen on white and on a dark page: its contrast with either is 3 or more."""


def _legible(color: Color) -> tuple[float, float, float]:
    """A class's colour, darkened or lightened as far as a line on white and on black needs it."""
    linear = np.array(
        [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in _share_of_1(color)]
    )
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    low, high = _LUMINANCE
    if luminance > high:
        linear *= high / luminance
    elif luminance < low:
        linear += (1 - linear) * (low - luminance) / (1 - luminance)
    red, green, blue = (
        12.92 * v if v <= 0.0031308 else 1.055 * v ** (1 / 2.4) - 0.055 for v in linear.tolist()
    )
    return red, green, blue


def _share_of_1(color: Color) -> tuple[float, float, float]:
    return color[0] / 255, color[1] / 255, color[2] / 255
