"""Contact sheets: small pictures in rows, each beside what a model makes of it, with pixels left blank hatched."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from u2pl.data.description import Description
from u2pl.exchange.predictor import overlay

PER_PAGE = 20
COLUMNS = 2
SIDE = 240
"""Longest side of a small picture, pixels."""
GAP = 8
LINE = 15
"""Height of a line of text."""
STRIPE = 3
"""Width of a stripe of the hatching."""

Pixels = NDArray[np.uint8]


class Entry(NamedTuple):
    """A picture on a sheet."""

    picture: Pixels
    """(h, w, 3), small."""
    prediction: Pixels
    """(h, w, 3), likewise."""
    lines: Sequence[str]
    """What stands below."""


def entry(
    picture: Pixels, mask: Pixels, predicted: Pixels, description: Description, lines: Sequence[str]
) -> Entry:
    """A picture as it is shown.

    Args:
        picture: (H, W, 3) RGB.
        mask: (H, W) the predicted classes, and `ignore_index` where it is blank.
        predicted: (H, W) the predicted classes, also where it is blank.
        description: of the data set, whose colours the classes have.
        lines: of text.
    """
    height, width = mask.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    classes, blank = (_nearest(part, size) for part in (predicted, mask))
    return Entry(
        small, hatched(overlay(small, classes, description), blank == description.ignore_index), lines
    )


def _nearest(part: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(part).resize(size, Image.Resampling.NEAREST))


def hatched(picture: Pixels, where: NDArray[np.bool_]) -> Pixels:
    """A picture (H, W, 3) with stripes of black and white where (H, W) says so."""
    rows, columns = np.indices(where.shape)
    light = (rows + columns) // STRIPE % 2 == 0
    drawn = picture.copy()
    drawn[where & light] = 255
    drawn[where & ~light] = 40
    return drawn


def pages(entries: Sequence[Entry]) -> list[Pixels]:
    """The sheets, (H, W, 3) each, of as many entries as `PER_PAGE`."""
    return [_page(entries[start : start + PER_PAGE]) for start in range(0, len(entries), PER_PAGE)]


def _page(entries: Sequence[Entry]) -> Pixels:
    rows = [entries[start : start + COLUMNS] for start in range(0, len(entries), COLUMNS)]
    lines = max(len(one.lines) for one in entries)
    heights = [max(one.picture.shape[0] for one in row) + lines * LINE + 2 * GAP for row in rows]
    cell = 2 * SIDE + 3 * GAP
    sheet = Image.new("RGB", (COLUMNS * cell + GAP, sum(heights) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            left = GAP + column * cell
            sheet.paste(Image.fromarray(one.picture), (left, top))
            sheet.paste(Image.fromarray(one.prediction), (left + SIDE + GAP, top))
            below = top + one.picture.shape[0] + 2
            for at, line in enumerate(one.lines):
                draw.text((left, below + at * LINE), _fitting(line, font, cell - 2 * GAP), "black", font)
        top += height
    return np.asarray(sheet)


def _fitting(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a line as there is room for."""
    if font.getlength(line) <= width:
        return line
    room = bisect_right(
        range(len(line)), width, key=lambda length: round(font.getlength(f"{line[:length]}..."))
    )
    return f"{line[: max(0, room - 1)]}..."
