"""How numbers read in tables and sentences."""

import math


def signed(value: float) -> str:
    """`value` with its sign and two decimals: `+1.20`, `−0.35`."""
    return f"{value:+.2f}".replace("-", "−")


def spread_text(mean: float, sd: float, digits: int) -> str:
    """A mean over seeds, and their standard deviation; that is NaN where there are fewer than two."""
    return f"{mean:,.{digits}f}" + ("" if math.isnan(sd) else f" ± {sd:,.{digits}f}")
