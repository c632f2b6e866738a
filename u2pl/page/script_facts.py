"""What the page's script draws and compares of the runs, in plain values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from u2pl.page.contenders import Contender
from u2pl.reporting.axes import LEAST_MIOU
from u2pl.reporting.comparisons import mious
from u2pl.reporting.paired import TESTED_FROM, paired
from u2pl.reporting.results import Result, distinct
from u2pl.runs.epochs import shown_epoch

CURVES = {"val/miou": 1, "train/reliable/share": 100, "train/reliable/accuracy": 100}
"""Metrics by epoch that are kept of a run -> what makes them percent."""


def script_facts(
    found: Sequence[Contender], usual: Mapping[str, str], own: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """All that page.js reads.

    Args:
        found: what can be opened.
        usual: setting -> the value that most runs have.
        own: run -> its settings that differ from these.
    """
    runs = distinct(run for contender in found for run in contender.runs)
    classes = list(dict.fromkeys(tuple(run.metrics["iou"]) for run in runs))
    return {
        "contenders": [
            {
                **{"label": each.label, "dataset": each.dataset, "split": each.split, "title": each.title},
                "runs": [run.name for run in each.runs],
            }
            for each in found
        ],
        "p": [[one, other, float(f"{p:.3g}")] for one, other, p in p_values(found)],
        "runs": {
            run.name: {**_facts(run, own[run.name]), "classes": classes.index(tuple(run.metrics["iou"]))}
            for run in runs
        },
        "usual": dict(usual),
        "least": LEAST_MIOU,
        "classes": [list(names) for names in classes],
    }


def p_values(found: Sequence[Contender]) -> Iterator[tuple[int, int, float]]:
    """Two places in the list, of one data set and split, and the p of their paired t-test, where there is one."""

    def where(place: int) -> tuple[str, str]:
        return found[place].dataset, found[place].split

    for _, several in groupby(sorted(range(len(found)), key=where), where):
        places = list(several)
        numbers = mious({str(place): found[place].runs for place in places})
        if len(numbers) < TESTED_FROM:
            continue
        for index, place in enumerate(places):
            against = paired(numbers, str(place), [str(other) for other in places[index + 1 :]])
            yield from ((place, int(pair.label), pair.p) for pair in against if not math.isnan(pair.p))


def _facts(run: Result, different: Mapping[str, str]) -> dict[str, Any]:
    return {
        **{name: run.metrics[name] for name in ("method", "split", "seed", "dataset")},
        "miou": round(run.reported, 2),
        "curves": {
            metric: _curve(run, metric, scale) for metric, scale in CURVES.items() if metric in run.history
        },
        "iou": [None if value is None else round(value, 2) for value in run.metrics["iou"].values()],
        "confusion": _confusion(run),
        "different": dict(different),
    }


def _curve(run: Result, metric: str, scale: float) -> list[tuple[int, float]]:
    """Epoch as people count, and value; a run that went wrong may have recorded infinities, which are no points."""
    known = run.history[metric].dropna()
    points = zip(known.index.tolist(), known.tolist(), strict=True)
    return [(shown_epoch(epoch), round(value * scale, 2)) for epoch, value in points if math.isfinite(value)]


def _confusion(run: Result) -> list[list[int]] | None:
    """Of each class's pixels how many in a thousand are taken for which class; None where it is not known.

    A class without pixels has zeros.
    """
    counts = run.confusion
    if counts is None:
        return None
    of_class = counts.sum(axis="columns").clip(lower=1)
    return (counts.div(of_class, axis="index") * 1000).round().astype(int).to_numpy().tolist()
