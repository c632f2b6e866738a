"""YOLO polygons: a text file a picture in a folder `labels`, outlines in shares of its sides, and names of classes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from u2pl.annotations import regions
from u2pl.annotations.export import REMEDY, Export, Object, files
from u2pl.annotations.regions import BadShape, Region, Size
from u2pl.errors import UserError, reason
from u2pl.files import Loader, parse_yaml

LABELS = "labels"
PICTURES = "images"
NAMES = "classes.txt"
Line = tuple[int, list[float]]
"""A class, and coordinates."""


class _Loader(Loader):
    """Names may stand under their numbers."""

    KEYS = (*Loader.KEYS, "tag:yaml.org,2002:int")


def read(source: Path, root: Path) -> Export | None:
    """The folder of a YAML file or a `classes.txt` that names classes; None where no outlines lie below it.

    Args:
        source: the file with the names; one that lies in `labels` is of the folder above.
        root: nothing outside of it is read.

    Raises:
        UserError: a file is not as YOLO has it.
    """
    folder = source.parent
    if folder.name == LABELS and folder != root:
        folder = folder.parent
    texts = [
        path
        for path in files(folder)
        if path.suffix == ".txt" and LABELS in path.relative_to(folder).parts[:-1] and path.name != NAMES
    ]
    names = _names(source) if texts else None
    if names is None:
        return None
    drawn = {_picture(path.relative_to(folder)): (path, list(_lines(path, len(names)))) for path in texts}
    if not any(len(values) > 4 for _, lines in drawn.values() for _, values in lines):
        return None

    def objects(picture: str, size: Size) -> Iterator[Object]:
        path, lines = drawn[picture]
        try:
            for k, values in lines:
                yield names[k], _region(values, size)
        except BadShape as error:
            raise UserError(f"{path}: a shape cannot be read: {error}. {REMEDY}") from None

    return Export("YOLO polygons", folder, names, list(drawn), objects)


def _picture(label: Path) -> str:
    """Where YOLO looks for the picture, without its suffix."""
    parts = list(label.with_name(label.name.removesuffix(".txt")).parts)
    last = len(parts) - 1 - parts[::-1].index(LABELS)
    return "/".join([*parts[:last], PICTURES, *parts[last + 1 :]])


def _region(values: list[float], size: Size) -> Region:
    """An outline, or a box by its centre where there are no more than four numbers."""
    height, width = size
    if len(values) == 4:
        x, y, w, h = values[0] * width, values[1] * height, values[2] * width, values[3] * height
        return regions.rectangle(x - w / 2, y - h / 2, x + w / 2, y + h / 2, size)
    points = zip(values[::2], values[1::2], strict=True)
    return regions.polygon([(x * width, y * height) for x, y in points], size)


def _lines(path: Path, classes: int) -> Iterator[Line]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}). {REMEDY}") from None
    for number, line in enumerate(lines, 1):
        first, *rest = line.split() or [""]
        if not first:
            continue
        try:
            values = [float(value) for value in rest]
        except ValueError:
            values = []
        if not first.isdecimal() or len(first) > 9 or len(values) < 4 or len(values) % 2:
            raise UserError(
                f"{path}, line {number}: {line[:60]!r} is no class and its outline. Mend the line, or take it away."
            )
        if int(first) >= classes:
            raise UserError(
                f"{path}, line {number}: there is no class {first}, since {classes} are named. "
                f"Name it where the others are."
            )
        yield int(first), values


def _names(source: Path) -> list[str] | None:
    """The names of classes; None where the file has none, as it is of something else then."""
    try:
        text = source.read_text(encoding="utf-8-sig")
        if source.name == NAMES:
            return [line.strip() for line in text.splitlines() if line.strip()]
        value = parse_yaml(text, _Loader) if "names" in text else None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{source} cannot be read ({reason(error)}). {REMEDY}") from None
    found: Any = value.get("names") if isinstance(value, dict) else None
    if found is None:
        return None
    if isinstance(found, dict):
        numbers = {int(key): name for key, name in found.items() if str(key).isdecimal()}
        found = [numbers.get(k) for k in range(len(found))]
    if not isinstance(found, list) or not found or not all(isinstance(name, str) and name for name in found):
        raise UserError(f"{source}: `names` is no list of classes' names. {REMEDY}")
    return list(found)
