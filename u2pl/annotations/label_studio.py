"""Label Studio: its JSON export, with outlines, rectangles, ellipses and brushes of what people submitted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from u2pl.annotations import regions, runs
from u2pl.annotations.export import REMEDY, Export, Many, Object, check_size, checked, first_come
from u2pl.annotations.regions import BadShape, Region, Size
from u2pl.data.pictures import SUFFIXES
from u2pl.errors import UserError
from u2pl.typed_files import Count, Finite

SHAPES = {
    "polygon": "points",
    "rectangle": "width",
    "ellipse": "radiusX",
    "brush": "rle",
    "bitmask": "imageDataURL",
}
"""What a region's kind begins with, and what it then has."""
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_PNG = "data:image/png;base64,"


class Result(TypedDict):
    """A region, or something else that was answered."""

    id: NotRequired[str]
    type: str
    value: dict[str, Any]
    original_height: NotRequired[Count]
    original_width: NotRequired[Count]


class Annotation(TypedDict):
    """What one person submitted."""

    result: Many[Result]
    was_cancelled: NotRequired[bool]
    ground_truth: NotRequired[bool]


class Task(TypedDict):
    """A picture."""

    data: dict[str, Any]
    annotations: Many[Annotation]


def is_one(value: Any) -> bool:
    """Whether a JSON value is Label Studio's, or was meant so."""
    return isinstance(value, list) and any(
        isinstance(task, dict) and isinstance(task.get("data"), dict) and "annotations" in task
        for task in value[:1]
    )


def is_short(value: Any) -> bool:
    """Whether it is Label Studio's other JSON, which does not say what is what."""
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and {"annotation_id", "annotator"} <= value[0].keys()
    )


def read(path: Path, value: Any) -> Export:
    """An export as JSON; of several answers to a task the one marked as ground truth counts, or else the last.

    Raises:
        UserError: it is not as Label Studio writes it.
    """
    tasks: Many[Task] = checked(Many[Task], value, path, "Label Studio")
    drawn: dict[str, list[tuple[str, Result]]] = {}
    for k, task in enumerate(tasks):
        answers = [each for each in task["annotations"] if not each.get("was_cancelled")]
        if not answers:
            continue
        answer = next((each for each in answers if each.get("ground_truth")), answers[-1])
        picture = _picture(task["data"])
        if picture is None:
            raise UserError(f"{path}: the data of task {k + 1} names no picture, or several. {REMEDY}")
        drawn.setdefault(picture, []).extend(_named(answer["result"]))

    def objects(picture: str, size: Size) -> Iterator[Object]:
        for name, result in drawn[picture]:
            check_size((result.get("original_height"), result.get("original_width")), size)
            yield name, _region(result, size)

    names = first_come(name for results in drawn.values() for name, _ in results)
    return Export("Label Studio", path, names, list(drawn), objects)


def _picture(data: dict[str, Any]) -> str | None:
    """The path in a task's data: that called image, or the only one that ends as pictures do."""
    paths = {key: picture_path(text) for key, text in data.items() if isinstance(text, str)}
    found = {key: path for key, path in paths.items() if path.lower().endswith(SUFFIXES)}
    if "image" in found:
        return found["image"]
    return next(iter(found.values())) if len(found) == 1 else None


def picture_path(reference: str) -> str:
    """The path of a file that Label Studio refers to: one uploaded, one in a local folder, or an address."""
    try:
        parts = urlsplit(reference)
    except ValueError:
        return reference
    if parts.path.endswith("/data/local-files/"):
        return parse_qs(parts.query).get("d", [""])[0].lstrip("/")
    if not parts.scheme and not parts.path.startswith("/data/"):
        return reference  # not an address: a character like % or ? is its own
    path = unquote(parts.path).lstrip("/")
    folder, slash, name = path.rpartition("/")
    if re.search(r"(^|/)data/upload/", path):
        return _UPLOADED.sub("", name, count=1)
    return f"{folder}{slash}{name}"


def _named(results: list[Result]) -> Iterator[tuple[str, Result]]:
    """Regions and their classes; a class may stand in another result of the same id."""
    others = {result["id"]: result for result in results if result["type"] == "labels" and result.get("id")}
    for result in results:
        kind = _kind(result)
        if kind is None:
            continue
        value = result["value"]
        names = value.get(f"{kind}labels") or value.get("labels")
        if not names and (other := others.get(result.get("id", ""))):
            names = other["value"].get("labels")
        if isinstance(names, list) and names and isinstance(names[0], str):
            yield names[0], result


def _kind(result: Result) -> str | None:
    """A key of `SHAPES`, if the result is a region that has what that kind has."""
    kind = result["type"].removesuffix("labels")
    if kind:
        return kind if kind in SHAPES else None
    return next((each for each, key in SHAPES.items() if key in result["value"]), None)


def _region(result: Result, size: Size) -> Region:
    """The pixels of a region, whose coordinates are in percent of the picture."""
    kind, value = _kind(result), result["value"]
    height, width = size
    if kind == "brush":
        if not isinstance(value.get("rle"), list):
            raise BadShape("a brush without run lengths")
        return runs.from_brush(value["rle"], size)
    if kind == "bitmask":
        return _bitmask(value.get("imageDataURL"), size)
    if kind == "polygon":
        points = _value(Many[Many[Finite]], value.get("points"))
        if not all(len(point) == 2 for point in points):
            raise BadShape("a corner that has not two coordinates")
        return regions.polygon([(x * width / 100, y * height / 100) for x, y in points], size)
    degrees = _value(Finite, value.get("rotation") or 0)
    x, y = (_value(Finite, value.get(key)) for key in "xy")
    sides = ("width", "height") if kind == "rectangle" else ("radiusX", "radiusY")
    a, b = (_value(Finite, value.get(key)) for key in sides)
    x, y, a, b = x * width / 100, y * height / 100, a * width / 100, b * height / 100
    if kind == "ellipse":
        return regions.ellipse(x, y, a, b, size, degrees)
    if degrees % 360:  # around its upper left corner
        corners = [(x, y), (x + a, y), (x + a, y + b), (x, y + b)]
        return regions.polygon(regions.turned(corners, (x, y), degrees), size)
    return regions.rectangle(x, y, x + a, y + b, size)


def _bitmask(text: Any, size: Size) -> Region:
    if not isinstance(text, str) or not text.startswith(_PNG):
        raise BadShape("a bitmask without a picture")
    pixels = regions.embedded(text.removeprefix(_PNG), size)
    check_size((pixels.shape[0], pixels.shape[1]), size)
    return pixels > 0


def _value(kind: Any, value: Any) -> Any:
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        raise BadShape("a coordinate is missing or no number") from None
