import re
import xml.etree.ElementTree as ElementTree

import pytest

from u2pl.page import dots
from u2pl.page.dots import Point


def test_a_picture_of_seeds_is_well_formed_and_names_its_lines() -> None:
    shown = {"1/8": [Point("MT", (50.0, 52.0), 51.0), Point("Theirs ‡", (), 65.5)]}
    text = dots.spread_svg(shown, "seeds")
    ElementTree.fromstring(text)
    assert {"1/8", "MT", "Theirs ‡", "mIoU (%)"} <= set(re.findall(r">([^<>]+)</text>", text))
    assert dots.spread_svg(shown, "x").replace("x-", "y-") == dots.spread_svg(shown, "y")


def test_a_label_of_a_picture_keeps_its_digits() -> None:
    text = dots.spread_svg({"a": [Point("lr 0.12345", (50.0,))]}, "digits")
    assert ">lr 0.12345</text>" in text


def ticks(text: str) -> list[float]:
    words = re.findall(r">([−\d.]+)</text>", text)
    return [float(word.replace("−", "-")) for word in words]


@pytest.mark.parametrize("draw", ["spread", "values", "gains"])
def test_noise_does_not_fill_an_axis(draw: str) -> None:
    near = [Point("one", (50.0, 50.1)), Point("other", (50.1, 50.3))]
    if draw == "spread":
        found = ticks(dots.spread_svg({"1/8": near}, "a"))
    elif draw == "values":
        found = ticks(dots.values_svg({"1/8": near}, "alpha0", "a"))
    else:
        found = ticks(dots.gains_svg("SupOnly", [Point("one", (0.1, 0.2)), Point("other", (-0.1, 0.0))], "a"))
    assert max(found) - min(found) >= 7.5  # of an axis of ten points its outermost ticks


def test_gains_stand_beside_the_line_of_no_difference() -> None:
    text = dots.gains_svg("SupOnly", [Point("U²PL", (12.0, 14.0))], "gain")
    assert 0 in ticks(text) and "mIoU above SupOnly, points" in text
