"""Masks to start from: a model's predictions with unreliable pixels blank, in files that read as the data set's own.

Unreliable are the pixels whose entropy lies in the highest share of all pixels of the pictures at hand, as Eq. 6 of the
paper has it of a batch.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from u2pl.data.description import Description
from u2pl.data.pictures import Color, write_png

LEVELS = 2**16
"""Of entropy from 0 to ln C: fine enough for a quantile, and half the memory."""
_LARGEST = 255
"""Value of an 8-bit mask."""
BLANKS: tuple[Color, ...] = ((255, 255, 255), (255, 0, 255), (0, 0, 0), (1, 1, 1))
"""Colours for blank pixels where a data set names none; the first that is no class's."""


def levels(entropy: NDArray[np.float32], classes: int) -> NDArray[np.uint16]:
    """Entropy (H, W) in nats as a level from 0 to `LEVELS` - 1."""
    scaled = entropy * ((LEVELS - 1) / np.log(classes))
    return np.clip(np.rint(scaled), 0, LEVELS - 1).astype(np.uint16)


def threshold(pictures: Iterable[NDArray[np.uint16]], share: float) -> int:
    """The level above which at most a share of all pixels lies, and as many as may: the quantile of Eq. 6.

    Args:
        pictures: levels (H, W) of each.
        share: of the pixels that are to be blank, 0 to 1.
    """
    counts = np.zeros(LEVELS, np.int64)
    for picture in pictures:
        counts += np.bincount(picture.reshape(-1), minlength=LEVELS)
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

    As a palette picture of its mask values, or where these need more than 8 bits in RGB.
    """
    colors = np.zeros((256, 3), np.uint8)
    colors[: len(description.colors)] = description.colors
    colors[description.ignore_index] = blank_color(description)
    values = _values(description)
    if max(values.values()) > _LARGEST:
        write_png(path, colors[indices])
        return
    table = np.zeros(256, np.uint8)
    palette: list[Color] = [(0, 0, 0)] * 256
    for index, value in values.items():
        table[index] = value
        red, green, blue = colors[index].tolist()
        palette[value] = (red, green, blue)
    write_png(path, table[indices], palette)


def _values(description: Description) -> Mapping[int, int]:
    """Class index -> the smallest mask value that means it; void is `ignore_index`."""
    found: dict[int, int] = {}
    for value, index in sorted(description.class_of_value.items()):
        found.setdefault(index, value)
    return found | {description.ignore_index: description.ignore_index}
