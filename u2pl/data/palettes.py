"""Decides what counts in a palette mask: the indices, or the colours that they stand for.

An editor that saves a colour mask with few colours numbers them as it likes, in each file anew; a program that writes
class indices gives them colours for the eye, or none. Where the two cannot be told apart, nobody guesses.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from u2pl.data.pictures import Color


class Contradiction(Exception):
    """An index whose colour says something else than the index itself."""

    def __init__(self, index: int):
        self.index = index


def class_of_index(
    used: Sequence[int],
    palette: Sequence[Color],
    class_of_value: Mapping[int, int],
    class_of_color: Mapping[Color, int],
    void: int,
) -> Mapping[int, int]:
    """Index of the palette -> class, of the indices that are used; `class_of_value` where the indices count.

    Args:
        used: the indices that pixels have.
        palette: colour of each index; may be shorter than the largest index.
        class_of_value: what the indices mean where they count.
        class_of_color: what the colours mean where they count.
        void: the class of pixels that do not count.

    Raises:
        Contradiction: both could be meant and differ, or neither.
    """
    colors = dict(enumerate(palette))
    own = {k: class_of_color.get(color) for k, color in colors.items()}
    if all(own.get(k) == c for k, c in class_of_value.items() if c != void):
        # The classes' colours in the classes' order; void may have any, and its colour a place behind theirs. A colour
        # that stands there more than once fills unused places.
        beyond = [k for k in used if k not in class_of_value and own.get(k) == void]
        return {**class_of_value, **{k: void for k in beyond if list(palette).count(colors[k]) == 1}}
    neutral = is_ramp(palette)
    by_color = {k: c for k in used if (c := own.get(k)) is not None}
    no_color = [k for k in used if k not in by_color]
    no_index = [
        k
        for k in used
        if not neutral and class_of_value.get(k) != void and class_of_value.get(k, -1) != own.get(k)
    ]
    if no_color and not no_index:
        return class_of_value
    if no_color:
        raise Contradiction(no_index[0])
    differing = [k for k in used if by_color[k] != class_of_value.get(k)]
    if no_index:
        # Unused places of a palette are often black, and so is void then: perhaps it is no class at all.
        filled = [
            k for k in differing if class_of_value.get(k) == void and list(palette).count(colors[k]) > 1
        ]
        if filled:
            raise Contradiction(filled[0])
    elif differing and not all(color in class_of_color for color in palette):
        raise Contradiction(differing[0])
    return by_color


def is_ramp(palette: Sequence[Color]) -> bool:
    """Whether a palette is greys in even steps from black, as programs add it to plain indices."""
    greys = [red for red, green, blue in palette if red == green == blue]
    steps = {after - before for before, after in pairwise(greys)}
    return len(greys) == len(palette) > 1 and greys[0] == 0 and len(steps) == 1 and min(steps) > 0
