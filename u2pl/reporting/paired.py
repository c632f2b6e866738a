"""Two methods with the same seeds, compared seed by seed.

Runs of one seed draw the same images and start from the same weights, so that their difference varies less than
either number does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

TESTED_FROM = 3
"""Fewest seeds of a test: of two the t distribution has one degree of freedom, and finds next to nothing."""
_ROUNDING = 1e-9
"""A standard deviation of so many points is none: equal differences that were rounded."""


@dataclass(frozen=True)
class Paired:
    """One label's numbers against another's, over the seeds that both have."""

    label: str
    against: str
    seeds: int
    """How many both have, at least one."""
    ours: float
    """Mean of the label's numbers over these seeds."""
    ours_sd: float
    """Standard deviations are of n - 1; NaN for one seed."""
    base: float
    """Mean of the other's."""
    base_sd: float
    mean: float
    """Mean difference, ours minus the base's."""
    sd: float
    """Of the differences."""
    p: float
    """Two-sided p-value of the paired t-test; NaN below three seeds, and where no difference varies."""

    @property
    def exceeds_spread(self) -> bool:
        """Whether the mean difference is larger than the differences' own standard deviation."""
        return abs(self.mean) > self.sd


def paired(numbers: pd.DataFrame, base: str, labels: Sequence[str]) -> list[Paired]:
    """Each of the labels against the base, but for the base itself and those that share no seed with it.

    Args:
        numbers: a row a seed, a column a label; missing where a label lacks the seed.
        base: one of the columns.
        labels: others of them, in the order wanted.
    """
    ours = numbers[[label for label in labels if label != base]]
    theirs = pd.DataFrame({label: numbers[base] for label in ours}, numbers.index)
    difference = ours - theirs
    shared = difference.notna()
    ours, theirs = ours.where(shared), theirs.where(shared)
    found = pd.DataFrame(
        {
            "seeds": difference.count(),
            **{"ours": ours.mean(), "ours_sd": ours.std()},
            **{"base": theirs.mean(), "base_sd": theirs.std()},
            **{"mean": difference.mean(), "sd": difference.std()},
        }
    )
    found = found[found["seeds"] > 0].rename_axis("label").reset_index()
    found["sd"] = found["sd"].mask(found["sd"] < _ROUNDING, 0.0)
    found["p"] = _p(found)
    return [
        Paired(against=base, **{str(name): value for name, value in row.items()})
        for row in found.to_dict("records")
    ]


def _p(found: pd.DataFrame) -> "pd.Series[float]":
    tested = found[(found["seeds"] >= TESTED_FROM) & (found["sd"] > 0)]
    if tested.empty:
        return pd.Series(np.nan, found.index)
    from scipy.special import stdtr  # only where there is something to test

    t = tested["mean"] / (tested["sd"] / np.sqrt(tested["seeds"]))
    return (2 * stdtr(tested["seeds"] - 1, -t.abs())).reindex(found.index)
