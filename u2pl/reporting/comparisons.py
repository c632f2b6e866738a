"""What a table's methods gain: each against SupOnly, and U²PL against CutMix, seed by seed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from u2pl.escaping import listed
from u2pl.reporting.numbers import signed
from u2pl.reporting.paired import TESTED_FROM, Paired, paired
from u2pl.reporting.results import Result, TableResults, split_title
from u2pl.reporting.sign_test import SIGNIFICANT

Runs = Mapping[str, Sequence[Result]]
"""Label -> its results, one a seed, of one split."""
BASE, MIXED, OURS = "suponly", "cutmix", "u2pl"
"""Methods: without unlabelled images; U²PL without its contrastive loss; U²PL."""
LEAST_P = 0.001
"""Below it, p is not written out."""
HEADINGS = ["Method", "Against", "Difference", "Seeds", "p"]


@dataclass(frozen=True)
class SplitComparisons:
    """All comparisons of a split."""

    title: str
    """`1/8 (60 labelled)`."""
    comparisons: list[Paired]


def mious(runs: Runs) -> pd.DataFrame:
    """What the runs are reported by: a row a seed, a column a label; missing where a label lacks the seed."""
    numbers = {
        label: pd.Series({run.metrics["seed"]: run.reported for run in found})
        for label, found in runs.items()
    }
    return pd.DataFrame(numbers)


def strongest(runs: Runs, method: str) -> str | None:
    """The label of a method's row; of several (with other settings) the one of the highest mean; None without one."""
    labels = _of(runs, method)
    return str(mious(runs)[labels].mean().idxmax()) if labels else None


def against_base(runs: Runs) -> list[Paired]:
    """Every label of a split against its strongest SupOnly, in the table's order."""
    base = strongest(runs, BASE)
    return paired(mious(runs), base, list(runs)) if base else []


def against_cutmix(runs: Runs) -> list[Paired]:
    """U²PL against CutMix, which is U²PL without its contrastive loss."""
    base = strongest(runs, MIXED)
    return paired(mious(runs), base, _of(runs, OURS)) if base else []


@dataclass(frozen=True)
class Gains:
    """What methods gain over the strongest SupOnly of a split."""

    base: str
    gains: list[Paired]
    """Of every other method's label that shares a seed with the base, in the table's order."""
    left_out: list[str]
    """Labels that share no seed with it."""

    @property
    def omission(self) -> str:
        """Which those are, as a sentence; empty where there are none."""
        return f"{listed(self.left_out)}: no seed that {self.base} has too." if self.left_out else ""

    @property
    def complete(self) -> list[Paired]:
        """Those over the most seeds: of fewer a lucky one would stand first."""
        most = max(gain.seeds for gain in self.gains)
        return [gain for gain in self.gains if gain.seeds == most]

    @property
    def best(self) -> Paired:
        """The largest of the complete ones."""
        return max(self.complete, key=lambda gain: gain.mean)


def gains(runs: Runs) -> Gains | None:
    """What can be said of the methods of a split; None without SupOnly, or without a seed that it shares with one."""
    base = strongest(runs, BASE)
    if base is None:
        return None
    labels = [label for label in runs if label not in _of(runs, BASE)]
    found = paired(mious(runs), base, labels)
    compared = {gain.label for gain in found}
    return Gains(base, found, [label for label in labels if label not in compared]) if found else None


def told(pair: Paired) -> bool:
    """Whether a difference is taken for one: by the test where there is one, else if it is larger than its spread."""
    return pair.exceeds_spread if math.isnan(pair.p) else pair.p < SIGNIFICANT


def _of(runs: Runs, method: str) -> list[str]:
    return [label for label, found in runs.items() if found[0].method == method]


def comparisons(filled: TableResults) -> list[SplitComparisons]:
    """What a table of methods compares, split by split; nothing of an ablation."""
    return list(_comparisons(filled)) if filled.table.ablate is None else []


def _comparisons(filled: TableResults) -> Iterator[SplitComparisons]:
    for split, runs in filled.series().items():
        found = against_base(runs) + against_cutmix(runs)
        if found:
            yield SplitComparisons(split_title(split, runs), found)


def p_text(value: float) -> str:
    """`0.012`, `< 0.001`; a dash without a test."""
    if math.isnan(value):
        return "—"
    return f"< {LEAST_P}" if value < LEAST_P else f"{value:.3f}"


def p_words(value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def comparison_rows(part: SplitComparisons) -> list[tuple[str, ...]]:
    """The comparisons of a split in words, one a row below HEADINGS."""
    return [
        (
            found.label,
            found.against,
            signed(found.mean) + ("" if math.isnan(found.sd) else f" ± {found.sd:.2f}"),
            str(found.seeds),
            p_text(found.p),
        )
        for found in part.comparisons
    ]


def note(found: Sequence[Paired]) -> str:
    """What the numbers of a list of comparisons are, as far as its seeds go."""
    seeds = max(comparison.seeds for comparison in found)
    words = ["Difference of the mIoU in points, seed by seed over the seeds that both have"]
    words += [", mean ± standard deviation (n - 1)"] if seeds > 1 else []
    words += ["; p of a two-sided paired t-test."] if seeds >= TESTED_FROM else ["."]
    if seeds >= TESTED_FROM:
        words.append(" Of many comparisons some have a small p by chance.")
    elif seeds > 1:
        words.append(" Two seeds make no test.")
    else:
        words.append(" One seed has no spread and makes no test.")
    return "".join(words)
