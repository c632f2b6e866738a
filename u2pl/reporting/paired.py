"""Two methods with the same seeds, compared seed by seed.

Runs of one seed draw the same images and start from the same weights, so that their difference varies less than
either number does.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

TESTED_FROM = 3
"""Fewest seeds of a test: of two the t distribution has one degree of freedom, and finds next to nothing."""


@dataclass(frozen=True)
class Paired:
    """The differences of one method's numbers from another's, one a seed that both have."""

    ours: tuple[float, ...]
    base: tuple[float, ...]
    """As many as `ours`, at least one."""

    @property
    def differences(self) -> list[float]:
        """Ours minus the base's, seed by seed."""
        return [a - b for a, b in zip(self.ours, self.base, strict=True)]

    @property
    def seeds(self) -> int:
        """How many seeds both have."""
        return len(self.ours)

    @property
    def mean(self) -> float:
        """Mean difference."""
        return statistics.fmean(self.differences)

    @property
    def sd(self) -> float | None:
        """Standard deviation of the differences (n - 1); None for one seed."""
        return statistics.stdev(self.differences) if self.seeds > 1 else None

    @property
    def p(self) -> float | None:
        """Two-sided p-value of the paired t-test; None below three seeds, and where no difference varies."""
        if self.seeds < TESTED_FROM or not self.sd:
            return None
        from scipy.special import stdtr  # only where there is something to test

        t = self.mean / (self.sd / math.sqrt(self.seeds))
        return 2 * float(stdtr(self.seeds - 1, -abs(t)))

    @property
    def exceeds_spread(self) -> bool:
        """Whether the mean difference is larger than the differences' own standard deviation."""
        return self.sd is not None and abs(self.mean) > self.sd


def paired(ours: Mapping[int, float], base: Mapping[int, float]) -> Paired | None:
    """Seed -> number of two methods, compared on the seeds that both have; None where they share none."""
    shared = sorted(ours.keys() & base.keys())
    if not shared:
        return None
    return Paired(tuple(ours[seed] for seed in shared), tuple(base[seed] for seed in shared))
