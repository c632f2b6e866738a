"""labelme: a JSON file a picture, with shapes that are drawn as labelme's own export draws them."""

import math
import posixpath
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NotRequired

import numpy as np
from PIL import Image, ImageDraw
from typing_extensions import TypedDict

from u2pl.annotations import regions
from u2pl.annotations.export import REMEDY, Export, Many, Object, check_size, checked, first_come
from u2pl.annotations.regions import BadShape, Region, Size, check_near
from u2pl.errors import UserError
from u2pl.typed_files import Count, Finite

LINE_WIDTH = 10
POINT_RADIUS = 5
"""What labelme makes of lines and points when it exports masks, in pixels."""


class Shape(TypedDict):
    """Something that was drawn."""

    label: str
    points: Many[Many[Finite]]
    shape_type: NotRequired[str | None]
    mask: NotRequired[str | None]


class Document(TypedDict):
    """A file."""

    shapes: Many[Shape]
    imagePath: str
    imageHeight: NotRequired[Count | None]
    imageWidth: NotRequired[Count | None]


def is_one(value: Any) -> bool:
    """Whether a JSON value is, or was meant as, labelme's."""
    return isinstance(value, dict) and "shapes" in value and "imagePath" in value


def read(folder: Path, documents: Sequence[tuple[Path, Any]]) -> Export:
    """All files of a folder as one export; pictures are named relative to it.

    Raises:
        UserError: a file is not as labelme writes it, or two are of the same picture.
    """
    found: dict[str, tuple[Path, Document]] = {}
    for path, value in documents:
        document: Document = checked(Document, value, path, "labelme")
        beside = path.parent.relative_to(folder).as_posix()
        picture = posixpath.normpath(posixpath.join(beside, document["imagePath"].replace("\\", "/")))
        if picture in found:
            raise UserError(f"{found[picture][0]} and {path} are both of {picture}. Take one away.")
        found[picture] = path, document

    def objects(picture: str, size: Size) -> Iterator[Object]:
        path, document = found[picture]
        try:
            check_size((document.get("imageHeight"), document.get("imageWidth")), size)
            for shape in document["shapes"]:
                yield shape["label"], drawn(shape, size)
        except BadShape as error:
            raise UserError(f"{path}: a shape cannot be read: {error}. {REMEDY}") from None

    names = (shape["label"] for _, document in found.values() for shape in document["shapes"])
    return Export("labelme", folder, first_come(names), list(found), objects)


def drawn(shape: Shape, size: Size) -> Region:
    """The pixels of a shape, as labelme's `shape_to_mask` has them: Pillow draws, outline and inside.

    Raises:
        BadShape: there is no such shape, or it has another number of points.
    """
    check_near(shape["points"], size)
    kind, points = shape.get("shape_type") or "polygon", [(x, y) for x, y in shape["points"]]
    if kind == "mask":
        _count(kind, points, 2)
        part = regions.embedded(shape.get("mask") or "", size)
        return regions.placed(part > 0, int(points[0][0]), int(points[0][1]), size)
    picture = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(picture)
    if kind == "circle":
        _count(kind, points, 2)
        _disc(draw, points[0], math.dist(*points))
    elif kind == "rectangle":
        _count(kind, points, 2)
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(*points, strict=True))
        draw.rectangle((left, top, right, bottom), fill=1, outline=1)
    elif kind in {"line", "linestrip"}:
        draw.line(points, fill=1, width=LINE_WIDTH)
    elif kind in {"point", "points"}:
        for point in points:
            _disc(draw, point, POINT_RADIUS)
    elif kind in {"polygon", "oriented_rectangle"}:
        if len(points) < 3:
            raise BadShape(f"a {kind} of {len(points)} points")
        draw.polygon(points, fill=1, outline=1)
    else:
        raise BadShape(f"u2pl knows no shape called {kind!r}")
    return np.asarray(picture) > 0


def _disc(draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float) -> None:
    x, y = centre
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)


def _count(kind: str, points: Sequence[Any], wanted: int) -> None:
    if len(points) != wanted:
        raise BadShape(f"a {kind} of {len(points)} points")
