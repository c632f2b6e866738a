"""Contact sheets: pictures side by side, a row an image, with its name and a line of words above."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from u2pl.data.image_set import ImageSet
from u2pl.data.pictures import write_png
from u2pl.exchange.model import Model, Pixels
from u2pl.exchange.predictor import overlay
from u2pl.trust.findings import DoubtfulMask

HEIGHT, WIDEST, GAP, LINE = 160, 320, 6, 18
"""Of a picture on a sheet, in pixels: its height, its largest width, what is between two, and a line of words."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
MARK = (255, 0, 255)
"""Of what should be looked at."""


class Row(NamedTuple):
    """Of a sheet."""

    name: str
    words: str
    pictures: Sequence[Pixels]
    """(H, W, 3) uint8, of any size, as many as the sheet has columns."""


def sheet(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Write a contact sheet; without a row none, and an old one is removed.

    Args:
        path: a PNG.
        columns: what stands over the pictures.
        rows: the first on top.
    """
    if not rows:
        path.unlink(missing_ok=True)
        return
    small = [[_fitted(picture) for picture in row.pictures] for row in rows]
    width = max(picture.shape[1] for pictures in small for picture in pictures)
    room = len(columns) * (width + GAP) + GAP
    each = 2 * LINE + HEIGHT + GAP
    page = Image.new("RGB", (room, LINE + len(rows) * each), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for number, column in enumerate(columns):
        draw.text((GAP + number * (width + GAP), 2), column, fill="black", font=font)
    for number, (row, pictures) in enumerate(zip(rows, small, strict=True)):
        top = LINE + number * each
        # Names of files begin alike, and what is said first matters most.
        draw.text((GAP, top), _shortened(row.name, draw, font, room - 2 * GAP, front=True), "black", font)
        draw.text(
            (GAP, top + LINE), _shortened(row.words, draw, font, room - 2 * GAP, front=False), "black", font
        )
        for place, picture in enumerate(pictures):
            page.paste(Image.fromarray(picture), (GAP + place * (width + GAP), top + 2 * LINE))
    write_png(path, np.asarray(page))


def marked(picture: Pixels, where_HW: NDArray[np.bool_]) -> Pixels:
    """The picture in grey, with some of its pixels in a colour that stands out."""
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    grey[where_HW] = MARK
    return grey


def masks(path: Path, doubtful: Sequence[DoubtfulMask], split: ImageSet, model: Model) -> None:
    """The sheet of the most doubtful masks: picture, mask, prediction, and where they differ.

    Args:
        path: a PNG.
        doubtful: the masks, the first of them on top.
        split: has the pictures and masks.
        model: what predicts.
    """
    rows = []
    for each in doubtful:
        picture, given = split.image(each.image), split.mask(each.image)
        predicted = model.predict(picture).classes
        known = given != split.ignore_index
        shown = np.where(known, given, 0).astype(np.uint8)
        truth = np.where(known[..., None], overlay(picture, shown, model.description), 255).astype(np.uint8)
        differing = marked(picture, known & (predicted != given))
        for region in each.regions[:3]:
            left, top, width, height = region.box
            cv2.rectangle(differing, (left, top), (left + width - 1, top + height - 1), (255, 255, 0), 2)
        words = f"{each.list}, score {each.score:.3f}"
        if each.regions:
            largest = each.regions[0]
            words += f": {split.classes[largest.given]}, rather {split.classes[largest.predicted]}?"
        pictures = [picture, truth, overlay(picture, predicted, model.description), differing]
        rows.append(Row(each.image, words, pictures))
    sheet(path, ("picture", "its mask", "the network", "where they differ"), rows)


def _fitted(picture: Pixels) -> Pixels:
    """As large as there is room for."""
    height, width = picture.shape[:2]
    scale = min(HEIGHT / height, WIDEST / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(picture, size, interpolation=way), np.uint8)


def _shortened(words: str, draw: ImageDraw.ImageDraw, font: Font, room: int, *, front: bool) -> str:
    """Words that fit; what is left out stood at their front, or else at their end."""
    if draw.textlength(words, font=font) <= room:
        return words
    while words and draw.textlength(f"{words}…", font=font) > room:
        words = words[1:] if front else words[:-1]
    return f"…{words}" if front else f"{words}…"
