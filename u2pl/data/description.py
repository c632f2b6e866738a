"""What a data set is: its classes, colours, void value, and where its files lie."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, ValidationError, field_validator, model_validator

from u2pl.data.inspection import BadFile, read_raw_mask
from u2pl.data.palettes import Contradiction, class_of_index
from u2pl.data.pictures import Color
from u2pl.errors import UserError, unknown
from u2pl.files import Loader, content, parse_yaml
from u2pl.project import is_inside
from u2pl.settings import Settings
from u2pl.typed_files import read

Progress = Callable[[str, int, int], None]
"""Told (what is being done, how many are done, of how many)."""


VOID = "void"
"""What a mask value means that is no class."""


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
    palette: Literal["automatic", "colors", "indices", "consistent"] = "automatic"
    """What counts in a palette mask. Automatic: the colours where all of them are classes', the indices where their
    colours do not contradict; what is neither is refused. Consistent: the indices, which must have the same colours in
    all masks; this is what automatic becomes where no colours are given."""
    zero: Literal["class", "void"] = "class"
    """What the mask value 0 means: the first class, or void, and the classes start at 1."""
    values: dict[int, str] = Field(default_factory=dict)
    """Mask value -> class, or "void"; left out, the values are the classes' numbers."""
    mask_orientation: Literal["shown", "stored"] = "shown"
    """How masks without an EXIF orientation lie over images that have one: over the image as shown, or as stored."""
    background: bool = False
    """Whether class 0 is a background class."""
    images: str = "images"
    """A folder; or a path with {name} in it."""
    masks: str = "masks"
    train: str = "train.txt"
    """An image a line: its path below `images`, without its suffix, or any path `lists` can read, and its mask's."""
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
        self._check_values()
        if self.ignore_index < len(self.classes):
            self._check_ignore_index()
        if not self.colors:
            if self.palette == "colors":
                raise ValueError("palette: colors needs the classes' colors")
            object.__setattr__(self, "colors", [default_color(k) for k in range(len(self.classes))])
            if (
                self.palette == "automatic"
            ):  # there are no colours to compare with, also when this is read again
                object.__setattr__(self, "palette", "consistent")
        if len(self.colors) != len(self.classes):
            raise ValueError(f"{len(self.colors)} colors for {len(self.classes)} classes")
        every = [*self.colors, *([self.ignore_color] if self.ignore_color else [])]
        if any(not 0 <= value <= 255 for color in every for value in color):
            raise ValueError("a color has three values from 0 to 255")
        if len(set(every)) < len(every):
            raise ValueError("two classes have the same color")
        return self

    def _check_values(self) -> None:
        if not self.values:
            return
        if self.zero == VOID:
            raise ValueError("zero and values both say what 0 means; leave one out")
        if VOID in self.classes:
            raise ValueError(
                f"values cannot tell the class {VOID!r} from void; call the class something else"
            )
        if not all(0 <= value < 2**16 for value in self.values):
            raise ValueError("the values of a mask are 0 to 65535")
        strange = [name for name in self.values.values() if name not in (*self.classes, VOID)]
        if strange:
            raise ValueError(f"{strange[0]!r} is no class; values name classes, or {VOID}")
        without = [name for name in self.classes if name not in self.values.values()]
        if without:
            raise ValueError(f"values give no value to {without[0]!r}")

    def _check_ignore_index(self) -> None:
        """In the masks that are written an index is a class or void; in those that are read a value may be both."""
        index = self.ignore_index
        if (index == 0 and self.zero == VOID) or self.values.get(index) == VOID:
            object.__setattr__(self, "ignore_index", 255)
            return
        remedy = (
            f"where 0 is {VOID} and the classes start at 1, write zero: {VOID} instead"
            if index == 0
            else "where masks hold other values, write with values: what each means"
        )
        raise ValueError(f"ignore_index {index} is also a class; classes start at 0; {remedy}")

    @property
    def class_of_value(self) -> Mapping[int, int]:
        """Mask value -> class index, or `ignore_index`."""
        void = {self.ignore_index: self.ignore_index}
        if self.values:
            index_of = {name: k for k, name in enumerate(self.classes)} | {VOID: self.ignore_index}
            return void | {value: index_of[name] for value, name in self.values.items()}
        if self.zero == VOID:
            return void | {0: self.ignore_index} | {k + 1: k for k in range(len(self.classes))}
        return void | {k: k for k in range(len(self.classes))}

    @property
    def class_of_color(self) -> Mapping[Color, int]:
        """Colour in a mask -> class index, or `ignore_index`."""
        ignored = {self.ignore_color: self.ignore_index} if self.ignore_color else {}
        return {color: k for k, color in enumerate(self.colors)} | ignored


