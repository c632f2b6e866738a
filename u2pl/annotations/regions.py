"""The pixels that a shape covers: polygons, rectangles, ellipses, lines and pictures, as bool (H, W).

Coordinates are of pixels' edges: pixel 0 reaches from 0 to 1. A pixel is covered where its centre is; of polygons
pycocotools decides, as it does for CVAT's and COCO's own masks.
"""

import base64
import binascii
import math
import warnings
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco

Size = tuple[int, int]
"""Height and width."""
Region = NDArray[np.bool_]
"""Whether each pixel of a picture is covered, (H, W)."""
Points = Sequence[Sequence[float]]
"""x and y of each corner, in pixels."""

FARTHEST = 10
"""Sides of the picture that a corner may lie away from it; nobody drew one farther."""

MOST_CORNERS = 100_000
"""Of one shape; nobody drew more."""


class BadShape(Exception):
    """Why a shape cannot be one of this picture, for the middle of a sentence."""


def check_near(points: Points, size: Size) -> None:
    """Check that corners are numbers near the picture: those who draw take time and memory for each pixel in between.

    Raises:
        BadShape: one is not, or there are too many.
    """
    if len(points) > MOST_CORNERS:
        raise BadShape(f"it has more than {MOST_CORNERS:,} corners")
    far = FARTHEST * (max(size) + 1)
    if not all(len(point) == 2 and abs(point[0]) <= far and abs(point[1]) <= far for point in points):
        raise BadShape("it lies far outside of the picture")


def polygon(points: Points, size: Size) -> Region:
    """What an outline of at least three corners encloses; of fewer nothing."""
    check_near(points, size)
    if len(points) < 3:
        return np.zeros(size, bool)
    flat = [float(value) for point in points for value in point]
    return decoded([flat], size)


def decoded(described: Any, size: Size) -> Region:
    """What pycocotools makes of one outline, as numbers in a list in a list, or of run lengths that were checked."""
    with warnings.catch_warnings():
        # Its arrays are older than the keyword `copy`; NumPy goes on without it.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        pixels = coco.decode(coco.frPyObjects(described, *size))
    return np.asarray(pixels.reshape(size) > 0)


def rectangle(left: float, top: float, right: float, bottom: float, size: Size, degrees: float = 0) -> Region:
    """A rectangle, turned clockwise around its centre."""
    if degrees % 360:
        middle = ((left + right) / 2, (top + bottom) / 2)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        return polygon(turned(corners, middle, degrees), size)
    check_near([(left, top), (right, bottom)], size)
    covered = np.zeros(size, bool)
    rows, columns = (
        slice(*(max(0, math.ceil(value - 0.5)) for value in sorted(pair)))
        for pair in ((top, bottom), (left, right))
    )
    covered[rows, columns] = True
    return covered


def ellipse(x: float, y: float, radius_x: float, radius_y: float, size: Size, degrees: float = 0) -> Region:
    """An ellipse around (x, y), turned clockwise around that point."""
    check_near([(x, y), (radius_x, radius_y)], size)
    if not (radius_x and radius_y):
        return np.zeros(size, bool)
    down, right = np.ogrid[: size[0], : size[1]]
    down, right = down + 0.5 - y, right + 0.5 - x
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    along, across = right * cos + down * sin, down * cos - right * sin
    return np.asarray((along / radius_x) ** 2 + (across / radius_y) ** 2 <= 1)


def line(points: Points, size: Size, width: int = 1) -> Region:
    """A line through points, that many pixels wide."""
    check_near(points, size)
    picture = Image.new("L", (size[1], size[0]))
    ImageDraw.Draw(picture).line([(x, y) for x, y in points], fill=1, width=width)
    return np.asarray(picture) > 0


def turned(points: Points, around: Sequence[float], degrees: float) -> list[tuple[float, float]]:
    """Corners, turned clockwise (y points down) around a point."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x0, y0 = around
    return [(x0 + (x - x0) * cos - (y - y0) * sin, y0 + (x - x0) * sin + (y - y0) * cos) for x, y in points]


def placed(part: Region, left: int, top: int, size: Size) -> Region:
    """A small region with its upper left corner there; what lies outside of the picture is cut off."""
    check_near([(left, top)], size)
    covered = np.zeros(size, bool)
    rows = slice(max(0, top), max(0, min(size[0], top + part.shape[0])))
    columns = slice(max(0, left), max(0, min(size[1], left + part.shape[1])))
    covered[rows, columns] = part[
        rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
    ]
    return covered


def embedded(text: str, most: Size) -> NDArray[np.uint8]:
    """The picture that stands as base64 in a file, one channel or with alpha: what is not zero, or opaque, counts.

    Args:
        text: a PNG file in base64.
        most: height and width that it may have.

    Raises:
        BadShape: it is no such picture, or a larger one.
    """
    try:
        with Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as picture:
            if picture.height > most[0] or picture.width > most[1]:
                raise BadShape(f"its mask is {picture.width} x {picture.height} pixels")
            if picture.mode == "RGBA":
                return np.where(np.asarray(picture)[..., 3] >= 128, 255, 0).astype(np.uint8)
            return np.where(np.asarray(picture.convert("L")) > 0, 255, 0).astype(np.uint8)
    except (binascii.Error, ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadShape(f"its mask is no PNG picture ({str(error).splitlines()[0]})") from None
