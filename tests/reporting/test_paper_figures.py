"""Figures from made-up measurements: what stands in them, and that they are the same every time."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from u2pl.reporting import paper_figures

CLASSES = ["ground", "square", "disc", "bar $1"]
COLORS = [(0, 0, 0), (200, 30, 30), (30, 200, 30), (250, 250, 200)]
RNG = np.random.default_rng(0)
MAP = RNG.integers(0, 4, (12, 20))


def by_class(iou: Any = (90.0, 20.0, 60.0, np.nan)) -> Any:
    """Plain values under the names that the figures are drawn from."""
    return SimpleNamespace(
        label="u2pl", dataset="tiny", split="1/4", classes=CLASSES,
        reliable_C=np.array([9000, 10, 300, 0]), unreliable_C=np.array([500, 90, 100, 0]),
        iou_C=None if iou is None else np.array(iou),
        by_truth=iou is not None, alpha=0.2, gamma=0.1, reliable_share=0.8, images=12,
    )  # fmt: skip


def one_image(unreliable: bool = True) -> Any:
    view = SimpleNamespace(row=3, column=5, entropy=0.5, prob_C=np.array([0.7, 0.1, 0.1, 0.1]), truth=2)
    other = SimpleNamespace(row=11, column=0, entropy=1.2, prob_C=np.full(4, 0.25), truth=None)
    return SimpleNamespace(
        label="u2pl", image="07", classes=CLASSES, colors=COLORS,
        picture_HW3=RNG.integers(0, 255, (12, 20, 3), dtype=np.uint8),
        entropy_HW=RNG.random((12, 20)), label_HW=MAP,
        reliable_HW=RNG.random((12, 20)) < 0.8, alpha=0.2, gamma=0.8, looked_at=12,
        reliable=view, unreliable=other if unreliable else None,
    )  # fmt: skip


def compared() -> Any:
    truth = MAP.copy()
    truth[0] = 255
    row = SimpleNamespace(
        image="07", change=-1.25, picture_HW3=RNG.integers(0, 255, (12, 20, 3), dtype=np.uint8),
        truth_HW=truth, predictions=[MAP, MAP, MAP],
        gains=[SimpleNamespace(top=1, left=2, height=3, width=4)],
        losses=[SimpleNamespace(top=5, left=6, height=2, width=2)] * 2,
    )  # fmt: skip
    return SimpleNamespace(
        dataset="tiny",
        labels=["suponly", "u2pl, negatives=all", "u2pl"],
        classes=CLASSES,
        colors=COLORS,
        rows=[row, row],
        looked_at=4,
    )


def embedded() -> Any:
    runs = [
        SimpleNamespace(label=label, position_P2=RNG.normal(size=(30, 2)), agreement=0.6)
        for label in ("a", "b")
    ]
    return SimpleNamespace(
        dataset="tiny", classes=CLASSES, colors=COLORS, class_P=np.arange(30) % 3, runs=runs, per_class=10,
        left_out=["bar $1"], images=4,
    )  # fmt: skip


def curves(summed: bool = True) -> Any:
    def run(bank: bool) -> Any:
        measures = ("reliable/share", "reliable/accuracy", *(["negatives/false"] if bank else []))
        overall = {m: [(1, 0.5), (2, 0.6)] if m in measures else [] for m in paper_figures._WORDS}
        classes = {
            m: {c: [(2, 0.1)] for c in CLASSES[:3]} if m in measures else {} for m in paper_figures._WORDS
        }
        return SimpleNamespace(
            label="u2pl" if bank else "mt", overall=overall, by_class=classes, summed=bank or summed
        )

    return SimpleNamespace(dataset="tiny", classes=CLASSES, colors=COLORS, runs=[run(False), run(True)])


DRAWN: dict[str, Callable[[], Figure]] = {
    "fig1": lambda: paper_figures.class_reliability_figure(by_class()),
    "fig1 without masks": lambda: paper_figures.class_reliability_figure(by_class(None)),
    "fig2": lambda: paper_figures.image_reliability_figure(one_image()),
    "fig2 without unreliable pixels": lambda: paper_figures.image_reliability_figure(one_image(False)),
    "fig4": lambda: paper_figures.comparison_figure(compared()),
    "figA2": lambda: paper_figures.embedding_figure(embedded()),
    "reliability": lambda: paper_figures.reliability_curves_figure(curves()),
}


def words(figure: Figure) -> str:
    """All text of a figure, on one line."""
    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(match=_is_text))


def _is_text(artist: Any) -> bool:
    return hasattr(artist, "get_text") and bool(artist.get_text())


@pytest.mark.parametrize("name", [name for name in DRAWN if "without" not in name])
def test_the_same_measurements_give_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    written = []
    for day in ("1", "9000000"):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", day)  # what a date in the file would be
        globals()["RNG"] = np.random.default_rng(0)
        paths = paper_figures.write(DRAWN[name](), tmp_path / day, "name", ["png", "svg", "png"])
        assert [path.name for path in paths] == ["name.png", "name.svg"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert b"<dc:date>" not in written[0][1]
    with Image.open(tmp_path / "1" / "name.png") as picture:
        assert min(picture.size) > 400 and len(picture.convert("RGB").getcolors(2**24)) > 5


def test_a_pdf_too_holds_no_date(tmp_path: Path):
    (path,) = paper_figures.write(DRAWN["fig1"](), tmp_path, "fig1", ["pdf"])
    assert path.read_bytes().startswith(b"%PDF") and b"CreationDate" not in path.read_bytes()


def test_classes_are_sorted_by_iou_and_one_that_nowhere_occurs_is_said_to_have_none():
    figure = DRAWN["fig1"]()
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels == ["ground", "disc", "square", "bar $1"]
    iou, pixels, share = figure.axes
    assert [bar.get_height() for bar in iou.patches] == [90, 60, 20, 0]
    assert [bar.get_height() for bar in pixels.patches] == [9000, 300, 10, 0, 500, 100, 90, 0]
    assert [round(bar.get_height(), 1) for bar in share.patches] == [5.3, 25.0, 90.0, 0.0]
    assert words(figure).count("none") == 2


def test_where_there_are_no_masks_the_figure_says_so_and_shows_no_iou():
    figure = DRAWN["fig1 without masks"]()
    assert len(figure.axes) == 2
    assert "by PREDICTED class: these images have no masks, so no IoU" in words(figure)


def test_unreliable_pixels_are_left_white_in_the_pseudo_labels():
    found = one_image()
    figure = paper_figures.image_reliability_figure(found)
    shown = figure.axes[2].images[0].get_array()
    assert (shown[~found.reliable_HW] == 255).all()
    assert (shown[found.reliable_HW] == np.array(COLORS)[MAP[found.reliable_HW]]).all()
    said = words(figure)
    assert "reliable: 0.5 nats, truly disc" in said and "unreliable: 1.2 nats, truth unknown" in said
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[1].lines]
    assert marks == [(5, 3), (0, 11)]
    assert "no unreliable pixel" in words(DRAWN["fig2 without unreliable pixels"]())


def test_gains_and_losses_have_rectangles_that_differ_in_more_than_colour():
    figure = DRAWN["fig4"]()
    grid = np.array(figure.axes).reshape(2, 5)
    for column, count in enumerate([0, 0, 3, 0, 3]):
        boxes = [patch for patch in grid[0, column].patches if isinstance(patch, Rectangle)]
        assert len(boxes) == count
        if boxes:
            assert boxes[0].get_bbox().bounds == (1.5, 0.5, 4, 3)
            assert boxes[0].get_linestyle() != boxes[1].get_linestyle()
    said = words(figure)
    for text in ("input", "truth", "suponly", "u2pl, negatives=all", "-1.2 points", "no label", "bar $1"):
        assert text in said


def test_classes_differ_in_marker_and_colour_and_those_left_out_are_named():
    figure = DRAWN["figA2"]()
    lines = figure.axes[0].lines
    assert len(lines) == 3 and len({line.get_marker() for line in lines}) == 3
    assert "Too few pixels: bar $1." in words(figure)
    assert "60 % of nearest neighbours" in words(figure)


def test_a_method_without_a_bank_has_an_empty_panel_that_says_so_and_rows_share_an_axis():
    figure = DRAWN["reliability"]()
    grid = np.array(figure.axes).reshape(3, 2)
    assert [len(axes.lines) for axes in grid[:, 0]] == [4, 4, 0]
    assert "this run has none" in words(figure)
    assert list(grid[0, 1].lines[-1].get_ydata()) == [50, 60]
    assert all(one.get_ylim() == two.get_ylim() for one, two in grid)
    assert grid[2, 1].get_ylim()[1] == pytest.approx(66)
    assert list(grid[0, 1].lines[-1].get_xdata()) == [2, 3], "people count epochs from 1"
    assert all(1 < axes.get_xlim()[0] < 2 and 3 < axes.get_xlim()[1] < 4 for axes in grid[-1])


def test_false_negatives_of_a_tenth_of_a_percent_do_not_fill_their_panel():
    few = curves()
    few.runs[1].overall["negatives/false"] = [(1, 0.001), (2, 0.002)]
    few.runs[1].by_class["negatives/false"] = {"disc": [(2, 0.003)]}
    figure = paper_figures.reliability_curves_figure(few)
    assert figure.axes[-1].get_ylim() == (0, 5)


def test_a_line_has_a_colour_that_is_seen_on_white_and_on_black():
    def luminance(color: Any) -> float:
        channels = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in color]
        return sum(v * weight for v, weight in zip(channels, (0.2126, 0.7152, 0.0722), strict=True))

    for color in [*COLORS, (255, 255, 255), (0, 0, 255), (128, 128, 128), (255, 255, 0)]:
        light = luminance(paper_figures._legible(color))
        assert 1.05 / (light + 0.05) >= 2.99 and (light + 0.05) / (luminance((0.09,) * 3) + 0.05) >= 2.99
    assert paper_figures._legible((200, 30, 30)) == pytest.approx((200 / 255, 30 / 255, 30 / 255), abs=1e-6)


@pytest.mark.parametrize("name", list(DRAWN))
def test_an_svg_has_no_background_and_no_ink_of_its_own(name: str, tmp_path: Path):
    figure = DRAWN[name]()
    png, svg = paper_figures.write(figure, tmp_path, "name")
    text = svg.read_text(encoding="utf-8")
    element = ElementTree.fromstring(text)
    assert element.get("aria-label") == " ".join(figure.get_supxlabel().split())
    assert "currentColor" in text and paper_figures.INK not in text
    whole = [path for path in re.findall(r'<path d="M0 [^"]*" style="([^"]*)"', text)]
    assert whole and all("fill: none" in style for style in whole)
    with Image.open(png) as picture:
        assert picture.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255), "a PNG is on white"


def test_a_bold_line_that_is_no_sum_of_the_classes_is_said_to_be_a_mean():
    assert "bold" not in words(DRAWN["reliability"]())
    said = words(paper_figures.reliability_curves_figure(curves(summed=False)))
    assert "The bold line of mt is a mean over steps, and of pixels of unknown class too" in said


@pytest.mark.parametrize(("number", "text"), [(1, "1"), (100, "100"), (10**4, "10k"), (10**6, "1M")])
def test_powers_of_ten_are_short(number: float, text: str):
    assert paper_figures._rounded(number) == text
