"""Pictures that are nearly the same: small grey copies that correlate, compared again where they lie over each other.

A first look finds candidates: 16 x 16 grey values whose correlation is high, in any of the eight ways to turn or
mirror a picture. Street scenes all have sky above and road below, so a second one decides: of 64 x 64 grey values
without what varies slowly, the best correlation of one picture, whole or a little smaller, at any place in the other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 64
COARSE = 16
ALIKE = 0.85
"""Correlation of the coarse copies from which two pictures are compared again."""
NEAREST = 10
"""How many others, of each list, a picture is compared with again at most."""
SAME = 0.8
"""Similarity from which two pictures are near duplicates."""
SIDES = (64, 62, 60, 58, 56, 54, 52)
"""Of the smaller copy that is looked for in the other: up to a tenth of a picture cut off at each side."""
SLOW = 4.0
"""Standard deviation, in pixels of `SIDE`, of the blur that is taken off."""
_ROWS = 1024

TURNS = (
    "",
    "turned left",
    "turned by half",
    "turned right",
    "mirrored",
    "mirrored and turned left",
    "upside down",
    "mirrored and turned right",
)
"""What was done to the other picture, in the order of `turned`."""

Grey = NDArray[np.uint8]


class Pair(NamedTuple):
    """Two pictures that are nearly the same."""

    image: str
    other: str
    lists: tuple[str, str]
    """In which each of them is."""
    similarity: float
    """At most 1, of the same picture; see the head of this module."""
    turned: str
    """Of `TURNS`: what has to be done to the other one."""


def thumbnail(picture: NDArray[np.uint8]) -> Grey:
    """A picture (H, W, 3) RGB as (64, 64) grey values, whatever its sides."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA), np.uint8)


def near_duplicates(
    lists: Mapping[str, Mapping[str, Grey]],
    pairs: Sequence[tuple[str, str]],
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Pair]:
    """The near duplicates between lists, those of the first pair of lists first, and of each the most alike.

    Args:
        lists: list -> name -> `thumbnail`.
        pairs: which two lists are compared; one with itself too.
        progress: told how many pictures were compared with the others.
    """
    found = []
    coarse = {which: _coarse(list(some.values())) for which, some in lists.items()}
    total = sum(len(lists[first]) for first, _ in pairs)
    done = 0
    for first, second in pairs:
        names, others = list(lists[first]), list(lists[second])
        of_pair = []
        for start in range(0, len(names), _ROWS):
            some = slice(start, start + _ROWS)
            for row, column in _candidates(
                coarse[first][0][some], coarse[second], start if first == second else None
            ):
                name, other = names[start + row], others[column]
                alike, turn = similarity(lists[first][name], lists[second][other])
                if alike >= SAME:
                    of_pair.append(Pair(name, other, (first, second), alike, TURNS[turn]))
            done += len(names[some])
            progress("comparing images", done, total)
        found += sorted(of_pair, key=lambda pair: (-pair.similarity, pair.image, pair.other))
    return found


def similarity(one: Grey, other: Grey) -> tuple[float, int]:
    """How alike two thumbnails are, and which turn of the other one that is of, an index of `TURNS`."""
    coarse = _coarse([one])[0][0]
    turn = int(np.argmax([coarse @ units[0] for units in _coarse([other])]))
    first, second = one.astype(np.float32), turned(other.astype(np.float32), turn)
    return max(_found_in(first, second), _found_in(second, first)), turn


def turned(picture: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """A square picture turned by `turn` quarters to the left; from 4 on mirrored before."""
    return np.rot90(picture[:, ::-1] if turn >= 4 else picture, turn % 4)


def _found_in(whole: NDArray[np.float32], part: NDArray[np.float32]) -> float:
    """The best correlation of a picture with some place in another one, over `SIDES`."""
    inside, best = _fast(whole), -1.0
    for side in SIDES:
        sharp = _fast(np.asarray(cv2.resize(part, (side, side), interpolation=cv2.INTER_AREA), np.float32))
        if min(float(sharp.std()), float(inside.std())) < 1e-3:
            continue  # of one colour, of which no correlation can be had
        best = max(best, float(cv2.matchTemplate(inside, sharp, cv2.TM_CCOEFF_NORMED).max()))
    return min(best, 1.0)


def _fast(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """What varies quickly in a picture."""
    picture = np.ascontiguousarray(picture)
    return picture - cv2.GaussianBlur(picture, (0, 0), SLOW)


def _coarse(thumbnails: Sequence[Grey]) -> list[NDArray[np.float32]]:
    """Of every turn the coarse copies as rows whose products are correlations, (N, 256)."""
    shape = (len(thumbnails), COARSE, SIDE // COARSE, COARSE, SIDE // COARSE)
    small = np.reshape(np.array(thumbnails, np.float32), shape).mean(axis=(2, 4))
    return [
        _units(np.rot90(small[:, :, ::-1] if turn >= 4 else small, turn % 4, axes=(1, 2)))
        for turn in range(len(TURNS))
    ]


def _units(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    rows = pictures.reshape(len(pictures), COARSE * COARSE)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)


def _candidates(
    rows: NDArray[np.float32], others: Sequence[NDArray[np.float32]], offset: int | None
) -> list[tuple[int, int]]:
    """Places (row, other) of pictures that may be alike; of one list with itself, from row `offset` on, each once."""
    alike = rows @ others[0].T
    for units in others[1:]:
        np.maximum(alike, rows @ units.T, out=alike)
    if offset is not None:
        number = np.arange(alike.shape[1])
        alike[number[None] <= offset + np.arange(len(rows))[:, None]] = -1
    if alike.shape[1] > NEAREST:
        least = -np.partition(-alike, NEAREST - 1, axis=1)[:, NEAREST - 1 : NEAREST]
        alike[alike < least] = -1
    return [(int(row), int(column)) for row, column in zip(*np.nonzero(alike >= ALIKE), strict=True)]
