"""Matplotlib's SVG in a page: in its ink, small, and without a word that is true of the page."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from u2pl.reporting.svg import for_page

INK = "#123457"
PALETTE = np.array([[10, 200, 30], [90, 0, 250], [255, 255, 255]], np.uint8)
MASK = PALETTE[np.random.default_rng(0).integers(0, 3, (40, 60))]
BLURRED = Image.fromarray(np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8))
PHOTOGRAPH = np.array(BLURRED.resize((300, 200), Image.Resampling.BICUBIC))


def drawn(*pictures: np.ndarray, fonts: str = "path") -> str:
    """A chart of matplotlib's, and pictures beside it."""
    figure = Figure(figsize=(4 + 2 * len(pictures), 3))
    axes, *others = figure.subplots(1, 1 + len(pictures), squeeze=False)[0]
    axes.plot([0, 1, 2], [5.123456, 7.5, 6.25], color=INK, marker="o")
    axes.plot([0, 1, 2], [6, 7, 8], color="#d55e00")
    axes.set_title("1.23456 points", color=INK, fontsize=7.5)
    for each, picture in zip(others, pictures, strict=True):
        each.imshow(picture, interpolation="nearest")
    out = io.StringIO()
    with rc_context({"svg.fonttype": fonts, "svg.hashsalt": "x"}):
        figure.savefig(out, format="svg", transparent=True)
    return out.getvalue()


def taken(text: str, name: str = "fig") -> str:
    return for_page(text, ink=INK, name=name, description='What "it" shows, <em>\n1 & 2')


def pictures(text: str) -> list[Image.Image]:
    found = re.findall(r'href="data:image/\w+;base64,\s*([^"]*)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(each))) for each in found]


def test_it_is_one_element_that_says_what_it_shows():
    text = taken(drawn())
    element = ElementTree.fromstring(text)
    assert element.tag == "{http://www.w3.org/2000/svg}svg" and text.startswith("<svg")
    assert element.get("role") == "img" and element.get("aria-label") == 'What "it" shows, <em> 1 & 2'
    assert element.get("viewBox") == "0 0 288 216" and element.get("width") == "288pt"


def test_the_ink_is_the_pages_and_colours_stay():
    text = taken(drawn())
    assert "currentColor" in text and INK not in text and "#d55e00" in text


def test_nothing_in_it_is_true_of_the_page():
    assert "<style" in drawn() and "<style" not in taken(drawn())
    assert "stroke-linejoin: round" in taken(drawn()).split(">")[0]


def test_all_ids_are_its_own_and_every_reference_leads_somewhere():
    one, two = taken(drawn(), "fig1"), taken(drawn(), "fig2")
    ids, others = (set(re.findall(r' id="([^"]*)"', text)) for text in (one, two))
    assert ids and not ids & others
    assert set(re.findall(r'href="#([^"]+)|url\(#([^)]+)\)', one)) <= {(i, "") for i in ids} | {
        ("", i) for i in ids
    }
    assert ids == {a or b for a, b in re.findall(r'href="#([^"]+)|url\(#([^)]+)\)', one)}


def test_places_are_rounded_and_sizes_of_words_are_not():
    before, after = drawn(), taken(drawn())
    assert re.search(r"scale\(0\.075 -0\.075\)", before) and "scale(0.075 -0.075)" in after
    assert not re.search(r"(?<!scale\()(?<!scale\(0\.075 -)\b\d+\.\d{3,}", after)
    assert len(after) < 0.8 * len(before)
    assert "1.23456 points" in taken(drawn(fonts="none")), "words are not rounded"


def test_a_picture_of_few_colours_stays_as_it_is_to_the_last_pixel():
    before, after = pictures(drawn(MASK)), pictures(taken(drawn(MASK)))
    assert len(before) == len(after) == 1 and after[0].format == "PNG"
    assert (np.array(before[0].convert("RGB")) == np.array(after[0].convert("RGB"))).all()
    assert len(taken(drawn(MASK))) < len(drawn(MASK))


def test_a_photograph_becomes_a_jpeg_that_looks_the_same():
    text = drawn(PHOTOGRAPH)
    before, after = pictures(text), pictures(taken(text))
    assert after[0].format == "JPEG" and after[0].size == before[0].size
    away = np.abs(np.array(before[0].convert("RGB")).astype(int) - np.array(after[0]))
    assert away.mean() < 4 and len(taken(text)) < 0.5 * len(text)


def test_a_picture_that_lets_something_through_is_left_alone():
    see_through = np.dstack([PHOTOGRAPH, np.full(PHOTOGRAPH.shape[:2], 90, np.uint8)])
    text = drawn(see_through)
    (before,), (after,) = pictures(text), pictures(taken(text))
    assert after.mode == "RGBA" and after.tobytes() == before.tobytes()


def test_what_many_marks_share_is_said_once():
    figure = Figure()
    axes = figure.subplots()
    axes.plot(range(200), range(200), "s", color="#d55e00", markeredgecolor=INK)
    axes.scatter(range(3), range(3), c=["red", "green", "blue"])
    out = io.StringIO()
    figure.savefig(out, format="svg")
    text = taken(out.getvalue())
    assert out.getvalue().count("fill: #d55e00") >= 200 and text.count("fill: #d55e00") <= 2
    assert all(text.count(f"fill: {color}") for color in ("#ff0000", "#008000", "#0000ff"))


@pytest.mark.parametrize("name", ["fig1", "figA2"])
def test_the_same_figure_is_the_same_text(name: str):
    assert taken(drawn(MASK), name) == taken(drawn(MASK), name)
