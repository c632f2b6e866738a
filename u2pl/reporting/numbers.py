"""How numbers read in tables and sentences."""

import statistics
from collections.abc import Sequence


def signed(value: float) -> str:
    """`value` with its sign and two decimals: `+1.20`, `−0.35`."""
    return f"{value:+.2f}".replace("-", "−")


def spread_text(values: Sequence[float], digits: int) -> str:
    """The mean of some seeds' values, and their standard deviation (n - 1) where there are two or more."""
    mean = f"{statistics.fmean(values):,.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):,.{digits}f}" if len(values) > 1 else mean
