"""What a run took, and how far its pseudo-labels and negatives could be trusted: a number each, beside its mIoU."""

from collections.abc import Callable
from dataclasses import dataclass

from u2pl.reporting.numbers import spread_text
from u2pl.reporting.results import Result


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
        points = result.history.get(metric)
        return points[-1][1] * scale if points else None

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


def measured(title: str, runs: dict[str, list[Result]]) -> Measured:
    """Label -> a result for each seed, in words; measures that no run has are left out."""
    values = {
        measure: {
            label: [v for run in seeds if (v := measure.of(run)) is not None] for label, seeds in runs.items()
        }
        for measure in MEASURES
    }
    shown = [measure for measure in MEASURES if any(values[measure].values())]
    rows = [
        (
            label,
            [
                spread_text(found, measure.digits) if (found := values[measure][label]) else ""
                for measure in shown
            ],
        )
        for label in runs
    ]
    return Measured(title, [measure.words for measure in shown], rows)
