"""What a run took, and how far its pseudo-labels and negatives could be trusted: a number each, beside its mIoU."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from u2pl.reporting.numbers import spread_text
from u2pl.reporting.results import Result
from u2pl.runs.frames import frame


@dataclass(frozen=True)
class Measure:
    """A number that is known of a run."""

    key: str
    """Its column in a table's CSV."""
    words: str
    of: Callable[[Result], float | None]
    """None where the run has none: no pseudo-labels, no masks of unlabelled images, an imported network."""
    digits: int = 1


def _at_the_end(metric: str, scale: float = 1.0) -> Callable[[Result], float | None]:
    """The metric in the last epoch that has it."""

    def found(result: Result) -> float | None:
        known = result.history.get(metric, pd.Series(dtype=float)).dropna()
        return None if known.empty else known.iloc[-1] * scale

    return found


def _per_step(result: Result) -> float | None:
    steps = result.metrics["steps"]
    return result.metrics["seconds"] / steps if steps else None


MEASURES = (
    Measure("reliable_share", "reliable pixels, %", _at_the_end("train/reliable/share", 100)),
    Measure("reliable_accuracy", "right ones of these, %", _at_the_end("train/reliable/accuracy", 100)),
    Measure(
        "false_negatives", "false negatives in the bank, %", _at_the_end("train/all_classes/bank/false", 100)
    ),
    Measure("anchors", "anchors a step", _at_the_end("train/contrast/anchors")),
    Measure("anchor_classes", "classes with anchors", _at_the_end("train/contrast/anchor_classes")),
    Measure("seconds", "training time, s", lambda result: result.metrics["seconds"], digits=0),
    Measure("seconds_per_step", "time of a step, s", _per_step, digits=3),
    Measure("memory_gib", "most memory, GiB", _at_the_end("memory/peak_gib"), digits=2),
)
"""Of an epoch: in the last one. Time is the whole of training, validation included."""


@dataclass(frozen=True)
class Measured:
    """The runs of one split side by side."""

    title: str
    heads: list[str]
    rows: list[tuple[str, list[str]]]
    """Label, and the words of each measure; empty where no run has it."""


def measures(results: Iterable[Result]) -> pd.DataFrame:
    """A row a run, in their order, a column a measure; missing where the run has none."""
    rows = [{measure.key: measure.of(result) for measure in MEASURES} for result in results]
    return frame(rows, {measure.key: "float64" for measure in MEASURES})


def measured(title: str, runs: Mapping[str, Sequence[Result]]) -> Measured:
    """Label -> a result for each seed, in words; measures that no run has are left out."""
    by_seed = pd.concat({label: measures(seeds) for label, seeds in runs.items()}, names=["label"])
    seeds = by_seed.dropna(axis="columns", how="all").groupby("label", sort=False)
    mean, sd = seeds.mean(), seeds.std()
    shown = [measure for measure in MEASURES if measure.key in mean]
    rows = [
        (
            label,
            [
                ""
                if math.isnan(mean[m.key][label])
                else spread_text(mean[m.key][label], sd[m.key][label], m.digits)
                for m in shown
            ],
        )
        for label in runs
    ]
    return Measured(title, [measure.words for measure in shown], rows)
