"""CVAT: `CVAT for images 1.1`, an XML file with shapes, and `Segmentation mask 1.1`, pictures in labels' colours."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from u2pl.annotations import regions, runs
from u2pl.annotations.export import LARGEST, REMEDY, Export, Object, check_size, files, first_come
from u2pl.annotations.regions import BadShape, Region, Size
from u2pl.data.inspection import BadFile
from u2pl.data.pictures import Color, read_image
from u2pl.errors import UserError, reason
from u2pl.files import content

SHAPES = ("polygon", "box", "mask", "ellipse", "polyline")
"""What covers pixels; points, cuboids, skeletons and tags do not."""
LABELS = "labelmap.txt"
MASKS = "SegmentationClass"


# ---- CVAT for images -------------------------------------------------------------------------------------


def is_images(head: bytes) -> bool:
    """Whether a file that begins so is meant as CVAT's XML."""
    return b"<annotations" in head


def read_images(path: Path) -> Export | None:
    """`annotations.xml`; None where it is some other XML.

    Raises:
        UserError: it is damaged, or of a video.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} has more than {LARGEST // 2**20:,} MB. Export it in parts.")
        # At once: fed in pieces, the parser begins a long attribute anew with each of them.
        root = ElementTree.fromstring(content(path), forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError, OSError) as error:
        raise UserError(f"{path} is no XML that CVAT writes ({reason(error)}). {REMEDY}") from None
    if root.tag != "annotations":
        return None
    if root.find("track") is not None:
        raise UserError(f"{path} is of a video. Export the task as `CVAT for images 1.1`.")
    pictures: dict[str, list[Element]] = {}
    sizes: dict[str, tuple[int | None, int | None]] = {}
    for k, image in enumerate(root.iter("image")):
        name = image.get("name")
        if not name:
            raise UserError(f"{path}: image {k + 1} has no name. {REMEDY}")
        shapes = [shape for shape in image if shape.tag in SHAPES]
        if not all(shape.get("label") for shape in shapes):
            raise UserError(f"{path}: {name} has a shape without a label. {REMEDY}")
        if shapes:
            pictures.setdefault(name, []).extend(shapes)
            sizes[name] = _whole(image, "height"), _whole(image, "width")
    named = (label.findtext("name") or "" for label in root.iterfind("./meta//labels/label"))
    used = (str(shape.get("label")) for shapes in pictures.values() for shape in shapes)
    classes = first_come(name for names in (named, used) for name in names if name)
    if not pictures and not classes:
        return None

    def objects(picture: str, size: Size) -> Iterator[Object]:
        check_size(sizes[picture], size)
        for shape in sorted(pictures[picture], key=lambda each: _number(each, "z_order", 0)):
            yield str(shape.get("label")), _region(shape, size)

    return Export("CVAT for images", path, classes, list(pictures), objects)


def _region(shape: Element, size: Size) -> Region:
    if shape.tag in {"polygon", "polyline"}:
        points = _points(shape)
        return regions.polygon(points, size) if shape.tag == "polygon" else regions.line(points, size)
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, name) for name in ("xtl", "ytl", "xbr", "ybr"))
        return regions.rectangle(left, top, right, bottom, size, _number(shape, "rotation", 0))
    if shape.tag == "ellipse":
        x, y, radius_x, radius_y = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
        return regions.ellipse(x, y, radius_x, radius_y, size, _number(shape, "rotation", 0))
    left, top, width, height = (round(_number(shape, name)) for name in ("left", "top", "width", "height"))
    if not (0 < width <= size[1] and 0 < height <= size[0]):
        raise BadShape(f"a mask of {width} x {height} pixels")
    counts = (shape.get("rle") or "").split(",")
    return regions.placed(runs.alternating(counts, width * height).reshape(height, width), left, top, size)


def _points(shape: Element) -> list[list[float]]:
    text = shape.get("points") or ""
    if text.count(";") > regions.MOST_CORNERS:
        raise BadShape(f"a {shape.tag} of more than {regions.MOST_CORNERS:,} corners")
    try:
        return [[float(value) for value in point.split(",")] for point in text.split(";")]
    except ValueError:
        raise BadShape(f"a {shape.tag} whose points are no numbers") from None


def _number(element: Element, name: str, otherwise: float | None = None) -> float:
    text = element.get(name)
    try:
        value = float(text) if text is not None else otherwise
    except ValueError:
        value = None
    if value is None or not abs(value) < 2**31:
        raise BadShape(f"a {element.tag} whose {name} is {text!r}")
    return value


def _whole(image: Element, name: str) -> int | None:
    text = image.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 else None


# ---- Segmentation mask -----------------------------------------------------------------------------------


def read_masks(labels: Path) -> Export | None:
    """The folder of a `labelmap.txt`; None where there are no masks beside it.

    Pixels of background, which CVAT adds to the labels in black, are those on which nothing is drawn.

    Raises:
        UserError: the labels are not as CVAT writes them.
    """
    folder = labels.parent
    if not (folder / MASKS).is_dir():
        return None
    colors = _colors(labels)
    masks = {
        path.relative_to(folder / MASKS).as_posix(): path
        for path in files(folder / MASKS)
        if path.suffix.lower() == ".png"
    }

    def objects(picture: str, size: Size) -> Iterator[Object]:
        try:
            pixels = read_image(masks[picture])
        except BadFile as error:
            raise UserError(f"{masks[picture]} is no mask: {error}. {REMEDY}") from None
        check_size((pixels.shape[0], pixels.shape[1]), size)
        codes = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
        known = {_code(color): name for name, color in colors.items()}
        for code in np.unique(codes).tolist():
            if code and code not in known:
                raise BadShape(f"its mask has the colour #{code:06x}, which {LABELS} does not name")
            if code:
                yield known[code], codes == code

    classes = [name for name, color in colors.items() if _code(color)]
    return Export("CVAT segmentation mask", folder, classes, list(masks), objects)


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _colors(path: Path) -> dict[str, Color]:
    """`name:red,green,blue:parts:actions` a line, and comments."""
    found: dict[str, Any] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}). {REMEDY}") from None
    for k, line in enumerate(lines):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.rsplit(":", 3)
        color = rest[0].split(",") if len(rest) == 3 else []
        if len(color) != 3 or not all(v.strip().isdecimal() and int(v) < 256 for v in color) or name in found:
            raise UserError(f"{path}, line {k + 1}: {line[:80]!r} is no label and its colour. {REMEDY}")
        found[name] = tuple(int(value) for value in color)
    codes = [_code(color) for color in found.values()]
    if len(set(codes)) < len(codes):
        raise UserError(f"{path} gives two labels the same colour. Change one in CVAT, and export again.")
    return found
