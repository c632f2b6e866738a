"""A curve in one line of text."""

import itertools
import sys
from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"
_LETTERS = "_.-=+*#@"
"""For a terminal whose encoding has no blocks."""
WIDTH = 40


def sparkline(values: Sequence[float], width: int = WIDTH, span: tuple[float, float] | None = None) -> str:
    """`values` from left to right, each a block as high as it is; of more than `width` the means of neighbours.

    Args:
        values: finite numbers.
        width: characters at most.
        span: lowest and highest value that there is, where several lines are to be compared; None: those of `values`.
    """
    if not values:
        return ""
    columns = min(width, len(values))
    edges = [k * len(values) // columns for k in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = span or (min(values), max(values))
    marks = _marks()
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((min(max(value, low), high) - low) * scale)] for value in means)


def _marks() -> str:
    try:
        _BLOCKS.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return _LETTERS
    return _BLOCKS
