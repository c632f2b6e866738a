"""What a data set is: its classes, colours, void value, and where its files lie."""

from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator, model_validator

from u2pl.data.pictures import SUFFIXES, BadFile, Color, read_indices
from u2pl.errors import UserError, unknown
from u2pl.files import parse_yaml
from u2pl.settings import Settings

Progress = Callable[[str, int, int], None]
"""Told (what is being done, how many are done, of how many)."""


class Description(Settings):
    """A data set, as a built-in file or a YAML file describes it. Paths are relative to its root."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    classes: list[str] = Field(min_length=2, max_length=255)
    colors: list[Color] = Field(default_factory=list)
    """One RGB colour a class, for pictures and for colour masks; left out, distinct ones are chosen."""
    ignore_index: int = Field(default=255, ge=0, le=255)
    """The mask value of pixels that count neither in training nor in the metric."""
    ignore_color: Color | None = None
    """The same, in colour masks."""
    background: bool = False
    """Whether class 0 is a background class."""
    images: str = "images"
    """A folder; or a path with {name} in it."""
    masks: str = "masks"
    train: str = "train.txt"
    """One name a line: the image's path below `images`, without its suffix."""
    val: str = "val.txt"
    root: str | None = None
    """Folder of the data set, relative to the YAML file; left out, the YAML file's own."""

    @field_validator("images", "masks", "train", "val")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if not is_inside(path):
            raise ValueError("the path must be relative to the root and stay inside it")
        return path

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class name stands twice")
        if self.ignore_index < len(self.classes):
            raise ValueError(f"ignore_index {self.ignore_index} is also a class; classes start at 0")
        if not self.colors:
            object.__setattr__(self, "colors", [default_color(k) for k in range(len(self.classes))])
        if len(self.colors) != len(self.classes):
            raise ValueError(f"{len(self.colors)} colors for {len(self.classes)} classes")
        every = [*self.colors, *([self.ignore_color] if self.ignore_color else [])]
        if any(not 0 <= value <= 255 for color in every for value in color):
            raise ValueError("a color has three values from 0 to 255")
        if len(set(every)) < len(every):
            raise ValueError("two classes have the same color")
        return self


def is_inside(path: str) -> bool:
    """Whether a relative path cannot lead out of the folder it is relative to, on any system."""
    windows = PureWindowsPath(path)
    return bool(windows.parts) and not windows.anchor and ".." not in windows.parts


def default_color(index: int) -> Color:
    """A colour for class `index`; the first 256 differ (the palette of PASCAL VOC)."""
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return color[0], color[1], color[2]


def read_description(path: Path) -> Description:
    """The data set that a YAML file describes.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown, missing or has a bad value.
    """
    try:
        values = parse_yaml(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"There is no file {path}. Name a data set, or the YAML file of one.") from None
    except (yaml.YAMLError, OSError) as error:
        raise UserError(f"{path} is not a YAML file that can be read: {error}. Mend it.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold keys such as `name:` and `classes:`; docs/data.md shows one.")
    return describe(values, str(path))


def describe(values: dict[str, Any], where: str) -> Description:
    """`values` as a Description; `where` names their file in an error."""
    for key in values:
        if key not in Description.model_fields:
            raise unknown(f"key of {where}", str(key), Description.model_fields)
    try:
        return Description(**values)
    except ValidationError as error:
        problems = "; ".join(
            ": ".join([*map(str, problem["loc"]), problem["msg"].removeprefix("Value error, ")])
            for problem in error.errors()
        )
        raise UserError(
            f"{where} does not describe a data set: {problems}. Mend it; docs/data.md shows one."
        ) from None


def read_names(path: Path) -> list[str]:
    """The names in a list file: one a line, blank lines left out, a picture's suffix taken off.

    Raises:
        UserError: the file is missing or not UTF-8, or a name leads out of the data set's folder.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"The list {path} cannot be read ({error}). It holds one image name a line; "
            "write it, or name the right folder with --root."
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    names = [
        name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name for name in names
    ]
    outside = [name for name in names if not is_inside(name)]
    if outside:
        raise UserError(f"{path}: the name {outside[0]!r} leads out of the data set's folder. Mend the list.")
    return names


def read_mask(path: Path, description: Description) -> NDArray[np.uint8]:
    """The mask as class indices, uint8 (H, W), from an index, palette or RGB picture.

    Raises:
        BadFile: the file cannot be read, or a value or colour is neither a class nor ignored.
    """
    values = read_indices(path)
    if values.ndim == 3:
        return _classes_of_colors(values, path, description)
    known = {*range(len(description.classes)), description.ignore_index}
    strange = sorted(set(np.unique(values).tolist()) - known)
    if strange:
        last, ignored = len(description.classes) - 1, description.ignore_index
        raise BadFile(
            "mask value that is neither a class nor ignored",
            path,
            f"{_some(strange)}; classes are 0 to {last}, ignored is {ignored}",
        )
    return values.astype(np.uint8)


def _classes_of_colors(rgb: NDArray[Any], path: Path, description: Description) -> NDArray[np.uint8]:
    table = {_code(color): index for index, color in enumerate(description.colors)}
    if description.ignore_color:
        table[_code(description.ignore_color)] = description.ignore_index
    codes, places = np.unique(rgb.astype(np.int64) @ (65536, 256, 1), return_inverse=True)
    strange = [code for code in codes.tolist() if code not in table]
    if strange:
        colors = [(code >> 16, code >> 8 & 255, code & 255) for code in strange]
        raise BadFile("mask colour that is neither a class nor ignored", path, _some(colors))
    indices = np.array([table[code] for code in codes.tolist()], dtype=np.uint8)
    return indices[places].reshape(rgb.shape[:2])


def _code(color: Color) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _some(values: list[Any]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
