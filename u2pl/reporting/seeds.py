"""The values of a setting over several seeds: what each comes to, and whether one of them is clearly the best.

A value is clearly the best if, against every other value, the mean of its differences seed by seed is larger than
their own standard deviation (as everywhere in reports, see `paired.Paired.exceeds_spread`) and than twice its standard
error, which is the larger of the two below four seeds. It takes two seeds at least that both values have.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from u2pl.reporting.paired import paired


@dataclass(frozen=True)
class ValueOverSeeds:
    """The runs of one value."""

    value: str
    mious: Mapping[int, float]
    """Seed -> mIoU that is reported, percent; at least one."""

    @property
    def mean(self) -> float:
        """Percent."""
        return float(pd.Series(self.mious).mean())

    @property
    def sd(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for one seed."""
        return float(pd.Series(self.mious).std()) if len(self.mious) > 1 else None

    @property
    def text(self) -> str:
        """`61.20 ± 0.45 (n=3)`; of one seed the number alone."""
        return (
            f"{self.mean:.2f}"
            if self.sd is None
            else f"{self.mean:.2f} ± {self.sd:.2f} (n={len(self.mious)})"
        )

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return {"value": self.value, "mean": self.mean, "sd": self.sd, "seeds": list(self.mious)}


def over_seeds(rows: Sequence[Mapping[str, Any]]) -> list[ValueOverSeeds]:
    """The rows of ablations, each with its `seed`, by their values, in the order in which these come first."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["value"], {})[row["seed"]] = row["miou_reported"]
    return [ValueOverSeeds(value, mious) for value, mious in found.items()]


def clearly_best(values: Sequence[ValueOverSeeds]) -> ValueOverSeeds | None:
    """The value that is better than every other by more than the spread over seeds explains; None where none is."""
    if len(values) < 2:
        return None
    best = highest(values)
    return best if all(_is_clearly_better(best, other) for other in values if other is not best) else None


def highest(values: Sequence[ValueOverSeeds]) -> ValueOverSeeds:
    """The value of the highest mean, the first of equal ones."""
    return max(values, key=lambda each: each.mean)


def _is_clearly_better(one: ValueOverSeeds, other: ValueOverSeeds) -> bool:
    numbers = pd.DataFrame({"one": one.mious, "other": other.mious})
    return any(
        pair.mean > 0 and pair.exceeds_spread and pair.mean > 2 * pair.sd / math.sqrt(pair.seeds)
        for pair in paired(numbers, "other", ["one"])  # none where they share no seed
    )


def verdict(values: Sequence[ValueOverSeeds]) -> str:
    """What the stars of the table mean, in one line."""
    if len(values) < 2:
        return "One value alone is compared with nothing."
    if max(len(each.mious) for each in values) == 1:
        return "One seed tells no spread, so no value is marked as the best. Several do: --seeds 0,1,2"
    best = clearly_best(values)
    if best is None:
        return (
            f"No value is clearly the best: {highest(values).value} has the highest mean, but is not ahead of every "
            "other, seed by seed, by more than the spread over seeds."
        )
    return f"* {best.value} is ahead of every other value, seed by seed, by more than the spread over seeds."
