"""Masks to start from: a model's predictions with unreliable pixels blank, in files that read as the data set's own.

Unreliable are the pixels whose entropy lies in the highest share of all pixels of the pictures at hand, as Eq. 6 of the
paper has it of a batch.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from u2pl.data.description import Description
from u2pl.data.pictures import Color, write_png
from u2pl.typed_files import Count, fits

LEVELS = 2**16
"""Of entropy from 0 to ln C: fine enough for a quantile, and half the memory."""
_LARGEST = 255
"""Value of an 8-bit mask."""
KEYWORD = "u2pl"
"""Of the text in a mask's file that says what its values mean."""
BLANKS: tuple[Color, ...] = ((255, 255, 255), (255, 0, 255), (0, 0, 0), (1, 1, 1))
"""Colours for blank pixels where a data set names none; the first that is no class's."""


class Said(NamedTuple):
    """What a mask that was written here says of itself."""

    classes: list[str]
    values: list[int] | list[Color]
    """Of each class: the value of its pixels, or where the picture is in RGB their colour."""
    blank: int | Color
    """Likewise, of pixels that were left blank."""

    @property
    def in_colors(self) -> bool:
        """Whether the values are colours."""
        return not isinstance(self.blank, int)


@with_config(ConfigDict(extra="forbid"))
class _Text(TypedDict):
    """What stands in the file, as JSON; the last of the values and of the colours is that of blank pixels."""

    classes: list[str]
    colors: list[list[Count]]
    values: list[Count] | None


def levels(entropy: NDArray[np.float32], classes: int) -> NDArray[np.uint16]:
    """Entropy (H, W) in nats as a level from 0 to `LEVELS` - 1."""
    scaled = entropy * ((LEVELS - 1) / np.log(classes))
    return np.clip(np.rint(scaled), 0, LEVELS - 1).astype(np.uint16)


def histogram(levels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """How many pixels of a picture (H, W) have each level, (LEVELS,); those of several pictures add up."""
    return np.bincount(levels.reshape(-1), minlength=LEVELS)


def threshold(counts: NDArray[np.int64], share: float) -> int:
    """The level above which at most a share of all pixels lies, and as many as may: the quantile of Eq. 6.

    Args:
        counts: the histogram of all pictures.
        share: of the pixels that are to be blank, 0 to 1.
    """
    above = counts.sum() - np.cumsum(counts)
    return int(np.argmax(above <= share * counts.sum()))


def blanked(
    classes: NDArray[np.uint8], levels: NDArray[np.uint16], limit: int, blank: int
) -> NDArray[np.uint8]:
    """Predicted classes (H, W), with `blank` where the level of entropy is above the limit."""
    return np.where(levels > limit, np.uint8(blank), classes)


def blank_color(description: Description) -> Color:
    """That of void in the data set's masks, or one that no class has."""
    return description.ignore_color or next(c for c in _candidates() if c not in description.colors)


def _candidates() -> Iterable[Color]:
    yield from BLANKS
    yield from ((grey, grey, grey) for grey in range(2, 255))
    yield from ((255, grey, 255) for grey in range(1, 255))


def readable(description: Description) -> Description:
    """The data set's own way to read masks, which here also knows the colour of blank pixels."""
    palette = "automatic" if description.palette == "consistent" else description.palette
    return description.model_copy(update={"ignore_color": blank_color(description), "palette": palette})


def write(path: Path, indices: NDArray[np.uint8], description: Description) -> None:
    """Write class indices and void (H, W) as the data set's own masks are read, in its classes' colours.

    As a palette picture of its mask values, or where these need more than 8 bits in RGB. The file says what they mean,
    for `said`.
    """
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(description.colors)] = description.colors
    colors[description.ignore_index] = blank_color(description)
    values = _values(description)
    is_rgb = max(values.values()) > _LARGEST
    indices_said = [*range(len(description.classes)), description.ignore_index]
    text: _Text = {
        "classes": description.classes,
        "colors": colors[indices_said].tolist(),
        "values": None if is_rgb else [values[index] for index in indices_said],
    }
    texts = {KEYWORD: json.dumps(text)}
    if is_rgb:
        write_png(path, colors[indices], texts=texts)
        return
    table = np.zeros(256, np.uint8)
    palette: list[Color] = [(0, 0, 0)] * 256
    for index, value in values.items():
        table[index] = value
        red, green, blue = colors[index].tolist()
        palette[value] = (red, green, blue)
    write_png(path, table[indices], palette, texts)


def said(path: Path) -> Said | None:
    """What a mask's file says of its values; None where `write` did not write it, or a program saved it anew.

    A program that keeps the text, but turns the picture into another mode or orders its palette anew, is noticed.
    """
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode, palette = picture.mode, picture.getpalette() or []
            text = json.loads(picture.info[KEYWORD])
    except Exception:  # Pillow fails in many ways on what is no PNG
        return None
    if not fits(_Text, text) or any(len(color) != 3 for color in text["colors"]):
        return None
    classes, values = text["classes"], text["values"]
    colors = [(red, green, blue) for red, green, blue in text["colors"]]
    if len(colors) != len(classes) + 1:
        return None
    if values is None:
        return Said(classes, colors[:-1], colors[-1]) if mode == "RGB" else None
    shown = [tuple(palette[3 * value : 3 * value + 3]) for value in values]
    return Said(classes, values[:-1], values[-1]) if mode == "P" and shown == colors else None


def _values(description: Description) -> Mapping[int, int]:
    """Class index -> the smallest mask value that means it; void is `ignore_index`."""
    found: dict[int, int] = {}
    for value, index in sorted(description.class_of_value.items()):
        found.setdefault(index, value)
    return found | {description.ignore_index: description.ignore_index}
