"""How wide an axis has to be so that noise does not look like a result.

An axis fitted to its values shows a difference of 0.2 points as high as one of 20. So an axis has a least width, and
spans more only where the values do.
"""

import math
from collections.abc import Iterable

LEAST_MIOU = 10.0
"""Points of mIoU that an axis spans at least: two seeds of one method on few labels lie one or two points apart."""
LEAST_SDS = 4.0
"""Standard deviations over seeds that an axis of mIoU spans at least: a run is within two of its mean as a rule."""
PERCENT = (0.0, 100.0)
_MARGIN = 0.05
"""Share of what the values span that is left free at either end, so that no mark lies on the frame."""

Span = tuple[float, float]
"""Lowest and highest value of an axis."""


def honest_span(values: Iterable[float], least: float, within: Span = (-math.inf, math.inf)) -> Span:
    """The values with a margin, widened evenly to a width of `least`.

    At the end of `within` it is moved rather than cut, so that it keeps its width while there is room for it.

    Args:
        values: what is shown; NaN and infinite ones are not.
        least: least width of the axis, above 0.
        within: lowest and highest value that there can be, which hold all of `values`.
    """
    low, high = within
    shown = [value for value in values if math.isfinite(value)]
    if not shown:
        start = low if math.isfinite(low) else 0.0
        return start, min(start + least, high)
    margin = _MARGIN * (max(shown) - min(shown))
    middle, width = (min(shown) + max(shown)) / 2, max(max(shown) - min(shown) + 2 * margin, least)
    start = max(low, min(middle - width / 2, high - width))
    return start, min(start + width, high)


def miou_span(values: Iterable[float], sds: Iterable[float] = ()) -> Span:
    """The axis of mIoUs in percent, between 0 and 100.

    It is at least LEAST_MIOU points wide, or LEAST_SDS times the largest standard deviation over seeds in `sds`.
    """
    return honest_span(values, _least(sds), PERCENT)


def difference_span(values: Iterable[float], sds: Iterable[float] = ()) -> Span:
    """The axis of differences of mIoUs in points, no narrower than that of mIoUs, with 0 in it."""
    return honest_span([0.0, *values], _least(sds), (-100.0, 100.0))


def _least(sds: Iterable[float]) -> float:
    return max([LEAST_MIOU, *(LEAST_SDS * sd for sd in sds if math.isfinite(sd))])
