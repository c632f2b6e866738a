"""An export: what somebody drew on pictures with an annotation tool, asked for one mask at a time."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from u2pl.annotations.regions import BadShape, Region, Size
from u2pl.errors import UserError
from u2pl.files import content, read_json
from u2pl.typed_files import problems

LARGEST = 2**30
"""Bytes of a file that is read: a table of all of COCO has half as many."""
MOST_OBJECTS = 20_000
"""Of one picture; each is painted over all of it."""
REMEDY = "Export it again, or take it out of the folder."
Object = tuple[str, Region]
"""A class's name, and the pixels of it."""

T = TypeVar("T")
Many = Annotated[list[T], Field(fail_fast=True)]
"""A list of which the first wrong item is told; to tell of millions would take all memory."""


@dataclass(frozen=True)
class Export:
    """What one export says.

    Attributes:
        format: as its tool calls it.
        path: of the file, or of the folder.
        classes: names, in the tool's order.
        pictures: path or name of each annotated picture, as the export has it.
        objects: what is drawn on a picture of that name and size, the lowest first.
    """

    format: str
    path: Path
    classes: list[str]
    pictures: list[str]
    objects: Callable[[str, Size], Iterator[Object]] = field(repr=False)

    def mask(self, picture: str, classes: Mapping[str, int], size: Size, unpainted: int) -> NDArray[np.uint8]:
        """The class indices of a picture, uint8 (H, W); of objects that overlap the upper one's.

        Args:
            picture: one of `pictures`.
            classes: index of each class; a name that means void may have the index of void.
            size: height and width of the upright picture.
            unpainted: index of pixels on which nothing is drawn.

        Raises:
            UserError: the export is of a picture of another size, a shape cannot be, or has a class that is not in
                `classes`.
        """
        mask = np.full(size, unpainted, np.uint8)
        try:
            for count, (name, region) in enumerate(self.objects(picture, size)):
                if count == MOST_OBJECTS:
                    raise BadShape(f"it has more than {MOST_OBJECTS:,} objects")
                if name not in classes:
                    raise UserError(
                        f"{self.path}: {picture} has an object of the class {name!r}, which is not among the "
                        f"classes: {', '.join(classes)}. Add it to them, or rename it in the tool."
                    )
                mask[region] = classes[name]
        except BadShape as error:
            raise UserError(f"{self.path}: a shape on {picture} cannot be read: {error}. {REMEDY}") from None
        return mask


def check_size(said: tuple[int | None, int | None], size: Size) -> None:
    """Check that an export, if it says a size, is of a picture of that size.

    Args:
        said: height and width.
        size: of the picture.

    Raises:
        BadShape: it is of another one.
    """
    for found, true in zip(said, size, strict=True):
        if found is not None and found != true:
            raise BadShape(
                f"it was drawn on a picture of {said[1]} x {said[0]} pixels, and this one is {size[1]} x {size[0]}"
            )


def first_come(names: Iterator[str]) -> list[str]:
    """Each name once."""
    return list(dict.fromkeys(names))


# ---- files ---------------------------------------------------------------------------------------------


def files(folder: Path) -> Iterator[Path]:
    """All ordinary files in a folder and below it, by name; no hidden ones, and none that a link leads out to."""
    inside = folder.resolve()
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here, name)
            if (
                not name.startswith(".")
                and path.is_file()
                and (not path.is_symlink() or path.resolve().is_relative_to(inside))
            ):
                yield path


def text_of(path: Path) -> bytes | None:
    """What a file holds that may be an export; None where it cannot be read, since nobody said that it is one."""
    try:
        if path.stat().st_size <= LARGEST:
            return content(path)
        with path.open("rb") as file:
            return file.read(2**16)
    except OSError:
        return None


def json_of(path: Path) -> Any:
    """The JSON value in an export.

    Raises:
        UserError: it is damaged, or too large.
    """
    if path.stat().st_size > LARGEST:
        raise UserError(f"{path} has more than {LARGEST // 2**20:,} MB. Export it in parts.")
    return read_json(path, REMEDY)


def checked(kind: type[T] | Any, value: Any, path: Path, tool: str) -> Any:
    """`value` as a `kind`; what `kind` does not know is left out.

    Raises:
        UserError: it is not of that kind.
    """
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except (ValidationError, RecursionError) as error:
        what = problems(error) if isinstance(error, ValidationError) else "too deep"
        raise UserError(f"{path} is not what {tool} writes ({what}). {REMEDY}") from None
