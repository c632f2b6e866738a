"""What differences say, one a seed: a test that gives each either sign, and assumes no distribution."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

SIGNIFICANT = 0.05
"""Below it a p-value counts as saying something."""
DECIDED_FROM = 6
"""Fewest seeds with which the test can say something: with five its smallest p is 1/16."""


@dataclass(frozen=True)
class Differences:
    """One number a seed that both have."""

    values: tuple[float, ...]
    """At least one."""

    @property
    def seeds(self) -> int:
        """How many there are."""
        return len(self.values)

    @property
    def mean(self) -> float:
        """Mean difference."""
        return float(np.mean(self.values))

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % confidence interval of the mean difference, by the t distribution; None for one seed."""
        if self.seeds == 1:
            return None
        from scipy.special import stdtrit

        error = float(np.std(self.values, ddof=1)) / math.sqrt(self.seeds)
        half = float(stdtrit(self.seeds - 1, 0.975)) * error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p-value of the test that gives every difference either sign.

        Exact up to 16 seeds; beyond, of 65536 draws with a seed of their own.
        """
        if self.seeds == 1:
            return 1.0  # either sign is as large
        from scipy.stats import permutation_test

        options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": 2**16, "random_state": 0}
        return float(permutation_test((self.values,), np.mean, vectorized=True, **options).pvalue)

    @property
    def least_p(self) -> float:
        """The smallest p-value that there can be with so many seeds."""
        return 2.0 ** (1 - self.seeds)
