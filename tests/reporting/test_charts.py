import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from u2pl.reporting import charts, examples
from u2pl.reporting.durations import duration


def by_epoch(*values: float) -> "pd.Series[float]":
    return pd.Series(values, range(1, len(values) + 1))


def test_an_svg_takes_its_text_colour_from_the_page_and_is_well_formed() -> None:
    panel = charts.Panel("a & b < c", charts.MIOU, (charts.curve("one", 0, [by_epoch(10.0, 20.0)]),))
    text = charts.svg(panel, "first")
    ElementTree.fromstring(text)
    assert "currentColor" in text
    assert charts.INK not in text
    assert all(name.startswith("first-") for name in re.findall(r'id="([^"]+)"', text))


def test_a_line_is_the_mean_over_the_epochs_that_every_seed_has() -> None:
    curve = charts.curve("u2pl", 3, [by_epoch(10.0, 20.0, 60.0), by_epoch(20.0, 40.0)])
    assert (curve.epochs, curve.mean, curve.low, curve.high) == (
        (1, 2),
        (15.0, 30.0),
        (10.0, 20.0),
        (20.0, 40.0),
    )


def test_equal_panels_are_drawn_once_under_whatever_words_and_differ_in_their_ids() -> None:
    charts._panel.cache_clear()
    one, two = (
        charts.Panel("same", charts.MIOU, (charts.curve(label, 0, [by_epoch(10.0, 20.0)]),)) for label in "ab"
    )
    first, second = charts.svg(one, "first"), charts.svg(two, "second")
    assert charts._panel.cache_info().misses == 1
    assert "first-" in first and first.replace("first-", "second-") == second


def test_curves_a_fifth_of_a_point_apart_look_like_that() -> None:
    curves = tuple(charts.curve(str(k), k, [by_epoch(60.0 + k / 5, 60.1 + k / 5)]) for k in range(2))
    one, other = charts.with_common_span([charts.Panel("1/8", charts.MIOU, (each,)) for each in curves])
    assert one.up == other.up
    low, high = one.up
    assert high - low == pytest.approx(10)
    share = charts.Panel("1/8", charts.Quantity("share (%)", 100, (0.0, 100.0)), curves)
    assert share.up == (0.0, 100.0)


def test_the_values_under_a_pointer_are_those_drawn_and_their_place_is_that_of_the_axes() -> None:
    panel = charts.Panel(
        "1/8", charts.MIOU, (charts.curve("one", 0, [by_epoch(10.0, 20.0), by_epoch(12.0, 24.0)]),)
    )
    found = charts.readings(panel)
    assert found["curves"] == [
        {"label": "one", "epochs": (1, 2), "mean": [11.0, 22.0], "low": [10.0, 20.0], "high": [12.0, 24.0]}
    ]
    left, top, wide, high = found["box"]
    _, _, width, height = map(float, ElementTree.fromstring(charts.svg(panel, "a")).attrib["viewBox"].split())
    # The frame's lines run along the box: matplotlib draws the left one from its bottom to its top.
    spine = f"M{left * width:.0f}"
    drawn = re.findall(r"M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)", charts.svg(panel, "a"))
    sides = [tuple(map(float, each)) for each in drawn if each[0] == each[2]]
    assert any(
        x == pytest.approx(left * width, abs=1)
        and {round(a), round(b)} == {round(top * height), round((top + high) * height)}
        for x, a, _, b in sides
    ), spine
    assert left + wide < 1


def test_a_small_picture_keeps_the_colours_of_a_mask_and_takes_little_room(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    mask = draw.integers(0, 255, (21, 3), dtype=np.uint8)[draw.integers(0, 21, (300, 500))]
    Image.fromarray(mask).save(tmp_path / "mask.png")
    smooth = Image.fromarray(draw.integers(0, 255, (30, 50, 3), dtype=np.uint8)).resize((500, 300))
    smooth.save(tmp_path / "photo.png")
    small = examples.thumbnail(tmp_path / "mask.png")
    with Image.open(io.BytesIO(base64.b64decode(small.partition(",")[2]))) as image:
        assert image.size == (256, 154)
        assert {tuple(color) for color in np.asarray(image.convert("RGB")).reshape(-1, 3)} <= {
            tuple(color) for color in mask.reshape(-1, 3)
        }
    assert small.startswith("data:image/webp")
    assert len(examples.thumbnail(tmp_path / "photo.png")) < (tmp_path / "photo.png").stat().st_size / 10
    exact, lossy = (examples.thumbnail(tmp_path / "mask.png", exact=exact) for exact in (True, False))
    assert exact == small != lossy


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
