"""Figures within a page, by day and by night, as Chromium shows them."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import driven
from PIL import Image
from test_paper_figures import DRAWN

from u2pl.reporting import paper_figures

PAPERS = {"light": ("#ffffff", "#1a1a1a"), "dark": ("#14161a", "#e8e8e8")}
CHARTS = ("fig1", "figA2", "reliability")
"""Figures without pictures, which have colours of their own."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with driven() as browser:
        yield browser


def shown(chromium: Any, svg: str, folder: Path, paper: str, before: str = "") -> np.ndarray:
    """The figure in a page of these colours, as pixels; what stands `before` it is out of sight."""
    background, ink = PAPERS[paper]
    page = folder / f"{paper}.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><body style='margin:0;background:{background};color:{ink}'>"
        f"<div style='position:absolute;top:3000px'>{before}</div><main>{svg}</main>",
        encoding="utf-8",
    )
    chromium.get(page.as_uri())
    assert not [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"]
    ids = chromium.execute_script("return [...document.querySelectorAll('[id]')].map(each => each.id)")
    assert len(ids) == len(set(ids))
    element = chromium.find_element("css selector", "main svg")
    with Image.open(io.BytesIO(element.screenshot_as_png)) as picture:
        return np.array(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_dark_on_a_dark_page_and_its_words_are_bright(chromium: Any, name: str, tmp_path: Path):
    (path,) = paper_figures.write(DRAWN[name](), tmp_path, name, ["svg"])
    svg = path.read_text(encoding="utf-8")
    day, night = (shown(chromium, svg, tmp_path, paper) for paper in PAPERS)
    assert day.shape == night.shape and min(day.shape[:2]) > 200
    white, black = day.mean(axis=2) > 250, night.mean(axis=2) < 30
    assert white.mean() > 0.5 and black.mean() > 0.5, "the paper is the page's"
    assert (night.mean(axis=2) > 225).mean() < 0.5 * (1 - black.mean()), "nothing dazzles"
    words = day.mean(axis=2) < 60
    assert words.mean() > 0.002 and np.median(night[words].mean(axis=1)) > 150, "what was dark is bright"


@pytest.mark.parametrize("before", ["fig2", "reliability"])
def test_a_figure_looks_the_same_after_another(chromium: Any, before: str, tmp_path: Path):
    """Ids and styles are those of the whole page."""
    other, svg = (
        paper_figures.write(DRAWN[name](), tmp_path, name, ["svg"])[0].read_text(encoding="utf-8")
        for name in (before, "figA2")
    )
    alone, after = (shown(chromium, svg, tmp_path, "light", text) for text in ("", other))
    assert (alone == after).all()


def test_a_figure_of_pictures_shows_them_in_their_colours(chromium: Any, tmp_path: Path):
    (path,) = paper_figures.write(DRAWN["fig4"](), tmp_path, "fig4", ["svg"])
    night = shown(chromium, path.read_text(encoding="utf-8"), tmp_path, "dark")
    for color in ((200, 30, 30), (30, 200, 30)):
        assert (np.abs(night - color).max(axis=2) < 4).mean() > 0.01