def default_color(index: int) -> Color:
    """A colour for class `index`; the first 256 differ (the palette of PASCAL VOC)."""
    color = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            color[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return color[0], color[1], color[2]


class _Loader(Loader):
    """For descriptions, in which the values of masks are keys."""

    KEYS = (*Loader.KEYS, "tag:yaml.org,2002:int")


def read_description(path: Path) -> Description:
    """The data set that a YAML file describes.

    Raises:
        UserError: the file is missing, is not YAML, or a key is unknown, missing or has a bad value.
    """
    try:
        values = parse_yaml(content(path), _Loader)
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


def remembered(path: Path) -> Description:
    """The description that `prepare` wrote to a file of the project."""
    values = read(dict[str, Any], path)
    if "palette" not in values and "colors" in values and isinstance(values.get("classes"), list):
        # Files of earlier versions have the colours that were chosen here, as if they had been given.
        chosen = [list(default_color(k)) for k in range(len(values["classes"]))]
        values = {key: value for key, value in values.items() if key != "colors" or value != chosen}
    return describe(values, str(path))


def read_mask(path: Path, description: Description) -> NDArray[np.uint8]:
    """The mask as class indices, uint8 (H, W), from an index, palette or RGB picture.

    Raises:
        BadFile: the file cannot be read, or a value or colour is neither a class nor ignored, or a palette's indices
            say something else than its colours.
    """
    values, palette = read_raw_mask(path)
    if values.ndim == 3:
        return _classes_of_colors(values, path, description)
    present, places = np.unique(values, return_inverse=True)
    class_of = description.class_of_value
    if palette is not None and description.palette in ("automatic", "colors"):
        if description.palette == "colors":
            if present[-1] >= len(palette):
                raise BadFile("mask value that its palette has no colour for", path, str(present[-1]))
            return _classes_of_colors(palette[values], path, description)
        class_of = _class_of_index(present.tolist(), palette, path, description)
    strange = [value for value in present.tolist() if value not in class_of]
    if strange:
        raise BadFile(
            "mask value that is neither a class nor ignored", path, _explained(strange, description)
        )
    classes = np.array([class_of[value] for value in present.tolist()], dtype=np.uint8)
    return classes[places].reshape(values.shape)


def _explained(strange: list[int], description: Description) -> str:
    void = description.ignore_index
    known = sorted(value for value, class_ in description.class_of_value.items() if class_ != void)
    are = f"{known[0]} to {known[-1]}" if len(known) == known[-1] - known[0] + 1 else _some(known)
    explained = f"{_some(strange)}; classes are {are}, ignored is {void}"
    if strange == [len(known)] and known[0] == 0 and not description.values:
        return f"{explained}; where 0 is {VOID} and the classes start at 1, add `zero: {VOID}`"
    return explained


def _class_of_index(
    used: list[int], palette: NDArray[np.uint8], path: Path, description: Description
) -> Mapping[int, int]:
    colors: list[Color] = [(red, green, blue) for red, green, blue in palette.tolist()]
    by_value, by_color = description.class_of_value, description.class_of_color
    try:
        return class_of_index(used, colors, by_value, by_color, description.ignore_index)
    except Contradiction as error:
        index = error.index
    color = dict(enumerate(colors)).get(index)
    class_ = by_value.get(index)
    if class_ is None:
        meant = "no class"
    elif class_ == description.ignore_index:
        meant = f"{VOID}, {description.ignore_color or 'of no colour'}"
    else:
        meant = f"{description.classes[class_]}, {description.colors[class_]}"
    seen = (
        f"{color}, the colour of {_named(by_color[color], description)}"
        if color and color in by_color
        else color
    )
    raise BadFile(
        "palette mask whose colours are not those of its indices (add `palette: indices` to the description where the "
        "indices count, `palette: colors` where the colours do, or mend `colors`)",
        path,
        f"in the palette index {index} is {seen or 'without colour'}; in the description it is {meant}",
    )


def _named(class_: int, description: Description) -> str:
    return VOID if class_ == description.ignore_index else description.classes[class_]


def _classes_of_colors(rgb: NDArray[Any], path: Path, description: Description) -> NDArray[np.uint8]:
    table = {_code(color): class_ for color, class_ in description.class_of_color.items()}
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
