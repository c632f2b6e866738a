"""What a table's methods gain: each against SupOnly, and U²PL against CutMix, seed by seed."""

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from u2pl.reporting.numbers import signed
from u2pl.reporting.paired import TESTED_FROM, Paired, paired
from u2pl.reporting.results import Result, TableResults, split_title

BASE, MIXED, OURS = "suponly", "cutmix", "u2pl"
"""Methods: without unlabelled images; U²PL without its contrastive loss; U²PL."""
LEAST_P = 0.001
"""Below it, p is not written out."""
HEADINGS = ["Method", "Against", "Difference", "Seeds", "p"]


@dataclass(frozen=True)
class Comparison:
    """Two labels of a table on one split, over the seeds that both have."""

    label: str
    against: str
    paired: Paired


@dataclass(frozen=True)
class SplitComparisons:
    """All comparisons of a split."""

    title: str
    """`1/8 (60 labelled)`."""
    comparisons: list[Comparison]


def strongest(runs: Mapping[str, Sequence[Result]], method: str) -> str | None:
    """The label of a method's row; of several (with other settings) the one of the highest mean; None without one."""
    means = {
        label: statistics.fmean(result.reported for result in results)
        for label, results in runs.items()
        if results[0].method == method
    }
    return max(means, key=means.__getitem__) if means else None


def against_base(runs: Mapping[str, Sequence[Result]]) -> list[Comparison]:
    """Every label of a split against its strongest SupOnly, in the table's order."""
    return _against(strongest(runs, BASE), runs, runs)


def against_cutmix(runs: Mapping[str, Sequence[Result]]) -> list[Comparison]:
    """U²PL against CutMix, which is U²PL without its contrastive loss."""
    return _against(strongest(runs, MIXED), [k for k, found in runs.items() if found[0].method == OURS], runs)


def _against(
    base: str | None, labels: Iterable[str], runs: Mapping[str, Sequence[Result]]
) -> list[Comparison]:
    """Those of the labels that share a seed with the base; none without a base."""
    if base is None:
        return []
    numbers = {
        label: {run.metrics["seed"]: run.reported for run in results} for label, results in runs.items()
    }
    pairs = {label: paired(numbers[label], numbers[base]) for label in labels if label != base}
    return [Comparison(label, base, pair) for label, pair in pairs.items() if pair]


def comparisons(filled: TableResults) -> list[SplitComparisons]:
    """What a table of methods compares, split by split; nothing of an ablation."""
    return list(_comparisons(filled)) if filled.table.ablate is None else []


def _comparisons(filled: TableResults) -> Iterator[SplitComparisons]:
    for split, runs in filled.series().items():
        found = against_base(runs) + against_cutmix(runs)
        if found:
            yield SplitComparisons(split_title(split, runs), found)


def p_text(value: float | None) -> str:
    """`0.012`, `< 0.001`; a dash without a test."""
    if value is None:
        return "—"
    return f"< {LEAST_P}" if value < LEAST_P else f"{value:.3f}"


def comparison_rows(part: SplitComparisons) -> list[tuple[str, ...]]:
    """The comparisons of a split in words, one a row below HEADINGS."""
    return [
        (
            found.label,
            found.against,
            signed(found.paired.mean) + ("" if found.paired.sd is None else f" ± {found.paired.sd:.2f}"),
            str(found.paired.seeds),
            p_text(found.paired.p),
        )
        for found in part.comparisons
    ]


def note(found: Sequence[Comparison]) -> str:
    """What the numbers of a list of comparisons are, as far as its seeds go."""
    seeds = {comparison.paired.seeds for comparison in found}
    words = ["Difference of the mIoU in points, seed by seed over the seeds that both have"]
    words += [", mean ± standard deviation (n - 1)"] if max(seeds) > 1 else []
    words += ["; p of a two-sided paired t-test."] if max(seeds) >= TESTED_FROM else ["."]
    if max(seeds) >= TESTED_FROM:
        words.append(" Of many comparisons some have a small p by chance.")
    elif max(seeds) > 1:
        words.append(" Two seeds make no test.")
    else:
        words.append(" One seed has no spread and makes no test.")
    return "".join(words)
